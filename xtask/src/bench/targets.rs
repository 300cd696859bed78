//! The table: what each figure is, what the design aims at (its section 5), what others reach, and what limits ours.

use Bound::{AtLeast, AtLeastOf, AtMost, None};

/// What was aimed at.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// Nothing: the machine's own limit, or a figure that explains another.
    None,
    /// As little.
    AtMost(f64),
    /// As much.
    AtLeast(f64),
    /// As much as this share of another figure.
    AtLeastOf(f64, &'static str),
}

impl Bound {
    /// In words.
    pub fn text(self, unit: &str) -> String {
        match self {
            Bound::None => String::new(),
            Bound::AtMost(most) => format!("at most {most} {unit}"),
            Bound::AtLeast(least) => format!("at least {least} {unit}"),
            Bound::AtLeastOf(share, other) => format!("at least {share} of {other}"),
        }
    }
}

/// A row of the table.
pub struct Target {
    /// The figure's name, as the programs print it.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// Of the figure and of the bound.
    pub unit: &'static str,
    /// What was aimed at.
    pub bound: Bound,
    /// What others reach, from the design.
    pub anchor: &'static str,
    /// What keeps ours from being better.
    pub limit: &'static str,
}

const fn row(
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    bound: Bound,
    anchor: &'static str,
    limit: &'static str,
) -> Target {
    Target {
        name,
        what,
        unit,
        bound,
        anchor,
        limit,
    }
}

const K3S_START: &str = "k3d 20 s, kind 33 s";
const ENVTEST: &str = "envtest: several seconds";
const K3S_BINARY: &str = "k3s 65-70 MB";
const PUTS: &str = "etcd alone about 50k puts/s on server disks";
const LISTS: &str = "kube-apiserver: seconds and gigabytes";
const CORES: &str = "the cores, which the load generator shares";

