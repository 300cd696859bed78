//! Real etcd members, as child processes on loopback with their data in a temporary directory.
//!
//! They end with the test, however it ends. Clients reach each through a [`Proxy`], which can be cut.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use store::{Etcd, EtcdOptions};

use super::proxy::Proxy;

/// How long a member may take to answer after its start, on a machine that is busy.
const START_MAX: Duration = Duration::from_secs(60);

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

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}

impl Cluster {
    /// Starts members with more flags than the usual ones, and returns when they answer.
    pub async fn start(count: usize, flags: &[&str]) -> Self {
        Self::start_over(count, "http", flags).await
    }

    pub async fn start_over(count: usize, scheme: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = free_ports(count * 2);
        let (clients, peers) = ports.split_at(count);
        let initial: Vec<_> = (0..count)
            .map(|index| format!("m{index}=http://127.0.0.1:{}", peers[index]))
            .collect();
        let mut members = Vec::new();
        for index in 0..count {
            let client = format!("{scheme}://127.0.0.1:{}", clients[index]);
            let peer = format!("http://127.0.0.1:{}", peers[index]);
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
        let opened = tokio::time::timeout(START_MAX, async {
            loop {
                match Etcd::open(options.clone()).await {
                    Ok(engine) => return engine,
                    Err(error) => eprintln!("not yet: {error}"),
                }
            }
        });
        Arc::new(opened.await.expect("etcd answers in time"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
    }
}
