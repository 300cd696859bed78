//! Every stage of every kind of request, with as much as its level says.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use client::body_of;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;

use super::*;

#[derive(Default)]
struct Events {
    told: Mutex<Vec<Value>>,
    waits: Option<Strictness>,
    loses: AtomicBool,
}

impl AuditSink for Events {
    fn name(&self) -> &'static str {
        "log"
    }

    fn write(&self, event: &Value) -> Result<(), String> {
        if self.loses.load(Ordering::Relaxed) {
            return Err("lost".into());
        }
        self.told.lock().push(event.clone());
        Ok(())
    }

    fn waits(&self) -> Option<Strictness> {
        self.waits
    }
}

async fn begin(level: &str, more: &str) -> (Arc<Events>, Trail) {
    begin_with(level, more, None).await
}

async fn begin_with(level: &str, more: &str, waits: Option<Strictness>) -> (Arc<Events>, Trail) {
    let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: {level}\n  {more}\n");
    let events = Arc::new(Events {
        waits,
        ..Events::default()
    });
    let auditor = Auditor::new(
        Policy::from_text(&policy).unwrap(),
        vec![events.clone()],
        Clock::real(),
        AuditMetrics::default(),
    );
    let request = Attributes {
        verb: "create".into(),
        version: "v1".into(),
        resource: "configmaps".into(),
        namespace: "n".into(),
        is_resource: true,
        ..Attributes::default()
    };
    let (user, acting) = (UserInfo::new("jane", ["dev"]), UserInfo::new("joe", ["ops"]));
    let facts = Facts {
        id: "i",
        uri: "/api/v1/namespaces/n/configmaps?dryRun=All",
        user: &user,
        impersonated: Some(&acting),
        constraint: "impersonate:user-info",
        request: &request,
        source_ips: vec!["10.0.0.1".into()],
        user_agent: "kubectl",
    };
    let trail = Arc::new(auditor).begin(&facts).unwrap();
    trail.announce().await.unwrap();
    (events, trail)
}

const OBJECT: &str = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","managedFields":[{}]}}"#;

fn headers() -> HeaderMap {
    HeaderMap::from_iter([(http::header::CONTENT_TYPE, "application/json".parse().unwrap())])
}

fn answer(code: u16, body: &'static str) -> Response<client::Body> {
    let mut response = Response::new(body_of(body));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    *response.headers_mut() = headers();
    response
}

async fn run(level: &str, more: &str, response: Response<client::Body>, is_long_running: bool) -> Vec<Value> {
    let (events, trail) = begin(level, more).await;
    let trail = Arc::new(trail);
    trail.received(&headers(), &Bytes::from_static(OBJECT.as_bytes()));
    trail.annotate("authorization.k8s.io/decision", "allow");
    let followed = trail.follow(response, is_long_running).await;
    followed.into_body().collect().await.unwrap();
    std::mem::take(&mut *events.told.lock())
}

fn stages_of(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["stage"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn levels_tell_more_and_more() {
    for (level, request, response) in [
        ("Metadata", false, false),
        ("Request", true, false),
        ("RequestResponse", true, true),
    ] {
        let events = run(level, "omitManagedFields: true", answer(201, OBJECT), false).await;
        assert_eq!(stages_of(&events), ["RequestReceived", "ResponseComplete"]);
        let (first, last) = (&events[0], &events[1]);
        assert!(first.get("responseStatus").is_none() && first.get("requestObject").is_none());
        assert_eq!(first["user"]["username"], "jane");
        assert_eq!(first["impersonatedUser"]["username"], "joe");
        assert_eq!(
            first["objectRef"],
            json!({"resource": "configmaps", "namespace": "n", "apiVersion": "v1"})
        );
        assert_eq!(last["objectRef"]["name"], "a");
        assert_eq!(last["responseStatus"], json!({"metadata": {}, "code": 201}));
        assert_eq!(last["annotations"], json!({"authorization.k8s.io/decision": "allow"}));
        let bare = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}});
        assert_eq!(last.get("requestObject"), request.then_some(&bare), "{level}");
        assert_eq!(last.get("responseObject"), response.then_some(&bare), "{level}");
    }
}

