//! What the network needs to know of Services and EndpointSlices, and nothing more.
//!
//! The views are what all planning works on, so that a test writes four fields instead of a Service. `objects` makes
//! them from what the API sends.

use std::fmt;
use std::net::IpAddr;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectName {
    /// From both parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As the API writes it; an absent protocol is TCP.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// What has this number in the IP header.
    pub fn of_number(number: u8) -> Option<Self> {
        let known = [Self::Tcp, Self::Udp, Self::Sctp];
        known.into_iter().find(|protocol| protocol.number() == number)
    }

    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The label of SRV names, without its underscore.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// How a Service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceKind {
    /// By these cluster addresses; ClusterIP, NodePort and LoadBalancer alike.
    Cluster(Vec<IpAddr>),
    /// By its endpoints' addresses only (`clusterIP: None`).
    Headless,
    /// By another name.
    External(String),
    /// Not yet: no address was allocated.
    Pending,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty when it is the only one.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port that clients use.
    pub port: u16,
    /// Port of every node that leads to it.
    pub node_port: Option<u16>,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    /// Which.
    pub name: ObjectName,
    /// How it is reached.
    pub kind: ServiceKind,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Addresses from outside of the cluster that lead to it: `externalIPs`, and those of its load balancer.
    pub external_addresses: Vec<IpAddr>,
    /// `internalTrafficPolicy: Local`: only endpoints of the client's node.
    pub local_only: bool,
    /// `externalTrafficPolicy: Local`: from outside, only endpoints of the node that was reached.
    pub external_local_only: bool,
    /// `sessionAffinity: ClientIP`: how long a client stays with its endpoint after its last new connection, in seconds.
    pub affinity_seconds: Option<u32>,
    /// The service rules are somebody else's (DNS is still ours).
    pub foreign_proxy: bool,
    /// The port of every node on which a load balancer asks for endpoints of that node.
    pub health_port: Option<u16>,
}

/// A port of the endpoints of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port it belongs to.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port that the endpoint listens on; absent means "all ports", which no proxy can serve.
    pub port: Option<u16>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    /// Its addresses; the first one is used, the others are aliases (API: "consumers should use the first").
    pub addresses: Vec<IpAddr>,
    /// Takes new connections.
    pub ready: bool,
    /// Would take them if it were not terminating.
    pub serving: bool,
    /// Is shutting down.
    pub terminating: bool,
    /// Its name below the Service's.
    pub hostname: Option<String>,
    /// The node it runs on.
    pub node: Option<String>,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceView {
    /// Which.
    pub name: ObjectName,
    /// Its Service, in the same namespace.
    pub service: String,
    /// Endpoints.
    pub endpoints: Vec<EndpointView>,
    /// Ports, the same for all of them.
    pub ports: Vec<SlicePort>,
}
