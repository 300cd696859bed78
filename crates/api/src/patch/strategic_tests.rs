//! Upstream's cases (`strategicpatch/patch_test.go`) over the same test type, cases over real types, random patches.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::{Builder, FieldSpec, Flags, PatchStrategy, Scalar};

/// Upstream's `MergeItem`.
fn merge_item() -> SchemaRef {
    let mut builder = Builder::default();
    let flags = Flags::default();
    let item = builder.object("test.v1.MergeItem", flags);
    let retain = builder.object("test.v1.RetainKeysMergeItem", flags);
    let string = builder.scalar(Scalar::String, flags);
    let int = builder.scalar(Scalar::Int64, flags);
    let raw = builder.scalar(Scalar::RawObject, flags);
    let strings = builder.map(string, flags);
    let items = builder.list(item, false, flags);
    let ints = builder.list(int, false, flags);
    let strategy = |text: &str| PatchStrategy {
        merge: text.contains("merge"),
        replace: text.contains("replace"),
        retain_keys: text.contains("retainKeys"),
    };
    let field = |name, node, text: &str, merge_key| FieldSpec {
        patch: strategy(text),
        merge_key,
        ..FieldSpec::as_given(name, node)
    };
    builder.set_fields(
        retain,
        &[
            field("mergingIntList", ints, "merge", ""),
            field("mergingList", items, "merge", "name"),
            field("name", string, "", ""),
            field("nonMergingList", items, "", ""),
            field("other", string, "", ""),
            field("simpleMap", strings, "", ""),
            field("value", string, "", ""),
        ],
    );
    builder.set_fields(
        item,
        &[
            field("jsonItem", raw, "", ""),
            field("mergeItemPtr", items, "merge", "name"),
            field("mergingIntList", ints, "merge", ""),
            field("mergingList", items, "merge", "name"),
            field("name", string, "", ""),
            field("nonMergingIntList", ints, "", ""),
            field("nonMergingList", items, "", ""),
            field("other", string, "", ""),
            field("replacingItem", raw, "replace", ""),
            field("retainKeysMap", retain, "retainKeys", ""),
            field("retainKeysMergingList", items, "merge,retainKeys", "name"),
            field("simpleMap", strings, "", ""),
            field("value", string, "", ""),
        ],
    );
    SchemaRef::own(Arc::new(builder.finish()), item)
}

/// Live, patch and result (or a part of the error).
fn check(schema: &SchemaRef, cases: &[(Value, Value, Result<Value, &str>)]) {
    for (live, patch, expect) in cases {
        match (strategic_merge_patch(live, patch, schema), expect) {
            (Ok(got), Ok(expect)) => assert_eq!(&got, expect, "{live} {patch}"),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (got, expect) => panic!("{live} {patch}: {got:?} instead of {expect:?}"),
        }
    }
}

#[test]
fn lists_merge_by_key_and_keep_their_order() {
    let item = |name: u32| json!({"name": name});
    let valued = |name: u32, value: u32| json!({"name": name, "value": value});
    let list = |items: &[Value]| json!({"mergingList": items});
    let deleted = |name: u32| json!({"name": name, "$patch": "delete"});
    let patch = |order: &[u32], items: &[Value]| {
        let order: Vec<Value> = order.iter().map(|name| item(*name)).collect();
        json!({"$setElementOrder/mergingList": order, "mergingList": items})
    };
    check(
        &merge_item(),
        &[
            (
                list(&[item(1), item(3)]),
                patch(&[3, 2, 1], &[valued(3, 3), valued(1, 1)]),
                Ok(list(&[valued(3, 3), valued(1, 1)])),
            ),
            (
                list(&[item(1), valued(2, 2)]),
                patch(&[4, 1, 2, 3], &[valued(4, 4), valued(3, 3)]),
                Ok(list(&[valued(4, 4), item(1), valued(2, 2), valued(3, 3)])),
            ),
            (
                list(&[item(1), item(3), item(2)]),
                patch(&[1, 2, 3], &[valued(3, 3), valued(1, 1)]),
                Err("doesn't match $setElementOrder list"),
            ),
            (
                list(&[item(1), valued(4, 4)]),
                patch(&[2, 3], &[item(2), item(3), deleted(1)]),
                Ok(list(&[valued(4, 4), item(2), item(3)])),
            ),
            (json!({}), list(&[item(1), deleted(9)]), Ok(list(&[item(1)]))),
            (list(&[item(1), item(2)]), list(&[deleted(1)]), Ok(list(&[item(2)]))),
            (
                list(&[item(1)]),
                list(&[item(2), json!({"$patch": "replace"})]),
                Ok(list(&[item(2)])),
            ),
            (
                list(&[item(1)]),
                list(&[json!({"$patch": "merge", "name": 1})]),
                Err("merging lists cannot yet"),
            ),
            (
                list(&[item(1)]),
                list(&[json!({"value": "b"})]),
                Err("map: map[value:b] does not contain declared merge key: name"),
            ),
            (
                list(&[item(1)]),
                list(&[json!(1)]),
                Err("list element types are not identical: [[map[name:1]] [1]]"),
            ),
            (
                json!({"nonMergingList": [item(1)]}),
                json!({"nonMergingList": [item(2)]}),
                Ok(json!({"nonMergingList": [item(2)]})),
            ),
        ],
    );
}

