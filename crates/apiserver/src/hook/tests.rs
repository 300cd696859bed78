//! Hooks against services on loopback.

use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use serde_json::json;

use super::testing::Service;
use super::*;

const PAUSE: Duration = Duration::from_millis(1);

fn hook(target: Target) -> Hook {
    Hook::new(target, TIMEOUT, PAUSE, Random::seeded(1)).unwrap()
}

#[tokio::test]
async fn what_fails_for_the_moment_is_asked_again() {
    for (statuses, times, outcome) in [
        (vec![200], 1, Ok(json!({"ok": true}))),
        (vec![500, 429, 504, 200], 4, Ok(json!({"ok": true}))),
        (vec![500], 5, Err("500: busy")),
        (vec![404], 1, Err("404: busy")),
    ] {
        let told = statuses.clone();
        let service = Service::start(move |number, _| {
            let status = *statuses.get(number).or(statuses.last()).unwrap();
            match status {
                200 => (200, json!({"ok": true})),
                status => (status, json!({"kind": "Status", "message": "busy"})),
            }
        })
        .await;
        let mut target = service.target();
        target.login = Login::Token("secret".into());
        let url = target.url.clone();
        let got = hook(target)
            .ask(&json!({"question": 1}))
            .await
            .map_err(|error| error.to_string());
        let outcome = outcome.map_err(|why| format!("Post \"{url}\": {why}"));
        assert_eq!(got, outcome, "{told:?}");
        assert_eq!(service.asked(), vec![json!({"question": 1}); times]);
        assert_eq!(service.logins()[0], "Bearer secret");
    }
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let service = Service::start(|_, _| (200, json!({}))).await;
    let mut target = service.target();
    // A port that was bound and is free again refuses.
    let closed = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    target.url = format!("http://{}/", closed.local_addr().unwrap()).parse().unwrap();
    drop(closed);
    let error = hook(target).ask(&json!({})).await.unwrap_err().to_string();
    assert!(error.contains("connect: connection refused"), "{error}");
}

#[tokio::test]
async fn tls_knows_whom_it_asks_and_says_who_asks() {
    let server = rcgen::generate_simple_self_signed(vec!["hook.example".into()]).unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["server".into()]).unwrap();
    let mut clients = rustls::RootCertStore::empty();
    clients.add(own.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![server.cert.der().clone()],
            PrivateKeyDer::Pkcs8(server.signing_key.serialize_der().into()),
        )
        .unwrap();
    let service = Service::with(Some(config), |_, _| (200, json!({"ok": true}))).await;
    let mut target = service.target();
    target.url = format!("https://{}/", service.address).parse().unwrap();
    target.ca_pem = Some(server.cert.pem().into_bytes());
    target.server_name = Some("hook.example".into());
    target.certificate = Some((
        own.cert.pem().into_bytes(),
        own.signing_key.serialize_pem().into_bytes(),
    ));
    assert_eq!(hook(target.clone()).ask(&json!({})).await.unwrap(), json!({"ok": true}));

    let unnamed = Target {
        server_name: None,
        ..target.clone()
    };
    assert!(
        hook(unnamed).ask(&json!({})).await.is_err(),
        "the certificate is for another name"
    );
    let unknown = Target {
        certificate: None,
        ..target.clone()
    };
    assert!(
        hook(unknown).ask(&json!({})).await.is_err(),
        "the service asks for a certificate"
    );
    let trusting = Target {
        ca_pem: None,
        server_name: None,
        ..target
    };
    assert!(hook(trusting).ask(&json!({})).await.is_ok());
}
