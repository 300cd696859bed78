//! The services `Maintenance` and `Cluster`: one member that needs no care.

use std::pin::Pin;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::Stream;
use rpc::etcd::etcdserverpb::cluster_server::Cluster;
use rpc::etcd::etcdserverpb::maintenance_server::Maintenance;
use rpc::etcd::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest, DowngradeResponse,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, Member, MemberListRequest, MemberListResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use super::convert::{HIDDEN, signed};
use super::{Front, Root, Shared, errors, snapshot};
use crate::engine::{Engine as _, Revision};

/// The version of etcd whose API this is: clients ask before they use what older ones lack (progress requests).
const API_VERSION: &str = "3.5.21";
/// The revision of an empty etcd, and what it says of compactions before the first one.
const EMPTY: Revision = 1;
const NEVER_COMPACTED: i64 = -1;
/// The hash of no keys.
const EMPTY_HASH: u32 = 1;
/// The name of the one member.
const MEMBER: &str = "trireme";

/// A sum over everything that people see of a state. It has no meaning outside of this program.
fn hash(root: &Root) -> u32 {
    // Not 0, which a protobuf message leaves out: the sum of an etcd that is empty is not 0 either.
    let mut sum = EMPTY_HASH;
    for record in root.iter().filter(|record| !record.key.starts_with(HIDDEN)) {
        let numbers = [record.create_revision, record.mod_revision, record.version];
        for number in [record.key.len() as u64, record.value.len() as u64]
            .into_iter()
            .chain(numbers)
        {
            sum = crc32c::crc32c_append(sum, &number.to_le_bytes());
        }
        sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, &record.key), &record.value);
    }
    sum
}

impl Shared {
    async fn oldest(&self) -> Result<Revision, Status> {
        let progress = self.engine.progress().await;
        progress
            .map(|progress| progress.oldest)
            .map_err(|error| errors::engine(&error))
    }
}

#[tonic::async_trait]
impl Maintenance for Front {
    async fn alarm(&self, _: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        // A full disk refuses writes by itself and takes them again by itself: there is no alarm to disarm.
        let (revision, _) = self.shared.newest()?;
        Ok(Response::new(AlarmResponse {
            header: self.shared.header(revision),
            alarms: Vec::new(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (revision, _) = self.shared.newest()?;
        let live_bytes = signed(self.shared.engine.live_bytes());
        Ok(Response::new(StatusResponse {
            header: self.shared.header(revision),
            version: API_VERSION.to_owned(),
            db_size: live_bytes,
            db_size_in_use: live_bytes,
            leader: self.shared.member_id,
            raft_index: revision,
            raft_applied_index: revision,
            raft_term: 1,
            ..StatusResponse::default()
        }))
    }

    async fn defragment(&self, _: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        // Space is reused all the time.
        let (revision, _) = self.shared.newest()?;
        Ok(Response::new(DefragmentResponse {
            header: self.shared.header(revision),
        }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let (revision, root) = self.shared.newest()?;
        Ok(Response::new(HashResponse {
            header: self.shared.header(revision),
            hash: hash(&root),
        }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let wanted = u64::try_from(request.get_ref().revision)
            .ok()
            .filter(|wanted| *wanted > 0);
        if wanted.is_some_and(|wanted| wanted < self.shared.compacted.load(Ordering::Acquire)) {
            return Err(errors::compacted());
        }
        let viewed = self.shared.engine.view(wanted);
        let (at, root) = viewed.map_err(|error| errors::engine(&error))?;
        let (revision, _) = self.shared.newest()?;
        let oldest = self.shared.oldest().await?;
        Ok(Response::new(HashKvResponse {
            header: self.shared.header(revision),
            hash: hash(&root),
            compact_revision: if oldest > EMPTY {
                signed(oldest + 1)
            } else {
                NEVER_COMPACTED
            },
            hash_revision: signed(at),
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let (revision, root) = self.shared.newest()?;
        let file = snapshot::file(&self.shared, revision, &root);
        let (header, total) = (self.shared.header(revision), file.length());
        let state = (Some(file), 0, Sha256::new());
        let pieces = futures::stream::unfold(state, move |(file, sent, mut sum)| async move {
            let mut file = file?;
            // Making pages is work: others get their turn between them.
            tokio::task::yield_now().await;
            let response = |remaining_bytes, blob| {
                Ok(SnapshotResponse {
                    header,
                    remaining_bytes,
                    blob,
                    version: String::new(),
                })
            };
            match file.next() {
                Some(piece) => {
                    sum.update(&piece);
                    let sent = sent + piece.len() as u64;
                    Some((response(total - sent, Bytes::from(piece)), (Some(file), sent, sum)))
                }
                // The sum comes last; `etcdctl snapshot restore` checks it.
                None => {
                    let digest = Bytes::copy_from_slice(&sum.finalize());
                    Some((response(0, digest), (None, sent, Sha256::new())))
                }
            }
        });
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        // It is the leader, and there is nobody else to move that to.
        if request.get_ref().target_id != self.shared.member_id {
            return Err(errors::bad_leader_transferee());
        }
        let (revision, _) = self.shared.newest()?;
        Ok(Response::new(MoveLeaderResponse {
            header: self.shared.header(revision),
        }))
    }

    async fn downgrade(&self, _: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        Err(Status::unimplemented(
            "this is trireme's store, which has no version of etcd to go back to",
        ))
    }
}

#[tonic::async_trait]
impl Cluster for Front {
    async fn member_list(&self, _: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        let urls = &self.shared.options.advertised;
        Ok(Response::new(MemberListResponse {
            // Who the members are is of no revision.
            header: self.shared.header(0),
            members: vec![Member {
                id: self.shared.member_id,
                name: MEMBER.to_owned(),
                peer_urls: urls.clone(),
                client_urls: urls.clone(),
                is_learner: false,
            }],
        }))
    }
}
