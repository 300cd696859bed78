//! Forgetting old history: one of all API servers does it, as upstream's agree.
//!
//! Each server waits an interval and then writes the revision it saw one interval before to a key they share, on the
//! condition that the key was not written since it looked. Who succeeds compacts to that revision; the others learn from
//! the key's version that it was done (upstream's `storage/etcd3/compact.go`; its servers and ours may take turns).

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use rpc::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use rpc::etcd::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request as Operation,
    response_op::Response as Answer,
};

use super::Shared;
use super::keys::COMPACT_KEY;
use super::members::kv;
use super::value::{signed, unsigned};
use crate::engine::Revision;

/// What a server knows between two intervals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    /// The version of the shared key that it saw last.
    version: i64,
    /// etcd's revision at that time.
    revision: Revision,
}

/// Takes part until the engine is gone.
pub(super) async fn run(shared: Weak<Shared>, interval: Duration) {
    let mut turn = Turn::default();
    loop {
        tokio::time::sleep(interval).await;
        let Some(shared) = shared.upgrade() else { return };
        match shared.take_turn(turn).await {
            Ok(next) => turn = next,
            Err(why) => tracing::warn!(%why, "etcd's history could not be compacted"),
        }
    }
}

impl Shared {
    async fn take_turn(self: &Arc<Self>, turn: Turn) -> Result<Turn, String> {
        let key = Bytes::from_static(COMPACT_KEY.as_bytes());
        let put = PutRequest {
            key: key.clone(),
            value: turn.revision.to_string().into(),
            ..PutRequest::default()
        };
        let get = RangeRequest {
            key: key.clone(),
            ..RangeRequest::default()
        };
        let claim = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Version.into(),
                key,
                target_union: Some(TargetUnion::Version(turn.version)),
                ..Compare::default()
            }],
            success: vec![RequestOp {
                request: Some(Operation::RequestPut(put)),
            }],
            failure: vec![RequestOp {
                request: Some(Operation::RequestRange(get)),
            }],
        };
        // Twice is once: the second finds the version changed.
        let answer = self.members.ask(|channel| {
            let request = self.members.request(claim.clone());
            async move { kv(channel).txn(request).await }
        });
        let answer = answer.await.map_err(|failure| failure.to_string())?;
        let revision = unsigned(answer.header.unwrap_or_default().revision);
        if !answer.succeeded {
            let found = answer.responses.into_iter().find_map(|answer| match answer.response {
                Some(Answer::ResponseRange(range)) => range.kvs.into_iter().next(),
                _ => None,
            });
            let Some(found) = found else {
                return Err("the shared key is gone".to_owned());
            };
            // What that server wrote, it has compacted.
            if let Some(compacted) = std::str::from_utf8(&found.value)
                .ok()
                .and_then(|text| text.parse().ok())
            {
                self.note_compacted(compacted);
            }
            return Ok(Turn {
                version: found.version,
                revision,
            });
        }
        if turn.revision > 0 {
            let wanted = turn.revision + self.lineage.now().offset;
            self.compact(wanted).await.map_err(|error| error.to_string())?;
            tracing::debug!(revision = signed(turn.revision), "etcd's history was compacted");
        }
        Ok(Turn {
            version: turn.version + 1,
            revision,
        })
    }
}
