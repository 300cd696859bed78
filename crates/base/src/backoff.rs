//! Exponential back-off with a cap, jitter and reset: how long to wait before trying again what failed.
//!
//! Pure: it returns durations, the caller sleeps. Invariant: no delay is above the cap.

use std::time::Duration;

use crate::Random;

/// The delays of one thing that is retried.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    cap: Duration,
    factor: f64,
    jitter: f64,
    random: Option<Random>,
    failures: u32,
}

impl Backoff {
    /// Delays that start at `initial` and double up to `cap`, without jitter.
    pub fn new(initial: Duration, cap: Duration) -> Self {
        Self {
            initial,
            cap,
            factor: 2.0,
            jitter: 0.0,
            random: None,
            failures: 0,
        }
    }

    /// Grows by `factor` instead of 2.
    pub fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor.max(1.0);
        self
    }

    /// Takes away up to `share` (0 to 1) of each delay at random, so that many who failed together do not return
    /// together. It shortens rather than lengthens: the cap stays a promise.
    pub fn with_jitter(mut self, share: f64, random: Random) -> Self {
        self.jitter = share.clamp(0.0, 1.0);
        self.random = Some(random);
        self
    }

    /// Notes one more failure and says how long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let exponent = i32::try_from(self.failures).unwrap_or(i32::MAX);
        self.failures = self.failures.saturating_add(1);
        let seconds = (self.initial.as_secs_f64() * self.factor.powi(exponent)).min(self.cap.as_secs_f64());
        let kept = match &self.random {
            Some(random) => 1.0 - self.jitter * random.unit(),
            None => 1.0,
        };
        Duration::from_secs_f64(seconds * kept).min(self.cap)
    }

    /// How many failures were noted since the start or the last reset.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// It worked: the next failure waits the initial delay again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn doubles_up_to_the_cap_and_resets() {
        let mut backoff = Backoff::new(MS(10), MS(65));
        let delays: Vec<_> = (0..6).map(|_| backoff.next_delay()).collect();
        assert_eq!(delays, [MS(10), MS(20), MS(40), MS(65), MS(65), MS(65)]);
        assert_eq!(backoff.failures(), 6);
        backoff.reset();
        assert_eq!(backoff.next_delay(), MS(10));
    }

    #[test]
    fn other_factors() {
        let mut backoff = Backoff::new(MS(10), MS(1000)).with_factor(3.0);
        assert_eq!(
            [backoff.next_delay(), backoff.next_delay(), backoff.next_delay()],
            [MS(10), MS(30), MS(90)]
        );
        let mut constant = Backoff::new(MS(10), MS(1000)).with_factor(0.1);
        assert_eq!([constant.next_delay(), constant.next_delay()], [MS(10), MS(10)]);
    }

    #[test]
    fn jitter_only_shortens() {
        let mut backoff = Backoff::new(MS(100), MS(100)).with_jitter(0.5, Random::seeded(1));
        let delays: Vec<_> = (0..200).map(|_| backoff.next_delay()).collect();
        assert!(delays.iter().all(|delay| (MS(50)..=MS(100)).contains(delay)));
        assert!(delays.iter().any(|delay| *delay != delays[0]));
    }

    #[test]
    fn never_overflows() {
        let mut backoff = Backoff::new(MS(1), Duration::from_secs(3600));
        for _ in 0..5000 {
            assert!(backoff.next_delay() <= Duration::from_secs(3600));
        }
    }
}
