//! A persistent ordered map: a B-tree whose nodes are shared between versions.
//!
//! A clone is O(1) and is a version of its own: changing one copies only the nodes on the path that another version still
//! shares, and none when nobody does. That is what makes a snapshot free and lets a reader walk it without a lock.
//!
//! Items carry their key, so that a key is in memory once. Invariants, checked by a property test: every node but the root
//! holds [`ITEMS_MIN`] to [`ITEMS_MAX`] items, all leaves are equally deep, `size` counts the items of a subtree.

mod items;

use std::ops::Bound;
use std::sync::Arc;

use items::Items;

/// Items in a node at most. 32 pointers are four cache lines; larger nodes make a copied path dearer than its search.
const ITEMS_MAX: usize = 32;
/// Items in a node other than the root at least.
const ITEMS_MIN: usize = ITEMS_MAX / 2;

/// What a map holds: something cheap to clone that knows its key.
pub trait Item: Clone {
    /// What items are ordered by.
    type Key: Ord + ?Sized;
    /// The key of this item; it must not change while the item is in a map.
    fn key(&self) -> &Self::Key;
    /// The bytes that a key is ordered by, if it is one that is: a search tells most keys apart by some of them, which it
    /// keeps. None: keys themselves are looked at.
    fn bytes(key: &Self::Key) -> &[u8] {
        let _ = key;
        &[]
    }
}

/// An ordered map with O(1) clones. See the module's page.
pub struct Map<T: Item> {
    root: Option<Arc<Node<T>>>,
}

#[derive(Clone)]
struct Node<T> {
    items: Items<T>,
    /// Empty in a leaf, one more than the items otherwise.
    children: Vec<Arc<Node<T>>>,
    /// Items in this subtree.
    size: usize,
}

impl<T: Item> Clone for Map<T> {
    fn clone(&self) -> Self {
        Self {
            root: self.root.clone(),
        }
    }
}

impl<T: Item> Default for Map<T> {
    fn default() -> Self {
        Self { root: None }
    }
}

impl<T: Item> Map<T> {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many items it holds.
    pub fn len(&self) -> usize {
        self.root.as_ref().map_or(0, |root| root.size)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Whether both are the same version (not only equal).
    pub fn same(&self, other: &Self) -> bool {
        match (&self.root, &other.root) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (None, None) => true,
            _ => false,
        }
    }

    /// The item with this key.
    pub fn get(&self, key: &T::Key) -> Option<&T> {
        let mut node = self.root.as_deref()?;
        loop {
            match node.search(key) {
                Ok(index) => return Some(&node.items[index]),
                Err(index) => node = node.children.get(index)?,
            }
        }
    }

    /// Puts an item in and returns the one that had its key.
    pub fn insert(&mut self, item: T) -> Option<T> {
        let keyed = item.clone();
        self.upsert(keyed.key(), move |_| item)
    }

    /// Puts in what `make` makes of the item that has this key now, and returns that one: a single search for both.
    pub fn upsert(&mut self, key: &T::Key, make: impl FnOnce(Option<&T>) -> T) -> Option<T> {
        let Some(root) = &mut self.root else {
            self.root = Some(Arc::new(Node {
                items: Items::of(vec![make(None)]),
                children: Vec::new(),
                size: 1,
            }));
            return None;
        };
        let replaced = Node::upsert(root, key, make);
        if root.items.len() > ITEMS_MAX {
            let left = std::mem::replace(root, Arc::new(Node::empty()));
            let parent = Arc::get_mut(root).expect("invariant: a node just made has one owner");
            parent.size = left.size;
            parent.children.push(left);
            parent.split_child(0);
        }
        replaced
    }

    /// Takes the item with this key out. A key that is absent copies nothing.
    pub fn remove(&mut self, key: &T::Key) -> Option<T> {
        self.get(key)?;
        let root = self.root.as_mut()?;
        let removed = Node::remove(root, key);
        if root.items.is_empty() {
            self.root = root.children.first().cloned();
        }
        Some(removed)
    }

