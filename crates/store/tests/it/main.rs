//! Integration tests of the store, over real and simulated disks.

mod embedded;
mod etcd;
mod import;
mod kill;
mod mutations;
mod replica;
mod simulation;
mod support;
