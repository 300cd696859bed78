//! What the node's daemon asks of its network agent, and waits for.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tokio::sync::{mpsc, oneshot};

use crate::services::{Frontend, Wanted};
use crate::views::ObjectName;

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Change {
    /// A pod's host ports are these ([`crate::host_ports`]).
    HostPorts {
        owner: ObjectName,
        frontends: BTreeMap<Frontend, Wanted>,
    },
    /// A sandbox has an address, and is a pod's ([`crate::attachments`]).
    Attached {
        sandbox: String,
        pod: ObjectName,
        address: Ipv4Addr,
    },
    /// A sandbox is about to lose its address.
    Detached { sandbox: String },
}

/// A change that somebody waits for.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) change: Change,
    /// Told when it is written.
    pub(crate) written: oneshot::Sender<()>,
}

/// Orders for the agent that writes the rules.
#[derive(Debug)]
pub struct Orders(pub(crate) mpsc::UnboundedReceiver<Order>);

/// The agent that writes the rules has ended, and with it the node's daemon.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node's network agent has ended")]
pub struct Ended;

/// Gives orders.
#[derive(Debug, Clone)]
pub(crate) struct Sender(mpsc::UnboundedSender<Order>);

impl Orders {
    pub(crate) fn channel() -> (Sender, Orders) {
        let (orders, receiver) = mpsc::unbounded_channel();
        (Sender(orders), Orders(receiver))
    }
}

impl Sender {
    /// The order is given at once; the answer comes when it is written.
    pub(crate) fn give(&self, change: Change) -> impl Future<Output = Result<(), Ended>> + Send + use<> {
        let (written, is_written) = oneshot::channel();
        // When nobody takes it, the answer says so.
        let _ = self.0.send(Order { change, written });
        async { is_written.await.map_err(|_| Ended) }
    }
}
