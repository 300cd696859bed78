//! APIServices with the real `kubectl`: those of the server's own group versions, and one whose server is not there, which
//! breaks nothing else and is told of wherever somebody asks. What a server that is there answers is tested in
//! `crates/apiserver/tests/it/aggregation.rs`.

use serde_json::Value;

use crate::cluster::{Cluster, fail, succeed};
use crate::node_cluster::until;

const AWAY: &str = "
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1alpha1.wardle.example.com}
spec:
  group: wardle.example.com
  version: v1alpha1
  groupPriorityMinimum: 2000
  versionPriority: 200
  insecureSkipTLSVerify: true
  service: {namespace: default, name: sample-api}
";

#[test]
fn a_server_that_is_away_breaks_nothing_else() {
    let cluster = Cluster::start();
    let place = cluster.workplace("afloat");
    let list = until("all APIServices", || {
        let list = cluster.kubectl_ok(&["get", "apiservices", "--no-headers"]);
        (list.contains("v1.apps ") && list.contains("v2.autoscaling ")).then_some(list)
    });
    assert!(
        list.lines().all(|line| line.contains("Local") && line.contains("True")),
        "{list}"
    );
    let trust = cluster.kubectl_ok(&[
        "get",
        "cm",
        "-n",
        "kube-system",
        "extension-apiserver-authentication",
        "-o",
        "json",
    ]);
    let trust: Value = serde_json::from_str(&trust).unwrap();
    assert_eq!(
        trust["data"]["requestheader-allowed-names"],
        r#"["front-proxy-client"]"#
    );
    let authority = trust["data"]["requestheader-client-ca-file"].as_str().unwrap();
    assert!(authority.starts_with("-----BEGIN CERTIFICATE-----") && *authority != *cluster.ca_pem());

    succeed(&place.kubectl_with(&["apply", "-f", "-"], AWAY));
    cluster.kubectl_ok(&[
        "wait",
        "--for=condition=Available=False",
        "apiservice/v1alpha1.wardle.example.com",
    ]);
    let row = cluster.kubectl_ok(&["get", "apiservice", "v1alpha1.wardle.example.com", "--no-headers"]);
    assert!(
        row.contains("default/sample-api") && row.contains("False (ServiceNotFound)"),
        "{row}"
    );
    let told = until("the server that is away", || {
        let output = cluster.kubectl(&["get", "--raw", "/apis/wardle.example.com/v1alpha1"]);
        let told = fail(&output);
        told.contains("ServiceUnavailable").then_some(told)
    });
    assert!(
        told.contains("the server is currently unable to handle the request"),
        "{told}"
    );
    assert!(cluster.kubectl_ok(&["api-resources"]).contains("deployments"));
    // Whatever concerns all kinds says what it does not know, and goes on when it does.
    cluster.kubectl_ok(&["create", "namespace", "sunk"]);
    cluster.kubectl_ok(&["delete", "namespace", "sunk", "--wait=false"]);
    let condition = until("why the namespace is still there", || {
        let namespace = cluster.kubectl_ok(&["get", "namespace", "sunk", "-o", "json"]);
        let namespace: Value = serde_json::from_str(&namespace).unwrap();
        let conditions = namespace["status"]["conditions"].as_array()?.clone();
        let found = |condition: &Value| condition["type"] == "NamespaceDeletionDiscoveryFailure";
        conditions
            .into_iter()
            .find(|condition| found(condition) && condition["status"] == "True")
    });
    assert_eq!(
        condition["message"],
        "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
         wardle.example.com/v1alpha1: stale GroupVersion discovery: wardle.example.com/v1alpha1"
    );
    cluster.kubectl_ok(&["delete", "apiservice", "v1alpha1.wardle.example.com"]);
    cluster.kubectl_ok(&["wait", "--for=delete", "namespace/sunk", "--timeout=60s"]);
}
