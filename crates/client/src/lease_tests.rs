//! Who leads, and when somebody else does.

use super::*;
use crate::testing::FakeApi;

fn config(identity: &str) -> LeaderConfig {
    LeaderConfig::new("kube-system", "test", identity)
}

#[test]
fn verdicts() {
    let lease = |holder: &str| json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}});
    let secs = Duration::from_secs;
    for (lease, unchanged, expect) in [
        (None, secs(0), Verdict::Create),
        (Some(lease("me")), secs(0), Verdict::Renew),
        (Some(lease("me")), secs(100), Verdict::Renew),
        (Some(lease("you")), secs(14), Verdict::Wait),
        (Some(lease("you")), secs(15), Verdict::TakeOver),
        (Some(lease("")), secs(0), Verdict::TakeOver),
    ] {
        assert_eq!(
            decide(lease.as_ref(), unchanged, &config("me")),
            expect,
            "{lease:?} {unchanged:?}"
        );
    }
}

/// Starts a candidate; the returned receiver says when its term begins and ends.
fn candidate(api: &FakeApi, identity: &str, shutdown: &Shutdown) -> tokio::sync::watch::Receiver<bool> {
    let (leading, watch) = tokio::sync::watch::channel(false);
    let lead = run_as_leader(
        api.client_as(identity),
        config(identity),
        api.clock(),
        Random::seeded(1),
        shutdown.clone(),
        move |term| async move {
            leading.send_replace(true);
            term.cancelled().await;
            leading.send_replace(false);
        },
    );
    shutdown.spawn(lead);
    watch
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_hands_over() {
    let api = FakeApi::new();
    let (first_end, second_end) = (Shutdown::new(), Shutdown::new());
    let mut first = candidate(&api, "first", &first_end);
    first.wait_for(|leads| *leads).await.unwrap();
    let mut second = candidate(&api, "second", &second_end);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(*first.borrow() && !*second.borrow(), "the first renews");
    first_end.finish().await;
    second.wait_for(|leads| *leads).await.unwrap();
    let lease = api.get(&resources::LEASES, "kube-system", "test").unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
    second_end.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_stops_before_another_begins() {
    let api = FakeApi::new();
    let (first_end, second_end) = (Shutdown::new(), Shutdown::new());
    let mut first = candidate(&api, "first", &first_end);
    first.wait_for(|leads| *leads).await.unwrap();
    let mut second = candidate(&api, "second", &second_end);
    let start = Instant::now();
    api.sabotage(|seen| (seen.user == "first").then_some(crate::testing::Fault::LoseRequest));
    first.wait_for(|leads| !*leads).await.unwrap();
    let stopped = start.elapsed();
    second.wait_for(|leads| *leads).await.unwrap();
    assert!(
        stopped < start.elapsed() && stopped <= Duration::from_secs(13),
        "{stopped:?} {:?}",
        start.elapsed()
    );
    first_end.finish().await;
    second_end.finish().await;
}
