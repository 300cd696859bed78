//! Clusters with a node of their own: real containers in namespaces of the node's.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use client::resource::resources::PODS;
use client::{ListParams, WatchParams};
use serde_json::Value;

use crate::cluster::{Cluster, Workplace, succeed};

/// The image that all pods run: the project's own test program.
pub const IMAGE: &str = "trireme.local/demo:1";
/// The same under another name, for updates.
pub const OTHER_IMAGE: &str = "trireme.local/demo:2";
/// How long something may take that no command waits for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(50);

/// The cluster that tests of pods and networks share.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(start)
}

/// A cluster of the caller's own, its node ready and its images there.
pub fn start() -> Cluster {
    start_with(&[])
}

/// The same with variables in the environment of its daemons.
pub fn start_with(environment: &[(&str, &str)]) -> Cluster {
    let cluster = Cluster::prepare();
    succeed(&cluster.trireme_with(&["--quiet", "up", "--api-port", "0"], environment));
    for name in [IMAGE, OTHER_IMAGE] {
        let archive = cluster.dir.join("image.tar");
        std::fs::write(&archive, runtime::image::demo_image(name)).unwrap();
        let said = succeed(&cluster.trireme(&["image", "import", &archive.display().to_string()]));
        assert!(said.lines().any(|line| line == name), "{said}");
    }
    ready(&cluster);
    cluster
}

/// `trireme up` with a node.
pub fn up(cluster: &Cluster) {
    let first: &[&str] = if cluster.dir.join("data/settings.json").exists() {
        &[]
    } else {
        &["--api-port", "0"]
    };
    succeed(&cluster.trireme(&[&["--quiet", "up"], first].concat()));
}

/// Waits until the node is ready.
pub fn ready(cluster: &Cluster) {
    cluster.kubectl_ok(&[
        "wait",
        "--for=condition=Ready",
        &format!("node/{}", name(cluster)),
        crate::cluster::PATIENCE,
    ]);
}

/// The node's name.
pub fn name(cluster: &Cluster) -> String {
    let settings = std::fs::read(cluster.dir.join("data/settings.json")).unwrap();
    let settings: Value = serde_json::from_slice(&settings).unwrap();
    settings["node"].as_str().unwrap().to_owned()
}

/// The process that holds the node's namespaces.
pub fn holder(cluster: &Cluster) -> i32 {
    let file = std::fs::read(cluster.dir.join(format!("run/node-{}.process", name(cluster)))).unwrap();
    let process: Value = serde_json::from_slice(&file).unwrap();
    process["pid"].as_i64().unwrap().try_into().unwrap()
}

/// The node's daemon, found by its words: no file tells of it.
pub fn daemon(cluster: &Cluster) -> Option<i32> {
    let dir = cluster.dir.display().to_string();
    processes().into_iter().find(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        words.contains(&&b"node"[..]) && words.contains(&dir.as_bytes())
    })
}

/// All processes of this machine.
pub fn processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The node's processes: those in its IPC namespace, and those in a control group of its pods.
pub fn inside(cluster: &Cluster) -> Vec<i32> {
    let namespace = |pid: i32| {
        std::fs::metadata(format!("/proc/{pid}/ns/ipc"))
            .map(|meta| meta.ino())
            .ok()
    };
    let own = namespace(std::process::id().cast_signed());
    let cgroup = cgroup(cluster);
    let holder = namespace(holder(cluster));
    let is_inside = |pid: &i32| {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let here = namespace(*pid);
        groups.contains(&cgroup) || (here.is_some() && here == holder && here != own)
    };
    processes().into_iter().filter(is_inside).collect()
}

/// The name of the control group below which the cluster's pods live, as the layout makes it from the directory.
pub fn cgroup(cluster: &Cluster) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in cluster.dir.join("data").as_os_str().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("trireme-{:08x}", hash & 0xffff_ffff)
}

/// The name of the control plane's control group.
pub fn server_cgroup(cluster: &Cluster) -> String {
    cgroup(cluster).replace("trireme-", "trireme-server-")
}

