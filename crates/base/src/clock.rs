//! Wall time as a value that is handed in, so that a simulation decides what time it is.
//!
//! The monotonic clock is tokio's (`tokio::time`), which a test pauses; a simulated [`Clock`] advances with it, so that
//! timers and timestamps agree. Invariant: clones of one clock always show the same time.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The monotonic clock stands still while the machine sleeps, and nobody tells when wall time is set: whoever waits for a
/// wall time looks at it this often.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// A source of wall time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Absent: the system's clock.
    simulated: Option<Arc<Mutex<Anchor>>>,
}

/// A moment known on both clocks; other moments follow by their distance from it.
#[derive(Debug)]
struct Anchor {
    wall: Timestamp,
    monotonic: Instant,
}

impl Clock {
    /// The system's clock.
    pub fn real() -> Self {
        Self { simulated: None }
    }

    /// A clock that shows `start` now and advances with tokio's (possibly paused) time.
    pub fn simulated(start: Timestamp) -> Self {
        Self {
            simulated: Some(Arc::new(Mutex::new(Anchor {
                wall: start,
                monotonic: Instant::now(),
            }))),
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.simulated {
            None => Self::system(),
            Some(anchor) => {
                let anchor = anchor.lock();
                let elapsed = Instant::now().saturating_duration_since(anchor.monotonic);
                saturating_add(anchor.wall, elapsed)
            }
        }
    }

    /// Milliseconds since the Unix epoch, as records on disk carry them.
    pub fn now_ms(&self) -> i64 {
        self.now().as_millisecond()
    }

    /// The moment of the monotonic clock at which this clock will show `wall`; a past moment gives the present.
    pub fn instant_of(&self, wall: Timestamp) -> Instant {
        let ahead = Duration::try_from(wall.duration_since(self.now())).unwrap_or_default();
        // A deadline centuries away would overflow the monotonic clock.
        Instant::now() + ahead.min(Duration::from_secs(60 * 60 * 24 * 365))
    }

    /// Sleeps until this clock shows `wall`, also when the clock is set meanwhile or the machine sleeps (at most
    /// [`LOOK_AGAIN`] late then).
    pub async fn sleep_until(&self, wall: Timestamp) {
        while self.now() < wall {
            let next = self.instant_of(wall).min(Instant::now() + LOOK_AGAIN);
            tokio::time::sleep_until(next).await;
        }
    }

    /// Makes a simulated clock show `wall` from now on (a step of the clock, forward or back).
    ///
    /// # Panics
    /// On a real clock: only a simulation owns the time.
    pub fn set(&self, wall: Timestamp) {
        let anchor = self
            .simulated
            .as_ref()
            .expect("invariant: only a simulated clock is set");
        *anchor.lock() = Anchor {
            wall,
            monotonic: Instant::now(),
        };
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's wall clock"
    )]
    fn system() -> Timestamp {
        Timestamp::now()
    }
}

fn saturating_add(wall: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| wall.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn simulated_time_advances_with_tokio() {
        let clock = Clock::simulated(at("2026-01-01T00:00:00Z"));
        let other = clock.clone();
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now(), at("2026-01-01T00:01:30Z"));
        other.set(at("2030-01-01T00:00:00Z"));
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(clock.now(), at("2030-01-01T00:00:00.005Z"));
        assert_eq!(clock.now_ms(), at("2030-01-01T00:00:00.005Z").as_millisecond());
    }

    #[tokio::test(start_paused = true)]
    async fn sleeping_until_a_wall_time() {
        let clock = Clock::simulated(at("2026-01-01T00:00:00Z"));
        clock.sleep_until(at("2026-01-01T01:00:00Z")).await;
        assert_eq!(clock.now(), at("2026-01-01T01:00:00Z"));
        let late = clock.clone();
        let sleeper = tokio::spawn(async move { late.sleep_until(at("2028-01-01T00:00:00Z")).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        clock.set(at("2027-12-31T23:00:00Z"));
        sleeper.await.unwrap();
        assert_eq!(clock.now(), at("2028-01-01T00:00:00Z"));
        let before = Instant::now();
        clock.sleep_until(at("2025-01-01T00:00:00Z")).await;
        assert_eq!(Instant::now(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_time_does_not_overflow() {
        let clock = Clock::simulated(Timestamp::MAX);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now(), Timestamp::MAX);
        clock.set(at("2026-01-01T00:00:00Z"));
        let _ = clock.instant_of(Timestamp::MAX);
    }

    #[test]
    fn real_time_is_after_this_was_written() {
        assert!(Clock::real().now() > at("2026-01-01T00:00:00Z"));
    }
}
