//! The way of this server to itself, for webhooks that are served behind it: one that an extension server answers, as a resource of
//! an APIService, is named by the Service `default/kubernetes`.
//!
//! It is a connection inside of this process. Invariant: nobody else can be on it; so it takes no TLS, and whoever speaks there
//! is the server itself, which may ask what it likes.
//! Source: `NewLoopbackServiceResolver` of `k8s.io/kube-aggregator/pkg/apiserver/resolvers.go`, and
//! `NewDefaultAuthenticationInfoResolverWrapper` of `k8s.io/apiserver/pkg/util/webhook/authentication.go`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};

use futures::future::BoxFuture;

use crate::dial::{ServiceDialer, Stream};
use crate::serve;
use crate::server::Server;

/// What each side may have said that the other has not heard yet.
const BUFFER_BYTES: usize = 64 * 1024;

/// The ways to pods, and the one back to this server.
pub struct Loopback {
    services: Arc<dyn ServiceDialer>,
    server: OnceLock<Weak<Server>>,
}

// === impl Loopback ===

impl Loopback {
    /// Beside those ways. It leads nowhere before [`Loopback::lead_to`].
    pub fn beside(services: Arc<dyn ServiceDialer>) -> Loopback {
        Loopback {
            services,
            server: OnceLock::new(),
        }
    }

    /// The server there is, from now on.
    pub fn lead_to(&self, server: &Arc<Server>) {
        // It is one server's own.
        let _ = self.server.set(Arc::downgrade(server));
    }
}

impl ServiceDialer for Loopback {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Stream>> {
        self.services.dial(address)
    }

    fn dial_external(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Stream>> {
        self.services.dial_external(host, port)
    }

    fn dial_own(&self) -> BoxFuture<'static, io::Result<Stream>> {
        let server = self.server.get().and_then(Weak::upgrade);
        Box::pin(async move {
            let server = server.ok_or_else(|| io::Error::other("this server is not there"))?;
            let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
            serve::serve_own(&server, theirs);
            Ok(Box::new(ours) as Stream)
        })
    }
}
