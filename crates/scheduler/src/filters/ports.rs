//! NodePorts: a port of the node belongs to one pod.
//!
//! Source: `pkg/scheduler/framework/types.go` (`HostPortInfo`): two wildcard addresses clash with every address.

use crate::view::PortView;

const ANY: &str = "0.0.0.0";

/// A port of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The address; `0.0.0.0` is all of them.
    pub address: Box<str>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// The number.
    pub port: u16,
}

impl HostPort {
    /// Reads a container's port.
    pub fn of_view(view: &PortView) -> HostPort {
        let or = |text: &str, default: &str| -> Box<str> { if text.is_empty() { default } else { text }.into() };
        HostPort {
            address: or(&view.host_ip, ANY),
            protocol: or(&view.protocol, "TCP"),
            port: view.host_port,
        }
    }

    fn clashes(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || &*self.address == ANY || &*other.address == ANY)
    }
}

/// Whether a wanted port is taken.
pub fn conflict(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    wanted.iter().any(|port| taken.iter().any(|other| port.clashes(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_clash_by_address_protocol_and_number() {
        let port = |address: &str, protocol: &str, port| HostPort {
            address: address.into(),
            protocol: protocol.into(),
            port,
        };
        for (wanted, taken, expect) in [
            (port(ANY, "TCP", 80), port(ANY, "TCP", 80), true),
            (port(ANY, "TCP", 80), port(ANY, "UDP", 80), false),
            (port("10.0.0.1", "TCP", 80), port(ANY, "TCP", 80), true),
            (port(ANY, "TCP", 80), port("10.0.0.1", "TCP", 80), true),
            (port("10.0.0.1", "TCP", 80), port("10.0.0.2", "TCP", 80), false),
            (port(ANY, "TCP", 80), port(ANY, "TCP", 81), false),
        ] {
            assert_eq!(
                conflict(std::slice::from_ref(&wanted), std::slice::from_ref(&taken)),
                expect,
                "{wanted:?} {taken:?}"
            );
        }
    }
}
