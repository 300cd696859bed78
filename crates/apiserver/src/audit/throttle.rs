//! How often batches go: so many a second, and a few at once after a pause.
//!
//! Source: `k8s.io/client-go/util/flowcontrol/throttle.go`.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of tokens, one of which each batch takes.
pub(super) struct Throttle {
    per_second: f64,
    burst: f64,
    /// Below zero: so many are promised.
    tokens: f64,
    filled: Instant,
}

// === impl Throttle ===

impl Throttle {
    /// A full bucket: batches a second, and how many of them at once after a pause.
    pub(super) fn new((per_second, burst): (f64, f64)) -> Throttle {
        Throttle {
            per_second,
            burst,
            tokens: burst,
            filled: Instant::now(),
        }
    }

    /// Takes a token, and says how long it takes until it is there.
    pub(super) fn take(&mut self) -> Duration {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst) - 1.0;
        self.filled = now;
        Duration::try_from_secs_f64(-self.tokens / self.per_second).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_go_at_once_and_then_so_many_a_second() {
        let mut throttle = Throttle::new((10.0, 2.0));
        assert_eq!((throttle.take(), throttle.take()), (Duration::ZERO, Duration::ZERO));
        let near = |wait: Duration, millis: u128| assert_eq!(wait.as_millis(), millis);
        near(throttle.take(), 100);
        near(throttle.take(), 200);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((throttle.take(), throttle.take()), (Duration::ZERO, Duration::ZERO));
        near(throttle.take(), 100);
    }
}
