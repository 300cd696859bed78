//! What is written for what happens.

use std::time::Duration;

use super::*;
use crate::testing::FakeApi;

fn about(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: "default".into(),
        name: name.into(),
        uid: "u".into(),
        ..Default::default()
    }
}

/// The events after `occurrences` (pod, reason, message), as `count message`.
async fn check(occurrences: Vec<(&str, &str, String)>, expect: &[&str]) {
    let api = FakeApi::new();
    let shutdown = Shutdown::new();
    let recorder = Recorder::start(api.client(), "test-controller", "", api.clock(), &shutdown);
    for (pod, reason, message) in occurrences {
        recorder.normal(about(pod), reason, message);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut events = api.list(&resources::EVENTS);
    events.sort_by_key(|event| event["firstTimestamp"].to_string());
    let mut got: Vec<String> = events
        .iter()
        .map(|event| format!("{} {}", event["count"], event["message"].as_str().unwrap()))
        .collect();
    got.sort();
    assert_eq!(got, expect);
    shutdown.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeat_raises_the_count() {
    check(
        vec![
            ("a", "R", "m".into()),
            ("a", "R", "m".into()),
            ("a", "R", "other".into()),
        ],
        &["1 other", "2 m"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_similar_ones_are_combined() {
    let occurrences = (0..14).map(|n| ("a", "R", format!("m{n:02}"))).collect();
    let mut expect: Vec<String> = (0..9).map(|n| format!("1 m{n:02}")).collect();
    expect.push("5 (combined from similar events): m13".into());
    let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
    check(occurrences, &expect).await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_makes_too_many_is_silenced() {
    let occurrences = (0..40).map(|_| ("a", "R", "m".into())).collect();
    check(occurrences, &["25 m"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_counted_event_that_is_gone_is_made_again() {
    let api = FakeApi::new();
    let shutdown = Shutdown::new();
    let recorder = Recorder::start(api.client(), "test-controller", "node-1", api.clock(), &shutdown);
    recorder.warning(about("a"), "R", "m");
    api.until(|api| api.list(&resources::EVENTS).len() == 1).await;
    let event = api.list(&resources::EVENTS).remove(0);
    assert_eq!(
        event["source"],
        json!({"component": "test-controller", "host": "node-1"})
    );
    assert_eq!(event["involvedObject"]["kind"], "Pod");
    assert_eq!(event["type"], "Warning");
    api.remove(&resources::EVENTS, "default", api::meta::name(&event));
    tokio::time::sleep(Duration::from_millis(5)).await;
    recorder.warning(about("a"), "R", "m");
    api.until(|api| api.list(&resources::EVENTS).len() == 1).await;
    assert_eq!(api.list(&resources::EVENTS)[0]["count"], 2);
    shutdown.finish().await;
}

#[test]
fn long_messages_are_cut_between_letters() {
    let mut message = "ä".repeat(600);
    truncate(&mut message);
    assert_eq!(message.len(), 1024);
    let mut message = format!("x{}", "ä".repeat(600));
    truncate(&mut message);
    assert_eq!(message.len(), 1023);
}
