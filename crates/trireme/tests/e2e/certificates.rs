//! Every certificate of a cluster is renewed while it is used: a whole lifetime under requests.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::cluster::{Cluster, decode, fail, succeed};
use crate::node_cluster::{IMAGE, create, name, ready, until};

/// Long enough for a busy machine to use a certificate in the rest of its life, short enough to wait for.
const LIFETIME_SECONDS: &str = "30";

/// The end of each certificate, by what it is for.
fn ends(cluster: &Cluster) -> BTreeMap<String, i64> {
    let mut pems = BTreeMap::new();
    let node = cluster.dir.join("data/nodes").join(name(cluster)).join("pki");
    for leaf in ["kubelet-client", "kubelet-serving", "kube-proxy"] {
        pems.insert(
            leaf.to_owned(),
            std::fs::read_to_string(node.join(format!("{leaf}.pem"))).unwrap(),
        );
    }
    let admin = std::fs::read_to_string(cluster.dir.join("data/pki/admin.pem")).unwrap();
    pems.insert("admin".into(), admin);
    let user = &cluster.config()["users"][0]["user"];
    pems.insert("the user's kubeconfig".into(), decode(&user["client-certificate-data"]));
    let mut ends: BTreeMap<String, i64> = pems
        .into_iter()
        .map(|(name, pem)| (name, apiserver::pki::not_after(&pem).unwrap().as_second()))
        .collect();
    ends.insert("the API server".into(), shown_end(cluster));
    ends
}

/// The end of the certificate that the API server shows.
fn shown_end(cluster: &Cluster) -> i64 {
    let der = shown(cluster, &cluster.ca_pem(), "127.0.0.1");
    apiserver::pki::identity_of(&der).unwrap().ends_seconds
}

/// The certificate that the API server shows to whoever asks for that name and trusts that authority.
pub fn shown(cluster: &Cluster, ca_pem: &str, name: &str) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = cluster.server();
    let mut socket = TcpStream::connect(server.trim_start_matches("https://")).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    connection.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn certificates_are_renewed_while_everything_goes_on() {
    let cluster = Cluster::prepare();
    succeed(&cluster.trireme(&[
        "--quiet",
        "up",
        "--api-port",
        "0",
        "--certificate-lifetime",
        LIFETIME_SECONDS,
    ]));
    let archive = cluster.dir.join("image.tar");
    std::fs::write(&archive, runtime::image::demo_image(IMAGE)).unwrap();
    succeed(&cluster.trireme(&["image", "import", &archive.display().to_string()]));
    ready(&cluster);
    let stale = cluster.dir.join("stale");
    std::fs::copy(cluster.kubeconfig(), &stale).unwrap();
    let place = cluster.workplace("certificates");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: IMAGE}]}}\n---\n\
         {apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: p}, ports: [{port: 80, targetPort: 8080}]}}",
    );
    place.wait("pod/p", "condition=Ready");

    // Longer than any of the first ones lives: without renewal every one of these fails sooner or later.
    let first = ends(&cluster);
    let last = *first.values().max().unwrap();
    let who = "jsonpath={.status.userInfo.username}";
    let mut rounds = 0;
    until("the end of the first certificates", || {
        assert_eq!(cluster.kubectl_ok(&["auth", "whoami", "-o", who]), "kubernetes-admin");
        // Through the API server's client certificate to the kubelet's serving one, and by the kubelet's client one back.
        place_exec(&cluster);
        // The kubelet's and the proxy's own: a label for the one, a new Service for the other.
        cluster.kubectl_ok(&[
            "label",
            "pod",
            "p",
            "-n",
            "certificates",
            "--overwrite",
            &format!("round=r{rounds}"),
        ]);
        rounds += 1;
        (jiff_now() > last + 1).then_some(())
    });
    assert!(rounds > 5, "{rounds}");

    let now = ends(&cluster);
    for (name, end) in &now {
        assert!(*end > jiff_now(), "{name} has ended");
        assert!(*end > first[name], "{name} was not renewed");
    }
    let error = fail(&cluster.kubectl(&["--kubeconfig", stale.to_str().unwrap(), "get", "namespaces"]));
    assert!(
        error.contains("Unauthorized") || error.contains("expired") || error.contains("must be logged in"),
        "{error}"
    );
    ready(&cluster);
    let requests = cluster.kubectl_ok(&["get", "csr", "--no-headers"]);
    for signer in [
        "kube-apiserver-client-kubelet",
        "kubelet-serving",
        "kube-apiserver-client ",
    ] {
        let issued =
            |line: &&str| line.contains(&format!("kubernetes.io/{signer}")) && line.contains("Approved,Issued");
        assert!(requests.lines().any(|line| issued(&line)), "{signer}: {requests}");
    }
    // What the proxy sees only now is served: its watch goes on under its new certificate.
    cluster.kubectl_ok(&["label", "pod", "p", "-n", "certificates", "app=p"]);
    until("an answer through the Service", || {
        let words = [
            "exec",
            "p",
            "-n",
            "certificates",
            "--",
            "/bin/demo",
            "get",
            "http://s/hostname",
        ];
        let said = cluster.kubectl(&words);
        (said.status.success() && said.stdout.starts_with(b"p")).then_some(())
    });
}

fn place_exec(cluster: &Cluster) {
    let said = cluster.kubectl_ok(&["exec", "p", "-n", "certificates", "--", "/bin/demo", "env", "HOSTNAME"]);
    assert!(said.contains('p'), "{said}");
}

#[allow(clippy::disallowed_methods, reason = "certificates end by the machine's own clock")]
fn jiff_now() -> i64 {
    Timestamp::now().as_second()
}
