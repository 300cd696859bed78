//! Ending one container: its hook first, then its turn, then the signal, and the kill when its time is over.
//!
//! Source: `pkg/kubelet/kuberuntime/kuberuntime_container.go` (`killContainer`) and
//! `kuberuntime_termination_order.go`: hooks of all containers run at once, only the signals keep the order.

use std::net::IpAddr;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Shared, container_reference, full_name, hooks};

/// What a container has at least between its signal and the kill, whatever was asked for and however long hooks took.
/// Source: `kuberuntime_container.go` (`minimumGracePeriodInSeconds`).
const MINIMUM_GRACE_SECONDS: i64 = 2;

/// A run to end.
pub struct Ending<'a> {
    /// Its container, when the pod's definition has it.
    pub container: Option<&'a Container>,
    /// The runtime's name for it.
    pub run: &'a str,
    /// The pod's address, for hooks.
    pub address: Option<IpAddr>,
    /// How long all of it may take.
    pub grace_seconds: i64,
}

impl Ending<'_> {
    /// Ends it now.
    pub async fn kill(self, shared: &Shared, pod: &Pod) {
        self.kill_after(shared, pod, std::future::ready(())).await;
    }

    /// Ends it when its turn has come, or when there is no time left to wait for that.
    pub async fn kill_after(self, shared: &Shared, pod: &Pod, turn: impl Future<Output = ()>) {
        let begun = Instant::now();
        let grace = Duration::from_secs(self.grace_seconds.max(0).unsigned_abs());
        let hook = self
            .container
            .and_then(|c| c.lifecycle.as_ref()?.pre_stop.as_ref().map(|hook| (c, hook)));
        if let Some((container, handler)) = hook.filter(|_| !grace.is_zero()) {
            let asked = hooks::run(&shared.cri, handler, container, self.run, self.address, Some(grace));
            if let Ok(Err(why)) = tokio::time::timeout(grace, asked).await {
                tracing::debug!(pod = %full_name(pod), why, "a hook before the end failed");
                let about = container_reference(pod, &container.name);
                // What the hook said may hold secrets: it is not in the event.
                shared
                    .recorder
                    .warning(about, "FailedPreStopHook", "PreStopHook failed");
            }
        }
        // That its turn did not come in time is no reason to let it run on.
        let _ = tokio::time::timeout_at(begun + grace, turn).await;
        let left = left(self.grace_seconds, begun.elapsed());
        if let Err(error) = shared.cri.stop_container(self.run, left).await {
            tracing::warn!(pod = %full_name(pod), run = self.run, %error, "a container was not ended");
        }
    }
}

/// What is left of a grace period, in seconds.
fn left(grace_seconds: i64, passed: Duration) -> i64 {
    let passed = i64::try_from(passed.as_secs()).unwrap_or(i64::MAX);
    grace_seconds.saturating_sub(passed).max(MINIMUM_GRACE_SECONDS)
}

/// The order in which the runs of a pod are told to end: each rank after all lower ones.
pub struct Order {
    /// How many of each rank still run.
    left: watch::Sender<Vec<usize>>,
}

impl Order {
    /// An order of runs with these ranks.
    pub fn new(ranks: &[usize]) -> Order {
        let mut left = vec![0; ranks.iter().max().map_or(0, |rank| rank + 1)];
        for rank in ranks {
            left[*rank] += 1;
        }
        Order {
            left: watch::Sender::new(left),
        }
    }

    /// Waits until a rank's turn has come.
    pub async fn turn(&self, rank: usize) {
        let mut left = self.left.subscribe();
        // The sender is ours, so this ends only with the turn.
        let _ = left.wait_for(|left| left[..rank].iter().all(|count| *count == 0)).await;
    }

    /// A run of the rank has ended.
    pub fn ended(&self, rank: usize) {
        self.left.send_modify(|left| left[rank] -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_time_to_hear_the_signal() {
        for (grace, passed_ms, expect) in [
            (30, 0, 30),
            (30, 1900, 29),
            (30, 40_000, 2),
            (0, 0, 2),
            (1, 0, 2),
            (-1, 0, 2),
        ] {
            assert_eq!(
                left(grace, Duration::from_millis(passed_ms)),
                expect,
                "{grace} {passed_ms}"
            );
        }
    }

    #[tokio::test]
    async fn a_rank_waits_for_all_lower_ones() {
        let order = Order::new(&[0, 0, 2]);
        let has_come = async |rank| {
            let turn = order.turn(rank);
            tokio::pin!(turn);
            futures::poll!(turn).is_ready()
        };
        assert!(has_come(0).await && !has_come(2).await);
        order.ended(0);
        assert!(!has_come(2).await, "one of two still runs");
        order.ended(0);
        assert!(has_come(2).await);
    }
}
