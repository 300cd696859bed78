//! The service `Watch`: one task a gRPC stream, which carries all watches of that stream.
//!
//! Invariants: every watch of a stream has been sent everything up to `position`, the revision that the task has read the
//! engine's stream to; a watch that begins earlier is brought there first. So events are ordered, none is missing or comes
//! twice, and a progress answer is true for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use rpc::etcd::etcdserverpb::watch_create_request::FilterType;
use rpc::etcd::etcdserverpb::watch_request::RequestUnion;
use rpc::etcd::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use rpc::etcd::mvccpb::Event;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Status, Streaming};

use super::convert::{HIDDEN, is_empty, range_of, signed};
use super::streams::Received;
use super::telling::{Answer, Answers, Interval, WatchDecoder, encoded};
use super::{Front, Shared, errors};
use crate::engine::{Change, Committed, CommittedStream, Engine as _, EngineError, KeyRange, Revision};

/// Answers that wait for a slow client; the engine's stream waits with it, and at last ends it.
const WAITING_MAX: usize = 16;
/// Watches of one stream. A kube-apiserver has one a resource on it.
const WATCHES_MAX: usize = 10_000;
/// A watch that asked for it is told how far it is at this pace. etcd's own default, ten minutes, is longer than a
/// kube-apiserver keeps history: this is what kubeadm sets, so that bookmarks of quiet kinds are good for a watch that goes
/// on at a server that was started since.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// A client that takes fragments gets no larger answers (etcd: its largest request and half a megabyte).
const FRAGMENT_BYTES: usize = 2 * 1024 * 1024;
/// What etcd calls a watch that never came to be.
const NO_WATCH: i64 = -1;

impl Front {
    /// The method `Watch`.
    pub(super) async fn watch(self, request: http::Request<Received>) -> http::Response<Body> {
        let requests = Streaming::new_request(WatchDecoder, request.into_body(), None, Some(super::REQUEST_BYTES_MAX));
        match self.begin_watching(requests).await {
            Ok(answers) => {
                let mut response = http::Response::new(Body::new(answers));
                let kind = http::HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                response
            }
            Err(status) => status.into_http(),
        }
    }

    async fn begin_watching(self, requests: Streaming<WatchRequest>) -> Result<Answers, Status> {
        let shared = self.shared;
        let (position, _) = shared.newest()?;
        let stream = shared.engine.stream(position).await;
        let stream = stream.map_err(|error| errors::engine(&error))?;
        let (answers, receiver) = mpsc::channel(WAITING_MAX);
        let connection = Connection {
            shared,
            answers,
            watches: BTreeMap::new(),
            position,
        };
        tokio::spawn(connection.run(stream, requests));
        Ok(Answers::new(receiver))
    }
}

struct Watched {
    question: Question,
    /// The first revision that is wanted.
    from: Revision,
    fragments: bool,
    /// When it is told how far it is, if it wants to be.
    progress_at: Option<Instant>,
}

/// Which changes a watch is told, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) range: KeyRange,
    pub(super) with_previous: bool,
    pub(super) without_puts: bool,
    pub(super) without_deletes: bool,
}

impl Question {
    fn wants(&self, change: &Change) -> bool {
        self.range.contains(&change.key)
            && !is_empty(&self.range)
            && !change.key.starts_with(HIDDEN)
            && match change.after {
                Some(_) => !self.without_puts,
                None => !self.without_deletes,
            }
    }
}

impl Shared {
    fn gather(&self, question: &Question, commit: &Committed, events: &mut Vec<Event>) {
        let wanted = commit.changes.iter().filter(|change| question.wants(change));
        events.extend(wanted.map(|change| self.event(change, commit.revision, question.with_previous)));
    }

    /// The events of whole commits that answer a question, encoded: by whoever asks first, for all.
    fn told(&self, question: &Question, interval: Interval, commits: &[Arc<Committed>]) -> Bytes {
        self.telling.get(question, interval, || {
            let mut events = Vec::new();
            for commit in commits {
                self.gather(question, commit, &mut events);
            }
            encoded(events)
        })
    }
}

