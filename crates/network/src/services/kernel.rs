//! Commits changes of the service table, and notices when somebody else changed or removed it.
//!
//! The record of what was written is [`super::plan::Table`]; [`crate::standing`] proves that it still holds.

use std::io;

use ipnet::Ipv4Net;
use sys::netlink::{Error, Family, Socket};
use sys::netlink_conntrack;
use sys::netns::NetworkNamespace;
use sys::nftables;

use super::delta::Delta;
use super::plan::Table;
use super::rules::{self, FAMILY, RulesConfig, TABLE};
use super::{Backend, Frontend};
use crate::standing::Standing;
use crate::views::Protocol;

/// The table in the kernel of one network namespace.
#[derive(Debug)]
pub struct Kernel {
    socket: Socket,
    config: RulesConfig,
    /// Absent: nothing written yet, or the last commit failed.
    known: Option<Standing>,
}

impl Kernel {
    /// Opens the table of `namespace`; writes nothing.
    pub fn open(namespace: &NetworkNamespace, config: RulesConfig) -> io::Result<Self> {
        let socket = namespace.run(|| Socket::open(Family::Netfilter))??;
        Ok(Self {
            socket,
            config,
            known: None,
        })
    }

    /// Makes the kernel's table what `table` wants: by the smallest change while the record holds, else anew, in one
    /// transaction either way. Connections that exist go on, except UDP flows to endpoints that left.
    pub fn sync(&mut self, table: &mut Table) -> Result<(), Error> {
        let delta = if self.record_holds()? {
            table.plan()
        } else {
            table.rebuild()
        };
        let udp_moved = delta.udp_moved;
        let refill =
            delta.rebuild && nftables::has_chain(&mut self.socket, FAMILY, TABLE, &rules::shape(&self.config))?;
        match self.commit(&delta, refill) {
            Ok(()) => {}
            Err(error) if delta.rebuild && !refill => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "a change of the service rules was refused; writing all of them anew");
                self.commit(&table.rebuild(), false)?;
            }
        }
        if udp_moved { self.cut_udp(table) } else { Ok(()) }
    }

    /// The ranges of cluster addresses are these from the next [`Self::sync`] on. Others than before are rare, and worth a
    /// whole new table.
    pub fn set_service_networks(&mut self, ranges: Vec<Ipv4Net>) {
        if self.config.service_networks != ranges {
            self.config.service_networks = ranges;
            self.known = None;
        }
    }

    /// Removes the table.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.known = None;
        rules::removal().commit(&mut self.socket)
    }

    fn record_holds(&mut self) -> Result<bool, Error> {
        match &mut self.known {
            Some(known) => known.holds(&mut self.socket, FAMILY, TABLE),
            None => Ok(false),
        }
    }

    fn commit(&mut self, delta: &Delta, refill: bool) -> Result<(), Error> {
        if delta.is_empty() {
            return Ok(());
        }
        let known = self.known.take();
        if let Some(chains) = rules::chains_first(delta) {
            chains.commit(&mut self.socket)?;
        }
        rules::batch(&self.config, delta, refill).commit(&mut self.socket)?;
        let before = known.filter(|_| !delta.rebuild);
        self.known = Some(Standing::after_commit(&mut self.socket, FAMILY, TABLE, before)?);
        Ok(())
    }

    /// Cuts the flows that the table would not make so. On an address of the node itself that is only what was translated,
    /// or what would be by now: a flow that begins before its host port leads anywhere would never be.
    fn cut_udp(&mut self, table: &Table) -> Result<(), Error> {
        let (ranges, pods) = (&self.config.service_networks, self.config.pod_network);
        let cut = netlink_conntrack::delete_where(&mut self.socket, Protocol::Udp.number(), |connection| {
            let (address, port) = connection.original.destination;
            let (source, source_port) = connection.reply.source;
            let frontend = Frontend {
                address,
                protocol: Protocol::Udp,
                port,
            };
            let backends = table.backends(&frontend);
            let translated = source != address && pods.contains(&source);
            let ours = ranges.iter().any(|range| range.contains(&address)) || !backends.is_empty() || translated;
            ours && !backends.contains(&Backend {
                address: source,
                port: source_port,
            })
        })?;
        tracing::debug!(cut, "UDP flows to endpoints that left");
        Ok(())
    }
}