#[test]
fn lists_of_scalars_merge() {
    let list = |items: &[u32]| json!({"mergingIntList": items});
    check(
        &merge_item(),
        &[
            (
                list(&[1, 3]),
                json!({"$setElementOrder/mergingIntList": [3, 2, 1]}),
                Ok(list(&[3, 1])),
            ),
            (
                list(&[1, 3, 2]),
                json!({"$setElementOrder/mergingIntList": [1, 2, 3], "mergingIntList": [3, 1]}),
                Err("doesn't match"),
            ),
            (
                list(&[1, 2]),
                json!({"$deleteFromPrimitiveList/mergingIntList": [3]}),
                Ok(list(&[1, 2])),
            ),
            (
                list(&[1, 2, 3, 3]),
                json!({"$deleteFromPrimitiveList/mergingIntList": [3]}),
                Ok(list(&[1, 2])),
            ),
            (
                json!({}),
                json!({"$deleteFromPrimitiveList/mergingIntList": [3]}),
                Ok(json!({})),
            ),
            (
                json!({"nonMergingIntList": [1, 2, 3]}),
                json!({"$deleteFromPrimitiveList/nonMergingIntList": [2]}),
                Ok(json!({"nonMergingIntList": [1, 3]})),
            ),
            (
                list(&[1, 2, 3, 4]),
                json!({"$setElementOrder/mergingIntList": [1, 2, 4], "$deleteFromPrimitiveList/mergingIntList": [3]}),
                Ok(list(&[1, 2, 4])),
            ),
            (list(&[1]), list(&[2, 1]), Ok(list(&[2, 1]))),
            (
                json!({}),
                json!({"$deleteFromPrimitiveListX": [1]}),
                Err("invalid patch format of primitive list"),
            ),
            (
                json!({}),
                json!({"$setElementOrder": []}),
                Err("invalid patch format of setElementOrder list"),
            ),
        ],
    );
}

#[test]
fn maps_follow_directives_and_nulls() {
    check(
        &merge_item(),
        &[
            (
                json!({"name": "a", "value": "b"}),
                json!({"value": null}),
                Ok(json!({"name": "a"})),
            ),
            (
                json!({"simpleMap": {"a": "1"}}),
                json!({"simpleMap": {"$patch": "replace", "b": "2"}}),
                Ok(json!({"simpleMap": {"b": "2"}})),
            ),
            (
                json!({"simpleMap": {"a": "1"}}),
                json!({"simpleMap": {"$patch": "delete"}}),
                Ok(json!({"simpleMap": {}})),
            ),
            (
                json!({"simpleMap": {"a": "1"}}),
                json!({"simpleMap": {"$patch": "merge"}}),
                Err("unknown patch type: merge in map: map[$patch:merge]"),
            ),
            (
                json!({}),
                json!({"simpleMap": {"a": null, "b": "2"}}),
                Ok(json!({"simpleMap": {"b": "2"}})),
            ),
            (
                json!({"replacingItem": {"a": 1}}),
                json!({"replacingItem": {"b": 2}}),
                Ok(json!({"replacingItem": {"b": 2}})),
            ),
            (
                json!({"retainKeysMap": {"name": "foo", "other": "x"}}),
                json!({"retainKeysMap": {"$retainKeys": ["name", "value"], "value": "bar"}}),
                Ok(json!({"retainKeysMap": {"name": "foo", "value": "bar"}})),
            ),
            (
                json!({"retainKeysMap": {"name": "foo"}}),
                json!({"retainKeysMap": {"$retainKeys": ["name"], "value": "bar"}}),
                Err("invalid patch format of retainKeys"),
            ),
            (
                json!({"jsonItem": {"a": {"b": 1}}}),
                json!({"jsonItem": {"a": {"c": 1}}}),
                Err("unable to find api field in struct RawExtension for the json field \"a\""),
            ),
            (
                json!({"unknown": {"a": 1}}),
                json!({"unknown": {"b": 1}}),
                Err("unable to find api field in struct MergeItem for the json field \"unknown\""),
            ),
            (
                json!({"unknown": {"a": 1}}),
                json!({"unknown": 5}),
                Ok(json!({"unknown": 5})),
            ),
            (
                json!({}),
                json!([]),
                Err("json: cannot unmarshal array into Go value of type map[string]interface {}"),
            ),
        ],
    );
}

