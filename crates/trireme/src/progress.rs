//! What a command is doing, for people: one line a step, on stderr, with the time it took.

use std::time::Duration;

use tokio::time::Instant;

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

    /// A step is done.
    pub fn done(&mut self, what: &str) -> Duration {
        let took = self.step.elapsed();
        if !self.quiet {
            eprintln!("  {what:<46} {}", seconds(took));
        }
        self.step = Instant::now();
        took
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
