//! Requests wait for seats, get them in turn, and leave when they give up.

use serde_json::json;

use super::*;

fn control(seats: usize) -> FlowControl {
    let flow = FlowControl::new(seats, 7, FlowMetrics::default());
    let level = json!({"metadata": {"name": "slow", "uid": "l"}, "spec": {"type": "Limited", "limited":
        {"nominalConcurrencyShares": 95, "limitResponse": {"type": "Queue", "queuing":
            {"queues": 1, "handSize": 1, "queueLengthLimit": 2}}}}});
    let schema = json!({"metadata": {"name": "own", "uid": "s"}, "spec": {
        "priorityLevelConfiguration": {"name": "slow"}, "distinguisherMethod": {"type": "ByUser"}, "rules": [{
            "subjects": [{"kind": "Group", "group": {"name": "dev"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    flow.reload(&[schema], &[level]);
    flow
}

fn request() -> Attributes {
    Attributes {
        verb: "get".into(),
        path: "/x".into(),
        ..Attributes::default()
    }
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_seats_and_are_told_where_they_count() {
    let (flow, user, request) = (control(1), UserInfo::new("jane", ["dev"]), request());
    let class = flow.classify(&user, &request);
    let mut headers = HeaderMap::new();
    class.tell(&mut headers);
    assert_eq!(
        (&headers[&SCHEMA_HEADER], &headers[&LEVEL_HEADER]),
        (&"s".parse().unwrap(), &"l".parse().unwrap())
    );
    let enter = || flow.enter(&class, Work::ONE, &user, &request);
    let seat = enter().await.unwrap_or_else(|_| panic!("a seat is free"));
    let mut second = Box::pin(enter());
    assert!(futures::poll!(second.as_mut()).is_pending());
    let mut third = Box::pin(enter());
    assert!(futures::poll!(third.as_mut()).is_pending());
    let full = enter().await.err().unwrap();
    assert_eq!((full.code, full.details.unwrap().retry_after_seconds), (429, 1));
    // Who gives up makes room, and who comes late is not served before those who wait.
    drop(second);
    let mut fourth = Box::pin(enter());
    assert!(futures::poll!(fourth.as_mut()).is_pending());
    drop(seat);
    assert!(futures::poll!(fourth.as_mut()).is_pending());
    let third = third.await.unwrap_or_else(|_| panic!("it is its turn"));
    let began = Instant::now();
    assert!(fourth.await.is_err(), "nobody waits for ever");
    assert_eq!(began.elapsed(), WAIT_MAX);
    drop(third);
    enter().await.unwrap_or_else(|_| panic!("a seat is free"));
}

#[tokio::test(start_paused = true)]
async fn administrators_never_wait_and_strangers_are_refused_at_once() {
    let (flow, request) = (control(1), request());
    let mut seats = Vec::new();
    for (user, group, expect) in [("a", "system:masters", [true; 3]), ("b", "ops", [true, false, false])] {
        let user = UserInfo::new(user, [group]);
        let class = flow.classify(&user, &request);
        let mut got = [false; 3];
        for one in &mut got {
            let seat = flow.enter(&class, Work::ONE, &user, &request).await;
            *one = seat.is_ok();
            seats.extend(seat);
        }
        assert_eq!(got, expect, "{group}");
    }
}

/// A watcher's share of a write is served after it.
#[tokio::test(start_paused = true)]
async fn seats_linger() {
    let (flow, user, request) = (control(2), UserInfo::new("jane", ["dev"]), request());
    let class = flow.classify(&user, &request);
    let write = Work {
        initial_seats: 1,
        final_seats: 2,
        lingers: Duration::from_millis(5),
    };
    drop(flow.enter(&class, write, &user, &request).await);
    let began = Instant::now();
    flow.enter(&class, Work::ONE, &user, &request)
        .await
        .unwrap_or_else(|_| panic!("it is its turn"));
    assert_eq!(began.elapsed(), Duration::from_millis(5));
}