#[tokio::test]
async fn refusals_are_told_with_their_reason() {
    let refusal = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no","reason":"Forbidden","code":403}"#;
    let events = run("Metadata", "omitStages: [RequestReceived]", answer(403, refusal), false).await;
    assert_eq!(stages_of(&events), ["ResponseComplete"]);
    let expect = json!({"metadata": {}, "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403});
    assert_eq!(events[0]["responseStatus"], expect);
}

#[tokio::test]
async fn a_compressed_answer_is_told_as_its_object() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(OBJECT.as_bytes()).unwrap();
    let whole = Bytes::from(gzip.finish().unwrap());
    // The client may go in the middle of it.
    for (bytes, expect) in [(whole.clone(), true), (whole.slice(..whole.len() / 2), false)] {
        let mut response = answer(200, "").map(|_| body_of(bytes));
        let encoding = "gzip".parse().unwrap();
        response.headers_mut().insert(http::header::CONTENT_ENCODING, encoding);
        let events = run("RequestResponse", "omitStages: [RequestReceived]", response, false).await;
        let told = &events[0];
        assert_eq!(told["responseObject"]["metadata"]["name"] == "a", expect);
        assert_eq!(told["annotations"]["audit.k8s.io/truncated"] == "true", !expect);
    }
}

#[tokio::test]
async fn a_watch_begins_and_ends_and_its_events_are_not_told() {
    let events = run(
        "RequestResponse",
        "omitStages: [RequestReceived]",
        answer(200, OBJECT),
        true,
    )
    .await;
    assert_eq!(stages_of(&events), ["ResponseStarted", "ResponseComplete"]);
    assert!(events.iter().all(|event| event.get("responseObject").is_none()));
}

#[tokio::test]
async fn what_never_came_to_an_answer_is_told_too() {
    let (events, trail) = begin("Metadata", "verbs: []").await;
    drop(trail);
    assert_eq!(events.told.lock()[1]["responseStatus"]["code"], 504);
    let (events, trail) = begin("Metadata", "verbs: []").await;
    let fell = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _trail = trail;
        panic!("on purpose");
    }));
    assert!(fell.is_err());
    let events = events.told.lock();
    assert_eq!(stages_of(&events), ["RequestReceived", "Panic"]);
    assert_eq!(events[1]["responseStatus"]["code"], 500);
}

#[tokio::test]
async fn the_end_of_an_answer_waits_for_its_event() {
    let (events, trail) = begin_with("RequestResponse", "verbs: []", Some(Strictness::Lax)).await;
    let mut body = Arc::new(trail).follow(answer(200, OBJECT), false).await.into_body();
    assert_eq!(stages_of(&events.told.lock()), ["RequestReceived"]);
    let first = body.frame().await.unwrap().unwrap();
    assert_eq!(first.data_ref().unwrap(), OBJECT.as_bytes());
    assert_eq!(stages_of(&events.told.lock()), ["RequestReceived", "ResponseComplete"]);
    assert!(body.frame().await.is_none());
    drop(body);
    assert_eq!(events.told.lock().len(), 2, "the end is told once");
    assert_eq!(events.told.lock()[1]["responseObject"]["metadata"]["name"], "a");
}

#[tokio::test]
async fn a_request_of_which_nothing_can_be_told_is_refused_when_that_is_wanted() {
    for (waits, expect) in [
        (None, Ok(())),
        (Some(Strictness::Lax), Ok(())),
        (Some(Strictness::Strict), Err(AnnounceError)),
    ] {
        let (events, trail) = begin_with("Metadata", "verbs: []", waits).await;
        events.loses.store(true, Ordering::Relaxed);
        assert_eq!(trail.announce().await, expect, "{waits:?}");
        events.loses.store(false, Ordering::Relaxed);
        drop(trail);
        let stages = stages_of(&events.told.lock()).len();
        assert_eq!(stages, if expect.is_ok() { 2 } else { 1 }, "{waits:?}");
    }
}
