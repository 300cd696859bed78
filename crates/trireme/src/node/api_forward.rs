//! Pods reach the API server at an address of the node, which leads through a Unix socket out of the node's network.
//!
//! Bytes are passed as they are: TLS is between the pod and the API server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use base::Shutdown;
use sys::netlink::{Family, Messages, Socket};
use sys::netlink_route::{LOOPBACK_INDEX, Scope, add_address};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Semaphore;

use crate::errors::{Context as _, Result};

/// Connections at once: some for each pod of a full node.
const CONNECTIONS_MAX: usize = 1024;

/// Takes the address and forwards until the end.
pub async fn start(endpoint: (Ipv4Addr, u16), socket: PathBuf, shutdown: &Shutdown) -> Result {
    let mut messages = Messages::new();
    add_address(&mut messages, LOOPBACK_INDEX, endpoint.0.into(), 32, Scope::Universe);
    let mut kernel = Socket::open(Family::Route).doing("opening netlink")?;
    kernel.transact(messages).doing("taking the API's address")?;
    let listener = TcpListener::bind(SocketAddr::from(endpoint))
        .await
        .doing("listening on the API's address")?;
    let (seats, stop) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), shutdown.clone());
    shutdown.spawn(async move {
        while let Some(Ok(seat)) = stop.until(seats.clone().acquire_owned()).await {
            let Some(accepted) = stop.until(listener.accept()).await else {
                return;
            };
            let Ok((mut from, _)) = accepted else { continue };
            let path = socket.clone();
            tokio::spawn(async move {
                match UnixStream::connect(&path).await {
                    // Either side may end when it likes.
                    Ok(mut to) => drop(tokio::io::copy_bidirectional(&mut from, &mut to).await),
                    Err(error) => tracing::debug!(%error, "the API server cannot be reached"),
                }
                drop(seat);
            });
        }
    });
    Ok(())
}
