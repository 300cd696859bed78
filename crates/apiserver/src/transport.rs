//! A call is a call (D6): components of this process send requests straight into the pipeline, each as its own task.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio_util::task::AbortOnDropHandle;

use client::{Body, Transport, TransportError};

use crate::pipeline::{Peer, handle};
use crate::request::UserInfo;
use crate::server::{Running, Server};

struct InProcess {
    server: Arc<Server>,
    user: Arc<UserInfo>,
}

impl Transport for InProcess {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let request = request.map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync());
        let work = handle(self.server.clone(), Peer::InProcess(self.user.clone()), request);
        // A task of its own: a slow handler never holds up its caller's other work, and dropping the call ends it.
        let task = AbortOnDropHandle::new(tokio::spawn(work));
        Box::pin(async move { task.await.map_err(|error| TransportError::Lost(error.to_string())) })
    }
}

/// The way of a part of a server to that server, which it does not keep alive.
#[derive(Clone)]
pub struct Own(Weak<Server>);

impl Own {
    pub(crate) fn of(server: &Arc<Server>) -> Own {
        Own(Arc::downgrade(server))
    }

    /// A transport that speaks as `user`; none once the server is gone.
    pub fn transport(&self, user: UserInfo) -> Option<Arc<dyn Transport>> {
        let server = self.0.upgrade()?;
        Some(Arc::new(InProcess {
            server,
            user: Arc::new(user),
        }))
    }
}

impl Running {
    /// A transport that speaks as `user`: authorization, admission, flow control and audit apply to it as to anyone.
    pub fn transport(&self, user: UserInfo) -> Arc<dyn Transport> {
        Arc::new(InProcess {
            server: self.server.clone(),
            user: Arc::new(user),
        })
    }
}
