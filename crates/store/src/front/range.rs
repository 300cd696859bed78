//! `Range`: limits, filters, sorting, counting, on a state.
//!
//! Source: `server/etcdserver/apply.go` (`applierV3backend.Range`) of etcd 3.5 for the order of the steps.

use std::sync::Arc;

use rpc::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use rpc::etcd::etcdserverpb::{RangeRequest, RangeResponse};
use tonic::Status;

use super::convert::{HIDDEN, is_empty, range_of, signed};
use super::{Root, Shared, errors};
use crate::engine::{KeyRange, Record, Revision};

/// What a request must be before anything is read.
pub(super) fn check(request: &RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(errors::empty_key());
    }
    let known = SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if known {
        Ok(())
    } else {
        Err(errors::invalid_sort_option())
    }
}

/// The records of a range that people see.
pub(super) fn visible<'a>(root: &'a Root, range: &'a KeyRange) -> impl Iterator<Item = &'a Arc<Record>> {
    let (lower, upper) = range.bounds();
    let records = (!is_empty(range)).then(|| root.range(lower, upper));
    records
        .into_iter()
        .flatten()
        .filter(|record| !record.key.starts_with(HIDDEN))
}

/// How many they are, without walking them.
fn count(root: &Root, range: &KeyRange) -> usize {
    if is_empty(range) {
        return 0;
    }
    let (lower, upper) = range.bounds();
    let hidden = KeyRange::prefix(HIDDEN);
    let (hidden_lower, hidden_upper) = hidden.bounds();
    let own = root
        .range(hidden_lower, hidden_upper)
        .filter(|record| range.contains(&record.key));
    root.count(lower, upper) - own.count()
}

impl Shared {
    /// Answers a request on the state of the newest revision, or of the one that it names.
    pub(super) fn range(
        &self,
        request: &RangeRequest,
        root: &Root,
        revision: Revision,
    ) -> Result<RangeResponse, Status> {
        let older;
        let root = match request.revision {
            wanted if wanted <= 0 => root,
            wanted if wanted > signed(revision) => return Err(errors::future_revision()),
            wanted => {
                let wanted = u64::try_from(wanted).unwrap_or(0);
                if wanted < self.compacted.load(std::sync::atomic::Ordering::Acquire) {
                    return Err(errors::compacted());
                }
                // Only the past is asked for: the newest state is what was handed in.
                if wanted == revision {
                    root
                } else {
                    older = self
                        .engine
                        .view(Some(wanted))
                        .map_err(|error| errors::engine(&error))?
                        .1;
                    &older
                }
            }
        };
        let range = range_of(&request.key, &request.range_end);
        let mut response = RangeResponse {
            header: self.header(revision),
            count: i64::try_from(count(root, &range)).unwrap_or(i64::MAX),
            ..RangeResponse::default()
        };
        if request.count_only {
            return Ok(response);
        }
        let between = |revision: u64, min: i64, max: i64| {
            let revision = signed(revision);
            (min == 0 || revision >= min) && (max == 0 || revision <= max)
        };
        let wanted = visible(root, &range).filter(|record| {
            between(record.mod_revision, request.min_mod_revision, request.max_mod_revision)
                && between(
                    record.create_revision,
                    request.min_create_revision,
                    request.max_create_revision,
                )
        });
        let limit = match request.limit {
            limit if limit > 0 => usize::try_from(limit).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let mut records: Vec<&Arc<Record>> = match order(request) {
            None => wanted.take(limit.saturating_add(1)).collect(),
            Some((target, descending)) => {
                let mut records: Vec<_> = wanted.collect();
                sort(&mut records, target, descending);
                records
            }
        };
        response.more = records.len() > limit;
        records.truncate(limit);
        let tell = |record: &&Arc<Record>| {
            let mut told = self.key_value(record);
            if request.keys_only {
                told.value.clear();
            }
            told
        };
        response.kvs = records.iter().map(tell).collect();
        Ok(response)
    }
}

/// What has to be sorted by; none: the order of keys, in which they are.
fn order(request: &RangeRequest) -> Option<(SortTarget, bool)> {
    match (request.sort_target(), request.sort_order()) {
        (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
        (target, order) => Some((target, order == SortOrder::Descend)),
    }
}

fn sort(records: &mut [&Arc<Record>], target: SortTarget, descending: bool) {
    records.sort_by(|one, two| {
        let (one, two) = if descending { (two, one) } else { (one, two) };
        match target {
            SortTarget::Key => one.key.cmp(&two.key),
            SortTarget::Version => one.version.cmp(&two.version),
            SortTarget::Create => one.create_revision.cmp(&two.create_revision),
            SortTarget::Mod => one.mod_revision.cmp(&two.mod_revision),
            SortTarget::Value => one.value.cmp(&two.value),
        }
    });
}
