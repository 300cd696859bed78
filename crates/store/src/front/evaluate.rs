//! `Txn` on a state: which branch, what it answers, what it changes, and what must still hold when that is committed.
//!
//! Every key that was read, to compare or to answer, becomes a guard; so the engine refuses what was decided on a state that
//! has passed. Ranges are not guarded (see the module's page).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rpc::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use rpc::etcd::etcdserverpb::request_op::Request;
use rpc::etcd::etcdserverpb::response_op::Response;
use rpc::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RequestOp, ResponseHeader, ResponseOp,
    TxnRequest, TxnResponse,
};
use tonic::Status;

use super::convert::{is_range, lease_in, range_of, stamp_of};
use super::{Root, Shared, errors, range};
use crate::engine::{KeyRange, Record, Revision};
use crate::transaction::{Guard, Operation, Put};

/// Operations, or comparisons, in one level of a transaction (etcd's `--max-txn-ops`).
const OPERATIONS_MAX: usize = 128;

/// A decided transaction.
pub(super) struct Evaluated {
    pub(super) response: TxnResponse,
    pub(super) guards: Vec<Guard>,
    pub(super) operations: Vec<Operation>,
}

/// Whether guards protect a transaction: it reads and deletes single keys only.
pub(super) fn is_guardable(request: &TxnRequest) -> bool {
    let operation = |operation: &RequestOp| match &operation.request {
        Some(Request::RequestRange(range)) => !is_range(&range.range_end),
        Some(Request::RequestDeleteRange(delete)) => !is_range(&delete.range_end),
        Some(Request::RequestTxn(nested)) => is_guardable(nested),
        Some(Request::RequestPut(_)) | None => true,
    };
    request.compare.iter().all(|compare| !is_range(&compare.range_end))
        && request.success.iter().all(operation)
        && request.failure.iter().all(operation)
}

/// Whether a put depends on what its key has.
pub(super) fn is_reading(put: &PutRequest) -> bool {
    put.prev_kv || put.ignore_value || put.ignore_lease
}

/// Whether a transaction can change anything.
pub(super) fn is_writing(request: &TxnRequest) -> bool {
    let operation = |operation: &RequestOp| match &operation.request {
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => true,
        Some(Request::RequestTxn(nested)) => is_writing(nested),
        _ => false,
    };
    request.success.iter().chain(&request.failure).any(operation)
}

/// What a transaction must be before anything is read.
pub(super) fn check(request: &TxnRequest, operations_left: usize) -> Result<(), Status> {
    let widest = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    if widest > operations_left {
        return Err(errors::too_many_ops());
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(errors::empty_key());
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(request)) => range::check(request)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) if delete.key.is_empty() => return Err(errors::empty_key()),
            Some(Request::RequestTxn(nested)) => check(nested, operations_left - widest)?,
            Some(Request::RequestDeleteRange(_)) => {}
            None => return Err(errors::key_not_found()),
        }
    }
    check_twice(&request.success)?;
    check_twice(&request.failure)
}

/// As [`check`], for the outermost transaction.
pub(super) fn check_outermost(request: &TxnRequest) -> Result<(), Status> {
    check(request, OPERATIONS_MAX)
}

pub(super) fn check_put(put: &PutRequest) -> Result<(), Status> {
    if put.key.is_empty() {
        return Err(errors::empty_key());
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(errors::value_provided());
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(errors::lease_provided());
    }
    Ok(())
}

/// No key is put twice in one branch, nor put and deleted. The two branches of a nested transaction exclude each other.
fn check_twice(operations: &[RequestOp]) -> Result<(), Status> {
    match operations {
        // Nothing in it can meet anything else.
        [] => Ok(()),
        [
            RequestOp {
                request: Some(Request::RequestPut(_) | Request::RequestRange(_)),
            },
        ] => Ok(()),
        _ => written(operations).map(drop),
    }
}

type Written = (Vec<Bytes>, Vec<KeyRange>);

fn written(operations: &[RequestOp]) -> Result<Written, Status> {
    let (mut puts, mut deletes): Written = Default::default();
    for operation in operations {
        let branches = match &operation.request {
            Some(Request::RequestPut(put)) => vec![(vec![put.key.clone()], Vec::new())],
            Some(Request::RequestDeleteRange(delete)) => {
                vec![(Vec::new(), vec![range_of(&delete.key, &delete.range_end)])]
            }
            Some(Request::RequestTxn(nested)) => vec![written(&nested.success)?, written(&nested.failure)?],
            _ => continue,
        };
        for (new_puts, new_deletes) in &branches {
            let twice = new_puts
                .iter()
                .any(|key| puts.contains(key) || deletes.iter().any(|range| range.contains(key)))
                || new_deletes
                    .iter()
                    .any(|range| puts.iter().any(|key| range.contains(key)));
            if twice {
                return Err(errors::duplicate_key());
            }
        }
        for (new_puts, new_deletes) in branches {
            puts.extend(new_puts);
            deletes.extend(new_deletes);
        }
    }
    Ok((puts, deletes))
}

