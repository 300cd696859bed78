//! `Watch` of the front as kube-apiserver uses it: previous values, progress, fragments, filters.

use std::time::Duration;

use rpc::etcd::etcdserverpb::watch_client::WatchClient;
use rpc::etcd::etcdserverpb::watch_create_request::FilterType;
use rpc::etcd::etcdserverpb::watch_request::RequestUnion;
use rpc::etcd::etcdserverpb::{
    CompactionRequest, PutRequest, TxnRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
    WatchRequest, WatchResponse, kv_client::KvClient, request_op::Request as Ask,
};
use rpc::etcd::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::foreign::{Client, connect};

/// One gRPC stream of watches.
struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watch {
    async fn open(channel: &Channel) -> Watch {
        let (requests, receiver) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(receiver));
        // `clientv3.WithRequireLeader`.
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        let client = WatchClient::new(channel.clone());
        let mut client = client.max_decoding_message_size(usize::MAX);
        let answers = client.watch(request).await.unwrap().into_inner();
        Watch { requests, answers }
    }

    async fn ask(&self, union: RequestUnion) {
        let request = WatchRequest {
            request_union: Some(union),
        };
        self.requests.send(request).await.unwrap();
    }

    /// Begins a watch; its id.
    async fn begin(&mut self, create: WatchCreateRequest) -> i64 {
        self.ask(RequestUnion::CreateRequest(create)).await;
        let created = self.next().await;
        assert!(
            created.created && !created.canceled && created.events.is_empty(),
            "{created:?}"
        );
        created.watch_id
    }

    async fn next(&mut self) -> WatchResponse {
        self.answers.message().await.unwrap().expect("the stream goes on")
    }
}

/// As kube-apiserver begins each of its watches.
fn pods(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: "/registry/pods/".into(),
        range_end: "/registry/pods0".into(),
        start_revision,
        prev_kv: true,
        progress_notify: true,
        ..WatchCreateRequest::default()
    }
}

/// What happened: the kind of event, the value, the value before.
fn told(answer: &WatchResponse) -> Vec<(EventType, String, Option<String>)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let events = answer.events.iter();
    let told = events.map(|event| {
        (
            event.r#type(),
            text(&event.kv.as_ref().unwrap().value),
            event.prev_kv.as_ref().map(|before| text(&before.value)),
        )
    });
    told.collect()
}

#[tokio::test]
async fn changes_come_with_what_was_before() {
    let channel = connect().await;
    let mut client = Client::new(&channel);
    let mut watch = Watch::open(&channel).await;
    let first = client.create("/registry/pods/default/a", "one").await;
    // From a list's revision on: what has happened since, and then what happens.
    let id = watch.begin(pods(first)).await;
    let past = watch.next().await;
    assert_eq!(
        (past.watch_id, told(&past)),
        (id, vec![(EventType::Put, "one".into(), None)])
    );
    client.create("/registry/podtemplates/default/a", "not watched").await;
    let gone = client.delete("/registry/pods/default/a", first).await;
    let now = watch.next().await;
    assert_eq!(told(&now), [(EventType::Delete, String::new(), Some("one".into()))]);
    assert_eq!(now.events[0].kv.as_ref().unwrap().mod_revision, gone);
    assert!(now.header.unwrap().revision >= gone);
    // A second watch of the same stream, and the end of the first.
    let second = watch.begin(pods(0)).await;
    assert_ne!(second, id);
    watch
        .ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id }))
        .await;
    let canceled = watch.next().await;
    assert!(canceled.canceled && canceled.watch_id == id);
    client.create("/registry/pods/default/b", "two").await;
    assert_eq!(watch.next().await.watch_id, second);
}

