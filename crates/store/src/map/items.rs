//! The items of one node, in order, with the heads of their keys beside them.
//!
//! A key lies behind two pointers from its node, each a miss of the processor's caches in a map of any size, and a search
//! compares some thirteen keys of ten thousand. Heads answer most comparisons from the node's own memory: the bytes of each
//! key behind those that all keys of the node begin with, which lie here, too. Invariants: all keys begin with `beginning`;
//! `heads` has, for each item, what [`head`] says of its key behind that.

use std::sync::Arc;

use super::{ITEMS_MAX, Item};

pub(super) struct Items<T> {
    items: Vec<T>,
    heads: Vec<u64>,
    beginning: Arc<[u8]>,
}

impl<T: Clone> Clone for Items<T> {
    fn clone(&self) -> Self {
        // One spare place: a node is cloned because it is about to change.
        let mut items = Vec::with_capacity(self.items.len() + 1);
        items.extend_from_slice(&self.items);
        let mut heads = Vec::with_capacity(self.heads.len() + 1);
        heads.extend_from_slice(&self.heads);
        Self {
            items,
            heads,
            beginning: self.beginning.clone(),
        }
    }
}

impl<T> std::ops::Deref for Items<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T: Item> Items<T> {
    pub(super) fn new() -> Self {
        Self {
            items: Vec::new(),
            heads: Vec::new(),
            beginning: Arc::default(),
        }
    }

    /// Of items that are in order.
    pub(super) fn of(items: Vec<T>) -> Self {
        let heads = Vec::with_capacity(items.len());
        let mut of = Self {
            items,
            heads,
            beginning: Arc::default(),
        };
        of.make_heads();
        of
    }

    /// Where a key is, or where it would be.
    pub(super) fn search(&self, key: &T::Key) -> Result<usize, usize> {
        let bytes = T::bytes(key);
        if !bytes.starts_with(&self.beginning) {
            // It is before all of them or behind all of them.
            let before = bytes < &*self.beginning;
            return Err(if before { 0 } else { self.items.len() });
        }
        let head = head(bytes, self.beginning.len());
        let from = self.heads.partition_point(|other| *other < head);
        let ties = self.heads[from..].iter().take_while(|other| **other == head).count();
        match self.items[from..from + ties].binary_search_by(|item| item.key().cmp(key)) {
            Ok(index) => Ok(from + index),
            Err(index) => Err(from + index),
        }
    }

    pub(super) fn insert(&mut self, index: usize, item: T) {
        if self.items.len() == self.items.capacity() {
            // No more than it can ever hold: doubling would waste half of a full leaf.
            self.items.reserve_exact(ITEMS_MAX + 1 - self.items.len());
            self.heads.reserve_exact(ITEMS_MAX + 1 - self.heads.len());
        }
        self.heads.insert(index, 0);
        self.items.insert(index, item);
        self.note(index);
    }

    pub(super) fn push(&mut self, item: T) {
        self.insert(self.items.len(), item);
    }

    /// Puts an item in the place of another, before and behind which its key lies, too.
    pub(super) fn replace(&mut self, index: usize, item: T) -> T {
        let replaced = std::mem::replace(&mut self.items[index], item);
        self.note(index);
        replaced
    }

    /// The same for one with the same key.
    pub(super) fn renew(&mut self, index: usize, item: T) -> T {
        std::mem::replace(&mut self.items[index], item)
    }

    pub(super) fn remove(&mut self, index: usize) -> T {
        self.heads.remove(index);
        self.items.remove(index)
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.heads.pop();
        self.items.pop()
    }

    /// Takes those from `at` on away.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        self.heads.truncate(at);
        Self::of(self.items.split_off(at))
    }

    /// No more will come: the keys begin with more than those of twice as many did, and the memory is enough.
    pub(super) fn settle(&mut self) {
        self.items.shrink_to_fit();
        self.make_heads();
        self.heads.shrink_to_fit();
    }

    pub(super) fn extend_from(&mut self, other: &Self) {
        self.items.extend_from_slice(&other.items);
        self.make_heads();
    }

    /// The head of an item that is new in its place.
    fn note(&mut self, index: usize) {
        let bytes = T::bytes(self.items[index].key());
        if bytes.starts_with(&self.beginning) {
            self.heads[index] = head(bytes, self.beginning.len());
        } else {
            self.make_heads();
        }
    }

    fn make_heads(&mut self) {
        // What is between the first and the last begins as both do.
        let beginning = match (self.items.first(), self.items.last()) {
            (Some(first), Some(last)) => shared(T::bytes(first.key()), T::bytes(last.key())),
            _ => &[],
        };
        if *beginning != *self.beginning {
            self.beginning = beginning.into();
        }
        self.heads.clear();
        let heads = self
            .items
            .iter()
            .map(|item| head(T::bytes(item.key()), self.beginning.len()));
        self.heads.extend(heads);
    }

    /// Whether the heads are those of the keys.
    #[cfg(test)]
    pub(super) fn is_right(&self) -> bool {
        self.items.len() == self.heads.len()
            && self.items.iter().zip(&self.heads).all(|(item, noted)| {
                let bytes = T::bytes(item.key());
                bytes.starts_with(&self.beginning) && *noted == head(bytes, self.beginning.len())
            })
    }
}

/// The eight bytes behind the first `skip`, as a number that is ordered as they are; what is not there is zero.
fn head(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; 8];
            head[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(head)
        }
    }
}

/// What two keys begin with together.
fn shared<'a>(one: &'a [u8], two: &[u8]) -> &'a [u8] {
    let count = one.iter().zip(two).take_while(|(one, two)| one == two).count();
    &one[..count]
}