impl Shared {
    /// What a put writes, if it may.
    pub(super) fn put_of(&self, request: &PutRequest, value: Bytes, lease: i64) -> Result<Put, Status> {
        let key = &request.key;
        if self.is_read_only(key) || key.starts_with(super::convert::HIDDEN) {
            return Err(errors::permission_denied());
        }
        if lease != 0 && !self.leases.exists(lease) {
            return Err(errors::lease_not_found());
        }
        Ok(Put {
            key: key.clone(),
            value,
            expires_at_ms: None,
            stamp: stamp_of(lease),
        })
    }

    /// Decides a transaction on a state; what it writes gets `next` as its revision in the answer.
    pub(super) fn evaluate(
        &self,
        request: &TxnRequest,
        root: &Root,
        revision: Revision,
        next: Revision,
    ) -> Result<Evaluated, Status> {
        let mut run = Run {
            shared: self,
            before: root,
            now: root.clone(),
            unread: Vec::new(),
            revision,
            next,
            guards: BTreeMap::new(),
            operations: BTreeMap::new(),
        };
        let mut response = run.transaction(request)?;
        response.header = self.header(run.shown());
        Ok(Evaluated {
            response,
            guards: run.guards.into_values().collect(),
            operations: run.operations.into_values().collect(),
        })
    }
}

struct Run<'a> {
    shared: &'a Shared,
    /// The state at the beginning, which guards are about.
    before: &'a Root,
    /// The state with what was written so far, but for `unread`.
    now: Root,
    /// Puts that nothing has read yet. Most transactions read before they write: a version of the state for what follows
    /// would be made for nobody.
    unread: Vec<Put>,
    revision: Revision,
    next: Revision,
    guards: BTreeMap<Bytes, Guard>,
    operations: BTreeMap<Bytes, Operation>,
}

/// Answers inside of a transaction say their revision and nothing else, as in etcd.
fn inner_header(revision: Revision) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision: super::convert::signed(revision),
        ..ResponseHeader::default()
    })
}

