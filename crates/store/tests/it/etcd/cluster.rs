//! Real etcd members, as child processes on loopback with their data in a temporary directory.
//!
//! They end with the test, however it ends. Clients reach each through a [`Proxy`], which can be cut. They listen at an
//! address of loopback that is this process's own: what others connect from is 127.0.0.1, so that no connection (not one of
//! the proxy's to a member that is dead, either) takes the port that a member comes back to.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use store::{Etcd, EtcdOptions};

use super::proxy::Proxy;

/// How long a member may take to answer after its start: only whether it does matters, on a machine however busy.
const START_MAX: Duration = Duration::from_secs(300);
/// Where the members' ports begin: below those that the kernel gives away.
const FIRST_PORT: u16 = 20_000;

pub struct Member {
    arguments: Vec<String>,
    pub client: String,
    pub proxy: Proxy,
    process: Option<Child>,
}

pub struct Cluster {
    pub members: Vec<Member>,
    /// Removed with the cluster.
    _directory: tempfile::TempDir,
}

/// Addresses that nobody else is given.
fn addresses(count: usize) -> Vec<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // A process id has 22 bits; 127.0 is left to everybody.
    let ours = Ipv4Addr::new(127, 128 + high, middle, low);
    std::iter::repeat_with(|| SocketAddr::from((ours, NEXT.fetch_add(1, Ordering::Relaxed))))
        // A server that listens at all addresses may have the port.
        .filter(|address| TcpListener::bind(address).is_ok())
        .take(count)
        .collect()
}

impl Cluster {
    /// Starts members with more flags than the usual ones, and returns when they answer.
    pub async fn start(count: usize, flags: &[&str]) -> Self {
        Self::start_over(count, "http", flags).await
    }

    pub async fn start_over(count: usize, scheme: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let addresses = addresses(count * 2);
        let (clients, peers) = addresses.split_at(count);
        let initial: Vec<_> = (0..count)
            .map(|index| format!("m{index}=http://{}", peers[index]))
            .collect();
        let mut members = Vec::new();
        for index in 0..count {
            let client = format!("{scheme}://{}", clients[index]);
            let peer = format!("http://{}", peers[index]);
            let data = directory.path().join(format!("m{index}"));
            let mut arguments: Vec<String> = [
                ("--name", format!("m{index}")),
                ("--data-dir", data.to_str().unwrap().to_owned()),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client.clone()),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", initial.join(",")),
                ("--log-level", "error".to_owned()),
            ]
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect();
            // A process that is killed loses nothing of what it wrote; a disk that others keep busy costs elections.
            arguments.push("--unsafe-no-fsync".to_owned());
            arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
            members.push(Member {
                arguments,
                client,
                proxy: Proxy::start(clients[index]).await,
                process: None,
            });
        }
        let mut cluster = Self {
            members,
            _directory: directory,
        };
        for index in 0..count {
            cluster.run(index);
        }
        cluster
    }

    /// Starts a member that does not run.
    pub fn run(&mut self, index: usize) {
        let member = &mut self.members[index];
        let child = Command::new("etcd")
            .args(&member.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd of the Debian package etcd-server");
        member.process = Some(child);
    }

    /// Kills a member.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops a member's process where it is, or lets it go on.
    pub fn pause(&self, index: usize, paused: bool) {
        let child = self.members[index].process.as_ref().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, if paused { Signal::STOP } else { Signal::CONT }).unwrap();
    }

    /// Options of an engine that reaches all members through their proxies.
    pub fn options(&self) -> EtcdOptions {
        let mut options = EtcdOptions::new(self.members.iter().map(|member| member.proxy.address()));
        options.root = "/".into();
        options.prefix = "/test".into();
        options.compaction_interval = None;
        options
    }

    pub async fn open(&self) -> Arc<Etcd> {
        self.open_with(|_| {}).await
    }

    /// Opens an engine, as soon as the cluster answers.
    pub async fn open_with(&self, change: impl FnOnce(&mut EtcdOptions)) -> Arc<Etcd> {
        let mut options = self.options();
        change(&mut options);
        Arc::new(opened(options).await)
    }

    /// Waits until a member answers by quorum: it runs, is heard, and knows a leader.
    pub async fn answers(&self, index: usize) {
        let mut options = self.options();
        options.endpoints = vec![self.members[index].proxy.address()];
        opened(options).await;
    }
}

async fn opened(options: EtcdOptions) -> Etcd {
    let opened = tokio::time::timeout(START_MAX, async {
        loop {
            match Etcd::open(options.clone()).await {
                Ok(engine) => return engine,
                Err(error) => eprintln!("not yet: {error}"),
            }
        }
    });
    opened.await.expect("etcd answers in time")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
    }
}