    /// How many items have a key below `key`.
    pub fn rank(&self, key: &T::Key) -> usize {
        let mut rank = 0;
        let mut next = self.root.as_deref();
        while let Some(node) = next {
            let (index, found) = match node.search(key) {
                Ok(index) => (index, true),
                Err(index) => (index, false),
            };
            rank += index + node.children.iter().take(index).map(|child| child.size).sum::<usize>();
            if found {
                return rank + node.children.get(index).map_or(0, |child| child.size);
            }
            next = node.children.get(index).map(Arc::as_ref);
        }
        rank
    }

    /// How many items lie between the bounds, without walking them.
    pub fn count(&self, lower: Bound<&T::Key>, upper: Bound<&T::Key>) -> usize {
        let below = |bound: Bound<&T::Key>, otherwise: usize, excluded_counts: bool| match bound {
            Bound::Unbounded => otherwise,
            Bound::Included(key) | Bound::Excluded(key) => {
                let beyond = matches!(bound, Bound::Excluded(_)) == excluded_counts;
                self.rank(key) + usize::from(beyond && self.get(key).is_some())
            }
        };
        below(upper, self.len(), false).saturating_sub(below(lower, 0, true))
    }

    /// All items in order.
    pub fn iter(&self) -> Iter<'_, T> {
        self.range(Bound::Unbounded, Bound::Unbounded)
    }

    /// The items between the bounds, in order.
    pub fn range<'a>(&'a self, lower: Bound<&T::Key>, upper: Bound<&'a T::Key>) -> Iter<'a, T> {
        let mut stack = Vec::new();
        let mut next = self.root.as_deref();
        while let Some(node) = next {
            let (index, inside) = match lower {
                Bound::Unbounded => (0, false),
                Bound::Included(key) => match node.search(key) {
                    Ok(index) => (index, true),
                    Err(index) => (index, false),
                },
                Bound::Excluded(key) => match node.search(key) {
                    Ok(index) => (index + 1, false),
                    Err(index) => (index, false),
                },
            };
            stack.push((node, index));
            next = if inside {
                None
            } else {
                node.children.get(index).map(Arc::as_ref)
            };
        }
        Iter { stack, upper }
    }

    /// The items from the one at a place on, in order: what is in front of it is not walked.
    pub fn from_place(&self, place: usize) -> Iter<'_, T> {
        let mut stack = Vec::new();
        let mut next = self.root.as_deref().filter(|root| place < root.size);
        let mut left = place;
        while let Some(node) = next {
            next = None;
            let mut index = if node.is_leaf() { left } else { 0 };
            for child in &node.children {
                if left <= child.size {
                    // At its end the item behind it is meant.
                    next = (left < child.size).then_some(child);
                    break;
                }
                left -= child.size + 1;
                index += 1;
            }
            stack.push((node, index));
        }
        let upper = Bound::Unbounded;
        Iter { stack, upper }
    }
}

impl<T: Item> Map<T> {
    /// The map of items that are already in order, without a search or a copy for each.
    ///
    /// # Panics
    /// When the keys do not strictly ascend.
    pub fn from_sorted(items: Vec<T>) -> Self {
        let ascending = items.windows(2).all(|pair| pair[0].key() < pair[1].key());
        assert!(ascending, "invariant: keys handed over as sorted ascend");
        if items.is_empty() {
            return Self::new();
        }
        let mut capacity = ITEMS_MAX;
        while capacity < items.len() {
            capacity = (capacity + 1) * (ITEMS_MAX + 1) - 1;
        }
        let size = items.len();
        Self {
            root: Some(Arc::new(Node::from_sorted(&mut items.into_iter(), size, capacity))),
        }
    }
}

impl<T: Item> FromIterator<T> for Map<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut map = Self::new();
        for item in items {
            map.insert(item);
        }
        map
    }
}

impl<T: Item> Node<T> {
    fn empty() -> Self {
        Self {
            items: Items::new(),
            children: Vec::new(),
            size: 0,
        }
    }

    /// A subtree of the next `size` items, of the height that holds `capacity` of them at most: as few children as can hold
    /// them, evenly filled, which leaves each at least half full.
    fn from_sorted(items: &mut impl Iterator<Item = T>, size: usize, capacity: usize) -> Self {
        if capacity == ITEMS_MAX {
            return Self {
                items: Items::of(items.take(size).collect()),
                children: Vec::new(),
                size,
            };
        }
        let child_capacity = (capacity + 1) / (ITEMS_MAX + 1) - 1;
        let count = (size + 1).div_ceil(child_capacity + 1);
        let below = size + 1 - count;
        let mut between = Vec::with_capacity(count);
        let mut children = Vec::with_capacity(count);
        for index in 0..count {
            if index > 0 {
                between.extend(items.next());
            }
            let size = below / count + usize::from(index < below % count);
            children.push(Arc::new(Self::from_sorted(items, size, child_capacity)));
        }
        Self {
            items: Items::of(between),
            children,
            size,
        }
    }

    fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    fn search(&self, key: &T::Key) -> Result<usize, usize> {
        self.items.search(key)
    }

    /// Inserts or replaces below `this`, which may then hold one item too many.
    fn upsert(this: &mut Arc<Self>, key: &T::Key, make: impl FnOnce(Option<&T>) -> T) -> Option<T> {
        let node = Arc::make_mut(this);
        let replaced = match node.search(key) {
            Ok(index) => {
                let item = make(Some(&node.items[index]));
                Some(node.items.renew(index, item))
            }
            Err(index) if node.is_leaf() => {
                node.items.insert(index, make(None));
                None
            }
            Err(index) => {
                let replaced = Self::upsert(&mut node.children[index], key, make);
                if node.children[index].items.len() > ITEMS_MAX {
                    node.split_child(index);
                }
                replaced
            }
        };
        node.size += usize::from(replaced.is_none());
        replaced
    }

    /// Splits an overfull child around its middle item.
    fn split_child(&mut self, index: usize) {
        let left = Arc::make_mut(&mut self.children[index]);
        let middle = left.items.len() / 2;
        let right_items = left.items.split_off(middle + 1);
        let item = left.items.pop().expect("invariant: an overfull node has a middle");
        // Keys that come in order never come back to the left half.
        left.items.settle();
        let right_children = if left.is_leaf() {
            Vec::new()
        } else {
            left.children.split_off(middle + 1)
        };
        let right_size = right_items.len() + right_children.iter().map(|child| child.size).sum::<usize>();
        left.size -= right_size + 1;
        let right = Self {
            items: right_items,
            children: right_children,
            size: right_size,
        };
        self.items.insert(index, item);
        self.children.insert(index + 1, Arc::new(right));
    }

    /// Removes a key that is below `this`, which may then hold one item too few.
    fn remove(this: &mut Arc<Self>, key: &T::Key) -> T {
        let node = Arc::make_mut(this);
        node.size -= 1;
        match node.search(key) {
            Ok(index) if node.is_leaf() => node.items.remove(index),
            Ok(index) => {
                let before = Self::remove_last(&mut node.children[index]);
                let removed = node.items.replace(index, before);
                node.refill_child(index);
                removed
            }
            Err(index) => {
                let removed = Self::remove(&mut node.children[index], key);
                node.refill_child(index);
                removed
            }
        }
    }

    fn remove_last(this: &mut Arc<Self>) -> T {
        let node = Arc::make_mut(this);
        node.size -= 1;
        if node.is_leaf() {
            return node.items.pop().expect("invariant: a node is not empty");
        }
        let index = node.children.len() - 1;
        let removed = Self::remove_last(&mut node.children[index]);
        node.refill_child(index);
        removed
    }

    /// Gives a child that has too few items one of a sibling's, or joins the two.
    fn refill_child(&mut self, index: usize) {
        if self.children[index].items.len() >= ITEMS_MIN {
            return;
        }
        if index > 0 && self.children[index - 1].items.len() > ITEMS_MIN {
            let left = Arc::make_mut(&mut self.children[index - 1]);
            let item = left.items.pop().expect("invariant: a rich sibling has items");
            let child = left.children.pop();
            let moved = 1 + child.as_ref().map_or(0, |child| child.size);
            left.size -= moved;
            let item = self.items.replace(index - 1, item);
            let poor = Arc::make_mut(&mut self.children[index]);
            poor.items.insert(0, item);
            poor.children.splice(0..0, child);
            poor.size += moved;
        } else if index + 1 < self.children.len() && self.children[index + 1].items.len() > ITEMS_MIN {
            let right = Arc::make_mut(&mut self.children[index + 1]);
            let item = right.items.remove(0);
            let child = if right.is_leaf() {
                None
            } else {
                Some(right.children.remove(0))
            };
            let moved = 1 + child.as_ref().map_or(0, |child| child.size);
            right.size -= moved;
            let item = self.items.replace(index, item);
            let poor = Arc::make_mut(&mut self.children[index]);
            poor.items.push(item);
            poor.children.extend(child);
            poor.size += moved;
        } else {
            let index = index.saturating_sub(1);
            let item = self.items.remove(index);
            let right = self.children.remove(index + 1);
            let left = Arc::make_mut(&mut self.children[index]);
            left.size += 1 + right.size;
            left.items.push(item);
            left.items.extend_from(&right.items);
            left.children.extend_from_slice(&right.children);
        }
    }
}

