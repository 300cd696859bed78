//! The kubelet's own HTTPS server: logs, exec and stats of this node's pods, for the API server.
//!
//! ```text
//! let server = Server::new(pods, runtime, authorizer, clock);     // Arc<dyn Pods>, Arc<dyn Runtime> (Cri is one), ...
//! shutdown.spawn(server.serve(listener, tls_config, shutdown.clone()));
//! ```
//! Paths: `/healthz`, `/healthz/ping`, `/pods`, `/metrics` (also `/resource`, `/cadvisor`, `/probes`), `/stats/summary`, `/logs/`, `/containerLogs/{ns}/{pod}/{container}`,
//! `/exec/{ns}/{pod}/{container}`, `/attach/{ns}/{pod}/{container}`, `/portForward/{ns}/{pod}` (WebSocket, SPDY). Invariants: without a client certificate that `tls_config` verified nothing
//! is answered but 401, and nothing at all is answered that the [`Authorizer`] did not allow.
//! Source: `pkg/kubelet/server/{server,auth}.go`.

mod authorize;
mod connection;
mod log_query;
mod resource_metrics;
mod route;
mod stats;
mod stream;
mod system_logs;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use base::{Clock, Shutdown};
use client::k8s_openapi::api::core::v1::Pod;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::cri::{Cri, CriError};

pub use authorize::{Authorizer, ReviewAuthorizer, User};

/// Sessions of exec, attach and port-forward at a time: each holds two connections and some 100 kB. More get 429.
const SESSIONS_MAX: usize = 512;

/// A run of a container, as a client means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The runtime's name for it.
    pub id: String,
    /// Its log.
    pub log_path: PathBuf,
}

/// Why there is no such run, with upstream's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodsError {
    /// There is no such pod or container: 404.
    #[error("{0}")]
    NotFound(String),
    /// It has no such run (yet): 400.
    #[error("{0}")]
    BadRequest(String),
    /// It could not be found out: 500.
    #[error("{0}")]
    Internal(String),
}

/// What the server asks about this node's pods.
pub trait Pods: Send + Sync + 'static {
    /// All pods, with their present status.
    fn pods(&self) -> Vec<Arc<Pod>>;

    /// The run whose log is to be read: the newest one, or the one before. Upstream's texts (`pkg/kubelet/kubelet_pods.go`,
    /// `validateContainerLogStatus`): `pod "p" does not exist`, `container "c" not found in pod "p"` (404),
    /// `container "c" in pod "p" is waiting to start: ContainerCreating`,
    /// `previous terminated container "c" in pod "p" not found` (400).
    fn log<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        previous: bool,
    ) -> BoxFuture<'a, Result<Run, PodsError>>;

    /// The running container's run, for exec. Upstream's text: `container not found ("c")`.
    fn running<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
    ) -> BoxFuture<'a, Result<Run, PodsError>>;

    /// The pod's sandbox, for port-forward. Upstream's text: `pod not found ("p_ns")`.
    fn sandbox<'a>(&'a self, namespace: &'a str, pod: &'a str) -> BoxFuture<'a, Result<String, PodsError>>;

    /// Ends when the run has ended, at once if it did before or is not known.
    fn ended(&self, id: &str) -> BoxFuture<'static, ()>;

    /// More lines for `/metrics`, in the text format of Prometheus.
    fn metrics(&self) -> String {
        String::new()
    }

    /// All of `/metrics/probes`.
    fn probe_metrics(&self) -> String {
        String::new()
    }

    /// The node's name, for `/stats/summary`.
    fn node_name(&self) -> String;
}

/// What the server asks of the container runtime.
pub trait Runtime: Send + Sync + 'static {
    /// Where a command's streams can be had.
    fn exec(&self, request: rpc::cri::ExecRequest) -> BoxFuture<'_, Result<String, CriError>>;

    /// Where a container's own streams can be had.
    fn attach(&self, request: rpc::cri::AttachRequest) -> BoxFuture<'_, Result<String, CriError>>;

    /// Where connections into a sandbox can be had.
    fn port_forward(&self, request: rpc::cri::PortForwardRequest) -> BoxFuture<'_, Result<String, CriError>>;

    /// What containers use now.
    fn container_stats(&self) -> BoxFuture<'_, Result<Vec<rpc::cri::ContainerStats>, CriError>>;
}

impl Runtime for Cri {
    fn exec(&self, request: rpc::cri::ExecRequest) -> BoxFuture<'_, Result<String, CriError>> {
        Box::pin(Cri::exec(self, request))
    }

    fn attach(&self, request: rpc::cri::AttachRequest) -> BoxFuture<'_, Result<String, CriError>> {
        Box::pin(Cri::attach(self, request))
    }

    fn port_forward(&self, request: rpc::cri::PortForwardRequest) -> BoxFuture<'_, Result<String, CriError>> {
        Box::pin(Cri::port_forward(self, request))
    }

    fn container_stats(&self) -> BoxFuture<'_, Result<Vec<rpc::cri::ContainerStats>, CriError>> {
        Box::pin(Cri::container_stats(self))
    }
}

/// The server. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    pods: Arc<dyn Pods>,
    runtime: Arc<dyn Runtime>,
    authorizer: Arc<dyn Authorizer>,
    clock: Clock,
    /// Ends the sessions of streams when the server ends.
    sessions: Shutdown,
    /// Places for them.
    places: Arc<Semaphore>,
}

// === impl Server ===

impl Server {
    /// A server that does not listen yet.
    pub fn new(
        pods: Arc<dyn Pods>,
        runtime: Arc<dyn Runtime>,
        authorizer: Arc<dyn Authorizer>,
        clock: Clock,
    ) -> Server {
        Server {
            inner: Arc::new(Inner {
                pods,
                runtime,
                authorizer,
                clock,
                sessions: Shutdown::new(),
                places: Arc::new(Semaphore::new(SESSIONS_MAX)),
            }),
        }
    }
}
