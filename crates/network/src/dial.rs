//! Sockets of this process inside another network namespace.
//!
//! A socket belongs to the namespace in which it was made, not to the one of the process that uses it. So the API server's
//! proxies, the forwarded port of the demo and the kubelet's probes reach pods and cluster addresses from the host's
//! process, without moving a thread of the runtime: a socket is made on a visiting thread and handed over.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{SocketType, sockopt};
use sys::netns::NetworkNamespace;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// Connections a listener keeps waiting; what the kernel allows by default.
const LISTEN_BACKLOG: i32 = 4096;

/// Connects to `address` from inside `namespace`. Fails with `TimedOut` when that takes longer than `limit`.
pub async fn dial_in(namespace: &NetworkNamespace, address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let socket = namespace.tcp_socket(address)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    let stream = tokio::time::timeout(limit, socket.connect(address))
        .await
        .map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("connecting to {address} took longer than {limit:?}"),
            )
        })??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Listens on `address` inside `namespace`.
pub fn listen_in(namespace: &NetworkNamespace, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = namespace.run(|| -> io::Result<OwnedFd> {
        let socket = sys::netns::socket(address, SocketType::STREAM)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, LISTEN_BACKLOG)?;
        Ok(socket)
    })??;
    TcpListener::from_std(socket.into())
}

/// A UDP socket bound to `address` inside `namespace`.
pub fn udp_in(namespace: &NetworkNamespace, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = namespace.run(|| -> io::Result<OwnedFd> {
        let socket = sys::netns::socket(address, SocketType::DGRAM)?;
        rustix::net::bind(&socket, &address)?;
        Ok(socket)
    })??;
    UdpSocket::from_std(socket.into())
}
