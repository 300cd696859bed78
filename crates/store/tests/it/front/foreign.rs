//! What a kube-apiserver sends to its etcd (`k8s.io/apiserver/pkg/storage/etcd3`), message by message, asked of the front.
//!
//! All of it in one thread and in memory, so that time can be paused.

use base::{Clock, Random};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use rpc::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use rpc::etcd::etcdserverpb::kv_client::KvClient;
use rpc::etcd::etcdserverpb::lease_client::LeaseClient;
use rpc::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use rpc::etcd::etcdserverpb::request_op::Request as Ask;
use rpc::etcd::etcdserverpb::response_op::Response as Answer;
use rpc::etcd::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse,
    RequestOp, StatusRequest, TxnRequest, TxnResponse,
};
use rpc::etcd::mvccpb::KeyValue;
use store::{Driver, Embedded, EmbeddedOptions, Front, FrontOptions};
use tonic::transport::{Channel, Endpoint};

use crate::support::World;

/// Bytes under way between the two ends.
const PIPE_BYTES: usize = 64 * 1024;

/// A connection to a front over a store of its own.
pub async fn connect() -> Channel {
    let world = World::new(1);
    let opened = Embedded::open(EmbeddedOptions {
        raise_revisions_by: 1,
        driver: Driver::Task,
        tuning: store::Tuning::default(),
        ..world.options()
    });
    let options = FrontOptions {
        read_only: Vec::new(),
        advertised: Vec::new(),
        clock: Clock::real(),
        random: Random::seeded(2),
    };
    let front = Front::new(opened.await.unwrap().into(), options).unwrap();
    let connector = tower::service_fn(move |_| {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let front = front.clone();
        tokio::spawn(async move { front.serve(far).await });
        std::future::ready(std::io::Result::Ok(TokioIo::new(near)))
    });
    let endpoint = Endpoint::from_static("http://front");
    endpoint.connect_with_connector(connector).await.unwrap()
}

pub struct Client {
    kv: KvClient<Channel>,
}

fn compare(key: &str, target: CompareTarget, wanted: TargetUnion) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.to_owned().into(),
        target_union: Some(wanted),
        ..Compare::default()
    }
}

fn mod_is(key: &str, revision: i64) -> Compare {
    compare(key, CompareTarget::Mod, TargetUnion::ModRevision(revision))
}

fn put(key: &str, value: &str, lease: i64) -> Ask {
    Ask::RequestPut(PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        ..PutRequest::default()
    })
}

fn get(key: &str) -> Ask {
    Ask::RequestRange(RangeRequest {
        key: key.to_owned().into(),
        ..RangeRequest::default()
    })
}

fn delete(key: &str) -> Ask {
    Ask::RequestDeleteRange(DeleteRangeRequest {
        key: key.to_owned().into(),
        ..DeleteRangeRequest::default()
    })
}

impl Client {
    pub fn new(channel: &Channel) -> Client {
        Client {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
        }
    }

    pub async fn txn(&mut self, compare: Compare, success: Vec<Ask>, failure: Vec<Ask>) -> TxnResponse {
        let operations = |asks: Vec<Ask>| asks.into_iter().map(|ask| RequestOp { request: Some(ask) }).collect();
        let request = TxnRequest {
            compare: vec![compare],
            success: operations(success),
            failure: operations(failure),
        };
        self.kv.txn(request).await.unwrap().into_inner()
    }

    /// Creates a key; its revision.
    pub async fn create(&mut self, key: &str, value: &str) -> i64 {
        let done = self.txn(mod_is(key, 0), vec![put(key, value, 0)], Vec::new()).await;
        assert!(done.succeeded);
        done.header.unwrap().revision
    }

    /// Deletes what a revision wrote; its revision.
    pub async fn delete(&mut self, key: &str, revision: i64) -> i64 {
        let done = self.txn(mod_is(key, revision), vec![delete(key)], vec![get(key)]).await;
        assert!(done.succeeded);
        done.header.unwrap().revision
    }

    async fn range(&mut self, request: RangeRequest) -> Result<RangeResponse, tonic::Status> {
        self.kv.range(request).await.map(tonic::Response::into_inner)
    }
}

/// What the failure branch of a transaction found.
fn found(answer: &TxnResponse) -> Option<&KeyValue> {
    match &answer.responses[0].response {
        Some(Answer::ResponseRange(range)) => range.kvs.first(),
        other => panic!("a range was asked for: {other:?}"),
    }
}

fn page(start: &str, revision: i64) -> RangeRequest {
    RangeRequest {
        key: start.to_owned().into(),
        range_end: "/registry/pods0".into(),
        limit: 2,
        revision,
        ..RangeRequest::default()
    }
}

fn keys(answer: &RangeResponse) -> Vec<&str> {
    let keys = answer.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap());
    keys.collect()
}

#[tokio::test]
async fn objects_are_written_as_kube_apiserver_writes_them() {
    let channel = connect().await;
    let mut client = Client::new(&channel);
    let key = "/registry/pods/default/a";
    // Create; again it fails, and the newer ones ask what is there.
    let created = client.create(key, "one").await;
    let again = client
        .txn(mod_is(key, 0), vec![put(key, "two", 0)], vec![get(key)])
        .await;
    assert!(!again.succeeded);
    assert_eq!(found(&again).unwrap().mod_revision, created);
    // GuaranteedUpdate.
    let updated = client
        .txn(mod_is(key, created), vec![put(key, "two", 0)], vec![get(key)])
        .await;
    let revision = updated.header.unwrap().revision;
    assert!(updated.succeeded && revision == created + 1);
    let stale = client
        .txn(mod_is(key, created), vec![put(key, "three", 0)], vec![get(key)])
        .await;
    let kept = found(&stale).unwrap();
    assert!(!stale.succeeded);
    assert_eq!(
        (&kept.value[..], kept.create_revision, kept.mod_revision, kept.version),
        (&b"two"[..], created, revision, 2)
    );
    // Delete.
    let stale = client
        .txn(mod_is(key, created), vec![delete(key)], vec![get(key)])
        .await;
    assert!(!stale.succeeded && found(&stale).is_some());
    client.delete(key, revision).await;
    let gone = client
        .txn(mod_is(key, revision), vec![delete(key)], vec![get(key)])
        .await;
    assert!(!gone.succeeded && found(&gone).is_none());
    // The health check.
    let health = client.range(RangeRequest {
        key: "/registry/health".into(),
        ..RangeRequest::default()
    });
    assert_eq!(health.await.unwrap().count, 0);
}

