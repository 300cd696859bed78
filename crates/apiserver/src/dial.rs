//! The ways out of the API server: to kubelets, to pods and to services of gRPC on this machine. Where the first two lead
//! from (a namespace, a tunnel) is for whoever implements them to know.

use std::future;
use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// A byte stream.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connected stream.
pub type Stream = Box<dyn Io>;

/// Reaches kubelets.
pub trait NodeDialer: Send + Sync {
    /// A connection to the kubelet of a node, with TLS done on it and the API server's client certificate shown.
    fn dial(&self, node: &str, address: &str, port: u16) -> BoxFuture<'static, io::Result<Stream>>;
}

/// Reaches pods, from where pods can be reached.
pub trait ServiceDialer: Send + Sync {
    /// A plain connection to a pod's address.
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Stream>>;

    /// A plain connection to a host outside of the cluster that a Service of type ExternalName stands for.
    fn dial_external(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Stream>> {
        let host = host.to_owned();
        Box::pin(async move { crate::endpoints::dial_external(&host, port).await })
    }

    /// A connection to this server itself, which the Service `default/kubernetes` stands for: without TLS, as nobody but the
    /// server.
    fn dial_own(&self) -> BoxFuture<'static, io::Result<Stream>> {
        Box::pin(future::ready(Err(io::Error::other("this server has no way to itself"))))
    }
}

/// The way to a service of gRPC at a Unix socket; `@` in front: in the kernel's own name space. It is opened by the first call,
/// and again whenever it is lost. `authority` is what the service is told of who was asked.
pub(crate) fn unix_channel(path: &str, authority: &'static str) -> Channel {
    // The kernel's name space is told by a zero.
    let path = match path.strip_prefix('@') {
        Some(name) => format!("\0{name}"),
        None => path.to_owned(),
    };
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static(authority).connect_with_connector_lazy(connector)
}
