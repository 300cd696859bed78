//! Volumes on a real disk, as root: what containers would see, and that nothing is left.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use base::{Clock, Random, Shutdown};
use client::resources;
use client::testing::FakeApi;
use serde_json::{Value, json};

use super::payload::{File, Payload};
use super::*;

/// A manager below a directory of its own; what was mounted goes when the test ends, however it ends.
struct Node {
    directory: tempfile::TempDir,
    fake: FakeApi,
    manager: VolumeManager,
    shutdown: Shutdown,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.trigger();
        let _ = sys::mounts::detach_below(self.directory.path());
    }
}

// === impl Node ===

impl Node {
    fn new() -> Node {
        let (directory, fake, shutdown) = (tempfile::tempdir().unwrap(), FakeApi::new(), Shutdown::new());
        let allocatable = [("memory".to_owned(), api::quantity::Quantity::parse("64Mi").unwrap())].into();
        let config = Config::new(
            directory.path(),
            NodeFacts {
                host_ips: vec!["10.0.0.1".into()],
                allocatable,
            },
        );
        let manager = VolumeManager::new(
            config,
            fake.client(),
            Clock::real(),
            Random::seeded(1),
            shutdown.clone(),
        );
        Node {
            directory,
            fake,
            manager,
            shutdown,
        }
    }

    fn put(&self, kind: &str, name: &str, data: Value) {
        self.fake.put(json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "n"}, "data": data,
        }));
    }
}

fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    let meta = json!({"name": "p", "namespace": "n", "uid": "u1", "labels": {"a": "b"}});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}

fn read(volume: &Volume, path: &str) -> String {
    std::fs::read_to_string(volume.path.join(path)).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn payload(files: &[(&str, &str)]) -> Payload {
    let file = |data: &str| File {
        data: data.into(),
        mode: 0o640,
        owner: None,
    };
    files
        .iter()
        .map(|(path, data)| ((*path).to_owned(), file(data)))
        .collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| !name.starts_with("..2"));
    names.sort();
    names
}

#[test]
fn files_change_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (target, random) = (dir.path(), Random::seeded(3));
    let write = |files: &[(&str, &str)]| {
        atomic::write(target, &payload(files), Clock::real().now(), &random, || Ok(())).unwrap()
    };
    assert!(write(&[("a", "1"), ("d/x", "2"), ("d/y/z", "3")]));
    assert_eq!(names(target), ["..data", "a", "d"]);
    assert_eq!(std::fs::read_to_string(target.join("d/y/z")).unwrap(), "3");
    assert_eq!(mode(&target.join("a")), 0o640);
    assert_eq!(std::fs::read_link(target.join("a")).unwrap(), Path::new("..data/a"));
    let first = std::fs::read_link(target.join("..data")).unwrap();
    assert!(first.to_str().unwrap().starts_with("..20"), "{first:?}");
    assert!(!write(&[("a", "1"), ("d/x", "2"), ("d/y/z", "3")]));
    assert_eq!(std::fs::read_link(target.join("..data")).unwrap(), first);
    // What a crash left goes with the next change.
    std::fs::create_dir(target.join("..2020_01_01_00_00_00.1")).unwrap();
    assert!(write(&[("a", "12"), ("e", "4")]));
    assert_eq!(names(target), ["..data", "a", "e"]);
    let left = std::fs::read_dir(target)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().is_dir())
        .count();
    // The current directory, the link to it.
    assert_eq!(left, 2);
    assert!(write(&[]));
    assert_eq!(names(target), ["..data"]);
}

#[test]
fn what_fails_leaves_the_old_files() {
    let dir = tempfile::tempdir().unwrap();
    let (target, random) = (dir.path(), Random::seeded(3));
    let now = Clock::real().now();
    atomic::write(target, &payload(&[("a", "1")]), now, &random, || Ok(())).unwrap();
    let failed = atomic::write(target, &payload(&[("a", "2")]), now, &random, || {
        Err(std::io::Error::other("no"))
    });
    assert!(failed.is_err());
    assert_eq!(std::fs::read_to_string(target.join("a")).unwrap(), "1");
    assert_eq!(std::fs::read_dir(target).unwrap().count(), 3);
}

#[test]
fn removal_follows_no_link_and_enters_no_mount() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
    std::fs::create_dir_all(tree.join("a/b")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "").unwrap();
    symlink(&outside, tree.join("a/link")).unwrap();
    std::fs::write(tree.join("a/file"), "").unwrap();
    sys::mounts::bind(&outside, &tree.join("a/b"), false).unwrap();
    assert!(removal::remove_tree(&tree).is_err());
    assert!(outside.join("kept").exists());
    sys::mounts::detach(&tree.join("a/b")).unwrap();
    // Deeper than what one go takes.
    let mut deep = tree.clone();
    for _ in 0..150 {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), "").unwrap();
    removal::remove_tree(&tree).unwrap();
    assert!(!tree.exists() && outside.join("kept").exists());
    removal::remove_tree(&tree).unwrap();
}