/// The client is gone.
struct Gone;

struct Connection {
    shared: Arc<Shared>,
    answers: mpsc::Sender<Result<Answer, Status>>,
    watches: BTreeMap<i64, Watched>,
    position: Revision,
}

impl Connection {
    async fn run(mut self, mut stream: Box<dyn CommittedStream>, mut requests: Streaming<WatchRequest>) {
        loop {
            let progress_at = self.watches.values().filter_map(|watched| watched.progress_at).min();
            let progress = async {
                match progress_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let handled = tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => self.request(request).await,
                    // Watches go on for a client that only has nothing more to ask; most have ended.
                    Some(Err(_)) | None => Err(Gone),
                },
                batch = stream.next() => match batch {
                    Ok(batch) => self.deliver(&batch.commits, batch.progress).await,
                    Err(error) => self.end(&error).await,
                },
                () = progress => self.tell_progress().await,
                () = self.answers.closed() => Err(Gone),
            };
            if handled.is_err() {
                return;
            }
        }
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Gone> {
        self.send_with(response, Bytes::new()).await
    }

    /// Sends an answer, whose events are encoded already.
    async fn send_with(&self, mut head: WatchResponse, events: Bytes) -> Result<(), Gone> {
        head.header = head.header.or_else(|| self.shared.header(self.position));
        self.answers.send(Ok(Answer { head, events })).await.map_err(|_| Gone)
    }

    /// The history that this stream needs is gone: its client is too slow, or the engine has ended.
    async fn end(&mut self, error: &EngineError) -> Result<(), Gone> {
        if let EngineError::Compacted { oldest } = error {
            for id in std::mem::take(&mut self.watches).into_keys() {
                self.send(compacted(id, *oldest)).await?;
            }
        }
        // Nobody may be there to hear it.
        let _ = self.answers.send(Err(errors::engine(error))).await;
        Err(Gone)
    }

