//! Plain puts of one connection: those that say nothing of what was there, which is most of what loads an etcd.
//!
//! All that a turn of the connection read are handed to the engine at once, and the engine's group commit answers them at once:
//! no task, no channel and no waking for each. Invariants, as for every other write: a put that was handed on is noted when
//! it was committed, whether its client waits or not; it holds the front's order meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use rpc::etcd::etcdserverpb::{PutRequest, PutResponse};
use tokio::runtime::Handle;
use tokio::sync::OwnedRwLockReadGuard;
use tonic::Response;

use super::convert::lease_in;
use super::{Shared, errors, evaluate, grpc};
use crate::embedded::Answers;
use crate::transaction::{Commit, CommitError, Operation, Transaction};

/// The puts of a connection.
pub(super) struct Puts {
    under_way: UnderWay,
    /// Those of this turn, under the numbers that follow.
    fresh: Vec<(u64, Transaction)>,
    /// Held by those of this turn.
    order: Option<Arc<OwnedRwLockReadGuard<()>>>,
    runtime: Handle,
}

struct UnderWay {
    shared: Arc<Shared>,
    answers: Arc<Answers>,
    /// In the order of their numbers, without those that were answered at the front of it.
    waiting: VecDeque<Option<Waiting>>,
    /// The number of the first one.
    first: u64,
    /// Empty between turns.
    taken: Vec<(u64, Result<Commit, CommitError>)>,
}

/// A put that the engine has, and whoever waits for it.
struct Waiting {
    key: Bytes,
    lease: i64,
    respond: SendResponse<Bytes>,
    _order: Arc<OwnedRwLockReadGuard<()>>,
}

// === impl Puts ===

impl Puts {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            under_way: UnderWay::new(shared),
            fresh: Vec::new(),
            order: None,
            runtime: Handle::current(),
        }
    }

    /// Takes a put that reads nothing; gives it back when it has to wait for its place in the order.
    pub(super) fn take(
        &mut self,
        put: PutRequest,
        respond: SendResponse<Bytes>,
    ) -> Result<(), (PutRequest, SendResponse<Bytes>)> {
        let shared = &self.under_way.shared;
        let checked = evaluate::check_put(&put).and_then(|()| shared.put_of(&put, put.value.clone(), put.lease));
        let operation = match checked {
            Ok(operation) => operation,
            Err(status) => {
                grpc::refuse(respond, status);
                return Ok(());
            }
        };
        let order = match &self.order {
            Some(order) => order.clone(),
            None => match shared.order.clone().try_read_owned() {
                Ok(order) => self.order.insert(Arc::new(order)).clone(),
                Err(_) => return Err((put, respond)),
            },
        };
        let number = self.under_way.first + self.under_way.waiting.len() as u64;
        self.under_way.waiting.push_back(Some(Waiting {
            key: operation.key.clone(),
            lease: lease_in(operation.stamp),
            respond,
            _order: order,
        }));
        let transaction = Transaction {
            guards: Vec::new(),
            operations: vec![Operation::Put(operation)],
        };
        self.fresh.push((number, transaction));
        Ok(())
    }

    /// Hands on what was taken in this turn.
    pub(super) fn submit(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        self.order = None;
        let under_way = &self.under_way;
        under_way
            .shared
            .engine
            .commit_all(self.fresh.drain(..), &under_way.answers);
    }

    /// Answers what was committed. Ready: something was.
    pub(super) fn poll_answered(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.under_way.poll_answered(context)
    }
}

impl Drop for Puts {
    fn drop(&mut self) {
        // What was taken and not handed on never happened.
        let handed_on = self.under_way.waiting.len() - self.fresh.len();
        self.under_way.waiting.truncate(handed_on);
        if self.under_way.waiting.is_empty() {
            return;
        }
        let none = UnderWay::new(self.under_way.shared.clone());
        let mut rest = std::mem::replace(&mut self.under_way, none);
        self.runtime.spawn(async move {
            while !rest.waiting.is_empty() {
                std::future::poll_fn(|context| rest.poll_answered(context)).await;
            }
        });
    }
}

// === impl UnderWay ===

impl UnderWay {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            answers: Arc::default(),
            waiting: VecDeque::new(),
            first: 0,
            taken: Vec::new(),
        }
    }

    fn poll_answered(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.answers.poll_take(context, &mut self.taken).is_pending() {
            return Poll::Pending;
        }
        let mut answered = Vec::with_capacity(self.taken.len());
        for (number, outcome) in self.taken.drain(..) {
            let place = usize::try_from(number - self.first).expect("invariant: it is among those that wait");
            let waiting = self.waiting.get_mut(place).and_then(Option::take);
            answered.push((waiting.expect("invariant: a put is answered once"), outcome));
            while let Some(None) = self.waiting.front() {
                self.waiting.pop_front();
                self.first += 1;
            }
        }
        let committed = answered.iter().filter_map(|(put, outcome)| {
            let commit = outcome.as_ref().ok()?;
            Some((commit.revision, &put.key, put.lease))
        });
        // Before anybody is told.
        self.shared.leases.note_puts(committed);
        for (put, outcome) in answered {
            let told = outcome.map(|commit| PutResponse {
                header: self.shared.header(commit.revision),
                prev_kv: None,
            });
            let told = told.map(Response::new).map_err(|error| errors::commit(&error));
            grpc::answer(put.respond, told, None);
        }
        Poll::Ready(())
    }
}
