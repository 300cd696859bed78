//! Integration tests of the store, over real and simulated disks.

mod checker;
mod embedded;
mod etcd;
mod import;
mod kill;
mod replica;
mod simulation;
mod support;