#[tokio::test]
async fn progress_is_true_when_it_is_asked_for() {
    let channel = connect().await;
    let mut client = Client::new(&channel);
    let mut watch = Watch::open(&channel).await;
    watch.begin(pods(0)).await;
    for round in 0..20 {
        let written = client.create(&format!("/registry/pods/default/{round}"), "x").await;
        let elsewhere = client.create(&format!("/registry/nodes/{round}"), "x").await;
        let mut delivered = 0;
        // kube-apiserver asks again while the answer is too old.
        loop {
            watch.ask(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
            let answer = watch.next().await;
            let revision = answer.header.unwrap().revision;
            if let Some(event) = answer.events.last() {
                delivered = event.kv.as_ref().unwrap().mod_revision;
                continue;
            }
            assert_eq!(answer.watch_id, -1);
            assert!(revision < written || delivered == written, "progress before its event");
            if revision >= elsewhere {
                break;
            }
        }
        // Answers to questions that came too early wait no more.
        while let Ok(Ok(Some(_))) = tokio::time::timeout(Duration::from_millis(1), watch.answers.message()).await {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_told_how_far_it_is() {
    let channel = connect().await;
    let mut client = Client::new(&channel);
    let mut watch = Watch::open(&channel).await;
    let id = watch.begin(pods(0)).await;
    let elsewhere = client.create("/registry/nodes/a", "x").await;
    let begin = Instant::now();
    for round in 1..=2 {
        let answer = watch.next().await;
        assert_eq!((answer.watch_id, answer.events.len(), answer.canceled), (id, 0, false));
        assert!(answer.header.unwrap().revision >= elsewhere);
        // kubeadm's pace for etcd.
        assert_eq!(begin.elapsed().as_secs() / 5, round);
    }
}

#[tokio::test]
async fn an_empty_store_is_watched_from_its_first_revision() {
    let channel = connect().await;
    let mut client = Client::new(&channel);
    let mut watch = Watch::open(&channel).await;
    // kube-apiserver asks for the key of compactions, and watches from the revision of the answer.
    let id = watch.begin(pods(1)).await;
    client.create("/registry/pods/default/a", "one").await;
    let answer = watch.next().await;
    assert_eq!((answer.watch_id, told(&answer).len()), (id, 1));
}

#[tokio::test]
async fn a_watch_begins_anew_where_it_is_told() {
    let channel = connect().await;
    let mut client = Client::new(&channel);
    let first = client.create("/registry/pods/default/a", "one").await;
    let second = client.create("/registry/pods/default/b", "two").await;
    client.create("/registry/pods/default/c", "three").await;
    let mut kv = KvClient::new(channel.clone());
    kv.compact(CompactionRequest {
        revision: second,
        physical: true,
    })
    .await
    .unwrap();
    // What was before the changes of the compacted revision is gone, they are not.
    for (prev_kv, begins, seen) in [
        (false, second, &["two", "three"][..]),
        (true, second + 1, &["three"][..]),
    ] {
        let pods = |from| WatchCreateRequest { prev_kv, ..pods(from) };
        let mut watch = Watch::open(&channel).await;
        let id = watch.begin(pods(first)).await;
        let refused = watch.next().await;
        assert_eq!(
            (refused.watch_id, refused.canceled, refused.compact_revision),
            (id, true, begins)
        );
        watch.begin(pods(refused.compact_revision)).await;
        let answer = watch.next().await;
        let values: Vec<String> = told(&answer).into_iter().map(|(_, value, _)| value).collect();
        assert_eq!(values, seen);
    }
}

#[tokio::test]
async fn large_answers_come_in_fragments_for_those_who_take_them() {
    let channel = connect().await;
    let mut client = Client::new(&channel);
    let mut watch = Watch::open(&channel).await;
    let whole = watch.begin(pods(0)).await;
    let parts = watch
        .begin(WatchCreateRequest {
            fragment: true,
            ..pods(0)
        })
        .await;
    let put = |name: usize| {
        let put = PutRequest {
            key: format!("/registry/pods/default/{name}").into(),
            value: vec![b'x'; 900_000].into(),
            ..PutRequest::default()
        };
        rpc::etcd::etcdserverpb::RequestOp {
            request: Some(Ask::RequestPut(put)),
        }
    };
    let request = TxnRequest {
        success: (0..5).map(put).collect(),
        ..TxnRequest::default()
    };
    KvClient::new(channel.clone()).txn(request).await.unwrap();
    let mut seen: Vec<(i64, usize, bool)> = Vec::new();
    while seen.len() < 4 {
        let answer = watch.next().await;
        seen.push((answer.watch_id, answer.events.len(), answer.fragment));
    }
    seen.sort_by_key(|(id, ..)| *id);
    assert_eq!(
        seen,
        [(whole, 5, false), (parts, 2, true), (parts, 2, true), (parts, 1, false)]
    );
    // The same out of the history.
    let revision = client.create("/registry/pods/default/last", "x").await - 1;
    let mut later = Watch::open(&channel).await;
    later
        .begin(WatchCreateRequest {
            fragment: true,
            ..pods(revision)
        })
        .await;
    let mut events = Vec::new();
    loop {
        let answer = later.next().await;
        events.push(answer.events.len());
        if !answer.fragment {
            break;
        }
    }
    assert_eq!(events.iter().sum::<usize>(), 6, "{events:?}");
    assert!(events.len() > 1);
}

#[tokio::test]
async fn what_is_filtered_does_not_come() {
    let channel = connect().await;
    let mut client = Client::new(&channel);
    let mut watch = Watch::open(&channel).await;
    let filtered = |filter: FilterType| WatchCreateRequest {
        filters: vec![filter.into()],
        ..pods(0)
    };
    let deletes = watch.begin(filtered(FilterType::Noput)).await;
    let puts = watch.begin(filtered(FilterType::Nodelete)).await;
    let revision = client.create("/registry/pods/default/a", "x").await;
    client.delete("/registry/pods/default/a", revision).await;
    for (id, kind) in [(puts, EventType::Put), (deletes, EventType::Delete)] {
        let answer = watch.next().await;
        let kinds: Vec<_> = answer.events.iter().map(|event| event.r#type()).collect();
        assert_eq!((answer.watch_id, kinds), (id, vec![kind]));
    }
}
