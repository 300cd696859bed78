//! A store in memory that speaks as much of etcd's API as the engine uses, and misbehaves when told to.
//!
//! What it does by itself is what etcd's documentation promises for versions whose progress answers are true; what it does
//! when told is what older ones did (issues 15220, 15271), or what a network does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rpc::etcd::etcdserverpb::compare::TargetUnion;
use rpc::etcd::etcdserverpb::kv_server::{Kv, KvServer};
use rpc::etcd::etcdserverpb::maintenance_server::{Maintenance, MaintenanceServer};
use rpc::etcd::etcdserverpb::request_op::Request as Change;
use rpc::etcd::etcdserverpb::response_op::Response as Answer;
use rpc::etcd::etcdserverpb::watch_request::RequestUnion;
use rpc::etcd::etcdserverpb::watch_server::{Watch, WatchServer};
use rpc::etcd::etcdserverpb::*;
use rpc::etcd::mvccpb::{Event, KeyValue, event::EventType};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Request, Response, Status, Streaming};

/// What it does to a progress request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Answers when everything up to its revision was sent.
    True,
    /// Answers at once with its revision, sent or not (etcd's issue 15220).
    Early,
    /// Does not answer.
    Silent,
    /// Answers with what was long ago, and for a watch that nobody has.
    Old,
}

/// What it does to the next transaction.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// It happens, and the answer is this.
    Lost(Status),
    /// It does not happen, and the answer is this.
    Refused(Status),
}

#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    /// Counts whatever watches have to look at.
    moved: Arc<watch::Sender<u64>>,
    pub address: String,
}

pub struct State {
    pub version: String,
    pub progress: Progress,
    /// Events stay here.
    pub held: bool,
    /// The watches that there are fall silent; the next one does not.
    silenced: u64,
    watches: u64,
    /// A revision is sent in parts of one event.
    pub fragmented: bool,
    /// A watch begins with what came before its start (etcd's issue 15271).
    pub replays: bool,
    pub trouble: Vec<Trouble>,
    /// Watches of before this many breaks are over.
    breaks: u64,
    pub progress_requests: u64,
    pub cluster: u64,
    revision: i64,
    pub keys: BTreeMap<Bytes, KeyValue>,
    /// What there was before the log.
    base: BTreeMap<Bytes, KeyValue>,
    log: Vec<Event>,
}

impl Fake {
    pub async fn start(version: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = State {
            version: version.to_owned(),
            progress: Progress::True,
            held: false,
            silenced: 0,
            watches: 0,
            fragmented: false,
            replays: false,
            trouble: Vec::new(),
            breaks: 0,
            progress_requests: 0,
            cluster: 1,
            revision: 1,
            keys: BTreeMap::new(),
            base: BTreeMap::new(),
            log: Vec::new(),
        };
        let fake = Self {
            state: Arc::new(Mutex::new(state)),
            moved: Arc::new(watch::Sender::new(0)),
            address,
        };
        let server = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                let service = service_fn(move |request| server.clone().answer(request));
                let connection =
                    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        fake
    }

    async fn answer(self, request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
        match request.uri().path().split('/').nth(1).unwrap_or_default() {
            "etcdserverpb.KV" => KvServer::new(self).call(request).await,
            "etcdserverpb.Watch" => WatchServer::new(self).call(request).await,
            "etcdserverpb.Maintenance" => MaintenanceServer::new(self).call(request).await,
            other => Ok(Status::unimplemented(format!("no service {other}")).into_http()),
        }
    }

    /// Changes how it behaves.
    pub fn set<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.state.lock());
        self.moved.send_modify(|moved| *moved += 1);
        outcome
    }

    /// Ends all watches.
    pub fn break_watches(&self) {
        self.set(|state| state.breaks += 1);
    }

    /// Sends no events to the watches that there are, though it answers everything else.
    pub fn silence_watches(&self) {
        self.set(|state| state.silenced = state.watches);
    }

    /// Becomes another cluster, at a lower revision, with other content.
    pub fn replace(&self, cluster: u64, revision: i64, keys: &[(&str, &str)]) {
        self.set(|state| {
            state.cluster = cluster;
            state.revision = revision;
            state.log.clear();
            state.keys.clear();
            state.breaks += 1;
            for (key, value) in keys {
                let key = Bytes::copy_from_slice(key.as_bytes());
                let found = KeyValue {
                    key: key.clone(),
                    value: Bytes::copy_from_slice(value.as_bytes()),
                    create_revision: revision,
                    mod_revision: revision,
                    version: 1,
                    lease: 0,
                };
                state.keys.insert(key, found);
            }
            state.base = state.keys.clone();
        });
    }
}

