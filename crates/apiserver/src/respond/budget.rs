//! How much memory answers may take together that are made as a whole: Tables, YAML, and JSON indented for people.
//!
//! All other lists are encoded while they are sent and take a chunk each. A whole one takes several times its objects, and a
//! few of a hundred thousand pods at once would end the process. So each is admitted by what it will take, and refused with
//! 429 when those at work leave no room: clients come again. Invariant: what is admitted counts until its body is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::Response;

use api::Status;
use client::Body;

use super::observed::held;

/// What whole answers may take together: a small part of what a server of a large cluster has, and enough for one Table of
/// 10,000 pods beside another.
pub const WHOLE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Smaller ones are not counted: requests in flight bound them.
const COUNTED_BYTES_MIN: usize = 1024 * 1024;
/// When a client is asked to come again, in seconds: a large Table is sent within that time.
const RETRY_SECONDS: i32 = 1;

/// What whole answers take.
pub struct Budget {
    max: usize,
    used: AtomicUsize,
    refused: AtomicU64,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    budget: Option<Arc<Budget>>,
    bytes: usize,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(max: usize) -> Arc<Budget> {
        Arc::new(Budget {
            max,
            used: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Takes what an answer will take. One that alone would take more than there is has all of it: it is made when no other
    /// is, as otherwise it never could be.
    ///
    /// # Errors
    /// 429: others leave no room.
    pub fn admit(self: &Arc<Budget>, bytes: usize) -> Result<Admitted, Status> {
        if bytes < COUNTED_BYTES_MIN {
            return Ok(Admitted { budget: None, bytes: 0 });
        }
        let bytes = bytes.min(self.max);
        let room = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.max);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, room) {
            Ok(_) => Ok(Admitted {
                budget: Some(self.clone()),
                bytes,
            }),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let why = "too many large answers are being made, please try again later";
                Err(Status::too_many_requests(why, RETRY_SECONDS))
            }
        }
    }

    /// Bytes that answers take now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Answers that were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Admitted {
    /// The answer that it was admitted for; the part is given back with its body.
    pub fn with(self, answer: Response<Body>) -> Response<Body> {
        match self.budget {
            None => answer,
            Some(_) => answer.map(|body| held(body, self)),
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn what_is_given_comes_back() {
        let budget = Budget::new(10 * MIB);
        let six = budget.admit(6 * MIB).unwrap();
        let refused = budget.admit(5 * MIB).unwrap_err();
        assert_eq!((refused.code, budget.refused()), (429, 1));
        assert_eq!(refused.details.unwrap().retry_after_seconds, 1);
        // Small ones are not counted, others that fit are.
        let _small = budget.admit(MIB - 1).unwrap();
        let four = budget.admit(4 * MIB).unwrap();
        assert_eq!(budget.used(), 10 * MIB);
        drop((six, four));
        assert_eq!(budget.used(), 0);
        // One larger than everything is made alone.
        let all = budget.admit(100 * MIB).unwrap();
        assert!(budget.admit(MIB).is_err());
        let answer = all.with(Response::new(client::body_of("text")));
        assert_eq!(http_body::Body::size_hint(answer.body()).exact(), Some(4));
        assert_eq!(budget.used(), 10 * MIB);
        drop(answer);
        assert_eq!(budget.used(), 0);
    }
}
