//! The committed stream: one watch of everything under the prefix, resumed at another member when its own fails.
//!
//! A task holds the watch and hands batches through a short queue. Invariants:
//! - what was delivered is never delivered again, whatever a member sends after a resumption;
//! - a revision is delivered whole: parts (fragments) are put together first;
//! - an answer to a progress request counts only from a member whose version makes it true.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use futures::FutureExt;
use futures::future::BoxFuture;
use rpc::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use rpc::etcd::etcdserverpb::watch_client::WatchClient;
use rpc::etcd::etcdserverpb::watch_request::RequestUnion;
use rpc::etcd::etcdserverpb::{StatusRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use rpc::etcd::mvccpb::{Event, event::EventType};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::Streaming;

use super::Shared;
use super::errors::{Cause, Failure};
use super::keys::successor;
use super::lineage::Era;
use super::members::{ANSWER_BYTES_MAX, Member};
use super::question::parse_offset;
use super::value::{record, signed, unsigned};
use super::version::progress_is_safe;
use crate::engine::{Change, Committed, CommittedStream, EngineError, Revision, StreamBatch};

/// Batches that wait for a reader who is slow; etcd keeps what comes after them.
const BATCHES_MAX: usize = 16;
/// Requests on a watch that wait to be sent: its creation and progress requests.
const REQUESTS_MAX: usize = 4;
/// How long a member may take to begin a watch.
const BEGIN_MAX: Duration = Duration::from_secs(3);
/// A wanted revision that was ours comes by itself within moments; one that does not come for so long was somebody else's.
const FENCE_AFTER: Duration = Duration::from_millis(25);
/// A watch that begins in the past is behind for longer: members send it on each 100 ms only (`syncWatchersLoop`).
const FENCE_AFTER_BEGIN: Duration = Duration::from_millis(300);
/// Where progress requests are true, a fence is only for a member that does not answer them.
const FENCE_AFTER_REQUESTS: Duration = Duration::from_secs(1);
/// Between progress requests while they answer too little (upstream's `progressRequestPeriod`).
const REQUEST_EVERY: Duration = Duration::from_millis(100);
/// A wanted revision that does not come for so long, fence or not: the member is cut off.
const STALLED_AFTER: Duration = Duration::from_secs(2);
/// Waits between attempts to begin a watch.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Begins to follow after a revision.
pub(super) async fn open(shared: Arc<Shared>, after: Revision) -> Result<Box<dyn CommittedStream>, EngineError> {
    shared.open()?;
    let eras = shared.lineage.follow();
    let era = *eras.borrow();
    let oldest = shared.oldest();
    // A watch may begin with the revision of a compaction, but not before it.
    let delivered = match after.checked_sub(era.offset) {
        Some(delivered) if after >= era.floor && after + 1 >= oldest => delivered,
        _ => return Err(EngineError::Compacted { oldest }),
    };
    let (batches, receiver) = mpsc::channel(BATCHES_MAX);
    let (begun, beginning) = tokio::sync::oneshot::channel();
    let follower = Follower {
        eras,
        demand: shared.demand.subscribe(),
        written: shared.written.subscribe(),
        closed: shared.closed.subscribe(),
        shared,
        era,
        delivered,
        batches,
        begun: Some(begun),
    };
    tokio::spawn(follower.run());
    // A watch of what is gone says so at once; one of what is there says nothing until something happens.
    match beginning.await {
        Ok(Ok(())) => Ok(Box::new(Stream { receiver })),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(EngineError::Closed),
    }
}

/// At what revision etcd was compacted, from what a watch of too old a revision is told.
pub(super) async fn compacted_revision(shared: &Arc<Shared>) -> Result<Revision, Failure> {
    let mut tried = Vec::new();
    loop {
        let Some(member) = shared.members.pick(&tried) else {
            return Err(Failure::not_sent("any member", "no watch could be begun"));
        };
        let key = shared.keys.nothing();
        if let Ok(mut watch) = Watch::begin(shared, &member, key.clone(), successor(&key), 1).await {
            while let Ok(Some(answer)) = watch.answers.message().await {
                if answer.compact_revision > 0 {
                    return Ok(unsigned(answer.compact_revision));
                }
            }
        }
        tried.push(member);
    }
}

/// The reader's half.
struct Stream {
    receiver: mpsc::Receiver<Result<StreamBatch, EngineError>>,
}

impl CommittedStream for Stream {
    fn next(&mut self) -> BoxFuture<'_, Result<StreamBatch, EngineError>> {
        async move { self.receiver.recv().await.unwrap_or(Err(EngineError::Closed)) }.boxed()
    }
}