impl State {
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.cluster,
            revision: self.revision,
            ..ResponseHeader::default()
        })
    }

    /// The keys as of a revision; 0: now.
    fn at(&self, revision: i64) -> BTreeMap<Bytes, KeyValue> {
        if revision == 0 {
            return self.keys.clone();
        }
        let mut keys = self.base.clone();
        for event in &self.log {
            let found = event.kv.clone().unwrap();
            if found.mod_revision > revision {
                break;
            }
            match event.r#type() {
                EventType::Put => keys.insert(found.key.clone(), found),
                EventType::Delete => keys.remove(&found.key),
            };
        }
        keys
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        if request.revision > self.revision {
            return Err(Status::out_of_range(
                "etcdserver: mvcc: required revision is a future revision",
            ));
        }
        let keys = self.at(request.revision);
        let selected = keys
            .into_values()
            .filter(|found| selects(&request.key, &request.range_end, &found.key));
        let kvs: Vec<_> = selected.collect();
        Ok(RangeResponse {
            header: self.header(),
            count: kvs.len() as i64,
            kvs,
            more: false,
        })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = self.keys.get(&compare.key);
        let (left, right) = match compare.target_union {
            Some(TargetUnion::ModRevision(wanted)) => (found.map_or(0, |found| found.mod_revision), wanted),
            Some(TargetUnion::Version(wanted)) => (found.map_or(0, |found| found.version), wanted),
            _ => unreachable!("the engine compares nothing else"),
        };
        match compare.result() {
            compare::CompareResult::Equal => left == right,
            compare::CompareResult::Greater => left > right,
            other => unreachable!("the engine does not ask {other:?}"),
        }
    }

    fn put(&mut self, put: &PutRequest, revision: i64) {
        let before = self.keys.get(&put.key);
        let found = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: before.map_or(revision, |before| before.create_revision),
            mod_revision: revision,
            version: before.map_or(0, |before| before.version) + 1,
            lease: put.lease,
        };
        self.keys.insert(put.key.clone(), found.clone());
        self.log.push(Event {
            kv: Some(found),
            ..Event::default()
        });
    }

    fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Status> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let operations = if succeeded { &request.success } else { &request.failure };
        let next = self.revision + 1;
        let mut responses = Vec::new();
        for operation in operations {
            let answer = match operation.request.as_ref().unwrap() {
                Change::RequestRange(range) => Answer::ResponseRange(self.range(range)?),
                Change::RequestPut(put) => {
                    self.put(put, next);
                    self.revision = next;
                    Answer::ResponsePut(PutResponse::default())
                }
                Change::RequestDeleteRange(delete) => {
                    let deleted = self.keys.remove(&delete.key).is_some();
                    if deleted {
                        self.revision = next;
                        let kv = KeyValue {
                            key: delete.key.clone(),
                            mod_revision: next,
                            ..KeyValue::default()
                        };
                        self.log.push(Event {
                            r#type: EventType::Delete.into(),
                            kv: Some(kv),
                            prev_kv: None,
                        });
                    }
                    Answer::ResponseDeleteRange(DeleteRangeResponse {
                        deleted: deleted.into(),
                        ..DeleteRangeResponse::default()
                    })
                }
                Change::RequestTxn(_) => unreachable!("the engine nests nothing"),
            };
            responses.push(ResponseOp { response: Some(answer) });
        }
        Ok(TxnResponse {
            header: self.header(),
            succeeded,
            responses,
        })
    }
}

fn selects(key: &[u8], range_end: &[u8], candidate: &[u8]) -> bool {
    match range_end {
        [] => candidate == key,
        end => candidate >= key && candidate < end,
    }
}

#[tonic::async_trait]
impl Kv for Fake {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.state.lock().range(request.get_ref()).map(Response::new)
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let header = self.set(|state| {
            state.revision += 1;
            state.put(request.get_ref(), state.revision);
            state.header()
        });
        Ok(Response::new(PutResponse { header, prev_kv: None }))
    }

    async fn delete_range(&self, _: Request<DeleteRangeRequest>) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.set(|state| match state.trouble.pop() {
            None => state.txn(request.get_ref()).map(Response::new),
            Some(Trouble::Refused(status)) => Err(status),
            Some(Trouble::Lost(status)) => {
                state.txn(request.get_ref())?;
                Err(status)
            }
        })
    }

    async fn compact(&self, _: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }
}

/// One watch: what it selects and how far it is.
struct Follower {
    fake: Fake,
    create: WatchCreateRequest,
    /// Events of the log that were looked at.
    looked: usize,
    /// The revision up to which everything was sent.
    sent: i64,
    breaks: u64,
    /// Counts the watches of the fake.
    number: u64,
    asked: bool,
}

