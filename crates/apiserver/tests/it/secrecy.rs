//! CVE-2019-11250, CVE-2020-8563 to 8566 and their like: whatever level the log has, no secret stands in it.

use std::io::{self, Write};
use std::sync::Arc;

use apiserver::request::SYSTEM_MASTERS;
use base64::Engine as _;
use parking_lot::Mutex;
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;

use crate::identity::Identities;

/// What nobody may read.
const TAINT: &str = "tainted-0123456789-abcdefghij";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// All that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_stands_in_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // Of this thread, on which everything of this test runs.
    let _listening = tracing::subscriber::set_default(subscriber);
    let identities = Identities::start().await;
    let [admin, remote] = identities.both("admin", Some(SYSTEM_MASTERS));
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    for (number, api) in [admin.clone(), remote].into_iter().enumerate() {
        let name = format!("s{number}");
        let secret = json!({"metadata": {"name": name}, "stringData": {"a": TAINT}, "data": {"b": base64(TAINT)}});
        let mut watch = api.watch(&format!("{SECRETS}?watch=1")).await;
        let made = api.post(SECRETS, &secret).await.ok();
        watch.next().await.unwrap();
        api.post(SECRETS, &secret).await.refused(409, "already exists");
        api.put(&format!("{SECRETS}/{name}"), &made).await.ok();
        let patch = json!({"stringData": {"c": TAINT}});
        for kind in ["merge", "strategic"] {
            api.patch(&format!("{SECRETS}/{name}"), kind, &patch).await.ok();
        }
        let applied =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"a": TAINT}});
        api.patch(
            &format!("{SECRETS}/{name}?fieldManager=x&force=true"),
            "apply",
            &applied,
        )
        .await
        .ok();
        // What is refused is not told with its contents.
        let bad = json!({"metadata": {"name": "Bad"}, "type": "kubernetes.io/tls", "stringData": {"tls.key": TAINT}});
        assert_eq!(api.post(SECRETS, &bad).await.code, 422);
        let broken = format!("{{\"kind\": \"Secret\", \"data\": {{\"a\": \"{TAINT}\"");
        let json_body = [("content-type", "application/json")];
        assert_eq!(api.call(&format!("POST {SECRETS}"), &json_body, broken).await.code, 400);
        api.get(SECRETS).await.ok();
        let review = json!({"spec": {"token": TAINT}});
        api.post("/apis/authentication.k8s.io/v1/tokenreviews", &review)
            .await
            .ok();
        api.delete(&format!("{SECRETS}/{name}")).await.ok();
    }
    let stranger = identities.with_token(TAINT);
    stranger.get(SECRETS).await.refused(401, "Unauthorized");
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin.post(accounts, &json!({"metadata": {"name": "robot"}})).await.ok();
    let request = json!({"spec": {"expirationSeconds": 600}});
    let issued = admin.post(&format!("{accounts}/robot/token"), &request).await.ok();
    let token = issued["status"]["token"].as_str().unwrap().to_owned();
    identities.with_token(&token).get(SECRETS).await.refused(403, "robot");

    let text = String::from_utf8_lossy(&log.0.lock()).into_owned();
    assert!(
        text.contains("unable to authenticate the request"),
        "nothing was recorded"
    );
    let (_, signature) = token.rsplit_once('.').unwrap();
    for secret in [TAINT, base64(TAINT).trim_end_matches('='), signature] {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{}", line.unwrap_or_default());
    }
}
