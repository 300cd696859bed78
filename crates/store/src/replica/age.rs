//! Which revisions are older than the history's window.
//!
//! A table that nobody writes to keeps its recent events, and old roots of it cost nothing; yet a continue token has to
//! expire when its window is over, whatever its table did since: clients are told what to do then, and upstream's
//! compaction, which goes by time and knows no tables, does so. So the time of a revision is remembered now and then.

use std::collections::VecDeque;

use crate::engine::Revision;

/// How many times are remembered for a window: expiry is late by at most one part of it.
const MARKS_A_WINDOW: i64 = 60;

pub(crate) struct Age {
    window_ms: i64,
    /// In the order of time: the newest revision there was then.
    marks: VecDeque<(i64, Revision)>,
}

impl Age {
    pub(crate) fn new(window_ms: i64) -> Self {
        Self {
            window_ms,
            marks: VecDeque::new(),
        }
    }

    /// A revision is the newest one now.
    pub(crate) fn reached(&mut self, revision: Revision, now_ms: i64) {
        let due_ms = self
            .marks
            .back()
            .map(|(time_ms, _)| time_ms.saturating_add(self.window_ms / MARKS_A_WINDOW));
        if due_ms.is_some_and(|due_ms| now_ms < due_ms) {
            return;
        }
        self.marks.push_back((now_ms, revision));
        self.forget(now_ms);
    }

    /// The oldest revision that is within the window: what is below it was out of date when the window began.
    pub(crate) fn oldest(&mut self, now_ms: i64) -> Revision {
        self.forget(now_ms);
        let began_ms = now_ms.saturating_sub(self.window_ms);
        self.marks
            .front()
            .filter(|(time_ms, _)| *time_ms <= began_ms)
            .map_or(0, |(_, revision)| *revision)
    }

    /// Of the times before the window only the last one counts.
    fn forget(&mut self, now_ms: i64) {
        let began_ms = now_ms.saturating_sub(self.window_ms);
        while self.marks.get(1).is_some_and(|(time_ms, _)| *time_ms <= began_ms) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_old_when_another_one_was_the_newest_a_window_ago() {
        let mut age = Age::new(600);
        assert_eq!(age.oldest(0), 0);
        for (now_ms, revision) in [(0, 5), (5, 6), (100, 9), (400, 20)] {
            age.reached(revision, now_ms);
        }
        for (now_ms, expect) in [(599, 0), (600, 5), (699, 5), (700, 9), (999, 9), (1000, 20), (9999, 20)] {
            assert_eq!(age.oldest(now_ms), expect, "at {now_ms}");
        }
    }

    #[test]
    fn few_times_are_remembered() {
        let mut age = Age::new(600);
        (0..100_000).for_each(|time| age.reached(time as Revision, time));
        assert!(age.marks.len() <= MARKS_A_WINDOW as usize + 2, "{}", age.marks.len());
        let oldest = age.oldest(99_999) as i64;
        assert!((99_385..=99_399).contains(&oldest), "{oldest}");
    }
}