impl Follower {
    fn new(fake: Fake, create: WatchCreateRequest) -> Self {
        let (number, breaks) = {
            let mut state = fake.state.lock();
            state.watches += 1;
            (state.watches, state.breaks)
        };
        Self {
            number,
            sent: create.start_revision - 1,
            create,
            looked: 0,
            breaks,
            asked: false,
            fake,
        }
    }

    /// What is to be sent now.
    fn answers(&mut self) -> Vec<WatchResponse> {
        let state = self.fake.state.lock();
        let held = state.held || self.number <= state.silenced;
        let mut answers = Vec::new();
        if self.asked && state.progress == Progress::Early {
            self.asked = false;
            answers.push(progress(&state, state.revision, -1));
        }
        if !held {
            let first = self.create.start_revision - i64::from(state.replays);
            let news = state.log[self.looked.min(state.log.len())..].iter().filter(|event| {
                let found = event.kv.as_ref().unwrap();
                found.mod_revision >= first && selects(&self.create.key, &self.create.range_end, &found.key)
            });
            let events: Vec<Event> = news.cloned().collect();
            self.looked = state.log.len();
            self.sent = state.revision;
            answers.extend(responses(&state, events));
        }
        if self.asked && !held {
            self.asked = false;
            match state.progress {
                Progress::True | Progress::Early => answers.push(progress(&state, self.sent, -1)),
                Progress::Silent => {}
                Progress::Old => {
                    answers.push(progress(&state, 1, -1));
                    answers.push(progress(&state, state.revision + 1_000_000, 77));
                }
            }
        }
        answers
    }

    async fn run(mut self, mut requests: Streaming<WatchRequest>, send: mpsc::Sender<Result<WatchResponse, Status>>) {
        let mut moved = self.fake.moved.subscribe();
        let created = WatchResponse {
            header: self.fake.state.lock().header(),
            created: true,
            ..WatchResponse::default()
        };
        if send.send(Ok(created)).await.is_err() {
            return;
        }
        loop {
            if self.fake.state.lock().breaks > self.breaks {
                let _ = send.send(Err(Status::unavailable("the connection broke"))).await;
                return;
            }
            for answer in self.answers() {
                if send.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                _ = moved.changed() => {}
                request = requests.next() => match request {
                    Some(Ok(WatchRequest { request_union: Some(RequestUnion::ProgressRequest(_)) })) => {
                        self.fake.state.lock().progress_requests += 1;
                        self.asked = true;
                    }
                    _ => return,
                },
            }
        }
    }
}

fn progress(state: &State, revision: i64, watch_id: i64) -> WatchResponse {
    WatchResponse {
        header: Some(ResponseHeader {
            revision,
            ..state.header().unwrap()
        }),
        watch_id,
        ..WatchResponse::default()
    }
}

fn responses(state: &State, events: Vec<Event>) -> Vec<WatchResponse> {
    let response = |events: Vec<Event>, fragment: bool| WatchResponse {
        header: state.header(),
        events,
        fragment,
        ..WatchResponse::default()
    };
    if events.is_empty() {
        return Vec::new();
    }
    if !state.fragmented {
        return vec![response(events, false)];
    }
    let last = events.len() - 1;
    let parts = events.into_iter().enumerate();
    parts
        .map(|(index, event)| response(vec![event], index < last))
        .collect()
}

type Answers = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Watch for Fake {
    type WatchStream = Answers;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Answers>, Status> {
        let mut requests = request.into_inner();
        let first = requests.next().await.transpose()?.and_then(|first| first.request_union);
        let Some(RequestUnion::CreateRequest(create)) = first else {
            return Err(Status::invalid_argument("a watch begins with its creation"));
        };
        let (send, receive) = mpsc::channel(16);
        tokio::spawn(Follower::new(self.clone(), create).run(requests, send));
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(
            receive,
        ))))
    }
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not used"))
}

#[tonic::async_trait]
impl Maintenance for Fake {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let state = self.state.lock();
        Ok(Response::new(StatusResponse {
            header: state.header(),
            version: state.version.clone(),
            ..StatusResponse::default()
        }))
    }

    async fn alarm(&self, _: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        unused()
    }

    async fn defragment(&self, _: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        unused()
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        unused()
    }

    async fn hash_kv(&self, _: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        unused()
    }

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        unused()
    }

    async fn move_leader(&self, _: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        unused()
    }

    async fn downgrade(&self, _: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        unused()
    }
}