#[tokio::test]
async fn lists_are_read_in_pages_of_one_revision() {
    let channel = connect().await;
    let mut client = Client::new(&channel);
    for name in ["a", "b", "c", "d", "e"] {
        client.create(&format!("/registry/pods/default/{name}"), name).await;
    }
    client.create("/registry/podtemplates/default/x", "x").await;
    let first = client.range(page("/registry/pods/", 0)).await.unwrap();
    let revision = first.header.unwrap().revision;
    assert_eq!(keys(&first), ["/registry/pods/default/a", "/registry/pods/default/b"]);
    assert_eq!((first.more, first.count), (true, 5));
    // What happens between two pages is not in the second one.
    let c = first.kvs[1].mod_revision + 1;
    client.delete("/registry/pods/default/c", c).await;
    client.create("/registry/pods/default/bb", "x").await;
    // The continue token is the last key and a zero byte, at the first page's revision.
    let second = client
        .range(page("/registry/pods/default/b\0", revision))
        .await
        .unwrap();
    assert_eq!(keys(&second), ["/registry/pods/default/c", "/registry/pods/default/d"]);
    assert_eq!((second.more, second.count), (true, 3));
    let last = client
        .range(page("/registry/pods/default/d\0", revision))
        .await
        .unwrap();
    assert_eq!(
        (keys(&last), last.more, last.count),
        (vec!["/registry/pods/default/e"], false, 1)
    );
    let count = RangeRequest {
        limit: 0,
        count_only: true,
        ..page("/registry/pods/", 0)
    };
    let counted = client.range(count).await.unwrap();
    assert_eq!((counted.kvs.len(), counted.count), (0, 5));
    let future = client.range(page("/registry/pods/", revision + 100)).await.unwrap_err();
    assert_eq!(
        future.message(),
        "etcdserver: mvcc: required revision is a future revision"
    );
}

#[tokio::test]
async fn one_of_several_servers_compacts() {
    let channel = connect().await;
    let mut client = Client::new(&channel);
    let old = client.create("/registry/pods/default/a", "x").await;
    let now = client.create("/registry/pods/default/b", "x").await;
    let turn = |version| {
        let shared = "compact_rev_key";
        let compare = compare(shared, CompareTarget::Version, TargetUnion::Version(version));
        (compare, vec![put(shared, &now.to_string(), 0)], vec![get(shared)])
    };
    let (compare, success, failure) = turn(0);
    assert!(client.txn(compare, success, failure).await.succeeded);
    // Another server with the same knowledge learns that it was done, and how far.
    let (compare, success, failure) = turn(0);
    let late = client.txn(compare, success, failure).await;
    let shared = found(&late).unwrap();
    assert!(!late.succeeded);
    assert_eq!((&shared.value[..], shared.version), (now.to_string().as_bytes(), 1));
    let compact = CompactionRequest {
        revision: now,
        physical: false,
    };
    client.kv.compact(compact).await.unwrap();
    let refused = client.kv.compact(compact).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "etcdserver: mvcc: required revision has been compacted"
    );
    let refused = client.range(page("/registry/pods/", old)).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "etcdserver: mvcc: required revision has been compacted"
    );
    client.range(page("/registry/pods/", now)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn events_go_with_their_lease() {
    let channel = connect().await;
    let mut client = Client::new(&channel);
    let mut leases = LeaseClient::new(channel.clone());
    let granted = leases.lease_grant(LeaseGrantRequest { ttl: 3600, id: 0 });
    let lease = granted.await.unwrap().into_inner().id;
    let key = "/registry/events/default/a.1";
    let done = client.txn(mod_is(key, 0), vec![put(key, "x", lease)], Vec::new()).await;
    assert!(done.succeeded);
    let only = RangeRequest {
        key: Bytes::from(key),
        ..RangeRequest::default()
    };
    assert_eq!(client.range(only.clone()).await.unwrap().kvs[0].lease, lease);
    tokio::time::sleep(std::time::Duration::from_secs(3500)).await;
    assert_eq!(client.range(only.clone()).await.unwrap().count, 1);
    tokio::time::sleep(std::time::Duration::from_secs(200)).await;
    assert_eq!(client.range(only).await.unwrap().count, 0);
    let unknown = client.kv.put(PutRequest {
        key: "/registry/events/default/b.1".into(),
        lease,
        ..PutRequest::default()
    });
    assert_eq!(
        unknown.await.unwrap_err().message(),
        "etcdserver: requested lease not found"
    );
}

#[tokio::test]
async fn it_says_that_progress_requests_are_true() {
    let channel = connect().await;
    let status = MaintenanceClient::new(channel).status(StatusRequest {}).await.unwrap();
    let version = status.into_inner().version;
    // What kube-apiserver's feature check looks for (`storage/feature/feature_support_checker.go`): 3.5.13 and newer.
    let numbers: Vec<u32> = version.split('.').map(|number| number.parse().unwrap()).collect();
    assert!(numbers >= vec![3, 5, 13], "{version}");
}