/// A watch of one member.
struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    id: i64,
    /// Whether this member's progress answers are true.
    safe: bool,
    /// An answer that came with the beginning.
    first: Option<WatchResponse>,
}

impl Watch {
    /// Begins a watch at `start` on a connection of its own.
    async fn begin(
        shared: &Arc<Shared>,
        member: &Arc<Member>,
        key: bytes::Bytes,
        range_end: bytes::Bytes,
        start: Revision,
    ) -> Result<Self, Failure> {
        let begin = Self::begin_unlimited(shared, member, key, range_end, start);
        let outcome = tokio::time::timeout(BEGIN_MAX, begin).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Failure::timed_out(member.name())));
        if let Err(failure) = &outcome
            && failure.blames_member()
        {
            shared.members.suspect(member);
        }
        outcome
    }

    async fn begin_unlimited(
        shared: &Arc<Shared>,
        member: &Arc<Member>,
        key: bytes::Bytes,
        range_end: bytes::Bytes,
        start: Revision,
    ) -> Result<Self, Failure> {
        let failed = |status: tonic::Status| Failure::of(member.name(), &status);
        let channel = member.connect().await?;
        let status = MaintenanceClient::new(channel.clone())
            .status(shared.members.request(StatusRequest {}))
            .await;
        // A user may be kept from asking: then nothing is known of the version.
        let version = status.map(|status| status.into_inner().version).unwrap_or_default();
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: signed(start),
            fragment: true,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let gone = |_| Failure::not_sent(member.name(), "the watch ended before it began");
        requests.send(create).await.map_err(gone)?;
        let outbound = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut answers = client
            .watch(shared.members.request(outbound))
            .await
            .map_err(failed)?
            .into_inner();
        let first = answers.message().await.map_err(failed)?;
        let Some(first) = first.filter(|first| first.created) else {
            return Err(Failure::not_sent(member.name(), "the watch was not begun"));
        };
        Ok(Self {
            requests,
            answers,
            id: first.watch_id,
            safe: progress_is_safe(&version),
            first: Some(first),
        })
    }

    /// Asks how far the member is. A queue that is full has such a request in it.
    fn request_progress(&self) {
        let request = WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
        };
        let _ = self.requests.try_send(request);
    }
}

/// Why a watch is over.
enum End {
    /// Nobody reads any more, or the reader was told why not.
    Finished,
    /// Another member may go on.
    Failed(Failure),
}

/// The task's state.
struct Follower {
    shared: Arc<Shared>,
    era: Era,
    eras: watch::Receiver<Era>,
    demand: watch::Receiver<Revision>,
    written: watch::Receiver<Revision>,
    closed: watch::Receiver<bool>,
    /// etcd's revision up to which everything was handed on.
    delivered: Revision,
    batches: mpsc::Sender<Result<StreamBatch, EngineError>>,
    /// Whoever opened the stream waits for its first beginning.
    begun: Option<tokio::sync::oneshot::Sender<Result<(), EngineError>>>,
}

