//! `test/e2e/instrumentation/core_events.go`.

use serde_json::{Value, json};

use crate::kinds::EVENTS;
use crate::place::{name_of, place};

/// Events should manage the lifecycle of an event
pub async fn lifecycle() {
    const SELECTOR: &str = "testevent-constant=true";
    let place = place("event").await;
    let (events, everywhere) = (place.of(&EVENTS), place.everywhere(&EVENTS));
    let event = json!({
        "metadata": {"name": "event-test", "labels": {"testevent-constant": "true"}},
        "message": "This is a test event", "reason": "Test", "type": "Normal", "count": 1,
        "involvedObject": {"namespace": place.namespace},
    });
    events.create(event).await.unwrap();
    let is_ours = |event: &&Value| name_of(event) == "event-test" && event["metadata"]["namespace"] == *place.namespace;
    assert!(everywhere.list(SELECTOR).await.iter().any(|event| is_ours(&event)));
    let message = "This is a test event - patched";
    events
        .strategic("event-test", json!({"message": message}))
        .await
        .unwrap();
    let mut event = events.get("event-test").await.unwrap();
    assert_eq!(event["message"], message);

    event["series"] = json!({"count": 100, "lastObservedTime": "2017-09-19T13:49:16.000000Z"});
    let plain = |event: &mut Value| {
        let metadata = event["metadata"].as_object_mut().unwrap();
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
    };
    // Without a revision: events allow an update that names none.
    plain(&mut event);
    events.replace(event.clone()).await.unwrap();
    let mut updated = events.get("event-test").await.unwrap();
    plain(&mut updated);
    assert_eq!(updated, event);

    events.delete("event-test").await.unwrap();
    assert!(!everywhere.list(SELECTOR).await.iter().any(|event| is_ours(&event)));
}
