//! Cases after upstream's `fieldpath/set_test.go`, and the laws of sets.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::apply::element::path_text;

fn set(paths: &[&str]) -> FieldSet {
    FieldSet::of_fields(paths)
}

fn texts(set: &FieldSet) -> Vec<String> {
    set.paths().iter().map(|path| path_text(path)).collect()
}

#[test]
fn fields_v1_reads_and_writes() {
    for fields in [
        json!({}),
        json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"app\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}}),
        json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"a/b\"": {}}}}),
        json!({"f:list": {"i:1": {}}}),
    ] {
        let set = FieldSet::from_fields_v1(&fields).unwrap();
        assert_eq!(set.to_fields_v1(), fields);
    }
    // Kinds of elements that a later version may have are dropped.
    let later = FieldSet::from_fields_v1(&json!({"z:new": {}, "f:a": {}})).unwrap();
    assert_eq!(later, set(&["a"]));
    for bad in [
        json!(1),
        json!([]),
        json!({"x": {}}),
        json!({"f:a": "b"}),
        json!({"k:[]": {}}),
    ] {
        assert!(FieldSet::from_fields_v1(&bad).is_err(), "{bad}");
    }
}

#[test]
fn operations_know_parents_and_children() {
    let (a, b) = (set(&["a", "a.b", "a.b.c", "d"]), set(&["a.b", "e"]));
    for (got, expect) in [
        (a.union(&b), &[".a", ".d", ".e", ".a.b", ".a.b.c"][..]),
        (a.intersection(&b), &[".a.b"]),
        (a.difference(&b), &[".a", ".d", ".a.b.c"]),
        (a.recursive_difference(&b), &[".a", ".d"]),
        (b.difference(&a), &[".e"]),
    ] {
        assert_eq!(texts(&got), expect);
    }
    assert!(a.contains(&[PathElement::field("a"), PathElement::field("b")]));
    assert!(!b.contains(&[PathElement::field("a")]));
    assert_eq!(a.len(), 4);
}

fn sets() -> impl Strategy<Value = FieldSet> {
    let path = prop::collection::vec(prop::sample::select(vec!["f:a", "f:b", "k:{\"n\":1}", "v:2"]), 1..4);
    prop::collection::vec(path, 0..8).prop_map(|paths| {
        let mut set = FieldSet::new();
        for path in paths {
            let path: Vec<_> = path
                .iter()
                .map(|e| PathElement::parse(e).unwrap().expect("known"))
                .collect();
            set.insert(&path);
        }
        set
    })
}

proptest! {
    #[test]
    fn sets_keep_their_laws(a in sets(), b in sets()) {
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert_eq!(a.difference(&b).intersection(&b), FieldSet::new());
        prop_assert_eq!(a.union(&b).len() + a.intersection(&b).len(), a.len() + b.len());
        prop_assert_eq!(a.recursive_difference(&b).difference(&a), FieldSet::new());
        prop_assert_eq!(FieldSet::from_fields_v1(&a.to_fields_v1()), Ok(a.clone()));
        for path in a.paths() {
            prop_assert!(a.contains(&path));
            prop_assert_eq!(b.contains(&path), a.intersection(&b).contains(&path));
        }
    }
}
