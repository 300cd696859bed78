//! The fields that a value sets, and the fields in which two values differ.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/typed` (`tofieldset.go`, `compare.go`).

use std::collections::BTreeMap;

use super::element::{PathElement, equal};
use super::set::FieldSet;
use super::types::{Atom, ListOf, MapType, Type};
use crate::{Map, Value};

/// All fields that a value sets. Elements that a set or keyed list has twice are named, but not looked into.
pub(super) fn field_set(value: &Value, ty: Type<'_>) -> FieldSet {
    branch(value, ty).1
}

/// Whether the value is a member itself, and the members below.
fn branch(value: &Value, ty: Type<'_>) -> (bool, FieldSet) {
    let mut set = FieldSet::new();
    match ty.atom(Some(value)) {
        Atom::Scalar(_) => return (true, set),
        Atom::Map(map) if map.is_atomic() => return (true, set),
        Atom::List(list) if list.is_atomic() => return (true, set),
        Atom::Map(ty) => {
            let mut types = ty.children();
            for (key, value) in as_map(value).into_iter().flatten() {
                let Some(child) = types.of(key) else { continue };
                let (member, children) = branch(value, child);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                set.put(PathElement::field(key), member || empty || !ty.declares(key), children);
            }
        }
        Atom::List(ty) => {
            for (element, items) in group(as_list(value).unwrap_or_default(), ty) {
                match items[..] {
                    [item] => set.put(element, true, branch(item, ty.item()).1),
                    _ => set.put(element, true, FieldSet::new()),
                }
            }
        }
    }
    (false, set)
}

/// The fields in which two values differ.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) added: FieldSet,
}