impl Run<'_> {
    /// The revision that an answer shows at this point.
    fn shown(&self) -> Revision {
        if self.operations.is_empty() {
            self.revision
        } else {
            self.next
        }
    }

    /// Makes `now` what is read next.
    fn catch_up(&mut self) {
        let next = self.next;
        for put in self.unread.drain(..) {
            self.now.upsert(&put.key, |previous| {
                Arc::new(Record {
                    key: put.key.clone(),
                    value: put.value.clone(),
                    create_revision: previous.map_or(next, |previous| previous.create_revision),
                    mod_revision: next,
                    version: previous.map_or(1, |previous| previous.version + 1),
                    stamp: put.stamp,
                    expires_at_ms: None,
                })
            });
        }
    }

    fn transaction(&mut self, request: &TxnRequest) -> Result<TxnResponse, Status> {
        self.catch_up();
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &request.success } else { &request.failure };
        let responses = branch
            .iter()
            .map(|operation| self.operation(operation))
            .collect::<Result<_, _>>()?;
        Ok(TxnResponse {
            header: inner_header(self.shown()),
            succeeded,
            responses,
        })
    }

    fn operation(&mut self, operation: &RequestOp) -> Result<ResponseOp, Status> {
        let response = match &operation.request {
            Some(Request::RequestRange(request)) => {
                if !is_range(&request.range_end) {
                    self.guard(&request.key);
                }
                self.catch_up();
                let mut answer = self.shared.range(request, &self.now, self.shown())?;
                answer.header = inner_header(self.shown());
                Response::ResponseRange(answer)
            }
            Some(Request::RequestPut(put)) => Response::ResponsePut(self.put(put)?),
            Some(Request::RequestDeleteRange(delete)) => Response::ResponseDeleteRange(self.delete(delete)?),
            Some(Request::RequestTxn(nested)) => Response::ResponseTxn(self.transaction(nested)?),
            None => return Err(errors::key_not_found()),
        };
        Ok(ResponseOp {
            response: Some(response),
        })
    }

    /// What was read has to be so when it is committed.
    fn guard(&mut self, key: &Bytes) {
        let guard = match self.before.get(key) {
            Some(record) => Guard::ModRevision(key.clone(), record.mod_revision),
            None => Guard::Absent(key.clone()),
        };
        self.guards.insert(key.clone(), guard);
    }

    fn holds(&mut self, compare: &Compare) -> bool {
        if is_range(&compare.range_end) {
            let range = range_of(&compare.key, &compare.range_end);
            let mut records = range::visible(&self.now, &range).peekable();
            return match records.peek() {
                None => self.matches(compare, None),
                Some(_) => records.all(|record| self.matches(compare, Some(record))),
            };
        }
        self.guard(&compare.key);
        self.matches(compare, self.now.get(&compare.key).map(Arc::as_ref))
    }

    /// A comparison with one key. One that is absent has zero in every number, and no value that anything is compared with.
    fn matches(&self, compare: &Compare, record: Option<&Record>) -> bool {
        let number = |read: fn(&Record) -> u64| record.map_or(0, |record| super::convert::signed(read(record)));
        let target = compare.target();
        let ordering = match (target, &compare.target_union) {
            (CompareTarget::Value, union) => {
                let Some(record) = record else { return false };
                let wanted: &[u8] = match union {
                    Some(TargetUnion::Value(value)) => value,
                    _ => b"",
                };
                record.value[..].cmp(wanted)
            }
            (CompareTarget::Version, union) => number(|record| record.version).cmp(&match union {
                Some(TargetUnion::Version(wanted)) => *wanted,
                _ => 0,
            }),
            (CompareTarget::Create, union) => number(|record| record.create_revision).cmp(&match union {
                Some(TargetUnion::CreateRevision(wanted)) => *wanted,
                _ => 0,
            }),
            (CompareTarget::Mod, union) => number(|record| record.mod_revision).cmp(&match union {
                Some(TargetUnion::ModRevision(wanted)) => *wanted,
                _ => 0,
            }),
            (CompareTarget::Lease, union) => {
                record
                    .map_or(0, |record| self.shared.key_value(record).lease)
                    .cmp(&match union {
                        Some(TargetUnion::Lease(wanted)) => *wanted,
                        _ => 0,
                    })
            }
        };
        match compare.result() {
            CompareResult::Equal => ordering.is_eq(),
            CompareResult::NotEqual => ordering.is_ne(),
            CompareResult::Greater => ordering.is_gt(),
            CompareResult::Less => ordering.is_lt(),
        }
    }

    fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Status> {
        let key = &request.key;
        let reads = is_reading(request);
        if reads {
            self.guard(key);
        }
        // A branch puts a key once (`check_twice`), so that what is unread has it not.
        let previous = reads.then(|| self.now.get(key).cloned()).flatten();
        if (request.ignore_value || request.ignore_lease) && previous.is_none() {
            return Err(errors::key_not_found());
        }
        let kept = |ignored: bool| previous.as_ref().filter(|_| ignored);
        let value = kept(request.ignore_value).map_or(&request.value, |previous| &previous.value);
        let lease = kept(request.ignore_lease).map_or(request.lease, |previous| lease_in(previous.stamp));
        let put = self.shared.put_of(request, value.clone(), lease)?;
        self.unread.push(put.clone());
        self.operations.insert(key.clone(), Operation::Put(put));
        Ok(PutResponse {
            header: inner_header(self.next),
            prev_kv: previous
                .filter(|_| request.prev_kv)
                .map(|record| self.shared.key_value(&record)),
        })
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        self.catch_up();
        let range = range_of(&request.key, &request.range_end);
        let found: Vec<Arc<Record>> = range::visible(&self.now, &range).cloned().collect();
        if !is_range(&request.range_end) {
            if self.shared.is_read_only(&request.key) {
                return Err(errors::permission_denied());
            }
            self.guard(&request.key);
        }
        if found.iter().any(|record| self.shared.is_read_only(&record.key)) {
            return Err(errors::permission_denied());
        }
        for record in &found {
            self.now.remove(&record.key);
            let delete = Operation::Delete(record.key.clone());
            self.operations.insert(record.key.clone(), delete);
        }
        let previous = found.iter().filter(|_| request.prev_kv);
        Ok(DeleteRangeResponse {
            header: inner_header(self.shown()),
            deleted: i64::try_from(found.len()).unwrap_or(i64::MAX),
            prev_kvs: previous.map(|record| self.shared.key_value(record)).collect(),
        })
    }
}
