//! How the writer answers those who asked: each by itself, or many at one place.
//!
//! A group commit answers hundreds of transactions at once. Where they come over one connection, waking its task for each
//! costs more than the commit does: so their answers are put down at one place and whoever waits there is woken once.
//! Invariant: each transaction that was taken has one answer, whatever becomes of the writer.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::transaction::{Commit, CommitError};

type Outcome = Result<Commit, CommitError>;

/// The answers to the transactions of one asker, under numbers that the asker gave them.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    here: Mutex<Vec<(u64, Outcome)>>,
    waiting: AtomicWaker,
}

// === impl Answers ===

impl Answers {
    /// Waits for answers, and takes all that are there into `into`, which is empty.
    pub(crate) fn poll_take(&self, context: &mut Context<'_>, into: &mut Vec<(u64, Outcome)>) -> Poll<()> {
        self.waiting.register(context.waker());
        std::mem::swap(&mut *self.here.lock(), into);
        if into.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Puts an answer down; whether it is the first since they were taken, so that somebody has to be woken for it.
    fn put(&self, number: u64, outcome: Outcome) -> bool {
        let mut here = self.here.lock();
        here.push((number, outcome));
        here.len() == 1
    }
}

/// Who waits for the answer to one transaction.
#[derive(Debug)]
pub(super) enum Asker {
    Alone(oneshot::Sender<Outcome>),
    Gathered(Gathered),
}

/// A transaction's place among others'.
#[derive(Debug)]
pub(super) struct Gathered {
    /// None: it was answered.
    answers: Option<Arc<Answers>>,
    number: u64,
}

// === impl Gathered ===

impl Gathered {
    pub(super) fn new(answers: Arc<Answers>, number: u64) -> Self {
        Self {
            answers: Some(answers),
            number,
        }
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        if let Some(answers) = self.answers.take() {
            let gone = CommitError::UnknownOutcome("the store was closed before it answered".into());
            answers.put(self.number, Err(gone));
            answers.waiting.wake();
        }
    }
}

/// The answers of a batch on their way. Those who gather theirs are woken when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Answering {
    to_wake: Vec<Arc<Answers>>,
}

// === impl Answering ===

impl Answering {
    /// Answers; whoever asked may be gone.
    pub(super) fn answer(&mut self, asker: Asker, outcome: Outcome) {
        match asker {
            Asker::Alone(sender) => drop(sender.send(outcome)),
            Asker::Gathered(mut gathered) => {
                if let Some(answers) = gathered.answers.take()
                    && answers.put(gathered.number, outcome)
                {
                    self.to_wake.push(answers);
                }
            }
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        for answers in self.to_wake.drain(..) {
            answers.waiting.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn committed(revision: u64) -> Outcome {
        let changed = true;
        Ok(Commit { revision, changed })
    }

    #[test]
    fn a_batch_wakes_once_and_a_dropped_transaction_is_answered() {
        let (answers, woken) = (Arc::new(Answers::default()), Arc::new(Woken::default()));
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        let mut taken = Vec::new();
        assert!(answers.poll_take(&mut context, &mut taken).is_pending());
        let asker = |number| Asker::Gathered(Gathered::new(answers.clone(), number));
        let mut answering = Answering::default();
        for number in 0..3 {
            answering.answer(asker(number), committed(number));
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        drop(answering);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(answers.poll_take(&mut context, &mut taken).is_ready());
        let expect: Vec<_> = (0..3).map(|number| (number, committed(number))).collect();
        assert_eq!(format!("{taken:?}"), format!("{expect:?}"));
        taken.clear();
        drop(asker(7));
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        assert!(answers.poll_take(&mut context, &mut taken).is_ready());
        assert!(matches!(taken[..], [(7, Err(CommitError::UnknownOutcome(_)))]));
    }
}
