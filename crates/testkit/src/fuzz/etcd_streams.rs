//! Watches and leases of etcd's API, asked for in any way, against what they must then say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use base::Random;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message as _;
use rpc::etcd::etcdserverpb::kv_server::Kv as _;
use rpc::etcd::etcdserverpb::lease_server::Lease as _;
use rpc::etcd::etcdserverpb::watch_client::WatchClient;
use rpc::etcd::etcdserverpb::watch_request::RequestUnion;
use rpc::etcd::etcdserverpb::{
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use store::Front;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use super::storage::{INPUTS_MAX, RUNTIME, front};

/// Messages of one input that are sent.
const MESSAGES_MAX: usize = 8;
/// A front that says nothing for so long will say nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes on their way over a connection in memory.
const PIPE_BYTES: usize = 64 * 1024;
/// What no request wants and every answer of progress has.
const NO_WATCH: i64 = -1;

/// A front, a connection to it, and how many inputs it has taken.
struct Served {
    front: Front,
    channel: Channel,
    inputs: usize,
}

static SERVED: LazyLock<Mutex<Served>> = LazyLock::new(|| Mutex::new(served()));

fn served() -> Served {
    let front = front();
    let (client, server) = tokio::io::duplex(PIPE_BYTES);
    let serving = front.clone();
    RUNTIME.spawn(async move { serving.serve(server).await });
    let mut client = Some(TokioIo::new(client));
    let connector = tower::service_fn(move |_| {
        let only = client.take();
        std::future::ready(only.ok_or_else(|| std::io::Error::other("there is one connection")))
    });
    let endpoint = Endpoint::from_static("http://front");
    let connecting = endpoint.connect_with_connector(connector);
    Served {
        front,
        channel: RUNTIME.block_on(connecting).expect("a connection in memory"),
        inputs: 0,
    }
}

/// The next input's front: a new one from time to time, so that its history does not fill the memory.
fn with_served(run: impl AsyncFnOnce(&Served) -> String) -> String {
    let mut held = SERVED.lock();
    held.inputs += 1;
    if held.inputs > INPUTS_MAX {
        *held = served();
    }
    RUNTIME.block_on(async {
        let ran = tokio::time::timeout(PATIENCE, run(&held)).await;
        ran.expect("the front says what it has to say")
    })
}

/// An input is messages, each after its kind and its length.
fn pack(messages: impl IntoIterator<Item = (u8, Vec<u8>)>) -> Vec<u8> {
    let pack = |(kind, message): (u8, Vec<u8>)| [&[kind, message.len() as u8][..], &message].concat();
    messages.into_iter().flat_map(pack).collect()
}

fn unpack(mut input: &[u8]) -> Vec<(u8, &[u8])> {
    let mut messages = Vec::new();
    while let [kind, length, rest @ ..] = input
        && messages.len() < MESSAGES_MAX
    {
        let (message, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        messages.push((*kind, message));
        input = rest;
    }
    messages
}

// --- watches ---

pub fn make_watch(random: &Random) -> Vec<u8> {
    let keys: [&[u8]; 6] = [b"", b"\0", b"a", b"b", b"c", b"\0\0trireme/"];
    let key = || Bytes::from_static(keys[random.index(keys.len())]);
    let message = |_| {
        let union = match random.index(6) {
            0 => RequestUnion::ProgressRequest(WatchProgressRequest {}),
            1 => RequestUnion::CancelRequest(WatchCancelRequest {
                watch_id: random.range(0..3).cast_signed(),
            }),
            _ => RequestUnion::CreateRequest(WatchCreateRequest {
                key: key(),
                range_end: key(),
                start_revision: random.range(0..5).cast_signed() - 1,
                filters: [vec![], vec![0], vec![1]][random.index(3)].clone(),
                prev_kv: random.chance(0.5),
                fragment: random.chance(0.5),
                progress_notify: random.chance(0.5),
                watch_id: random.range(0..3).cast_signed(),
            }),
        };
        let request = WatchRequest {
            request_union: Some(union),
        };
        (0, request.encode_to_vec())
    };
    pack((0..1 + random.index(4)).map(message))
}

/// Whatever is watched: what is then written comes once to each watch that wants it and to no other, before an answer of
/// progress says that it came.
pub fn watch(input: &[u8]) -> String {
    let decode = |(_, message): (u8, &[u8])| {
        let mut request = WatchRequest::decode(message).ok()?;
        if let Some(RequestUnion::CreateRequest(create)) = &mut request.request_union
            && create.watch_id == NO_WATCH
        {
            // etcd takes it, too, and nobody can then tell its answers from others.
            create.watch_id = 0;
        }
        Some(request)
    };
    let requests: Vec<WatchRequest> = unpack(input).into_iter().filter_map(decode).collect();
    if requests.is_empty() {
        return "no message".into();
    }
    with_served(async |served| {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX + 1);
        let creates = requests.iter().filter_map(|request| match &request.request_union {
            Some(RequestUnion::CreateRequest(create)) => Some(create.clone()),
            _ => None,
        });
        let creates: Vec<WatchCreateRequest> = creates.collect();
        for request in &requests {
            sender.send(request.clone()).await.expect("there is room");
        }
        let mut client = WatchClient::new(served.channel.clone());
        let watching = client.watch(ReceiverStream::new(receiver));
        let mut seen = Seen {
            answers: watching.await.expect("a stream").into_inner(),
            created: Vec::new(),
            watches: BTreeMap::new(),
            outcome: BTreeSet::new(),
        };
        // All requests were heard: each creation was answered.
        while seen.created.len() < creates.len() {
            seen.next().await;
        }
        let mut written = Vec::new();
        for key in ["a", "b", "d"] {
            let put = PutRequest {
                key: key.into(),
                value: "1".into(),
                ..PutRequest::default()
            };
            let header = served
                .front
                .put(Request::new(put))
                .await
                .expect("a put")
                .into_inner()
                .header;
            written.push((Bytes::from_static(key.as_bytes()), header.unwrap_or_default().revision));
        }
        let newest = written.last().map_or(0, |(_, revision)| *revision);
        let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
        let progress = WatchRequest {
            request_union: Some(progress),
        };
        let mut known = 0;
        while known < newest {
            sender.send(progress.clone()).await.expect("the stream is open");
            known = seen.progress().await;
        }
        seen.check(&creates, &written);
        seen.outcome.into_iter().collect()
    })
}

struct Seen {
    answers: Streaming<WatchResponse>,
    /// For each creation, in order, the id that it was given.
    created: Vec<i64>,
    /// By id, which creation a watch is of and what it was told; none for one that is over.
    watches: BTreeMap<i64, Option<(usize, Vec<(Bytes, i64)>)>>,
    outcome: BTreeSet<&'static str>,
}

impl Seen {
    /// Takes an answer; its revision, when it is one of progress.
    async fn next(&mut self) -> Option<i64> {
        let answer = self.answers.message().await.expect("no failure").expect("it goes on");
        let revision = answer.header.expect("a header").revision;
        if answer.created {
            let number = self.created.len();
            self.created.push(answer.watch_id);
            if answer.canceled {
                assert!(answer.watch_id == NO_WATCH && !answer.cancel_reason.is_empty());
                self.outcome.insert("refused ");
                return None;
            }
            let before = self.watches.insert(answer.watch_id, Some((number, Vec::new())));
            assert!(before.flatten().is_none(), "an id is given once");
            self.outcome.insert("created ");
            return None;
        }
        if answer.watch_id == NO_WATCH {
            assert!(answer.events.is_empty() && !answer.canceled);
            self.outcome.insert("progress ");
            return Some(revision);
        }
        let watch = self
            .watches
            .get_mut(&answer.watch_id)
            .expect("a watch that was created");
        if answer.canceled {
            assert!(answer.events.is_empty());
            let what = if answer.compact_revision > 0 {
                "compacted "
            } else {
                "canceled "
            };
            self.outcome.insert(what);
            *watch = None;
            return None;
        }
        let (_, told) = watch.as_mut().expect("a watch that goes on");
        for event in answer.events {
            let kv = event.kv.expect("a key");
            assert!(kv.mod_revision <= revision, "an event of the future");
            told.push((kv.key, kv.mod_revision));
        }
        None
    }

    async fn progress(&mut self) -> i64 {
        loop {
            if let Some(revision) = self.next().await {
                return revision;
            }
        }
    }

    /// That each watch was told what it wants of what was written, once and in order, and nothing that it does not want.
    fn check(&mut self, creates: &[WatchCreateRequest], written: &[(Bytes, i64)]) {
        for (number, told) in self.watches.values().flatten() {
            let create = &creates[*number];
            assert!(
                told.windows(2).all(|pair| pair[0].1 <= pair[1].1),
                "out of order: {told:?}"
            );
            assert!(
                told.iter().all(|(key, _)| covers(create, key)),
                "not asked for: {told:?}"
            );
            for (key, revision) in written {
                let wanted = covers(create, key) && !create.filters.contains(&0) && create.start_revision <= *revision;
                let times = told.iter().filter(|(_, told)| told == revision).count();
                assert_eq!(times, usize::from(wanted), "{key:?} at {revision} of {create:?}");
            }
        }
    }
}

fn covers(create: &WatchCreateRequest, key: &Bytes) -> bool {
    // An empty key is the first one that there can be.
    let first = if create.key.is_empty() { &b"\0"[..] } else { &create.key };
    match &create.range_end[..] {
        b"" => key == first,
        b"\0" => key >= first,
        end => key >= first && &key[..] < end,
    }
}

// --- leases ---

pub fn make_lease(random: &Random) -> Vec<u8> {
    let id = || random.range(0..4).cast_signed();
    let message = |_| {
        let kind = random.index(4) as u8;
        let grant = LeaseGrantRequest { id: id(), ttl: 60 };
        let put = PutRequest {
            key: ["a", "b"][random.index(2)].into(),
            value: "1".into(),
            lease: id(),
            ..PutRequest::default()
        };
        let message = match kind {
            0 => grant.encode_to_vec(),
            1 => LeaseRevokeRequest { id: id() }.encode_to_vec(),
            2 => LeaseTimeToLiveRequest { id: id(), keys: true }.encode_to_vec(),
            _ => put.encode_to_vec(),
        };
        (kind, message)
    };
    pack((0..2 + random.index(6)).map(message))
}

/// Leases that do not end while an input runs, in seconds.
const TTL_SECONDS_MIN: i64 = 3600;

/// Whatever is granted, revoked and attached: a lease has the keys that were last put with it, and takes them with it.
pub fn lease(input: &[u8]) -> String {
    with_served(async |served| {
        let mut model: BTreeMap<i64, BTreeSet<Bytes>> = BTreeMap::new();
        let mut outcome = BTreeSet::new();
        for (kind, message) in unpack(input) {
            let told = match kind % 4 {
                0 => grant(&served.front, &mut model, message).await,
                1 => revoke(&served.front, &mut model, message).await,
                2 => look(&served.front, &model, message).await,
                _ => attach(&served.front, &mut model, message).await,
            };
            outcome.extend(told);
        }
        let listed = served.front.lease_leases(Request::new(LeaseLeasesRequest {})).await;
        let listed: BTreeSet<i64> = listed
            .expect("a list")
            .into_inner()
            .leases
            .iter()
            .map(|one| one.id)
            .collect();
        assert_eq!(listed, model.keys().copied().collect());
        for (id, keys) in model {
            let revoked = served.front.lease_revoke(Request::new(LeaseRevokeRequest { id })).await;
            revoked.expect("a lease that is there ends");
            for key in keys {
                assert_eq!(count(&served.front, key).await, 0, "a key outlives its lease");
            }
        }
        outcome.into_iter().collect::<Vec<_>>().join(" ")
    })
}

async fn count(front: &Front, key: Bytes) -> i64 {
    let range = RangeRequest {
        key,
        ..RangeRequest::default()
    };
    front
        .range(Request::new(range))
        .await
        .expect("a range")
        .into_inner()
        .count
}

type Model = BTreeMap<i64, BTreeSet<Bytes>>;

async fn grant(front: &Front, model: &mut Model, message: &[u8]) -> Option<String> {
    let mut request = LeaseGrantRequest::decode(message).ok()?;
    request.ttl = request.ttl.max(TTL_SECONDS_MIN);
    match front.lease_grant(Request::new(request)).await {
        Ok(granted) => {
            let granted = granted.into_inner();
            assert!(granted.id != 0 && (request.id == 0 || granted.id == request.id) && granted.ttl >= request.ttl);
            assert!(model.insert(granted.id, BTreeSet::new()).is_none(), "granted twice");
            Some("granted".into())
        }
        Err(status) => {
            let known = model.contains_key(&request.id);
            assert!(known || status.message().contains("too large"), "{status}");
            Some(status.message().to_owned())
        }
    }
}

async fn revoke(front: &Front, model: &mut Model, message: &[u8]) -> Option<String> {
    let request = LeaseRevokeRequest::decode(message).ok()?;
    let revoked = front.lease_revoke(Request::new(request)).await;
    let keys = model.remove(&request.id);
    assert_eq!(revoked.is_ok(), keys.is_some());
    for key in keys.into_iter().flatten() {
        assert_eq!(count(front, key).await, 0, "a key outlives its lease");
    }
    Some(revoked.map_or_else(|status| status.message().to_owned(), |_| "revoked".into()))
}

async fn look(front: &Front, model: &Model, message: &[u8]) -> Option<String> {
    let request = LeaseTimeToLiveRequest::decode(message).ok()?;
    let told = front.lease_time_to_live(Request::new(request)).await;
    let told = told.expect("what is not there has no time left").into_inner();
    let keys = model.get(&request.id);
    assert_eq!(told.ttl >= 0, keys.is_some());
    let listed: BTreeSet<Bytes> = told.keys.into_iter().collect();
    let expect = keys.filter(|_| request.keys).cloned().unwrap_or_default();
    assert_eq!(listed, expect);
    Some(if keys.is_some() { "seen" } else { "not seen" }.into())
}

async fn attach(front: &Front, model: &mut Model, message: &[u8]) -> Option<String> {
    let request = PutRequest::decode(message).ok()?;
    let (key, lease, keeps) = (request.key.clone(), request.lease, request.ignore_lease);
    if let Err(status) = front.put(Request::new(request)).await {
        return Some(status.message().to_owned());
    }
    if !keeps {
        for keys in model.values_mut() {
            keys.remove(&key);
        }
        assert!(lease == 0 || model.contains_key(&lease), "attached to nothing");
        if let Some(keys) = model.get_mut(&lease) {
            keys.insert(key);
        }
    }
    Some("put".into())
}