impl Follower {
    async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut tried: VecDeque<Arc<Member>> = VecDeque::new();
        loop {
            // The member that failed last is the last to be asked again.
            let member = self.shared.members.pick(tried.make_contiguous());
            let Some(member) = member else {
                tried.clear();
                continue;
            };
            let before = self.delivered;
            let failure = match self.follow(&member).await {
                End::Finished => return,
                End::Failed(failure) => failure,
            };
            tracing::debug!(%failure, delivered = self.delivered, "the watch of etcd goes on elsewhere");
            if self.delivered > before {
                backoff.reset();
                tried.clear();
            }
            if failure.cause == Cause::TokenExpired {
                // When this fails, too, the next attempt says so.
                let _ = self.shared.members.renew_token(&member).await;
            }
            tried.push_back(member);
            if tried.len() >= self.shared.members.count() {
                if self.refuse_opening(&failure) {
                    return;
                }
                tracing::warn!(%failure, "no etcd member takes the watch");
                tokio::select! {
                    () = tokio::time::sleep(backoff.next_delay()) => {}
                    () = self.batches.closed() => return,
                }
            }
        }
    }

    /// Follows one member's watch until it ends.
    async fn follow(&mut self, member: &Arc<Member>) -> End {
        let (key, end) = self.shared.keys.all();
        let begun = tokio::select! {
            begun = Watch::begin(&self.shared, member, key, end, self.delivered + 1) => begun,
            () = self.batches.closed(), if self.begun.is_none() => return End::Finished,
        };
        let mut watch = match begun {
            Ok(watch) => watch,
            Err(failure) => return End::Failed(failure),
        };
        if let Some(first) = watch.first.take() {
            let cluster = first.header.as_ref().map_or(0, |header| header.cluster_id);
            if cluster != self.era.cluster {
                return match self.shared.replaced(self.era).await {
                    Ok(()) if self.shared.lineage.now().number != self.era.number => self.era_over().await,
                    Ok(()) => End::Failed(Failure::not_sent(member.name(), "it belongs to another cluster")),
                    Err(failure) => End::Failed(failure),
                };
            }
            if first.canceled {
                return self.canceled(member, &first).await;
            }
        }
        self.answer_opening(Ok(()));
        self.pump(member, watch).await
    }

    async fn pump(&mut self, member: &Arc<Member>, mut watch: Watch) -> End {
        let mut parts: Vec<Event> = Vec::new();
        let (mut eras, mut closed) = (self.eras.clone(), self.closed.clone());
        let (mut demand, mut written) = (self.demand.clone(), self.written.clone());
        // Since when something is wanted and nothing new came.
        let mut since: Option<Instant> = None;
        let mut requested: Option<Instant> = None;
        let (mut fenced, mut begun) = (false, false);
        loop {
            let wanted = *demand.borrow_and_update();
            // What is ours alone needs no request and no fence: it is there, and only a silent member does not tell.
            let ours = *written.borrow_and_update();
            let (asked, behind) = (wanted > self.delivered, wanted.max(ours) > self.delivered);
            if !behind {
                begun = true;
                (since, requested, fenced) = (None, None, false);
            } else if asked && watch.safe && requested.is_none_or(|at| at.elapsed() >= REQUEST_EVERY) {
                watch.request_progress();
                requested = Some(Instant::now());
            }
            let patience = match (watch.safe, begun) {
                (true, _) => FENCE_AFTER_REQUESTS,
                (false, true) => FENCE_AFTER,
                (false, false) => FENCE_AFTER_BEGIN,
            };
            let waiting = match behind {
                true => *since.get_or_insert_with(Instant::now),
                false => Instant::now(),
            };
            let (fence_at, stalled_at) = (waiting + patience, waiting + STALLED_AFTER);
            let to_fence = asked && !fenced;
            let next = if to_fence { fence_at } else { stalled_at };
            let request_at = requested.filter(|_| asked).map(|at| at + REQUEST_EVERY);
            let next = request_at.map_or(next, |at| next.min(at));
            tokio::select! {
                biased;
                answer = watch.answers.message() => {
                    let answer = match answer {
                        Ok(Some(answer)) => answer,
                        Ok(None) => return End::Failed(Failure::not_sent(member.name(), "it ended the watch")),
                        Err(status) => return End::Failed(Failure::of(member.name(), &status)),
                    };
                    let before = self.delivered;
                    if let Err(end) = self.take(member, &watch, answer, &mut parts).await {
                        return end;
                    }
                    if self.delivered > before {
                        // It moves: what is missing may come by itself.
                        (since, fenced) = (None, false);
                    }
                }
                changed = eras.changed() => {
                    if changed.is_err() || self.shared.lineage.now().number != self.era.number {
                        return self.era_over().await;
                    }
                }
                _ = closed.changed() => {
                    return self.finish(EngineError::Closed).await;
                }
                _ = demand.changed() => {}
                _ = written.changed() => {}
                () = self.batches.closed() => return End::Finished,
                () = tokio::time::sleep_until(next), if behind => {
                    let now = Instant::now();
                    if now >= stalled_at {
                        self.shared.members.suspect(member);
                        return End::Failed(Failure::timed_out(member.name()));
                    }
                    if now >= fence_at && to_fence {
                        fenced = true;
                        let shared = self.shared.clone();
                        tokio::spawn(async move {
                            if let Err(failure) = shared.fence().await {
                                tracing::debug!(%failure, "a fence could not be written");
                            }
                        });
                    }
                }
            }
        }
    }

    /// Takes one answer of the watch.
    async fn take(
        &mut self,
        member: &Arc<Member>,
        watch: &Watch,
        mut answer: WatchResponse,
        parts: &mut Vec<Event>,
    ) -> Result<(), End> {
        let of_all = answer.watch_id == -1;
        if answer.watch_id != watch.id && !of_all {
            return Ok(());
        }
        if answer.canceled {
            return Err(self.canceled(member, &answer).await);
        }
        let header = answer.header.take().unwrap_or_default();
        if header.cluster_id != self.era.cluster {
            return Err(End::Failed(Failure::not_sent(
                member.name(),
                "it belongs to another cluster",
            )));
        }
        if !answer.events.is_empty() {
            parts.append(&mut answer.events);
            if answer.fragment {
                return Ok(());
            }
            return self.deliver(std::mem::take(parts)).await;
        }
        let revision = unsigned(header.revision);
        // Parts that wait say that the member is in the middle of something.
        if watch.safe && !answer.created && parts.is_empty() && revision > self.delivered {
            self.delivered = revision;
            return self.send(Vec::new()).await;
        }
        Ok(())
    }

    /// Hands on whole revisions.
    async fn deliver(&mut self, events: Vec<Event>) -> Result<(), End> {
        let (shared, offset, delivered) = (self.shared.clone(), self.era.offset, self.delivered);
        let mut commits: Vec<Committed> = Vec::new();
        let mut newest = delivered;
        for event in events {
            let deleted = event.r#type() == EventType::Delete;
            let Some(found) = event.kv else { continue };
            let revision = unsigned(found.mod_revision);
            // A member that resumed from a snapshot may begin before the start (etcd's issue 15271).
            if revision <= delivered {
                continue;
            }
            newest = revision.max(newest);
            if shared.keys.is_own(&found.key) {
                let offset = parse_offset(&found.value).filter(|_| found.key == shared.keys.offset());
                if let Some(offset) = offset.filter(|offset| *offset > self.era.offset) {
                    shared.adopt(self.era, offset, revision);
                    return Err(self.era_over().await);
                }
                continue;
            }
            let change = match deleted {
                true => shared.keys.inward(&found.key).map(|key| Change {
                    key,
                    before: None,
                    after: None,
                }),
                false => record(&shared.keys, offset, found).map(|record| Change {
                    key: record.key.clone(),
                    before: None,
                    after: Some(record),
                }),
            };
            let Some(change) = change else { continue };
            match commits.last_mut() {
                Some(last) if last.revision == revision + offset => last.changes.push(change),
                _ => commits.push(Committed {
                    revision: revision + offset,
                    time_ms: shared.clock.now_ms(),
                    changes: vec![change],
                }),
            }
        }
        if newest == delivered {
            return Ok(());
        }
        self.delivered = newest;
        self.send(commits.into_iter().map(Arc::new).collect()).await
    }

    async fn send(&mut self, commits: Vec<Arc<Committed>>) -> Result<(), End> {
        let batch = StreamBatch {
            commits,
            progress: self.delivered + self.era.offset,
        };
        self.batches.send(Ok(batch)).await.map_err(|_| End::Finished)
    }

    /// A watch that the member ended by an answer.
    async fn canceled(&mut self, member: &Arc<Member>, answer: &WatchResponse) -> End {
        if answer.compact_revision > 0 {
            let compacted = unsigned(answer.compact_revision);
            self.shared.note_compacted(compacted);
            let oldest = compacted + self.era.offset;
            return self.finish(EngineError::Compacted { oldest }).await;
        }
        let status = tonic::Status::unknown(match answer.cancel_reason.is_empty() {
            true => "it canceled the watch",
            // Members give the text of a whole gRPC error.
            false => answer.cancel_reason.rsplit("desc = ").next().unwrap_or_default(),
        });
        End::Failed(Failure::of(member.name(), &status))
    }

    /// The history is another one now: what was followed cannot go on.
    async fn era_over(&mut self) -> End {
        let oldest = self.shared.lineage.now().floor;
        self.finish(EngineError::Compacted { oldest }).await
    }

    async fn finish(&mut self, error: EngineError) -> End {
        if !self.answer_opening(Err(error.clone())) {
            // When nobody reads any more, nobody has to know.
            let _ = self.batches.send(Err(error)).await;
        }
        End::Finished
    }

    /// Tells whoever opens the stream how it went; false when that was told before.
    fn answer_opening(&mut self, outcome: Result<(), EngineError>) -> bool {
        match self.begun.take() {
            Some(begun) => begun.send(outcome).is_ok(),
            None => false,
        }
    }

    /// Gives up when the stream was never open and no member takes it.
    fn refuse_opening(&mut self, failure: &Failure) -> bool {
        self.answer_opening(Err(failure.to_engine()))
    }
}