#[test]
fn sub_paths_do_not_leave_their_volume() {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("volume");
    std::fs::create_dir_all(volume.join("in/deep")).unwrap();
    std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o2775)).unwrap();
    std::fs::create_dir(dir.path().join("out")).unwrap();
    symlink("in", volume.join("inner")).unwrap();
    symlink(dir.path().join("out"), volume.join("absolute")).unwrap();
    symlink("../out", volume.join("relative")).unwrap();
    for (sub, fine) in [
        ("in", true),
        (".", true),
        ("inner/deep", true),
        ("new/one", true),
        ("inner/new", true),
        ("absolute", false),
        ("relative", false),
        ("relative/x", false),
        ("absolute/new/x", false),
    ] {
        assert_eq!(sub_path::resolve(&volume, sub).is_ok(), fine, "{sub}");
    }
    assert_eq!(mode(&volume.join("new/one")), 0o2775);
    assert_eq!(std::fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
    assert!(volume.join("in/new").is_dir());
    for (sub, fine) in [
        ("a/b", true),
        ("/a", false),
        ("a/../b", false),
        ("..", false),
        ("a..b", true),
    ] {
        assert_eq!(sub_path::validate(sub).is_ok(), fine, "{sub}");
    }
}

#[tokio::test]
async fn all_kinds_of_volumes() {
    let node = Node::new();
    node.put("ConfigMap", "cm", json!({"key": "value", "other": "x"}));
    node.put("Secret", "s", json!({"password": "c2VjcmV0"}));
    let pod = pod(json!({
        "securityContext": {"fsGroup": 4321},
        "volumes": [
            {"name": "disk", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "cm", "configMap": {"name": "cm", "items": [{"key": "key", "path": "d/k", "mode": 256}]}},
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
            {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "all", "projected": {"sources": [
                {"configMap": {"name": "cm"}}, {"secret": {"name": "s"}}, {"secret": {"name": "none", "optional": true}},
            ]}},
            {"name": "host", "hostPath": {"path": "/proc", "type": "Directory"}},
        ],
    }));
    let volumes = node.manager.prepare(&pod).await.unwrap();
    assert!(volumes.warnings.is_empty());
    let volume = |name: &str| &volumes.volumes[name];
    assert_eq!(read(volume("cm"), "d/k"), "value");
    assert_eq!(mode(&volume("cm").path.join("d/k")), 0o440);
    assert_eq!(read(volume("s"), "password"), "secret");
    assert_eq!(volume("s").path.join("password").metadata().unwrap().gid(), 4321);
    assert_eq!(read(volume("down"), "labels"), "a=\"b\"");
    assert_eq!(names(&volume("all").path), ["..data", "key", "other", "password"]);
    assert_eq!(volume("host").path, Path::new("/proc"));
    assert_eq!(mode(&volume("disk").path), 0o2777);
    assert_eq!(volume("disk").path.metadata().unwrap().gid(), 4321);
    assert!(volume("cm").read_only && !volume("disk").read_only);
    let mounted: Vec<sys::mounts::Mount> = sys::mounts::list().unwrap();
    let of = |name: &str| mounted.iter().find(|mount| mount.target == volume(name).path);
    assert!(
        of("memory").is_some_and(|mount| mount.super_options.contains("size=1024k")),
        "{:?}",
        of("memory")
    );
    assert!(of("s").is_some_and(|mount| mount.kind == "tmpfs"));
    assert!(of("disk").is_none());
    // What a container wrote stays over a restart of the kubelet.
    std::fs::write(volume("memory").path.join("mine"), "1").unwrap();
    node.manager.prepare(&pod).await.unwrap();
    assert_eq!(read(volume("memory"), "mine"), "1");
    node.manager.teardown("u1").await.unwrap();
    assert!(!node.manager.pod_directory("u1").exists());
    assert_eq!(node.manager.objects().watched(), 0);
    assert!(
        !sys::mounts::list()
            .unwrap()
            .iter()
            .any(|mount| mount.target.starts_with(node.directory.path()))
    );
    node.manager.teardown("u1").await.unwrap();
    assert!(node.manager.teardown("../x").await.is_err());
}

