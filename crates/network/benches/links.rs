//! Pod links at scale, in network namespaces of its own: a hundred and ten pods one by one, together, and their removal.
//!
//! `cargo bench -p network --bench links`. Prints one line a figure.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use network::PodLinks;
use network::links::LinksConfig;
use network::node::MTU;
use sys::netns::NetworkNamespace;

/// The kubelet's default limit of pods on a node.
const PODS: usize = 110;

fn main() {
    let node = NetworkNamespace::create().expect("a network namespace");
    let directory = std::env::temp_dir().join(format!("trireme-bench-{}", std::process::id()));
    let config = LinksConfig {
        record_directory: directory.clone(),
        pod_network: "10.244.0.0/24".parse().expect("a network"),
        mtu: MTU,
    };
    let links = PodLinks::open(&node, config.clone()).expect("links");
    let keys: Vec<String> = (0..PODS).map(|place| format!("pod-{place}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();

    let (pods, made) = timed(namespaces);
    println!("{PODS} network namespaces: {made:?}");
    let ((), one_by_one) = timed(|| {
        for (pod, key) in pods.iter().zip(&keys) {
            links.add(&path(pod), key).expect("a link");
        }
    });
    println!("{PODS} links one by one: {one_by_one:?}");
    let (_again, recovered) = timed(|| PodLinks::open(&node, config).expect("links"));
    println!("recovery of {PODS} links: {recovered:?}");
    let ((), removed) = timed(|| keys.iter().for_each(|key| links.remove(key).expect("removed")));
    println!("removal one by one: {removed:?}");
    drop(pods);

    let (pods, _) = timed(namespaces);
    let paths: Vec<PathBuf> = pods.iter().map(path).collect();
    let requests: Vec<_> = paths.iter().map(PathBuf::as_path).zip(keys.iter().copied()).collect();
    let ((), together) = timed(|| {
        links.add_many(&requests).into_iter().for_each(|answer| {
            answer.expect("a link");
        })
    });
    println!("{PODS} links together: {together:?}");
    let ((), removed) = timed(|| links.remove_many(&keys).expect("removed"));
    println!("removal together: {removed:?}");
    std::fs::remove_dir_all(directory).expect("the records are removed");
}

fn namespaces() -> Vec<NetworkNamespace> {
    (0..PODS)
        .map(|_| NetworkNamespace::create().expect("a network namespace"))
        .collect()
}

fn path(namespace: &NetworkNamespace) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        namespace.as_fd().as_raw_fd()
    ))
}

// A benchmark measures real time; everything else takes it from `base`.
#[allow(clippy::disallowed_methods)]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
