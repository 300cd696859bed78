//! The items of one node, in order, with the heads of their keys beside them.
//!
//! A key lies behind two pointers from its node, each a miss of the processor's caches in a map of any size, and a search
//! compares some thirteen keys of ten thousand. Heads answer most comparisons from the node's own memory: the bytes of each
//! key behind those that all keys of the node begin with. Invariants: the first `skip` bytes of all keys are the same;
//! `heads` has, for each item, what [`Item::head`] says of its key and `skip`.

use super::{ITEMS_MAX, Item};

pub(super) struct Items<T> {
    items: Vec<T>,
    heads: Vec<u64>,
    skip: usize,
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
            skip: self.skip,
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
            skip: 0,
        }
    }

    /// Of items that are in order.
    pub(super) fn of(items: Vec<T>) -> Self {
        let heads = Vec::with_capacity(items.len());
        let mut of = Self { items, heads, skip: 0 };
        of.make_heads();
        of
    }

    /// Where a key is, or where it would be.
    pub(super) fn search(&self, key: &T::Key) -> Result<usize, usize> {
        let Some(first) = self.items.first() else {
            return Err(0);
        };
        let head = T::head(key, self.skip);
        let from = self.heads.partition_point(|other| *other < head);
        let ties = self.heads[from..].iter().take_while(|other| **other == head).count();
        let found = self.items[from..from + ties].binary_search_by(|item| item.key().cmp(key));
        match found {
            // Whatever it begins with, it is this key.
            Ok(index) => Ok(from + index),
            // The heads have said the truth of a key that begins as all others do. Its neighbour is asked, which is near.
            Err(index) => {
                let near = self.items.get(from + index).unwrap_or(first);
                if self.skip == 0 || T::shared(key, near.key()) >= self.skip {
                    Err(from + index)
                } else {
                    self.items.binary_search_by(|item| item.key().cmp(key))
                }
            }
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
        let key = self.items[index].key();
        // Between two keys it begins as they do.
        let inside = index > 0 && index + 1 < self.items.len();
        let other = if index == 0 { self.items.len() - 1 } else { 0 };
        if inside || self.skip == 0 || other != index && T::shared(key, self.items[other].key()) >= self.skip {
            self.heads[index] = T::head(key, self.skip);
        } else {
            self.make_heads();
        }
    }

    fn make_heads(&mut self) {
        self.skip = match (self.items.first(), self.items.last()) {
            (Some(first), Some(last)) => T::shared(first.key(), last.key()),
            _ => 0,
        };
        self.heads.clear();
        let heads = self.items.iter().map(|item| T::head(item.key(), self.skip));
        self.heads.extend(heads);
    }

    /// Whether the heads are those of the keys.
    #[cfg(test)]
    pub(super) fn is_right(&self) -> bool {
        let first = self.items.first().map(T::key);
        self.items.len() == self.heads.len()
            && self.items.iter().zip(&self.heads).all(|(item, head)| {
                *head == T::head(item.key(), self.skip)
                    && first.is_none_or(|first| T::shared(first, item.key()) >= self.skip)
            })
    }
}

/// The eight bytes behind the first `skip`, as a number that is ordered as they are; what is not there is zero.
pub(crate) fn head_of_bytes(key: &[u8], skip: usize) -> u64 {
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

/// How many bytes two keys begin with together.
pub(crate) fn shared_of_bytes(one: &[u8], two: &[u8]) -> usize {
    one.iter().zip(two).take_while(|(one, two)| one == two).count()
}
