//! Certificates, and etcd's own users.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rpc::etcd::authpb::{Permission, permission::Type};
use rpc::etcd::etcdserverpb::auth_client::AuthClient;
use rpc::etcd::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest, AuthUserGrantRoleRequest,
};
use store::{Credentials, Engine, Etcd, EtcdOptions, TlsFiles, Transaction};

use super::cluster::Cluster;
use crate::support::put;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, others) = (authority("ours"), authority("others"));
    let issue = |name: &str, authority: &CertifiedIssuer<'_, KeyPair>| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        (
            write(&format!("{name}.pem"), &certificate.pem()),
            write(&format!("{name}.key"), &key.serialize_pem()),
        )
    };
    let ca = write("ca.pem", &ours.pem());
    let (server, server_key) = issue("server", &ours);
    let (client, client_key) = issue("client", &ours);
    let (stranger, stranger_key) = issue("stranger", &others);
    let flags = [
        "--client-cert-auth",
        "--trusted-ca-file",
        ca.to_str().unwrap(),
        "--cert-file",
        server.to_str().unwrap(),
        "--key-file",
        server_key.to_str().unwrap(),
    ];
    let cluster = Cluster::start_over(1, "https", &flags).await;
    let endpoint = format!("https://{}", cluster.members[0].proxy.address());
    let tls = |certificate: &std::path::Path, key: &std::path::Path, ca: &std::path::Path| TlsFiles {
        ca: Some(ca.to_owned()),
        certificate: Some(certificate.to_owned()),
        key: Some(key.to_owned()),
    };
    let engine = cluster
        .open_with(|options| {
            options.endpoints = vec![endpoint.clone()];
            options.tls = tls(&client, &client_key, &ca);
        })
        .await;
    put(&*engine, "/a/1", "x").await;

    let foreign_ca = write("others.pem", &others.pem());
    let none = directory.path().join("none");
    let refused = [
        ("a stranger's certificate", tls(&stranger, &stranger_key, &ca)),
        ("another authority", tls(&client, &client_key, &foreign_ca)),
        ("no such file", tls(&client, &none, &ca)),
    ]
    .map(|(what, files)| {
        let mut options = EtcdOptions::new([endpoint.clone()]);
        options.tls = files;
        async move { assert!(Etcd::open(options).await.is_err(), "{what} was taken") }
    });
    futures::future::join_all(refused).await;
}

/// Users, a role over the prefix, and authentication switched on.
async fn enable_users(address: &str) {
    let mut auth = AuthClient::connect(format!("http://{address}")).await.unwrap();
    for (name, password) in [("root", "top"), ("server", "secret")] {
        let user = AuthUserAddRequest {
            name: name.into(),
            password: password.into(),
            ..AuthUserAddRequest::default()
        };
        auth.user_add(user).await.unwrap();
    }
    for role in ["root", "prefix"] {
        auth.role_add(AuthRoleAddRequest { name: role.into() }).await.unwrap();
    }
    let permission = AuthRoleGrantPermissionRequest {
        name: "prefix".into(),
        perm: Some(Permission {
            perm_type: Type::Readwrite.into(),
            key: b"/test/".to_vec(),
            range_end: b"/test0".to_vec(),
        }),
    };
    auth.role_grant_permission(permission).await.unwrap();
    for (user, role) in [("root", "root"), ("server", "prefix")] {
        let grant = AuthUserGrantRoleRequest {
            user: user.into(),
            role: role.into(),
        };
        auth.user_grant_role(grant).await.unwrap();
    }
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_with_tokens_that_end() {
    let mut cluster = Cluster::start(1, &[]).await;
    cluster.open().await;
    enable_users(&cluster.members[0].proxy.address()).await;
    let user = |password: &str| Credentials {
        name: "server".into(),
        password: password.into(),
    };
    let engine = cluster
        .open_with(|options| options.credentials = Some(user("secret")))
        .await;
    let first = put(&*engine, "/a/1", "x").await;
    let mut stream = engine.stream(first - 1).await.unwrap();
    assert_eq!(stream.next().await.unwrap().progress, first);
    // A member that restarts knows no token any more.
    cluster.kill(0);
    cluster.run(0);
    let second = loop {
        match engine.commit(Transaction::new().put("/a/1", "y")).await {
            Ok(commit) => break commit.revision,
            Err(error) => eprintln!("not yet: {error}"),
        }
    };
    assert_eq!(stream.next().await.unwrap().progress, second);
    for credentials in [None, Some(user("wrong"))] {
        let mut options = cluster.options();
        options.credentials = credentials;
        assert!(Etcd::open(options).await.is_err());
    }
}
