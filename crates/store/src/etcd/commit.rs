//! Transactions: guards become comparisons, operations become requests, and what etcd answers becomes an outcome.
//!
//! A request whose answer never came may have happened, or may happen later (a paused member still holds it). It is sent
//! again only when a guard pins one of the keys it changes to a revision: then at most one of the copies can succeed. When
//! a copy is refused, or for other transactions, the key is read: finding exactly what was to be written means that it
//! happened. Everything else is an unknown outcome, for the caller to look at.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rpc::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use rpc::etcd::etcdserverpb::lease_client::LeaseClient;
use rpc::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
    request_op::Request as Change, response_op::Response as Answer,
};
use tokio::time::Instant;

use super::Shared;
use super::errors::{Cause, Failure};
use super::lease::{end_of, seconds_until};
use super::lineage::Era;
use super::members::kv;
use super::question::Offset;
use super::value::{encode, record, signed, unsigned};
use crate::engine::{Record, Revision};
use crate::transaction::{Commit, CommitError, Guard, Operation, Put, Transaction};

/// How long one member may take over a write: etcd itself gives up after 7 s with its defaults.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// How long a write is tried with all members.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Between rounds in which no member took the write.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// What etcd takes by default (`--max-request-bytes`), for the message of a refusal.
const REQUEST_BYTES_DEFAULT: usize = 1_572_864;

/// Submits a transaction in a task of its own.
pub(super) fn submit(
    shared: &Arc<Shared>,
    transaction: Transaction,
) -> BoxFuture<'static, Result<Commit, CommitError>> {
    let refused = |error| std::future::ready(Err(error)).boxed();
    if shared.open().is_err() {
        return refused(CommitError::Unavailable("the store is closed".into()));
    }
    if let Err(error) = transaction.check() {
        return refused(error);
    }
    let Ok(permit) = shared.commits.clone().try_acquire_owned() else {
        return refused(CommitError::Overloaded);
    };
    let shared = shared.clone();
    let task = tokio::spawn(async move {
        let _permit = permit;
        shared.commit(&transaction).await
    });
    async move {
        task.await
            .unwrap_or_else(|_| Err(CommitError::UnknownOutcome("the write's task ended".into())))
    }
    .boxed()
}

/// Raises the stored offset. None: it is no longer what was found.
pub(super) async fn raise_offset(shared: &Shared, found: &Offset, offset: u64) -> Result<Option<Revision>, Failure> {
    let key = shared.keys.offset();
    let put = PutRequest {
        key: key.clone(),
        value: offset.to_string().into(),
        ..PutRequest::default()
    };
    let request = TxnRequest {
        compare: vec![mod_revision_is(key, signed(found.written))],
        success: vec![operation(Change::RequestPut(put))],
        failure: Vec::new(),
    };
    let answer = shared.members.ask(|channel| {
        let request = shared.members.request(request.clone());
        async move { kv(channel).txn(request).await }
    });
    let answer = answer.await?;
    let revision = unsigned(answer.header.unwrap_or_default().revision);
    Ok(answer.succeeded.then_some(revision))
}

/// What became of one request.
enum Sent {
    /// It was answered.
    Answered(Result<Commit, CommitError>),
    /// It certainly did not happen, and may be sent again.
    NotDone(Failure),
    /// It may have happened.
    Unclear(Failure),
}

impl Shared {
    async fn commit(self: &Arc<Self>, transaction: &Transaction) -> Result<Commit, CommitError> {
        let until = Instant::now() + WRITE_MAX;
        let repeatable = is_repeatable(transaction);
        let mut tried = Vec::new();
        // Whether a copy was sent whose fate is not known.
        let mut unclear = false;
        let (mut renewed, mut leased_again) = (false, false);
        loop {
            let era = self.lineage.now();
            let leases = match self.lease(transaction).await {
                Ok(leases) => leases,
                Err(failure) => return Err(self.given_up(&failure, unclear)),
            };
            let Some(request) = self.request(transaction, &leases, era.offset) else {
                return Err(CommitError::Invalid("a key is outside of the store's root"));
            };
            let Some(member) = self.members.pick(&tried) else {
                tried.clear();
                tokio::time::sleep(ROUND_PAUSE).await;
                continue;
            };
            let before = self.lineage.highest();
            let limit = ATTEMPT_MAX.min(until.saturating_duration_since(Instant::now()));
            let answer = self.members.attempt(&member, limit, |channel| {
                let request = self.members.request(request);
                async move { kv(channel).txn(request).await }
            });
            let failure = match self.outcome(transaction, era, before, answer.await).await {
                Sent::Answered(Err(CommitError::GuardFailed { .. })) if unclear => {
                    return self.resolve(transaction, era).await;
                }
                Sent::Answered(outcome) => return outcome,
                Sent::NotDone(failure) => failure,
                Sent::Unclear(failure) if repeatable => {
                    unclear = true;
                    failure
                }
                Sent::Unclear(failure) => {
                    tracing::debug!(%failure, "a write's outcome is unclear");
                    return self.resolve(transaction, era).await;
                }
            };
            match failure.cause {
                Cause::TokenExpired if !renewed => {
                    renewed = true;
                    match self.members.renew_token(&member).await {
                        Ok(true) => continue,
                        Ok(false) => {}
                        Err(failure) => return Err(self.given_up(&failure, unclear)),
                    }
                }
                Cause::LeaseNotFound if !leased_again => {
                    leased_again = true;
                    self.leases.forget(&leases);
                    continue;
                }
                _ => {}
            }
            if !failure.elsewhere() || Instant::now() >= until {
                return Err(self.given_up(&failure, unclear));
            }
            tried.push(member);
        }
    }