#[tokio::test]
async fn sources_change_under_a_pod() {
    let node = Node::new();
    node.put("ConfigMap", "cm", json!({"key": "1"}));
    let pod = pod(json!({"volumes": [
        {"name": "cm", "configMap": {"name": "cm"}}, {"name": "later", "secret": {"secretName": "later"}},
    ]}));
    let why = node.manager.prepare(&pod).await.unwrap_err();
    assert_eq!(
        why.to_string(),
        "MountVolume.SetUp failed for volume \"later\" : secret \"later\" not found"
    );
    assert_eq!(why.reason(), "FailedMount");
    let mut changes = node.manager.changes("u1");
    node.put("Secret", "later", json!({}));
    assert!(changes.next().await);
    let volumes = node.manager.prepare(&pod).await.unwrap();
    assert_eq!(node.manager.objects().watched(), 2);
    node.fake.edit(&resources::CONFIG_MAPS, "n", "cm", |object| {
        object["data"]["key"] = "2".into()
    });
    assert!(changes.next().await);
    node.manager.prepare(&pod).await.unwrap();
    assert_eq!(read(&volumes.volumes["cm"], "key"), "2");
    // The pod goes on with what it has when a source goes.
    node.fake.remove(&resources::CONFIG_MAPS, "n", "cm");
    assert!(changes.next().await);
    let volumes = node.manager.prepare(&pod).await.unwrap();
    assert_eq!(read(&volumes.volumes["cm"], "key"), "2");
    let warnings: Vec<String> = volumes.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["MountVolume.SetUp failed for volume \"cm\" : configmap \"cm\" not found"]
    );
    let selectors: Vec<String> = node
        .fake
        .take_requests()
        .iter()
        .map(client::testing::Seen::line)
        .collect();
    assert!(
        selectors
            .iter()
            .all(|line| line.starts_with("watch ") || line.starts_with("list ")),
        "{selectors:?}"
    );
    node.manager.teardown("u1").await.unwrap();
    assert!(!changes.next().await);
}

#[tokio::test]
async fn what_is_not_supported_says_so() {
    let node = Node::new();
    for (volume, expect) in [
        (
            json!({"nfs": {"server": "x", "path": "/"}}),
            "no volume plugin matched name: kubernetes.io/nfs",
        ),
        (
            json!({"emptyDir": {"medium": "HugePages"}}),
            "storage medium \"HugePages\" is not supported",
        ),
        (
            json!({"hostPath": {"path": "/none/x", "type": "File"}}),
            "hostPath type check failed: /none/x is not a file",
        ),
        (
            json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}, {"secret": {"name": "none"}}]}}),
            "[ClusterTrustBundle projection is not supported by this version of Trireme, secret \"none\" not found]",
        ),
        (json!({"configMap": {"name": "none"}}), "configmap \"none\" not found"),
    ] {
        let mut volume = volume;
        volume["name"] = "v".into();
        let why = node
            .manager
            .prepare(&pod(json!({"volumes": [volume]})))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            why.starts_with(&format!("MountVolume.SetUp failed for volume \"v\" : {expect}")),
            "{why}"
        );
    }
    node.manager.teardown("u1").await.unwrap();
}

#[tokio::test]
async fn what_a_container_mounts() {
    let node = Node::new();
    node.put("ConfigMap", "cm", json!({"key": "1"}));
    let pod = pod(json!({
        "volumes": [{"name": "cm", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}}],
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x"]}],
        "containers": [{"name": "c", "volumeMounts": [
            {"name": "cm", "mountPath": "/cm"},
            {"name": "cm", "mountPath": "/file", "subPath": "key"},
            {"name": "e", "mountPath": "e", "subPathExpr": "$(NAME)/x", "readOnly": true},
            {"name": "e", "mountPath": "/all", "mountPropagation": "HostToContainer"},
        ]}],
    }));
    let volumes = node.manager.prepare(&pod).await.unwrap();
    let environment = Environment {
        variables: vec![("NAME".into(), "pod-1".into())],
        ..Environment::default()
    };
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let mounts = || {
        node.manager
            .mounts(&pod, container, &volumes, &environment, &["10.1.0.2".to_owned()])
            .unwrap()
    };
    let first = mounts();
    let shown: Vec<(&str, bool, i32)> = first
        .iter()
        .map(|mount| (mount.container_path.as_str(), mount.readonly, mount.propagation))
        .collect();
    assert_eq!(
        shown,
        [
            ("/cm", true, 0),
            ("/file", true, 0),
            ("/e", true, 0),
            ("/all", false, 1),
            ("/etc/hosts", false, 0),
            ("/dev/termination-log", false, 0),
        ]
    );
    assert_eq!(std::fs::read_to_string(&first[1].host_path).unwrap(), "1");
    assert!(volumes.volumes["e"].path.join("pod-1/x").is_dir());
    std::fs::write(Path::new(&volumes.volumes["e"].path).join("pod-1/x/file"), "").unwrap();
    assert!(Path::new(&first[2].host_path).join("file").exists());
    assert!(
        std::fs::read_to_string(&first[4].host_path)
            .unwrap()
            .ends_with("10.1.0.2\tp\n\n# Entries added by HostAliases.\n1.2.3.4\tx\n")
    );
    assert_eq!(mode(Path::new(&first[5].host_path)), 0o666);
    // The next run: the same places, a new file for last words; a changed source is bound anew.
    node.fake.edit(&resources::CONFIG_MAPS, "n", "cm", |object| {
        object["data"]["key"] = "2".into()
    });
    assert!(node.manager.changes("u1").next().await);
    node.manager.prepare(&pod).await.unwrap();
    let second = mounts();
    assert_eq!(
        first[..5].iter().map(|m| &m.host_path).collect::<Vec<_>>(),
        second[..5].iter().map(|m| &m.host_path).collect::<Vec<_>>()
    );
    assert_ne!(first[5].host_path, second[5].host_path);
    assert_eq!(std::fs::read_to_string(&second[1].host_path).unwrap(), "2");
    let unknown = node
        .manager
        .mounts(&pod, container, &PodVolumes::default(), &environment, &[])
        .unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "cannot find volume \"cm\" to mount into container \"c\""
    );
    let nameless = node
        .manager
        .mounts(&pod, container, &volumes, &Environment::default(), &[])
        .unwrap_err();
    assert_eq!(nameless.to_string(), "missing value for \"NAME\"");
    node.manager.teardown("u1").await.unwrap();
    assert!(!node.manager.pod_directory("u1").exists());
}