    async fn request(&mut self, request: WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => match self.watches.remove(&cancel.watch_id) {
                Some(_) => {
                    let canceled = WatchResponse {
                        watch_id: cancel.watch_id,
                        canceled: true,
                        ..WatchResponse::default()
                    };
                    self.send(canceled).await
                }
                None => Ok(()),
            },
            Some(RequestUnion::ProgressRequest(_)) => {
                self.send(WatchResponse {
                    watch_id: NO_WATCH,
                    ..WatchResponse::default()
                })
                .await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<(), Gone> {
        let refusal = match create.watch_id {
            id if id != 0 && self.watches.contains_key(&id) => {
                Some("mvcc: duplicate watch ID provided on the WatchStream")
            }
            _ if self.watches.len() >= WATCHES_MAX => Some("etcdserver: too many requests"),
            _ => None,
        };
        if let Some(why) = refusal {
            let refused = WatchResponse {
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason: why.to_owned(),
                ..WatchResponse::default()
            };
            return self.send(refused).await;
        }
        let id = match create.watch_id {
            0 => (0..).find(|id| !self.watches.contains_key(id)).unwrap_or(NO_WATCH),
            id => id,
        };
        // An empty key is the first one that there can be.
        let key = if create.key.is_empty() {
            Bytes::from_static(&[0])
        } else {
            create.key.clone()
        };
        let filters: Vec<FilterType> = create.filters().collect();
        let watched = Watched {
            question: Question {
                range: range_of(&key, &create.range_end),
                with_previous: create.prev_kv,
                without_puts: filters.contains(&FilterType::Noput),
                without_deletes: filters.contains(&FilterType::Nodelete),
            },
            from: match u64::try_from(create.start_revision) {
                Ok(0) | Err(_) => self.position + 1,
                Ok(from) => from,
            },
            fragments: create.fragment,
            progress_at: create.progress_notify.then(|| Instant::now() + PROGRESS_EVERY),
        };
        self.send(WatchResponse {
            watch_id: id,
            created: true,
            ..WatchResponse::default()
        })
        .await?;
        match self.past(&watched).await {
            Ok(events) => {
                self.send_events(id, &watched, events).await?;
                self.watches.insert(id, watched);
                Ok(())
            }
            Err(EngineError::Compacted { oldest }) => self.send(compacted(id, oldest)).await,
            Err(error) => self.end(&error).await,
        }
    }

    /// What happened from the start of a watch to where this stream is.
    async fn past(&self, watched: &Watched) -> Result<Vec<Event>, EngineError> {
        let mut events = Vec::new();
        if watched.from > self.position {
            return Ok(events);
        }
        let forgotten = self.shared.compacted.load(std::sync::atomic::Ordering::Acquire);
        // Of the compacted revision itself the changes are there, but not what was before them: a kube-apiserver, which asks
        // for that, is to read anew. (etcd leaves it out, and its watch ends as an internal error.)
        let first = forgotten + u64::from(watched.question.with_previous);
        if forgotten > 0 && watched.from < first {
            return Err(EngineError::Compacted { oldest: first - 1 });
        }
        // Nothing happened in the revisions that the store began with: an empty etcd can be watched from its first one.
        let mut delivered = watched.from.saturating_sub(1).max(self.shared.engine.revision_offset());
        let mut stream = self.shared.engine.stream(delivered).await?;
        while delivered < self.position {
            let batch = stream.next().await?;
            delivered = batch.progress;
            for commit in batch.commits.iter().filter(|commit| commit.revision <= self.position) {
                self.shared.gather(&watched.question, commit, &mut events);
            }
        }
        Ok(events)
    }

    async fn deliver(&mut self, commits: &[Arc<Committed>], progress: Revision) -> Result<(), Gone> {
        let interval = Interval {
            after: self.position,
            upto: progress,
        };
        self.position = progress;
        for (id, watched) in &self.watches {
            if commits.first().is_some_and(|first| first.revision >= watched.from) {
                let told = self.shared.told(&watched.question, interval, commits);
                if told.is_empty() {
                    continue;
                }
                if !watched.fragments || told.len() <= FRAGMENT_BYTES {
                    let head = WatchResponse {
                        watch_id: *id,
                        ..WatchResponse::default()
                    };
                    self.send_with(head, told).await?;
                    continue;
                }
            }
            let mut events = Vec::new();
            for commit in commits.iter().filter(|commit| commit.revision >= watched.from) {
                self.shared.gather(&watched.question, commit, &mut events);
            }
            self.send_events(*id, watched, events).await?;
        }
        Ok(())
    }

    async fn send_events(&self, id: i64, watched: &Watched, events: Vec<Event>) -> Result<(), Gone> {
        if events.is_empty() {
            return Ok(());
        }
        let response = |events, fragment| WatchResponse {
            watch_id: id,
            events,
            fragment,
            ..WatchResponse::default()
        };
        if !watched.fragments {
            return self.send(response(events, false)).await;
        }
        let (mut part, mut bytes) = (Vec::new(), 0);
        for event in events {
            let size = prost::Message::encoded_len(&event);
            if !part.is_empty() && bytes + size > FRAGMENT_BYTES {
                self.send(response(std::mem::take(&mut part), true)).await?;
                bytes = 0;
            }
            bytes += size;
            part.push(event);
        }
        self.send(response(part, false)).await
    }

    async fn tell_progress(&mut self) -> Result<(), Gone> {
        let now = Instant::now();
        let due = |watched: &Watched| watched.progress_at.is_some_and(|at| at <= now);
        let ids: Vec<i64> = self
            .watches
            .iter()
            .filter(|(_, watched)| due(watched))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if let Some(watched) = self.watches.get_mut(&id) {
                watched.progress_at = Some(now + PROGRESS_EVERY);
            }
            self.send(WatchResponse {
                watch_id: id,
                ..WatchResponse::default()
            })
            .await?;
        }
        Ok(())
    }
}

/// The end of a watch whose history is gone. Clients begin anew at the revision that it tells, so it is the first one whose
/// changes are there, not the oldest state.
fn compacted(id: i64, oldest: Revision) -> WatchResponse {
    WatchResponse {
        watch_id: id,
        canceled: true,
        compact_revision: signed(oldest + 1),
        ..WatchResponse::default()
    }
}
