//! Integration tests of the store, over real and simulated disks.

mod backup;
mod corruption;
mod embedded;
mod etcd;
mod front;
mod import;
mod kill;
mod million;
mod mutations;
mod replica;
mod simulation;
mod space;
mod support;
