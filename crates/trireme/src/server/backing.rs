//! What the API server stands on: the store inside this program, or an etcd that other servers use, too.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use apiserver::MeasureBytes;
use base::{Clock, Random, Shutdown};
use client::Client;
use client::lease::{LeaderConfig, run_as_leader};
use store::{Embedded, EmbeddedOptions, Engine, Etcd, EtcdOptions, OpenEtcdError};

use crate::errors::{CliError, Kind, Result};
use crate::layout::Layout;
use crate::state_home::StateHome;
use crate::store_errors::not_opened;

/// The lease of the one server among several whose controllers and scheduler act; upstream's controller manager takes the
/// same, so that the two never act together.
pub const LEADER_LEASE: (&str, &str) = ("kube-system", "kube-controller-manager");

/// The open store.
pub enum Backing {
    /// Ours alone.
    Embedded(Arc<Embedded>),
    /// Shared with other servers.
    Etcd(Arc<Etcd>),
}

impl Backing {
    /// Opens the embedded store, or connects to an etcd.
    pub async fn open(layout: &Layout, etcd: Option<EtcdOptions>, clock: &Clock, random: &Random) -> Result<Backing> {
        StateHome::check(layout, etcd.as_ref())?;
        if let Some(mut options) = etcd {
            options.clock = clock.clone();
            let opened = Etcd::open(options).await.map_err(|error| refused_etcd(&error));
            return opened.map(|etcd| Backing::Etcd(Arc::new(etcd)));
        }
        let mut options = EmbeddedOptions::new(layout.store());
        (options.clock, options.random) = (clock.clone(), random.fork());
        let opened = Embedded::open(options).await.map_err(|error| {
            let other = "is another control plane running from this directory? see `trireme status`";
            not_opened(&layout.store(), &error, other)
        });
        opened.map(|embedded| Backing::Embedded(Arc::new(embedded)))
    }

    /// The engine for the API server.
    pub fn engine(&self) -> Arc<dyn Engine> {
        match self {
            Backing::Embedded(embedded) => embedded.clone(),
            Backing::Etcd(etcd) => etcd.clone(),
        }
    }

    /// How the size of the store's files is measured; that of an etcd is the etcd's to tell.
    pub fn measure(&self, layout: &Layout) -> Option<MeasureBytes> {
        match self {
            Backing::Embedded(_) => {
                let directory = layout.store();
                Some(Arc::new(move || bytes_in(&directory)))
            }
            Backing::Etcd(_) => None,
        }
    }

    /// Lets what is under way finish.
    pub async fn close(&self) {
        match self {
            Backing::Embedded(embedded) => embedded.close().await,
            Backing::Etcd(etcd) => etcd.close(),
        }
    }
}

/// What the files of a directory take together. One that goes meanwhile takes nothing.
fn bytes_in(directory: &Path) -> Option<u64> {
    let files = std::fs::read_dir(directory).ok()?.flatten();
    Some(files.filter_map(|file| Some(file.metadata().ok()?.len())).sum())
}

/// The words for an etcd that cannot be used.
pub fn refused_etcd(error: &OpenEtcdError) -> CliError {
    let what = format!("the etcd of --etcd-servers: {error}");
    match error {
        OpenEtcdError::Unfinished => CliError::new(Kind::Usage, "MIGRATION_UNFINISHED", what)
            .hint("call the same `trireme migrate --to etcd` again: it goes on where it ended"),
        _ => CliError::new(Kind::Machine, "ETCD", what)
            .hint("try it with the same files: etcdctl --endpoints ... endpoint status"),
    }
}

/// Runs `lead` whenever this server is the one that leads, until the end; what it starts must end with the handle it is
/// given.
pub async fn lead_in_turn<F, Fut>(
    client: Client,
    identity: String,
    clock: Clock,
    random: Random,
    shutdown: Shutdown,
    lead: F,
) where
    F: Fn(Shutdown) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (namespace, name) = LEADER_LEASE;
    while !shutdown.is_triggered() {
        let config = LeaderConfig::new(namespace, name, &identity);
        let (client, clock, random) = (client.clone(), clock.clone(), random.fork());
        run_as_leader(client, config, clock, random, shutdown.clone(), &lead).await;
    }
}