/// The directories of a control group in every hierarchy.
pub fn cgroup_directories(name: &str) -> Vec<PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let all = hierarchies
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .map(|path| path.join(name));
    all.filter(|path| path.exists()).collect()
}

/// The process of a container, as `pid start`: the first one in its control group.
pub fn process_of(container: &str) -> String {
    let id = container.rsplit('/').next().unwrap();
    let found = processes().into_iter().find(|pid| {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.contains(id)
    });
    let pid = found.unwrap_or_else(|| panic!("no process of the container {container}"));
    format!("{pid} {}", sys::process::start_ticks(pid).unwrap())
}

/// Kills a process and waits for its end.
pub fn kill(pid: i32) {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else {
        return;
    };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
    let mut gone = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut gone, None).unwrap();
}

/// Looks at the pods of a place until something is seen: at once, and whenever the API tells of a change to one of them.
#[track_caller]
pub fn until_pods<T>(cluster: &Cluster, place: &Workplace, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let client = cluster.client();
    let seen = runtime.unwrap().block_on(async {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let list = client
                .list_in::<Value>(&PODS, &place.namespace, &ListParams::default())
                .await
                .unwrap();
            let params = WatchParams {
                resource_version: list.resource_version,
                ..WatchParams::default()
            };
            let mut news = client
                .watch_in::<Value>(&PODS, &place.namespace, &params)
                .await
                .unwrap();
            // Until the watch ends: then it begins again.
            loop {
                if let Some(seen) = look() {
                    return Some(seen);
                }
                match tokio::time::timeout_at(deadline, news.next()).await {
                    Err(_) => return None,
                    Ok(Some(Ok(_))) => while news.next_ready().is_some() {},
                    Ok(_) => break,
                }
            }
        }
    });
    seen.unwrap_or_else(|| panic!("{what} was not seen"))
}

/// Reads a pod's log as it grows, until it has a text.
#[track_caller]
pub fn log_until(place: &Workplace, pod: &str, text: &str) -> String {
    let limit = format!("--request-timeout={}s", PATIENCE.as_secs());
    let mut kubectl = place
        .command("kubectl")
        .args(["logs", "--follow", pod, &limit])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl in PATH");
    let mut lines = BufReader::new(kubectl.stdout.take().unwrap());
    let mut log = String::new();
    while !log.contains(text) {
        let length = lines.read_line(&mut log).unwrap();
        assert!(length > 0, "{text:?} is not in the log of {pod}: {log}");
    }
    kubectl.kill().unwrap();
    kubectl.wait().unwrap();
    log
}

/// Looks until something is seen that nobody tells: what a container, a file of the machine or a Service answers.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} was not seen");
        std::thread::sleep(PAUSE);
    }
}

/// Looks until people were told something of a pod: events are written beside what they tell of, and may come later.
#[track_caller]
pub fn until_event(place: &Workplace, pod: &str, text: &str) {
    until(&format!("the event {text:?} of {pod}"), || {
        let events = place.kubectl_ok(&["events", "--for", &format!("pod/{pod}")]);
        events.contains(text).then_some(())
    });
}

/// The pods of a namespace by name.
pub fn pods(place: &Workplace, selector: &str) -> BTreeMap<String, Value> {
    let list = place.get(&["pods", "-l", selector]);
    let pods = list["items"].as_array().unwrap().iter().cloned();
    pods.map(|pod| (pod["metadata"]["name"].as_str().unwrap().to_owned(), pod))
        .collect()
}

/// Creates what stands in a text of YAML, `IMAGE` in it being the image.
pub fn create(place: &Workplace, yaml: &str) {
    let yaml = format!(
        "# kubectl takes a text that begins with a brace for JSON.\n{}",
        yaml.replace("IMAGE", IMAGE)
    );
    succeed(&place.kubectl_with(&["create", "-f", "-"], &yaml));
}

/// The status that `kubectl get pod` shows.
pub fn shown(place: &Workplace, pod: &str) -> String {
    let line = place.kubectl_ok(&["get", "pod", pod, "--no-headers"]);
    line.split_whitespace().nth(2).unwrap().to_owned()
}