#[test]
fn real_types_merge() {
    let gvk = crate::GroupVersionKind::new("apps", "v1", "Deployment");
    let schema = SchemaRef::builtin(&gvk).expect("a built-in kind");
    let pod = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    check(
        &schema,
        &[
            (
                pod(
                    json!({"containers": [{"name": "a", "image": "x:1", "env": [{"name": "K", "value": "1"}]}, {"name": "b"}]}),
                ),
                pod(json!({"containers": [{"name": "a", "image": "x:2", "env": [{"name": "L", "value": "2"}]}]})),
                Ok(pod(json!({"containers": [
                    {"name": "a", "image": "x:2", "env": [{"name": "L", "value": "2"}, {"name": "K", "value": "1"}]},
                    {"name": "b"}
                ]}))),
            ),
            (
                pod(json!({"volumes": [{"name": "v", "emptyDir": {}}]})),
                pod(
                    json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
                ),
                Ok(pod(json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}))),
            ),
            (
                json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
                json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
                Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})),
            ),
            (
                json!({"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x/y"]}}),
                json!({"metadata": {"labels": {"a": null, "c": "3"}, "finalizers": ["x/z"]}}),
                Ok(json!({"metadata": {"labels": {"b": "2", "c": "3"}, "finalizers": ["x/z", "x/y"]}})),
            ),
            (
                pod(json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "h"}]}]})),
                pod(json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "w"}]}]})),
                Ok(pod(
                    json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "w"}]}]}),
                )),
            ),
        ],
    );
}

fn items(depth: u32) -> BoxedStrategy<Value> {
    let names = || prop::sample::select(vec!["a", "b", "c"]);
    let scalar = prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!("x"))].boxed();
    if depth == 0 {
        return names().prop_map(|name| json!({"name": name})).boxed();
    }
    let list = prop::collection::vec(items(depth - 1), 0..3).prop_map(Value::from);
    let ints = prop::collection::vec(1..4u32, 0..3).prop_map(Value::from);
    let directive = prop::sample::select(vec!["delete", "replace", "merge", "?"]);
    (
        names(),
        list,
        ints,
        scalar,
        prop::option::weighted(0.2, directive),
        any::<u8>(),
    )
        .prop_map(|(name, list, ints, scalar, directive, choice)| {
            let mut item = json!({"name": name});
            for (bit, key, value) in [
                (0, "mergingList", &list),
                (1, "mergingIntList", &ints),
                (2, "$deleteFromPrimitiveList/mergingIntList", &ints),
                (3, "$setElementOrder/mergingList", &list),
                (4, "value", &scalar),
                (5, "nonMergingList", &list),
            ] {
                if choice & (1 << bit) != 0 {
                    item[key] = value.clone();
                }
            }
            if let Some(directive) = directive {
                item["$patch"] = directive.into();
            }
            item
        })
        .boxed()
}

/// Neither directives nor nulls nor an element twice.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map
                .iter()
                .filter(|(key, value)| !key.starts_with('$') && !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), plain(value))).collect())
        }
        Value::Array(list) => {
            let mut kept: Vec<Value> = Vec::new();
            for item in list.iter().map(plain) {
                let same = |other: &Value| match item.get("name") {
                    Some(name) => other.get("name") == Some(name),
                    None => *other == item,
                };
                if !kept.iter().any(same) {
                    kept.push(item);
                }
            }
            Value::Array(kept)
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn no_patch_panics_and_plain_ones_stick(live in items(3), patch in items(3)) {
        let schema = merge_item();
        let live = plain(&live);
        let _ = strategic_merge_patch(&live, &patch, &schema);
        // Applying a patch without directives twice changes nothing more.
        let patch = plain(&patch);
        if let Ok(once) = strategic_merge_patch(&live, &patch, &schema) {
            prop_assert_eq!(strategic_merge_patch(&once, &patch, &schema), Ok(once));
        }
        // An object as a patch on nothing is that object.
        prop_assert_eq!(strategic_merge_patch(&json!({}), &live, &schema), Ok(live));
    }
}
