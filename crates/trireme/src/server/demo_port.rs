//! A port of the machine's loopback that leads to the demo's Service, so that people can look at it with a browser.

use std::net::{Ipv4Addr, SocketAddr};

use api::GroupResource;
use apiserver::Running;
use base::Shutdown;
use tokio::net::{TcpListener, TcpStream};

use super::dial::NodeNamespace;
use crate::errors::{Context as _, Result};
use crate::layout::Layout;

/// The demo's Service.
const NAMESPACE: &str = "default";
const SERVICE: &str = "demo";

/// Forwards until the end; answers the port: the one of before while it is free, so that what people wrote down still works.
pub async fn forward(running: &Running, layout: &Layout, before: Option<u16>, shutdown: &Shutdown) -> Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = match bind(before.unwrap_or(0)).await {
        Err(_) if before.is_some() => bind(0).await,
        bound => bound,
    };
    let listener = listener.doing("opening the demo's port")?;
    let port = listener.local_addr().doing("reading the demo's port")?.port();
    let (cluster, node, stop) = (running.cluster(), NodeNamespace::new(layout.clone()), shutdown.clone());
    let services = GroupResource {
        group: String::new(),
        resource: "services".into(),
    };
    shutdown.spawn(async move {
        while let Some(accepted) = stop.until(listener.accept()).await {
            let Ok((from, _)) = accepted else { continue };
            let service = cluster
                .get(&services, NAMESPACE, SERVICE)
                .map(|service| service.value());
            let address = service.and_then(|service| {
                let ip: Ipv4Addr = service["spec"]["clusterIP"].as_str()?.parse().ok()?;
                let port = service["spec"]["ports"][0]["port"].as_u64()?;
                Some(SocketAddr::from((ip, u16::try_from(port).ok()?)))
            });
            // Without the Service there is nothing to lead to: the connection is closed.
            let Some(address) = address else { continue };
            tokio::spawn(pass(from, node.clone(), address));
        }
    });
    Ok(port)
}

async fn pass(mut from: TcpStream, node: NodeNamespace, address: SocketAddr) {
    match node.dial(address).await {
        // Either side may end when it likes.
        Ok(mut to) => drop(tokio::io::copy_bidirectional(&mut from, &mut to).await),
        Err(error) => tracing::debug!(%address, %error, "the demo cannot be reached"),
    }
}
