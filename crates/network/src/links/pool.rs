//! Which addresses of the node's pod range are taken, and which one is next.
//!
//! Addresses go round: a released one is given out again only after all others were. A client that still talks to a pod
//! that just ended then meets an unreachable address, not a stranger (kubernetes/kubernetes#98583 is that kind of bug).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The first host address is left free: bridge-based plugins put the gateway there, and people expect pods from `.2` on.
const FIRST_HOST: u32 = 2;

/// The pool of one node.
#[derive(Debug, Clone)]
pub struct AddressPool {
    first: u32,
    last: u32,
    next: u32,
    used: BTreeSet<u32>,
}

/// All addresses are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {capacity} pod addresses of this node are in use")]
pub struct Exhausted {
    /// How many there are.
    pub capacity: u32,
}

impl AddressPool {
    /// All of `network` but its first two addresses and the last one. A range too small for that has none.
    pub fn new(network: Ipv4Net) -> Self {
        let first = u32::from(network.network()).saturating_add(FIRST_HOST);
        let last = u32::from(network.broadcast()).saturating_sub(1);
        Self {
            first,
            last,
            next: first,
            used: BTreeSet::new(),
        }
    }

    /// How many addresses there are.
    pub fn capacity(&self) -> u32 {
        if self.last < self.first {
            0
        } else {
            self.last - self.first + 1
        }
    }

    /// The next free address.
    pub fn take(&mut self) -> Result<Ipv4Addr, Exhausted> {
        let capacity = self.capacity();
        if self.used.len() as u32 >= capacity {
            return Err(Exhausted { capacity });
        }
        while self.used.contains(&self.next) {
            self.next = self.after(self.next);
        }
        let taken = self.next;
        self.used.insert(taken);
        self.next = self.after(taken);
        Ok(taken.into())
    }

    /// Marks an address as taken that was given out before a restart; `false` when it is not one of the pool or is taken.
    pub fn claim(&mut self, address: Ipv4Addr) -> bool {
        let number = u32::from(address);
        (self.first..=self.last).contains(&number) && self.used.insert(number)
    }

    /// Gives an address back.
    pub fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&u32::from(address));
    }

    /// Goes on behind `address`, the last one that was given out before a restart.
    pub fn resume_after(&mut self, address: Ipv4Addr) {
        if (self.first..=self.last).contains(&u32::from(address)) {
            self.next = self.after(address.into());
        }
    }

    fn after(&self, number: u32) -> u32 {
        if number >= self.last { self.first } else { number + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(network: &str) -> AddressPool {
        AddressPool::new(network.parse().unwrap())
    }

    fn take(pool: &mut AddressPool) -> String {
        pool.take()
            .map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    #[test]
    fn addresses_go_round_and_end() {
        let mut pool = pool("10.244.0.0/29");
        assert_eq!(pool.capacity(), 5);
        assert_eq!(take(&mut pool), "10.244.0.2");
        assert_eq!(take(&mut pool), "10.244.0.3");
        pool.release(Ipv4Addr::new(10, 244, 0, 2));
        assert_eq!(take(&mut pool), "10.244.0.4", "not the one that was just released");
        assert_eq!(take(&mut pool), "10.244.0.5");
        assert_eq!(take(&mut pool), "10.244.0.6");
        assert_eq!(take(&mut pool), "10.244.0.2");
        assert_eq!(take(&mut pool), "all 5 pod addresses of this node are in use");
    }

    #[test]
    fn a_restart_goes_on_where_it_was() {
        let mut pool = pool("10.244.0.0/24");
        assert!(pool.claim(Ipv4Addr::new(10, 244, 0, 8)));
        assert!(!pool.claim(Ipv4Addr::new(10, 244, 0, 8)));
        assert!(!pool.claim(Ipv4Addr::new(10, 244, 1, 8)));
        pool.resume_after(Ipv4Addr::new(10, 244, 0, 7));
        assert_eq!(take(&mut pool), "10.244.0.9");
    }

    #[test]
    fn tiny_ranges_have_no_addresses() {
        for network in ["10.244.0.0/31", "10.244.0.0/32"] {
            assert_eq!(pool(network).capacity(), 0);
            assert!(pool(network).take().is_err());
        }
        assert_eq!(pool("10.244.0.0/30").capacity(), 1);
    }
}
