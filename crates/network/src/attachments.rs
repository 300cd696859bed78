//! Which sandbox of this node has which address and is which pod's, told to the agent before a container runs in it.
//!
//! A pod's status names its address too late: by then its containers may have sent their first packets. So whoever links a
//! pod tells it here, and waits: when the answer comes, the pod's policies are in force ([`crate::policies`]).
//!
//! Invariant: what was attached is in the links' record, so a restarted daemon hands all of it over before its first rules are
//! written.

use std::net::Ipv4Addr;

use crate::orders::{Change, Ended, Sender};
use crate::views::ObjectName;

/// Tells the agent of pods.
#[derive(Debug, Clone)]
pub struct Attachments {
    orders: Sender,
}

// === impl Attachments ===

impl Attachments {
    pub(crate) fn new(orders: Sender) -> Attachments {
        Attachments { orders }
    }

    /// The sandbox has that address. The order is given at once; the answer comes when its pod's policies are enforced.
    pub fn attach(
        &self,
        sandbox: &str,
        pod: ObjectName,
        address: Ipv4Addr,
    ) -> impl Future<Output = Result<(), Ended>> + Send + use<> {
        self.orders.give(Change::Attached {
            sandbox: sandbox.to_owned(),
            pod,
            address,
        })
    }

    /// The sandbox, whose processes have ended, is about to lose its address. Orders are taken one after the other, so nobody has to
    /// wait before another one is attached with it.
    pub fn detach(&self, sandbox: &str) -> impl Future<Output = Result<(), Ended>> + Send + use<> {
        let sandbox = sandbox.to_owned();
        self.orders.give(Change::Detached { sandbox })
    }
}
