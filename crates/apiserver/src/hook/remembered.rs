//! What services said, until it is too old.
//!
//! Invariant: no more than [`ANSWERS_MAX`] answers are held; of too many the first to grow old is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// So many answers are remembered: upstream's, of webhooks that authorize.
const ANSWERS_MAX: usize = 8192;

/// Answers to questions.
pub(crate) struct Remembered<Q, A> {
    by_question: HashMap<Q, (Instant, u64, A)>,
    by_end: BTreeMap<(Instant, u64), Q>,
    count: u64,
}

impl<Q, A> Default for Remembered<Q, A> {
    fn default() -> Self {
        Remembered {
            by_question: HashMap::new(),
            by_end: BTreeMap::new(),
            count: 0,
        }
    }
}

// === impl Remembered ===

impl<Q: Clone + Eq + Hash, A> Remembered<Q, A> {
    /// What was said to that question, unless that is too long ago.
    pub(crate) fn get(&self, question: &Q) -> Option<&A> {
        let now = Instant::now();
        let (end, _, answer) = self.by_question.get(question)?;
        (*end > now).then_some(answer)
    }

    /// Remembers an answer for that long.
    pub(crate) fn put(&mut self, question: Q, answer: A, ttl: Duration) {
        let now = Instant::now();
        while let Some(first) = self.by_end.first_entry() {
            if first.key().0 > now && self.by_question.len() < ANSWERS_MAX {
                break;
            }
            self.by_question.remove(&first.remove());
        }
        // Longer than time lasts is no time.
        let Some(end) = now.checked_add(ttl) else { return };
        self.count += 1;
        let number = self.count;
        if let Some((old, number, _)) = self.by_question.insert(question.clone(), (end, number, answer)) {
            self.by_end.remove(&(old, number));
        }
        self.by_end.insert((end, number), question);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn answers_grow_old_and_do_not_pile_up() {
        let mut answers = Remembered::default();
        let name = |number: usize| number.to_string();
        answers.put(name(1), 1, MINUTE);
        answers.put(name(2), 2, MINUTE * 3);
        answers.put(name(1), 3, MINUTE * 2);
        tokio::time::advance(MINUTE).await;
        assert_eq!(answers.get(&name(1)), Some(&3));
        tokio::time::advance(MINUTE).await;
        assert_eq!((answers.get(&name(1)), answers.get(&name(2))), (None, Some(&2)));
        for number in 0..ANSWERS_MAX + 10 {
            answers.put(name(number), number, MINUTE);
        }
        assert_eq!(answers.by_question.len(), ANSWERS_MAX);
        assert_eq!(answers.by_end.len(), ANSWERS_MAX);
    }
}