    /// Etcd's request for a transaction; none when a key is outside of the root.
    pub(super) fn request(&self, transaction: &Transaction, leases: &[i64], offset: u64) -> Option<TxnRequest> {
        let mut request = TxnRequest::default();
        for guard in &transaction.guards {
            let key = self.keys.outward(guard.key())?;
            request.compare.push(match guard {
                Guard::Absent(_) => mod_revision_is(key.clone(), 0),
                Guard::Exists(_) => Compare {
                    result: CompareResult::Greater.into(),
                    ..mod_revision_is(key.clone(), 0)
                },
                // A revision of before the offset was raised is nobody's: no key has a negative one.
                Guard::ModRevision(_, revision) => mod_revision_is(
                    key.clone(),
                    revision.checked_sub(offset).filter(|raw| *raw > 0).map_or(-1, signed),
                ),
            });
            request.failure.push(operation(Change::RequestRange(RangeRequest {
                key,
                ..RangeRequest::default()
            })));
        }
        let mut leases = leases.iter();
        for change in &transaction.operations {
            let key = self.keys.outward(change.key())?;
            request.success.push(operation(match change {
                Operation::Put(put) => Change::RequestPut(PutRequest {
                    key,
                    value: encode(put),
                    lease: put.expires_at_ms.and_then(|_| leases.next()).copied().unwrap_or(0),
                    ..PutRequest::default()
                }),
                Operation::Delete(_) => Change::RequestDeleteRange(DeleteRangeRequest {
                    key,
                    ..DeleteRangeRequest::default()
                }),
            }));
        }
        if transaction.operations.is_empty() {
            // Only a transaction with a range in it is answered by quorum.
            request.success.push(operation(Change::RequestRange(RangeRequest {
                key: self.keys.nothing(),
                ..RangeRequest::default()
            })));
        }
        Some(request)
    }

    /// Leases for the puts that expire, in order.
    pub(super) async fn lease(&self, transaction: &Transaction) -> Result<Vec<i64>, Failure> {
        let mut leases = Vec::new();
        for change in &transaction.operations {
            let Operation::Put(Put {
                expires_at_ms: Some(expires_at_ms),
                ..
            }) = change
            else {
                continue;
            };
            let now_ms = self.clock.now_ms();
            let end_ms = end_of(*expires_at_ms, now_ms);
            if let Some(lease) = self.leases.take(end_ms, now_ms) {
                leases.push(lease);
                continue;
            }
            let granted = self.members.ask(|channel| {
                let request = self.members.request(LeaseGrantRequest {
                    ttl: seconds_until(end_ms, now_ms),
                    id: 0,
                });
                async move { LeaseClient::new(channel).lease_grant(request).await }
            });
            let granted = granted.await?;
            self.leases.add(end_ms, granted.id);
            leases.push(granted.id);
        }
        Ok(leases)
    }

