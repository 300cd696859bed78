//! How many seats a priority level wants, over the time since it was last asked: what lending and borrowing go by.
//!
//! Source: `seatDemandStats` of `apf_controller.go`.

use tokio::time::Instant;

/// How slowly a demand that fell is forgotten: half of it in five minutes.
const SMOOTHING: f64 = 0.977;

/// Integrates a number over time.
#[derive(Debug)]
pub(super) struct Demand {
    seats: f64,
    since: Instant,
    seconds: f64,
    sum: f64,
    squares: f64,
    most: f64,
    smoothed: f64,
}

/// What was wanted in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// The most at one time.
    pub most: f64,
    /// The average over the period.
    pub average: f64,
    /// Its standard deviation.
    pub deviation: f64,
    /// The average and the standard deviation together, falling slowly.
    pub smoothed: f64,
}

impl Demand {
    pub fn new(now: Instant) -> Demand {
        Demand {
            seats: 0.0,
            since: now,
            seconds: 0.0,
            sum: 0.0,
            squares: 0.0,
            most: 0.0,
            smoothed: 0.0,
        }
    }

    /// The demand from now on.
    pub fn set(&mut self, seats: usize, now: Instant) {
        self.pass(now);
        self.seats = seats as f64;
        self.most = self.most.max(self.seats);
    }

    fn pass(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.seconds += seconds;
        self.sum += self.seats * seconds;
        self.squares += self.seats * self.seats * seconds;
    }

    /// What was wanted since the last call.
    pub fn take(&mut self, now: Instant) -> Wanted {
        self.pass(now);
        let (average, deviation) = if self.seconds > 0.0 {
            let average = self.sum / self.seconds;
            (
                average,
                (self.squares / self.seconds - average * average).max(0.0).sqrt(),
            )
        } else {
            (self.seats, 0.0)
        };
        let envelope = average + deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
        let wanted = Wanted {
            most: self.most,
            average,
            deviation,
            smoothed: self.smoothed,
        };
        (self.seconds, self.sum, self.squares, self.most) = (0.0, 0.0, 0.0, self.seats);
        wanted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peak_is_remembered_and_fades() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut demand = Demand::new(start);
        demand.set(10, at(0));
        demand.set(0, at(5));
        // Half of the time ten: average 5, deviation 5.
        assert_eq!(
            demand.take(at(10)),
            Wanted {
                most: 10.0,
                average: 5.0,
                deviation: 5.0,
                smoothed: 10.0
            }
        );
        let later = demand.take(at(20));
        assert_eq!(later.most, 0.0);
        assert!((later.smoothed - 9.77).abs() < 1e-9, "{later:?}");
    }
}
