//! Flow control: a bounded number of requests at work, reads and writes apart, watches exempt.
//!
//! Upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`; seats by priority are a later issue.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use api::Status;

use crate::request::{SYSTEM_MASTERS, UserInfo};

/// Reads at work at once (upstream's default).
pub const READ_ONLY_MAX: usize = 400;
/// Writes at work at once (upstream's default).
pub const MUTATING_MAX: usize = 200;

/// The seats.
pub struct FlowControl {
    read_only: Arc<Semaphore>,
    mutating: Arc<Semaphore>,
}

/// A seat, given back when dropped. Exempt requests have none.
pub struct Seat(#[allow(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl FlowControl {
    /// As many seats as these.
    pub fn new(read_only: usize, mutating: usize) -> FlowControl {
        FlowControl {
            read_only: Arc::new(Semaphore::new(read_only)),
            mutating: Arc::new(Semaphore::new(mutating)),
        }
    }

    /// A seat for the request, or 429. The administrator's group is exempt, as upstream's `exempt` level is.
    pub fn enter(&self, user: &UserInfo, read_only: bool, long_running: bool) -> Result<Seat, Status> {
        tracing::trace!(target: "walk", "a seat");
        if long_running || user.is_in(SYSTEM_MASTERS) {
            return Ok(Seat(None));
        }
        let seats = if read_only { &self.read_only } else { &self.mutating };
        match seats.clone().try_acquire_owned() {
            Ok(permit) => Ok(Seat(Some(permit))),
            Err(_) => Err(Status::too_many_requests(
                "Too many requests, please try again later.",
                1,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_and_come_back() {
        let flow = FlowControl::new(1, 1);
        let user = UserInfo::new("jane", ["dev"]);
        let seat = flow.enter(&user, true, false).unwrap();
        let refused = flow.enter(&user, true, false).err().unwrap();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        assert!(
            flow.enter(&user, false, false).is_ok(),
            "writes have seats of their own"
        );
        assert!(flow.enter(&user, true, true).is_ok(), "watches take none");
        assert!(
            flow.enter(&UserInfo::new("admin", [SYSTEM_MASTERS]), true, false)
                .is_ok()
        );
        drop(seat);
        assert!(flow.enter(&user, true, false).is_ok());
    }
}