    async fn outcome(
        &self,
        transaction: &Transaction,
        era: Era,
        before: Revision,
        answer: Result<TxnResponse, Failure>,
    ) -> Sent {
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) if failure.cause == Cause::Unclear => return Sent::Unclear(failure),
            Err(failure) => return Sent::NotDone(failure),
        };
        let Ok(revision) = self.lineage.judge(era, before, answer.header.as_ref()) else {
            // Nothing that is waiting for the old history's revisions must go on.
            let replaced = self.replaced(era).await;
            let why = match replaced {
                Ok(()) => "etcd's history was replaced meanwhile".to_owned(),
                Err(failure) => failure.to_string(),
            };
            return Sent::Answered(Err(CommitError::UnknownOutcome(why.into())));
        };
        if !answer.succeeded {
            self.demand(revision);
            return Sent::Answered(Err(self.refused(transaction, era.offset, revision, answer)));
        }
        let changed = answer.responses.iter().any(|answer| match &answer.response {
            Some(Answer::ResponsePut(_)) => true,
            Some(Answer::ResponseDeleteRange(deleted)) => deleted.deleted > 0,
            _ => false,
        });
        match changed {
            true => self.expect(revision),
            false => self.demand(revision),
        }
        Sent::Answered(Ok(Commit {
            revision: revision + era.offset,
            changed,
        }))
    }

    /// The first guard that does not hold.
    fn refused(&self, transaction: &Transaction, offset: u64, revision: Revision, answer: TxnResponse) -> CommitError {
        for (guard, answer) in transaction.guards.iter().zip(answer.responses) {
            let found = match answer.response {
                Some(Answer::ResponseRange(range)) => range.kvs.into_iter().next(),
                _ => None,
            };
            let current: Option<Arc<Record>> = found.and_then(|found| record(&self.keys, offset, found));
            if !guard.holds(current.as_deref()) {
                return CommitError::GuardFailed {
                    key: guard.key().clone(),
                    current,
                    revision: revision + offset,
                };
            }
        }
        CommitError::Unavailable("etcd refused a transaction whose guards hold".into())
    }

    /// Finds out by reading whether a write happened. That a copy was refused tells nothing: the first may have happened
    /// and been written over since.
    async fn resolve(&self, transaction: &Transaction, era: Era) -> Result<Commit, CommitError> {
        let unknown = |why: &str| Err(CommitError::UnknownOutcome(format!("etcd: {why}").into()));
        // A put tells by its value; a delete leaves nothing that would.
        let put = transaction.operations.iter().find_map(|change| match change {
            Operation::Put(put) => Some(put),
            Operation::Delete(_) => None,
        });
        let Some((put, key)) = put.and_then(|put| Some((put, self.keys.outward(&put.key)?))) else {
            return unknown("no answer came, and what was asked leaves no trace");
        };
        match self.read(key, era.offset).await {
            Ok(Some(found)) if is_written(transaction, put, &found) => {
                if self.lineage.now().number == era.number {
                    self.expect(found.mod_revision - era.offset);
                }
                Ok(Commit {
                    revision: found.mod_revision,
                    changed: true,
                })
            }
            Ok(_) => unknown("no answer came, and the key does not tell"),
            Err(failure) => unknown(&failure.to_string()),
        }
    }

    /// What the caller is told of a write that is not tried again.
    fn given_up(&self, failure: &Failure, unclear: bool) -> CommitError {
        let text = format!("etcd: {failure}").into();
        match failure.cause {
            _ if unclear => CommitError::UnknownOutcome(text),
            Cause::NoSpace => {
                tracing::error!(%failure, "etcd's quota is used up: compact, defragment and disarm its alarm");
                CommitError::Full
            }
            Cause::TooManyRequests => CommitError::Overloaded,
            Cause::TooLarge => CommitError::TooLarge {
                size: REQUEST_BYTES_DEFAULT,
                limit: REQUEST_BYTES_DEFAULT,
            },
            Cause::DuplicateKey => CommitError::Invalid("a transaction changes a key twice"),
            _ => CommitError::Unavailable(text),
        }
    }

    /// Writes the fence, once for all who want it at the same time: the watch reaches its revision.
    pub(super) async fn fence(&self) -> Result<(), Failure> {
        let Ok(_one) = self.fencing.try_lock() else {
            return Ok(());
        };
        let request = PutRequest {
            key: self.keys.fence(),
            ..PutRequest::default()
        };
        // Happening twice does no harm.
        let written = self.members.ask(|channel| {
            let request = self.members.request(request.clone());
            async move { kv(channel).put(request).await }
        });
        written.await.map(drop)
    }
}

/// Whether of several copies at most one can succeed: a key that it changes is pinned to a revision, or nothing changes.
fn is_repeatable(transaction: &Transaction) -> bool {
    let changes = |key: &bytes::Bytes| transaction.operations.iter().any(|change| change.key() == key);
    let pins = |guard: &Guard| match guard {
        Guard::ModRevision(key, _) => changes(key),
        Guard::Exists(_) | Guard::Absent(_) => false,
    };
    transaction.operations.is_empty() || transaction.guards.iter().any(pins)
}

/// Whether a record is what the put wrote: its value, and not the one that the transaction was to replace.
fn is_written(transaction: &Transaction, put: &Put, found: &Record) -> bool {
    let replaced = transaction.guards.iter().any(|guard| match guard {
        Guard::ModRevision(key, revision) => *key == put.key && *revision == found.mod_revision,
        Guard::Absent(key) => *key == put.key && found.version > 1,
        Guard::Exists(_) => false,
    });
    found.value == put.value && found.stamp == put.stamp && !replaced
}

pub(super) fn mod_revision_is(key: bytes::Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Compare::default()
    }
}

pub(super) fn operation(change: Change) -> RequestOp {
    RequestOp { request: Some(change) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pinned_writes_are_sent_again() {
        for (transaction, repeatable) in [
            (Transaction::create("/a", "1"), false),
            (Transaction::new().put("/a", "1"), false),
            (Transaction::update("/a", 7, "1"), true),
            (Transaction::delete("/a", 7), true),
            (Transaction::new(), true),
            // The pinned key is not changed: a second copy could undo what came after the first.
            (
                Transaction::new()
                    .guard(Guard::ModRevision("/b".into(), 7))
                    .put("/a", "1"),
                false,
            ),
        ] {
            assert_eq!(is_repeatable(&transaction), repeatable, "{transaction:?}");
        }
    }
}
