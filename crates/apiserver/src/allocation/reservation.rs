//! What one write took from the ranges, until it is known whether it happened.

use std::collections::HashSet;
use std::sync::Arc;

use store::{Guard, Operation, Put, Stamp, Transaction};

use api::{Status, Value};

use super::{Allocator, Given, claim, given_to, is_services, objects, owner};
use crate::cluster::Cluster;
use crate::registry::Kind;
use crate::server::Server;
use crate::storage::Storage;

/// First and longest wait before a store that did not answer is asked again what became of a write.
const SETTLE_RETRY_INITIAL: std::time::Duration = std::time::Duration::from_millis(100);
const SETTLE_RETRY_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// What one write reserved, and what it gives back when it happens. Dropped without [`Reservation::keep`], what was reserved
/// is free again.
#[must_use]
#[derive(Debug)]
pub struct Reservation {
    allocator: Option<Arc<Allocator>>,
    /// The Service (`namespace/name`).
    owner: String,
    reserved: Vec<Given>,
    released: Vec<Given>,
}

// === impl Reservation ===

impl Reservation {
    /// Nothing is reserved.
    pub fn none() -> Reservation {
        Reservation {
            allocator: None,
            owner: String::new(),
            reserved: Vec::new(),
            released: Vec::new(),
        }
    }

    pub(super) fn of(allocator: &Arc<Allocator>, service: &Value) -> Reservation {
        Reservation {
            allocator: Some(allocator.clone()),
            owner: owner(service),
            reserved: Vec::new(),
            released: Vec::new(),
        }
    }

    /// A deletion (`gone`) gives back what the Service had.
    pub fn releasing(allocator: &Arc<Allocator>, kind: &Kind, service: &Value, gone: bool) -> Reservation {
        if !gone || !is_services(kind) {
            return Reservation::none();
        }
        let mut reservation = Reservation::of(allocator, service);
        reservation.release(given_to(service));
        reservation
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Whether this write reserved it.
    pub(super) fn has(&self, given: Given) -> bool {
        self.reserved.contains(&given)
    }

    pub(super) fn add(&mut self, given: Given) {
        self.reserved.push(given);
    }

    pub(super) fn release(&mut self, gone: Vec<Given>) {
        self.released = gone;
    }

    /// Puts into the write what says whose it is: nobody else is given the same, whichever server is asked.
    ///
    /// # Errors
    /// The object of an address cannot be made.
    pub fn claim(&self, server: &Server, transaction: &mut Transaction) -> Result<(), Status> {
        let namespaced = self.owner.split_once('/').unwrap_or(("", &self.owner));
        for given in &self.reserved {
            match given {
                Given::Address(address) => objects::add(server, transaction, (*address).into(), namespaced)?,
                Given::Port(_) => {
                    transaction.guards.push(Guard::Absent(claim(*given)));
                    transaction.operations.push(Operation::Put(Put {
                        key: claim(*given),
                        value: self.owner.clone().into(),
                        expires_at_ms: None,
                        stamp: Stamp::default(),
                    }));
                }
            }
        }
        for given in &self.released {
            if let Given::Address(address) = given {
                objects::remove(server, transaction, (*address).into());
            }
            transaction.operations.push(Operation::Delete(claim(*given)));
        }
        Ok(())
    }

    /// The write happened: what was reserved stays taken, what it gave back is free.
    pub fn keep(mut self) {
        self.reserved.clear();
        if let Some(allocator) = &self.allocator {
            allocator.free_of(&self.owner, &self.released);
        }
    }

    /// After a write whose outcome is unknown: asks the store until it knows, and frees what nobody has. The replica
    /// fails only when it has ended, and then nothing of this matters any more.
    pub async fn settle(mut self, storage: &Storage) {
        let reserved = std::mem::take(&mut self.reserved);
        let released = std::mem::take(&mut self.released);
        let Some(allocator) = self.allocator.clone() else {
            return;
        };
        let mut backoff = base::Backoff::new(SETTLE_RETRY_INITIAL, SETTLE_RETRY_MAX);
        while let Err(error) = storage.consistent().await {
            if matches!(error, store::ReplicaError::Closed) {
                return;
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
        let services = api::GroupResource {
            group: String::new(),
            resource: "services".into(),
        };
        let stored = Cluster::list(storage, &services, None);
        let stored: HashSet<Given> = stored.iter().flat_map(|service| given_to(&service.value())).collect();
        let ours = reserved.into_iter().chain(released);
        let free: Vec<Given> = ours.filter(|given| !stored.contains(given)).collect();
        allocator.free(&free);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(allocator) = &self.allocator {
            allocator.free_of(&self.owner, &self.reserved);
        }
    }
}
