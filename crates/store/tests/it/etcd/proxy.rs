//! A relay of TCP connections to a member that can be cut: then nothing gets through in either direction, and nobody is
//! told, as when a cable is pulled.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    port: u16,
    cut: watch::Sender<bool>,
    resets: watch::Sender<u32>,
    task: tokio::task::AbortHandle,
}

impl Proxy {
    /// Relays to an address.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = watch::Sender::new(false);
        let is_cut = cut.subscribe();
        let resets = watch::Sender::new(0);
        let reset = resets.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (mut is_cut, mut reset) = (is_cut.clone(), reset.clone());
                reset.mark_unchanged();
                tokio::spawn(async move {
                    let _ = is_cut.wait_for(|cut| !cut).await;
                    let Ok(far) = TcpStream::connect(to).await else {
                        return;
                    };
                    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                    // The end of one direction ends the other.
                    tokio::select! {
                        biased;
                        _ = reset.changed() => {}
                        () = relay(near_read, far_write, is_cut.clone()) => {}
                        () = relay(far_read, near_write, is_cut) => {}
                    }
                });
            }
        });
        Self {
            port,
            cut,
            resets,
            task: task.abort_handle(),
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Cuts all connections, or mends them.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// Ends all connections; what was under way is lost.
    pub fn reset(&self) {
        self.resets.send_modify(|count| *count += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if cut.wait_for(|cut| !cut).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