/// An API server that issues tokens, numbered, until it is told not to.
struct Issuer {
    clock: Clock,
    issued: std::sync::atomic::AtomicU64,
    broken: std::sync::atomic::AtomicBool,
}

impl client::Transport for Issuer {
    fn send(
        &self,
        request: http::Request<bytes::Bytes>,
    ) -> futures::future::BoxFuture<'static, Result<http::Response<client::Body>, client::TransportError>> {
        if self.broken.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(client::TransportError::Lost("broken".into()))));
        }
        assert_eq!(request.uri().path(), "/api/v1/namespaces/n/serviceaccounts/sa/token");
        let mut body: Value = serde_json::from_slice(request.body()).unwrap();
        assert_eq!(
            body["spec"]["boundObjectRef"],
            json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u1"})
        );
        let number = self.issued.fetch_add(1, Ordering::SeqCst) + 1;
        let expires =
            self.clock.now() + jiff::SignedDuration::from_secs(body["spec"]["expirationSeconds"].as_i64().unwrap());
        body["status"] = json!({"token": format!("token-{number}"), "expirationTimestamp": expires.to_string()});
        let mut response = http::Response::new(client::body_of(body.to_string()));
        *response.status_mut() = http::StatusCode::CREATED;
        Box::pin(std::future::ready(Ok(response)))
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_are_kept_and_replaced() {
    let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
    let issuer = Arc::new(Issuer {
        clock: clock.clone(),
        issued: Default::default(),
        broken: Default::default(),
    });
    let (directory, shutdown) = (tempfile::tempdir().unwrap(), Shutdown::new());
    let config = Config::new(directory.path(), NodeFacts::default());
    let client = Client::new(issuer.clone());
    let manager = VolumeManager::new(config, client, clock, Random::seeded(1), shutdown.clone());
    let pod = pod(
        json!({"serviceAccountName": "sa", "securityContext": {"fsGroup": 99}, "volumes": [
            {"name": "t", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]}},
        ]}),
    );
    let token = async || {
        let volumes = manager.prepare(&pod).await.unwrap();
        let path = volumes.volumes["t"].path.join("token");
        assert_eq!((mode(&path), path.metadata().unwrap().gid()), (0o640, 99));
        std::fs::read_to_string(path).unwrap()
    };
    assert_eq!(token().await, "token-1");
    assert_eq!(token().await, "token-1");
    // Nothing else happens, so time goes to the moment when the token grows old.
    let mut changes = manager.changes("u1");
    assert!(changes.next().await);
    assert_eq!(token().await, "token-2");
    // Without an API server the old one is kept while it lives.
    assert!(changes.next().await);
    issuer.broken.store(true, Ordering::SeqCst);
    assert_eq!(token().await, "token-2");
    assert!(changes.next().await);
    issuer.broken.store(false, Ordering::SeqCst);
    assert_eq!(token().await, "token-3");
    manager.teardown("u1").await.unwrap();
    assert!(!changes.next().await);
    shutdown.finish().await;
    assert!(!manager.pod_directory("u1").exists());
}