/// Items of a map in order.
pub struct Iter<'a, T: Item> {
    /// The path to the next item: in each node the index of the item that comes when everything deeper is done.
    stack: Vec<(&'a Node<T>, usize)>,
    upper: Bound<&'a T::Key>,
}

impl<'a, T: Item> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        loop {
            let (node, index) = self.stack.last_mut()?;
            let node = *node;
            let Some(item) = node.items.get(*index) else {
                self.stack.pop();
                continue;
            };
            let inside = match self.upper {
                Bound::Unbounded => true,
                Bound::Included(key) => item.key() <= key,
                Bound::Excluded(key) => item.key() < key,
            };
            if !inside {
                self.stack.clear();
                return None;
            }
            *index += 1;
            let mut next = node.children.get(*index).map(Arc::as_ref);
            while let Some(child) = next {
                self.stack.push((child, 0));
                next = child.children.first().map(Arc::as_ref);
            }
            return Some(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Pair(u16, u32);

    impl Item for Pair {
        type Key = u16;
        fn key(&self) -> &u16 {
            &self.0
        }
    }

    /// With a key of bytes, long parts of which are the same.
    #[derive(Clone, Debug, PartialEq)]
    struct Named(Vec<u8>, u32);

    impl Item for Named {
        type Key = [u8];
        fn key(&self) -> &[u8] {
            &self.0
        }
        fn bytes(key: &[u8]) -> &[u8] {
            key
        }
    }

    fn named(number: u16) -> Vec<u8> {
        let group = ["/a/", "/a/long/prefix/of/all/", "/a/long/prefix/of/all/and/more\0", "b"][usize::from(number % 4)];
        let mut key = group.as_bytes().to_vec();
        // Of several lengths, with zeros at the end.
        key.extend((number / 4).to_be_bytes());
        key.resize(key.len() + usize::from(number % 3), 0);
        key
    }

    fn check_shape<T: Item>(map: &Map<T>) {
        fn depth<T: Item>(node: &Node<T>, is_root: bool) -> usize {
            assert!(node.items.is_right());
            assert!(node.items.len() <= ITEMS_MAX && (is_root || node.items.len() >= ITEMS_MIN));
            assert!(!node.items.is_empty());
            let below: usize = node.children.iter().map(|child| child.size).sum();
            assert_eq!(node.size, node.items.len() + below);
            if node.is_leaf() {
                return 0;
            }
            assert_eq!(node.children.len(), node.items.len() + 1);
            let depths: Vec<_> = node.children.iter().map(|child| depth(child, false)).collect();
            assert!(depths.iter().all(|other| *other == depths[0]));
            depths[0] + 1
        }
        if let Some(root) = &map.root {
            depth(root, true);
        }
    }

    fn pairs(map: &Map<Pair>) -> Vec<(u16, u32)> {
        map.iter().map(|pair| (pair.0, pair.1)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_as_the_standard_map(changes in prop::collection::vec((any::<bool>(), 0u16..700, any::<u32>()), 0..2500)) {
            let mut map = Map::new();
            let mut model = BTreeMap::new();
            let mut kept = Vec::new();
            for (index, (put, key, value)) in changes.into_iter().enumerate() {
                if put || index < 900 {
                    prop_assert_eq!(map.insert(Pair(key, value)).map(|pair| pair.1), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key).map(|pair| pair.1), model.remove(&key));
                }
                prop_assert_eq!(map.len(), model.len());
                if index % 300 == 0 {
                    kept.push((map.clone(), model.clone()));
                    check_shape(&map);
                }
            }
            kept.push((map, model));
            // Every version kept is as it was.
            for (map, model) in kept {
                check_shape(&map);
                prop_assert_eq!(pairs(&map), model.into_iter().collect::<Vec<_>>());
            }
        }

        #[test]
        fn heads_tell_no_lies(changes in prop::collection::vec((any::<bool>(), 0u16..700, any::<u32>()), 0..2500), asked in prop::collection::vec(0u16..800, 40)) {
            let mut map = Map::new();
            let mut model = BTreeMap::new();
            let mut kept = Vec::new();
            for (index, (put, key, value)) in changes.into_iter().enumerate() {
                let key = named(key);
                if put || index < 900 {
                    let item = Named(key.clone(), value);
                    prop_assert_eq!(map.insert(item).map(|item| item.1), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key).map(|item| item.1), model.remove(&key));
                }
                if index % 500 == 0 {
                    kept.push((map.clone(), model.clone()));
                }
            }
            kept.push((map, model));
            for (map, model) in kept {
                check_shape(&map);
                let sorted = Map::from_sorted(map.iter().cloned().collect());
                check_shape(&sorted);
                for number in &asked {
                    let key = named(*number);
                    prop_assert_eq!(map.get(&key).map(|item| item.1), model.get(&key).copied());
                    prop_assert_eq!(map.rank(&key), model.range(..key.clone()).count());
                    prop_assert_eq!(sorted.rank(&key), map.rank(&key));
                }
                let items = map.iter().map(|item| (item.0.clone(), item.1));
                prop_assert!(items.eq(model));
            }
        }

        #[test]
        fn ranges_and_ranks(keys in prop::collection::btree_set(0u16..500, 0..400), one in 0u16..510, two in 0u16..510) {
            let map: Map<Pair> = keys.iter().map(|key| Pair(*key, 0)).collect();
            prop_assert_eq!(map.rank(&one), keys.range(..one).count());
            let (low, high) = (one.min(two), one.max(two));
            for lower in [Bound::Unbounded, Bound::Included(&low), Bound::Excluded(&low)] {
                for upper in [Bound::Unbounded, Bound::Included(&high), Bound::Excluded(&high)] {
                    let expect: Vec<u16> = keys.iter().copied().filter(|key| {
                        (match lower { Bound::Included(low) => key >= low, Bound::Excluded(low) => key > low, Bound::Unbounded => true })
                            && (match upper { Bound::Included(high) => key <= high, Bound::Excluded(high) => key < high, Bound::Unbounded => true })
                    }).collect();
                    let found: Vec<u16> = map.range(lower, upper).map(|pair| pair.0).collect();
                    prop_assert_eq!(map.count(lower, upper), expect.len());
                    prop_assert_eq!(found, expect);
                }
            }
            for place in 0..keys.len() + 2 {
                let found = map.from_place(place).map(|pair| pair.0);
                prop_assert!(found.eq(keys.iter().copied().skip(place)), "{}", place);
            }
        }
    }

    #[test]
    fn built_from_what_is_sorted() {
        for size in (0..1200).chain([5_000, 35_936, 35_937, 65_000]) {
            let items: Vec<Pair> = (0..size).map(|key| Pair(key as u16, size)).collect();
            let map = Map::from_sorted(items.clone());
            check_shape(&map);
            assert!(map.iter().eq(items.iter()), "{size}");
        }
    }

    #[test]
    fn what_is_not_sorted_is_not_taken_as_such() {
        let taken = std::panic::catch_unwind(|| Map::from_sorted(vec![Pair(1, 0), Pair(1, 0)]).len());
        assert!(taken.is_err());
    }

    #[test]
    fn an_unshared_map_changes_in_place_and_absent_keys_copy_nothing() {
        let mut map: Map<Pair> = (0..1000).map(|key| Pair(key, 0)).collect();
        let snapshot = map.clone();
        assert!(map.same(&snapshot));
        assert!(map.remove(&5000).is_none());
        assert!(map.same(&snapshot));
        map.insert(Pair(3, 9));
        assert!(!map.same(&snapshot));
        assert_eq!((snapshot.get(&3).unwrap().1, map.get(&3).unwrap().1), (0, 9));
        for key in 0..1000 {
            map.remove(&key);
        }
        assert!(map.is_empty() && map.same(&Map::new()) && snapshot.len() == 1000);
    }
}
