//! Health ports: what a load balancer asks each node about a Service whose traffic from outside stays on the node that was
//! reached (`healthCheckNodePort`): whether one of its endpoints is there.
//!
//! One listener a port, on all addresses of the node. It answers every request alike, with the count of the moment, and ends
//! the connection: whoever asks comes back every few seconds. Source: `pkg/proxy/healthcheck/service_health.go`.
//!
//! Invariant: a port that could not be opened is tried again with every change of its Service.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::Shutdown;
use sys::netns::NetworkNamespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::catalog::ServiceWithSlices;
use crate::dial::listen_in;
use crate::views::ObjectName;

/// Who asks a port at a time: load balancers are few, and each answer is made in microseconds.
const CONNECTIONS_MAX: usize = 64;
/// The longest head of a request; those of health checks have a few lines.
const HEAD_BYTES_MAX: usize = 8192;
/// How long a client may take to say what it wants and to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a failed accept, so that a lasting failure does not spin.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The health ports of a node.
pub struct HealthPorts {
    namespace: NetworkNamespace,
    node_name: String,
    shutdown: Shutdown,
    open: HashMap<ObjectName, Port>,
}

/// A port that is open.
struct Port {
    number: u16,
    endpoints: Arc<AtomicUsize>,
    /// Ends the listener and its connections.
    stop: Shutdown,
}

// === impl HealthPorts ===

impl HealthPorts {
    /// None yet, in the namespace of a node.
    pub fn new(namespace: NetworkNamespace, node_name: &str, shutdown: &Shutdown) -> HealthPorts {
        HealthPorts {
            namespace,
            node_name: node_name.to_owned(),
            shutdown: shutdown.clone(),
            open: HashMap::new(),
        }
    }

    /// Opens, changes or closes the port of a Service.
    pub fn set(&mut self, name: &ObjectName, service: Option<&ServiceWithSlices>) {
        let wanted = service.and_then(|found| found.service.health_port);
        let count = service.map_or(0, |found| local_endpoints(found, &self.node_name));
        if let Some(port) = self.open.get(name)
            && wanted == Some(port.number)
        {
            return port.endpoints.store(count, Ordering::Relaxed);
        }
        if let Some(port) = self.open.remove(name) {
            port.stop.trigger();
        }
        let Some(number) = wanted else { return };
        match self.open(name, number, count) {
            Ok(port) => drop(self.open.insert(name.clone(), port)),
            Err(error) => tracing::warn!(service = %name, port = number, %error, "the health port could not be opened"),
        }
    }

    fn open(&self, name: &ObjectName, number: u16, count: usize) -> io::Result<Port> {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, number));
        let listener = listen_in(&self.namespace, address)?;
        let endpoints = Arc::new(AtomicUsize::new(count));
        let stop = self.shutdown.child();
        let (end, name, served) = (stop.clone(), name.clone(), endpoints.clone());
        self.shutdown.spawn(async move {
            let _ = end.until(serve(listener, name, served, &end)).await;
        });
        Ok(Port {
            number,
            endpoints,
            stop,
        })
    }
}

async fn serve(listener: TcpListener, name: ObjectName, endpoints: Arc<AtomicUsize>, stop: &Shutdown) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (end, name, endpoints) = (stop.clone(), name.clone(), endpoints.clone());
                stop.spawn(async move {
                    let answered = tokio::time::timeout(PATIENCE, answer(stream, &name, &endpoints));
                    // However a client ends its connection, nobody has to know.
                    let _ = end.until(answered).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection to a health port");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, name: &ObjectName, endpoints: &AtomicUsize) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > HEAD_BYTES_MAX || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = response(name, endpoints.load(Ordering::Relaxed), head.starts_with(b"HEAD "));
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

fn response(name: &ObjectName, count: usize, head_only: bool) -> String {
    // Names of objects need no escapes. The rules are written by this process: who answers is healthy.
    let ObjectName { namespace, name } = name;
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\"localEndpoints\": \
         {count},\n\t\"serviceProxyHealthy\": true\n}}"
    );
    let status = match count {
        0 => "503 Service Unavailable",
        _ => "200 OK",
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {count}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if head_only { head } else { head + &body }
}

/// The ready endpoints on a node, by address. Source: `LocalReadyEndpoints`.
fn local_endpoints(found: &ServiceWithSlices, node: &str) -> usize {
    let endpoints = found.slices.iter().flat_map(|slice| &slice.endpoints);
    let local = endpoints.filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(node));
    let addresses: BTreeSet<IpAddr> = local
        .filter_map(|endpoint| endpoint.addresses.first().copied())
        .collect();
    addresses.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_upstreams() {
        let name = ObjectName::new("default", "web");
        let text = response(&name, 2, false);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\nX-Load-Balancing-Endpoint-Weight: 2\r\n"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"service": {"namespace": "default", "name": "web"}, "localEndpoints": 2,
                "serviceProxyHealthy": true})
        );
        let text = response(&name, 0, true);
        assert!(
            text.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
    }
}