/// All rows, the machine's own limits first.
pub const TARGETS: &[Target] = &[
    row("machine.cores", "machine: processors", "", None, "", ""),
    row("machine.fdatasync", "machine: fdatasync", "/s", None, "", "the disk"),
    row(
        "machine.handshakes",
        "machine: TLS handshakes",
        "/s",
        None,
        "",
        "one core",
    ),
    row(
        "machine.encrypt",
        "machine: TLS encryption",
        "MB/s",
        None,
        "",
        "one core",
    ),
    row(
        "machine.netns",
        "machine: network namespaces",
        "/s",
        None,
        "",
        "the kernel's RCU grace periods",
    ),
    row(
        "control.cold",
        "control plane only, API answering, cold",
        "s",
        AtMost(0.2),
        ENVTEST,
        "fsyncs of keys and settings, first objects",
    ),
    row(
        "control.warm",
        "control plane only, API answering, warm",
        "s",
        AtMost(0.1),
        ENVTEST,
        "starting two processes",
    ),
    row(
        "up.cold",
        "up to Ready node, cold",
        "s",
        AtMost(1.0),
        K3S_START,
        "the above and the node's namespaces",
    ),
    row(
        "up.warm",
        "up to Ready node, warm",
        "s",
        AtMost(0.6),
        K3S_START,
        "the above",
    ),
    row(
        "up.demo",
        "up to demo pods answering",
        "s",
        AtMost(3.0),
        "k3d 20 s, minikube 51 s",
        "kubectl's own start, readiness probes each second",
    ),
    row(
        "idle.memory",
        "idle memory, control plane and one node",
        "MB",
        AtMost(60.0),
        "k3s 430-565 MB, k0s 510 MB, KubeSolo 200 MB",
        "the schema of all kinds; threads' stacks and arenas",
    ),
    row(
        "idle.cpu",
        "idle CPU",
        "% of a core",
        AtMost(0.5),
        "k3s 5-10 %",
        "leases, status renewals and timers",
    ),
    row(
        "pod.memory",
        "each running pod's cost to us",
        "MB",
        AtMost(0.5),
        "containerd-shim about 10 MB",
        "the shim's page tables and stacks; the pod's objects",
    ),
    row(
        "binary.release",
        "binary, static, stripped",
        "MB",
        AtMost(30.0),
        K3S_BINARY,
        "generic code of typed objects, gRPC and HTTP/2; unwind tables",
    ),
    row(
        "binary.dist",
        "binary as published (profile dist)",
        "MB",
        AtMost(30.0),
        K3S_BINARY,
        "the same",
    ),
    row(
        "create.cpu",
        "durable 2 kB create: server CPU",
        "us",
        AtMost(100.0),
        PUTS,
        "decoding, normal form, managers, validation, encoding",
    ),
    row(
        "create.rate",
        "durable 2 kB creates",
        "/s",
        AtLeast(10_000.0),
        PUTS,
        CORES,
    ),
    row(
        "update.cpu",
        "durable 2 kB update: server CPU",
        "us",
        None,
        "",
        "the same, and the comparison with what was there",
    ),
    row("update.rate", "durable 2 kB updates", "/s", None, "", CORES),
    row(
        "apply.cpu",
        "durable 2 kB server-side apply: server CPU",
        "us",
        None,
        "",
        "the same, and the comparison with what was there",
    ),
    row("apply.rate", "durable 2 kB server-side applies", "/s", None, "", CORES),
    row(
        "get.cpu",
        "GET of a 4 kB pod: server CPU",
        "us",
        AtMost(20.0),
        "kube-apiserver: not measured here",
        "system calls and TLS of one request",
    ),
    row("get.rate", "GETs of a 4 kB pod", "/s", None, "", CORES),
    row(
        "get.http2.cpu",
        "the same over HTTP/2: server CPU",
        "us",
        AtMost(20.0),
        "",
        "frames and windows of HTTP/2",
    ),
    row("get.http2.rate", "the same over HTTP/2", "/s", None, "", CORES),
    row(
        "list.1.seconds",
        "LIST of 10k pods, one client",
        "s",
        None,
        LISTS,
        "encryption, and the client's reading",
    ),
    row(
        "list.1.rate",
        "LIST of 10k pods, one client: speed",
        "MB/s",
        AtLeastOf(0.5, "machine.encrypt"),
        LISTS,
        "encryption and two copies through loopback",
    ),
    row(
        "list.1.growth",
        "LIST, one client: memory a stream",
        "KiB",
        AtMost(256.0),
        LISTS,
        "frames that wait for the socket",
    ),
    row(
        "list.16.seconds",
        "LIST of 10k pods, 16 clients at once",
        "s",
        None,
        LISTS,
        CORES,
    ),
    row(
        "list.16.rate",
        "LIST of 10k pods, 16 clients: speed",
        "MB/s",
        AtLeastOf(0.5, "machine.encrypt"),
        LISTS,
        CORES,
    ),
    row(
        "list.16.growth",
        "LIST, 16 clients: memory a stream",
        "KiB",
        AtMost(256.0),
        LISTS,
        "frames that wait for the socket",
    ),
    row(
        "watch.alone",
        "watch: deliveries of single 1 kB events",
        "/s a core",
        AtLeast(500_000.0),
        "40k events/s a kind, then stalls",
        "one write system call and one TLS record a delivery",
    ),
    row(
        "watch.burst",
        "watch: deliveries of coalesced 1 kB events",
        "/s a core",
        AtLeast(1_000_000.0),
        "40k events/s a kind, then stalls",
        "encryption",
    ),
    row(
        "watch.memory",
        "each watcher",
        "KiB",
        AtMost(30.0),
        "",
        "TLS and HTTP buffers",
    ),
    row(
        "fanout.alone",
        "the same with 10,000 watchers, single events",
        "/s a core",
        AtLeast(500_000.0),
        "",
        "one write system call and one TLS record a delivery",
    ),
    row(
        "fanout.burst",
        "the same with 10,000 watchers, coalesced events",
        "/s a core",
        AtLeast(1_000_000.0),
        "",
        "encryption",
    ),
    row(
        "fanout.memory",
        "each of 10,000 watchers",
        "KiB",
        AtMost(30.0),
        "",
        "TLS and HTTP buffers",
    ),
    row(
        "large.1.seconds",
        "LIST of 100k pods, one client",
        "s",
        None,
        LISTS,
        CORES,
    ),
    row(
        "large.1.rate",
        "LIST of 100k pods, one client: speed",
        "MB/s",
        AtLeastOf(0.5, "machine.encrypt"),
        LISTS,
        "encryption and two copies through loopback",
    ),
    row(
        "large.1.growth",
        "LIST of 100k pods, one client: memory a stream",
        "KiB",
        AtMost(256.0),
        LISTS,
        "frames that wait for the socket",
    ),
    row(
        "large.8.seconds",
        "LIST of 100k pods, 8 clients at once",
        "s",
        None,
        LISTS,
        CORES,
    ),
    row(
        "large.8.rate",
        "LIST of 100k pods, 8 clients at once: speed",
        "MB/s",
        AtLeastOf(0.5, "machine.encrypt"),
        LISTS,
        "encryption and two copies through loopback",
    ),
    row(
        "large.8.growth",
        "LIST of 100k pods, 8 clients at once: memory a stream",
        "KiB",
        AtMost(256.0),
        LISTS,
        "frames that wait for the socket",
    ),
    row(
        "large.64.seconds",
        "LIST of 100k pods, 64 clients at once",
        "s",
        None,
        LISTS,
        CORES,
    ),
    row(
        "large.64.rate",
        "LIST of 100k pods, 64 clients at once: speed",
        "MB/s",
        AtLeastOf(0.5, "machine.encrypt"),
        LISTS,
        "encryption and two copies through loopback",
    ),
    row(
        "large.64.growth",
        "LIST of 100k pods, 64 clients at once: memory a stream",
        "KiB",
        AtMost(256.0),
        LISTS,
        "frames that wait for the socket",
    ),
    row(
        "large.label.cpu",
        "LIST of 100 of 100k pods by label: server CPU",
        "ms",
        None,
        "",
        "the selector looks at each pod",
    ),
    row(
        "large.node.cpu",
        "LIST of no pod of 100k by node: server CPU",
        "ms",
        None,
        "",
        "the selector looks at each pod",
    ),
    row(
        "large.start",
        "start with 100k pods",
        "s",
        None,
        "",
        "reading and checking the store's files",
    ),
    row(
        "pod.start.p50",
        "pod start, bind to Running, p50",
        "ms",
        AtMost(60.0),
        "0.5-2 s",
        "the kernel: namespaces, mounts, control groups",
    ),
    row(
        "pod.start.p99",
        "pod start, bind to Running, p99",
        "ms",
        AtMost(150.0),
        "0.5-2 s",
        "RCU grace periods of control groups",
    ),
    row(
        "pods.seconds",
        "110 pods at once",
        "s",
        AtMost(3.0),
        "SLO 5 s at p99",
        "the kernel's locks of namespaces and mounts",
    ),
    row(
        "pods.cpu",
        "110 pods at once: CPU a pod",
        "ms",
        AtMost(40.0),
        "",
        "the helper that makes the container",
    ),
    row(
        "services.cold",
        "services 10k x 10 endpoints, cold",
        "s",
        AtMost(1.0),
        "kube-proxy nftables: minutes",
        "the kernel's commit",
    ),
    row(
        "services.change",
        "services 10k x 10 endpoints, one change",
        "ms",
        AtMost(3.0),
        "kube-proxy nftables: 141 ms",
        "the kernel's commit",
    ),
    row(
        "scheduler.basic",
        "scheduling decisions at 5,000 nodes",
        "/s",
        AtLeast(10_000.0),
        "kube-scheduler 680-810 pods/s",
        "filters and scores of the nodes looked at; one core",
    ),
    row(
        "scheduler.affinity",
        "the same with node affinity",
        "/s",
        AtLeast(1_000.0),
        "kube-scheduler 220 pods/s",
        "the same",
    ),
    row(
        "scheduler.end_to_end",
        "pods bound against an API in memory",
        "/s",
        AtLeast(3_000.0),
        "kube-scheduler 680-810 pods/s",
        "the API in memory, which is made for tests",
    ),
    row(
        "store.rate",
        "store alone: durable 2 kB commits",
        "/s",
        None,
        PUTS,
        "the disk's fdatasync; one core",
    ),
    row("store.cpu", "store alone: CPU a commit", "us", None, "", "the same"),
];
