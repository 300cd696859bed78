//! Sets of fields: a trie of path elements.
//!
//! Source of the operations' meaning: `sigs.k8s.io/structured-merge-diff/fieldpath/set.go`.
//!
//! Invariants: the entries of a level are sorted and unique; each one is a member itself or leads to members.

use super::element::PathElement;
use crate::{Map, Value};

/// A set of paths. A path being in it says nothing of the paths above or below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    entries: Vec<Entry>,
}

/// A path element, whether the path that ends here is in the set, and what is below.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    element: PathElement,
    member: bool,
    children: FieldSet,
}

impl FieldSet {
    /// The empty set.
    pub fn new() -> FieldSet {
        FieldSet::default()
    }

    /// A set of fields given by their names: `["metadata.name", "status"]`.
    pub fn of_fields(paths: &[&str]) -> FieldSet {
        let mut set = FieldSet::new();
        for path in paths {
            let path: Vec<PathElement> = path.split('.').map(PathElement::field).collect();
            set.insert(&path);
        }
        set
    }

    /// Adds a path. The empty path is the whole object, which nobody owns.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => self.entry(last).member = true,
            [first, rest @ ..] => self.entry(first).children.insert(rest),
        }
    }

    /// Whether there are no paths.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of paths.
    pub fn len(&self) -> usize {
        self.entries
            .iter()
            .map(|e| usize::from(e.member) + e.children.len())
            .sum()
    }

    /// Whether a path is in the set.
    pub fn contains(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.find(last).is_some_and(|entry| entry.member),
            [first, rest @ ..] => self.find(first).is_some_and(|entry| entry.children.contains(rest)),
        }
    }

    /// Whether the element itself is in the set, and what is below it.
    pub(super) fn at(&self, element: &PathElement) -> (bool, Option<&FieldSet>) {
        match self.find(element) {
            None => (false, None),
            Some(entry) => (entry.member, Some(&entry.children).filter(|set| !set.is_empty())),
        }
    }

    /// The elements of this level with their membership and what is below.
    pub(super) fn level(&self) -> impl Iterator<Item = (&PathElement, bool, &FieldSet)> {
        self.entries.iter().map(|e| (&e.element, e.member, &e.children))
    }

    /// Puts a whole branch in place of an element; an empty branch is left out.
    pub(super) fn put(&mut self, element: PathElement, member: bool, children: FieldSet) {
        if !member && children.is_empty() {
            return;
        }
        let entry = Entry {
            element,
            member,
            children,
        };
        match self.entries.last() {
            Some(last) if last.element >= entry.element => match self.search(&entry.element) {
                Ok(place) => {
                    let old = &mut self.entries[place];
                    old.member |= entry.member;
                    old.children = old.children.union(&entry.children);
                }
                Err(place) => self.entries.insert(place, entry),
            },
            _ => self.entries.push(entry),
        }
    }

    /// All paths: at each level first those that end there, then those below.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<PathElement>, paths: &mut Vec<Vec<PathElement>>) {
        for entry in self.entries.iter().filter(|entry| entry.member) {
            let mut path = prefix.clone();
            path.push(entry.element.clone());
            paths.push(path);
        }
        for entry in &self.entries {
            prefix.push(entry.element.clone());
            entry.children.collect(prefix, paths);
            prefix.pop();
        }
    }

    /// Paths in either set.
    pub fn union(&self, other: &FieldSet) -> FieldSet {
        self.zip(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => (a.member || b.member, a.children.union(&b.children)),
            (Some(one), None) | (None, Some(one)) => (one.member, one.children.clone()),
            (None, None) => (false, FieldSet::new()),
        })
    }

    /// Paths in both sets.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.zip(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => (a.member && b.member, a.children.intersection(&b.children)),
            _ => (false, FieldSet::new()),
        })
    }

    /// Paths of this set that are not in the other; what is below a path of the other stays.
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        let mut left = self.clone();
        left.subtract(other);
        left
    }

    /// Leaves of this set its [`FieldSet::difference`] with the other.
    pub(super) fn subtract(&mut self, other: &FieldSet) {
        let mut others = other.entries.iter().peekable();
        self.entries.retain_mut(|entry| {
            while others.next_if(|other| other.element < entry.element).is_some() {}
            if let Some(other) = others.next_if(|other| other.element == entry.element) {
                entry.member &= !other.member;
                entry.children.subtract(&other.children);
            }
            entry.member || !entry.children.is_empty()
        });
    }

    /// Paths of this set that are neither in the other nor below one of its paths.
    pub fn recursive_difference(&self, other: &FieldSet) -> FieldSet {
        self.zip(other, |a, b| match (a, b) {
            (Some(_), Some(b)) if b.member => (false, FieldSet::new()),
            (Some(a), Some(b)) => (a.member, a.children.recursive_difference(&b.children)),
            (Some(a), None) => (a.member, a.children.clone()),
            _ => (false, FieldSet::new()),
        })
    }

    /// Walks both levels in order and keeps what `combine` makes of each pair.
    fn zip(&self, other: &FieldSet, combine: impl Fn(Option<&Entry>, Option<&Entry>) -> (bool, FieldSet)) -> FieldSet {
        let mut out = FieldSet::new();
        let (mut a, mut b) = (self.entries.iter().peekable(), other.entries.iter().peekable());
        loop {
            let (left, right) = match (a.peek(), b.peek()) {
                (None, None) => return out,
                (Some(_), None) => (a.next(), None),
                (None, Some(_)) => (None, b.next()),
                (Some(x), Some(y)) => match x.element.cmp(&y.element) {
                    std::cmp::Ordering::Less => (a.next(), None),
                    std::cmp::Ordering::Greater => (None, b.next()),
                    std::cmp::Ordering::Equal => (a.next(), b.next()),
                },
            };
            let (member, children) = combine(left, right);
            if member || !children.is_empty() {
                let entry = left.or(right).expect("invariant: one side has an entry");
                out.entries.push(Entry {
                    element: entry.element.clone(),
                    member,
                    children,
                });
            }
        }
    }

    /// Reads `FieldsV1`.
    pub fn from_fields_v1(fields: &Value) -> Result<FieldSet, String> {
        Ok(read(fields)?.0)
    }

    /// Writes `FieldsV1`.
    pub fn to_fields_v1(&self) -> Value {
        Value::Object(self.write(false))
    }

    fn write(&self, include_self: bool) -> Map {
        let mut map = Map::new();
        if include_self {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for entry in &self.entries {
            let include_self = entry.member && !entry.children.is_empty();
            map.insert(
                entry.element.serialize(),
                Value::Object(entry.children.write(include_self)),
            );
        }
        map
    }

    fn search(&self, element: &PathElement) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.element.cmp(element))
    }

    fn find(&self, element: &PathElement) -> Option<&Entry> {
        self.search(element).ok().map(|place| &self.entries[place])
    }

    fn entry(&mut self, element: &PathElement) -> &mut Entry {
        let place = match self.search(element) {
            Ok(place) => place,
            Err(place) => {
                let entry = Entry {
                    element: element.clone(),
                    member: false,
                    children: FieldSet::new(),
                };
                self.entries.insert(place, entry);
                place
            }
        };
        &mut self.entries[place]
    }
}

/// The set below a value, and whether the value itself is a member.
fn read(fields: &Value) -> Result<(FieldSet, bool), String> {
    let map = match fields {
        Value::Object(map) => map,
        Value::Null => return Ok((FieldSet::new(), true)),
        other => return Err(format!("expected an object of fields, found {other}")),
    };
    let mut set = FieldSet::new();
    let mut member = false;
    for (key, below) in map {
        if key == "." {
            member = true;
            continue;
        }
        let Some(element) = PathElement::parse(key)? else {
            continue;
        };
        let (children, is_member) = read(below)?;
        set.put(element, is_member, children);
    }
    let member = member || set.is_empty();
    Ok((set, member))
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