impl Comparison {
    /// Without the given fields and what is below them.
    pub(super) fn without(self, fields: Option<&FieldSet>) -> Comparison {
        let Some(fields) = fields else { return self };
        Comparison {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }

    /// Fields that the second value sets anew or differently.
    pub(super) fn changed(&self) -> FieldSet {
        self.modified.union(&self.added)
    }
}

/// Compares two values of one type.
pub(super) fn compare(lhs: &Value, rhs: &Value, ty: Type<'_>) -> Comparison {
    let diff = diff(Some(lhs), Some(rhs), ty);
    Comparison {
        removed: diff.removed.below,
        modified: diff.modified.below,
        added: diff.added.below,
    }
}

/// A value's own membership and that of what is below.
#[derive(Default)]
struct Mark {
    itself: bool,
    below: FieldSet,
}

#[derive(Default)]
struct Diff {
    removed: Mark,
    modified: Mark,
    added: Mark,
}

impl Diff {
    fn put(&mut self, element: &PathElement, child: Diff) {
        for (mark, child) in [
            (&mut self.removed, child.removed),
            (&mut self.modified, child.modified),
            (&mut self.added, child.added),
        ] {
            if child.itself || !child.below.is_empty() {
                mark.below.put(element.clone(), child.itself, child.below);
            }
        }
    }
}

fn diff(lhs: Option<&Value>, rhs: Option<&Value>, ty: Type<'_>) -> Diff {
    let mut out = Diff::default();
    let (other, atom) = ty.atoms(lhs, rhs);
    if let Some(other) = other {
        diff_atom(lhs, rhs, other, &mut out);
    }
    let leaf = diff_atom(lhs, rhs, atom, &mut out);
    if !leaf {
        out.added.itself |= lhs.is_none();
        out.removed.itself |= lhs.is_some() && rhs.is_none();
    }
    out
}

/// Compares as one kind of value; tells whether that was a leaf.
fn diff_atom(lhs: Option<&Value>, rhs: Option<&Value>, atom: Atom<'_>, out: &mut Diff) -> bool {
    match atom {
        Atom::Map(ty) => {
            let (left, right) = (lhs.and_then(as_map), rhs.and_then(as_map));
            let empty = left.is_none_or(Map::is_empty) && right.is_none_or(Map::is_empty);
            if !ty.is_atomic() && !empty {
                diff_maps(left, right, ty, out);
                return false;
            }
        }
        Atom::List(ty) => {
            let (left, right) = (lhs.and_then(as_list), rhs.and_then(as_list));
            let empty = left.is_none_or(<[_]>::is_empty) && right.is_none_or(<[_]>::is_empty);
            if !ty.is_atomic() && !empty {
                diff_lists(left.unwrap_or_default(), right.unwrap_or_default(), ty, out);
                return false;
            }
        }
        Atom::Scalar(_) => {}
    }
    match (lhs, rhs) {
        (None, _) => out.added.itself = true,
        (_, None) => out.removed.itself = true,
        (Some(left), Some(right)) => out.modified.itself |= !equal(left, right),
    }
    true
}

fn diff_maps(left: Option<&Map>, right: Option<&Map>, ty: MapType<'_>, out: &mut Diff) {
    let mut types = ty.children();
    for (key, lhs, rhs) in zip_maps(left, right) {
        // What is equal on both sides differs nowhere below: most of an object, most of the time.
        if let (Some(lhs), Some(rhs)) = (lhs, rhs)
            && lhs == rhs
        {
            continue;
        }
        if let Some(child) = types.of(key) {
            out.put(&PathElement::field(key), diff(lhs, rhs, child));
        }
    }
}

fn diff_lists(left: &[Value], right: &[Value], ty: ListOf<'_>, out: &mut Diff) {
    let (left, mut right) = (group(left, ty), group(right, ty));
    let mut all: Vec<(PathElement, Vec<&Value>, Vec<&Value>)> = Vec::new();
    for (element, lhs) in left {
        let rhs = right.remove(&element).unwrap_or_default();
        all.push((element, lhs, rhs));
    }
    all.extend(right.into_iter().map(|(element, rhs)| (element, Vec::new(), rhs)));
    for (element, lhs, rhs) in all {
        let (first_left, first_right) = (lhs.first().copied(), rhs.first().copied());
        match (lhs.len(), rhs.len()) {
            (0 | 1, 0 | 1) => out.put(&element, diff(first_left, first_right, ty.item())),
            // Elements that are there several times are compared as one.
            (2.., 2..) => {
                let same = lhs.len() == rhs.len() && lhs.iter().zip(&rhs).all(|(a, b)| equal(a, b));
                if !same {
                    out.modified.below.put(element, true, FieldSet::new());
                }
            }
            (2.., _) => {
                if first_right.is_some() {
                    out.put(&element, diff(None, first_right, ty.item()));
                }
                out.removed.below.put(element, true, FieldSet::new());
            }
            (_, _) => {
                if first_left.is_some() {
                    out.put(&element, diff(first_left, None, ty.item()));
                }
                out.added.below.put(element, true, FieldSet::new());
            }
        }
    }
}

/// The elements of a list by what identifies them. Those that cannot be identified are left out: validation has
/// refused them before.
fn group<'v>(items: &'v [Value], ty: ListOf<'_>) -> BTreeMap<PathElement, Vec<&'v Value>> {
    let mut groups: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = ty.element(item) {
            groups.entry(element).or_default().push(item);
        }
    }
    groups
}

/// The keys of two maps in order with both values.
pub(super) fn zip_maps<'v>(
    left: Option<&'v Map>,
    right: Option<&'v Map>,
) -> impl Iterator<Item = (&'v String, Option<&'v Value>, Option<&'v Value>)> {
    let mut left = left.into_iter().flatten().peekable();
    let mut right = right.into_iter().flatten().peekable();
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.0.cmp(b.0),
        };
        let lhs = if order.is_le() { left.next() } else { None };
        let rhs = if order.is_ge() { right.next() } else { None };
        let key = lhs.or(rhs)?.0;
        Some((key, lhs.map(|pair| pair.1), rhs.map(|pair| pair.1)))
    })
}

pub(super) fn as_map(value: &Value) -> Option<&Map> {
    value.as_object()
}

pub(super) fn as_list(value: &Value) -> Option<&[Value]> {
    value.as_array().map(Vec::as_slice)
}
