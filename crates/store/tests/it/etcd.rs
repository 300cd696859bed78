//! The engine over etcd: against Debian's etcd, as processes on loopback that are killed, paused and cut off, and against a
//! fake that behaves as newer versions do, or lies.

mod basics;
mod checked;
mod cluster;
mod fake;
mod migration;
mod proxy;
mod secured;
mod versions;
