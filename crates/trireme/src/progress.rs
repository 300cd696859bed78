//! What a command is doing, for people, on stderr: one line a step with the time it took, and a line before that for a step
//! that takes long enough for people to wonder.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// A step that takes longer than this is told while it goes on.
const SOON: Duration = Duration::from_secs(1);
/// And again after each such time.
const AGAIN: Duration = Duration::from_secs(5);

/// Tells the steps of one command.
pub struct Progress {
    started: Instant,
    step: Instant,
    quiet: bool,
}

// === impl Progress ===

impl Progress {
    /// Starts counting.
    pub fn start(quiet: bool) -> Progress {
        Progress {
            started: Instant::now(),
            step: Instant::now(),
            quiet,
        }
    }

    /// Does the work of a step, and tells what it is doing when that takes more than a second. `doing` is asked each time:
    /// it may tell how far it is.
    pub async fn during<T>(&self, doing: impl Fn() -> String, work: impl Future<Output = T>) -> T {
        self.telling([SOON, AGAIN], doing, work).await
    }

    async fn telling<T>(
        &self,
        [soon, again]: [Duration; 2],
        doing: impl Fn() -> String,
        work: impl Future<Output = T>,
    ) -> T {
        tokio::pin!(work);
        let mut wait = soon;
        loop {
            match tokio::time::timeout(wait, &mut work).await {
                Ok(outcome) => return outcome,
                Err(_) => self.say(&format!("{} ...", doing())),
            }
            wait = again;
        }
    }

    /// A step is done.
    pub fn done(&mut self, what: &str) {
        self.say(&format!("{what:<46} {}", seconds(self.step.elapsed())));
        self.step = Instant::now();
    }

    /// Something to know that is no step.
    pub fn say(&self, what: &str) {
        if !self.quiet {
            eprintln!("  {what}");
        }
    }

    /// Since the command began.
    pub fn total(&self) -> Duration {
        self.started.elapsed()
    }
}

/// `0.123 s`.
pub fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}

/// `12.3 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_takes_long_is_told_until_it_is_done() {
        let told = Notify::new();
        let doing = || {
            told.notify_one();
            String::new()
        };
        let twice = async {
            told.notified().await;
            told.notified().await;
            "done"
        };
        let progress = Progress::start(true);
        assert_eq!(progress.telling([Duration::ZERO; 2], doing, twice).await, "done");
    }

    #[tokio::test]
    async fn what_is_done_at_once_is_not_told() {
        let doing = || panic!("it was told");
        assert_eq!(Progress::start(true).during(doing, async { 7 }).await, 7);
    }
}
