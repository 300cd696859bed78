//! A custom resource as a user with the real `kubectl` has it: defined, explained, applied, printed, patched, scaled, deleted.

use serde_json::Value;

use crate::cluster::{Cluster, fail, succeed};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wg]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Color, type: string, jsonPath: .spec.color}
    schema:
      openAPIV3Schema:
        type: object
        description: A widget of the test.
        properties:
          spec:
            type: object
            description: What the widget is.
            properties:
              size: {type: integer, default: 1, maximum: 9, description: How large it is.}
              color: {type: string, enum: [red, blue]}
            x-kubernetes-validations:
            - {rule: "self.size != 7", message: seven is not to be had}
          status:
            type: object
            properties:
              size: {type: integer}
"#;

const WIDGET: &str = "
apiVersion: example.com/v1
kind: Widget
metadata: {name: first}
spec: {color: red}
";

#[test]
fn a_custom_resource_lives_and_ends() {
    let (cluster, place) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    let write = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    succeed(&cluster.trireme(&["--quiet", "up", "--no-node", "--api-port", "0"]));
    let (definition, widget) = (write("crd.yaml", DEFINITION), write("widget.yaml", WIDGET));
    cluster.kubectl_ok(&["apply", "-f", &definition]);
    let name = "crd/widgets.example.com";
    cluster.kubectl_ok(&["wait", "--for", "condition=established", name, "--timeout=30s"]);
    let explained = cluster.kubectl_ok(&["explain", "widgets.spec"]);
    assert!(
        explained.contains("How large it is.") && explained.contains("What the widget is."),
        "{explained}"
    );
    cluster.kubectl_ok(&["apply", "-f", &widget]);
    let table = cluster.kubectl_ok(&["get", "wg", "first", "--no-headers"]);
    assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["first", "1", "red"]);
    cluster.kubectl_ok(&["apply", "--server-side", "--field-manager=other", "-f", &widget]);
    cluster.kubectl_ok(&[
        "patch",
        "widget",
        "first",
        "--type=merge",
        "-p",
        r#"{"spec":{"size":2}}"#,
    ]);
    for (size, why) in [
        ("7", "seven is not to be had"),
        ("10", "should be less than or equal to 9"),
    ] {
        let patch = format!(r#"{{"spec":{{"size":{size}}}}}"#);
        let refused = fail(&cluster.kubectl(&["patch", "widget", "first", "--type=merge", "-p", &patch]));
        assert!(refused.contains(why), "{refused}");
    }
    cluster.kubectl_ok(&["scale", "widget", "first", "--replicas=5"]);
    let read: Value = serde_json::from_str(&cluster.kubectl_ok(&["get", "widget", "first", "-o", "json"])).unwrap();
    assert_eq!(
        (&read["spec"]["size"], &read["metadata"]["generation"]),
        (&5.into(), &3.into())
    );
    let unknown = write(
        "unknown.yaml",
        &WIDGET.replace("color: red", "colour: red").replace("first", "second"),
    );
    let refused = fail(&cluster.kubectl(&["create", "-f", &unknown]));
    assert!(refused.contains("unknown field \"spec.colour\""), "{refused}");
    cluster.kubectl_ok(&["delete", "-f", &definition]);
    // (`get` would take the kind from what kubectl remembers of the discovery; `api-resources` asks anew.)
    let gone = fail(&cluster.kubectl(&["get", "--raw", "/apis/example.com/v1/namespaces/default/widgets"]));
    assert!(
        gone.contains("the server could not find the requested resource"),
        "{gone}"
    );
    let left = cluster.kubectl_ok(&["api-resources", "-o", "name"]);
    assert!(left.contains("pods") && !left.contains("widgets"), "{left}");
}
