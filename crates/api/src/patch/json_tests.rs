//! Upstream's cases (`evanphx/json-patch/patch_test.go`) and random patches.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn apply(live: &Value, patch: Value) -> Result<Value, String> {
    json_patch(live, &patch).map_err(|error| error.to_string())
}

#[test]
fn operations_apply() {
    for (live, patch, expect) in [
        (
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux"}]),
            json!({"baz": "qux", "foo": "bar"}),
        ),
        (
            json!({"foo": ["bar", "baz"]}),
            json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
            json!({"foo": ["bar", "qux", "baz"]}),
        ),
        (
            json!({"foo": ["bar", "baz"]}),
            json!([{"op": "add", "path": "/foo/-1", "value": "qux"}]),
            json!({"foo": ["bar", "baz", "qux"]}),
        ),
        (
            json!({"baz": "qux", "foo": "bar"}),
            json!([{"op": "remove", "path": "/baz"}]),
            json!({"foo": "bar"}),
        ),
        (
            json!({"foo": ["bar", "qux", "baz"]}),
            json!([{"op": "remove", "path": "/foo/1"}]),
            json!({"foo": ["bar", "baz"]}),
        ),
        (
            json!({"foo": "bar"}),
            json!([{"op": "replace", "path": "/foo", "value": "boo"}]),
            json!({"foo": "boo"}),
        ),
        (
            json!({"foo": "bar"}),
            json!([{"op": "replace", "path": "/absent", "value": 1}]),
            json!({"absent": 1, "foo": "bar"}),
        ),
        (
            json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {}}),
            json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
            json!({"foo": {"bar": "baz"}, "qux": {"thud": "fred"}}),
        ),
        (
            json!({"foo": ["all", "grass", "cows", "eat"]}),
            json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
            json!({"foo": ["all", "cows", "eat", "grass"]}),
        ),
        (
            json!({"foo": ["bar"]}),
            json!([{"op": "add", "path": "/foo/-", "value": ["abc"]}]),
            json!({"foo": ["bar", ["abc"]]}),
        ),
        (
            json!({"a": {"b": null}}),
            json!([{"op": "remove", "path": "/a/b"}]),
            json!({"a": {}}),
        ),
        (json!({}), json!([{"op": "add", "path": "/a"}]), json!({"a": null})),
        (
            json!([{"foo": ["bar", "x"]}]),
            json!([{"op": "replace", "path": "/0/foo/0", "value": "bum"}]),
            json!([{"foo": ["bum", "x"]}]),
        ),
        (
            json!({"foo": ["bar"]}),
            json!([{"op": "copy", "path": "/foo/0", "from": "/foo"}]),
            json!({"foo": [["bar"], "bar"]}),
        ),
        (
            json!({"foo": ["bar", "qux", "baz"]}),
            json!([{"op": "remove", "path": "/foo/-2"}]),
            json!({"foo": ["bar", "baz"]}),
        ),
        (
            json!({"foo": []}),
            json!([{"op": "add", "path": "/foo/-1", "value": "qux"}]),
            json!({"foo": ["qux"]}),
        ),
        (
            json!({"bar": [1]}),
            json!([{"op": "replace", "path": "/bar/0", "value": null}]),
            json!({"bar": [null]}),
        ),
        (
            json!({"id": 1}),
            json!([{"op": "test", "path": "", "value": {"id": 1}}, {"op": "replace", "path": "", "value": {"x": 2}}]),
            json!({"x": 2}),
        ),
        (
            json!({"a/b": 1, "c~d": 2}),
            json!([{"op": "remove", "path": "/a~1b"}, {"op": "remove", "path": "/c~0d"}]),
            json!({}),
        ),
        (
            json!({"baz": "qux"}),
            json!([{"op": "test", "path": "/foo", "value": null}]),
            json!({"baz": "qux"}),
        ),
        (
            json!({"baz": []}),
            json!([{"op": "test", "path": "/foo"}]),
            json!({"baz": []}),
        ),
        (json!({"a": 1}), json!(null), json!({"a": 1})),
    ] {
        assert_eq!(apply(&live, patch.clone()), Ok(expect), "{live} {patch}");
    }
}

#[test]
fn operations_that_do_not_fit_are_refused() {
    for (live, operation, expect) in [
        (
            json!({"foo": "bar"}),
            json!({"op": "add", "path": "/baz/bat", "value": 1}),
            "add operation does not apply: doc is missing path: \"/baz/bat\": missing value",
        ),
        (
            json!({"a": {"b": {}}}),
            json!({"op": "remove", "path": "/a/b/c"}),
            "error in remove for path: '/a/b/c': Unable to remove nonexistent key: c: missing value",
        ),
        (
            json!({"a": {"b": {}}}),
            json!({"op": "move", "from": "/a/b/c", "path": "/a/b/e"}),
            "error in move for path: 'c': Unable to remove nonexistent key: c: missing value",
        ),
        (
            json!({"a": [1]}),
            json!({"op": "remove", "path": "/a/1"}),
            "error in remove for path: '/a/1': Unable to access invalid index: 1: invalid index referenced",
        ),
        (
            json!({}),
            json!({"op": "add", "pathz": "/baz"}),
            "add operation failed to decode path: missing value",
        ),
        (
            json!({}),
            json!({"op": "add", "path": "", "value": 1}),
            "add operation does not apply: doc is missing path: \"\": missing value",
        ),
        (
            json!({"foo": [1, 2]}),
            json!({"op": "replace", "path": "/foo/2", "value": 1}),
            "replace operation does not apply: doc is missing key: /foo/2: missing value",
        ),
        (
            json!({"foo": [1, 2]}),
            json!({"op": "add", "path": "/foo/-4", "value": 1}),
            "error in add for path: '/foo/-4': Unable to access invalid index: -4: invalid index referenced",
        ),
        (
            json!({"foo": []}),
            json!({"op": "add", "path": "/foo/x", "value": 1}),
            "error in add for path: '/foo/x': value was not a proper array index: 'x': strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        (
            json!({"foo": []}),
            json!({"op": "remove", "path": "/foo/-"}),
            "error in remove for path: '/foo/-': strconv.Atoi: parsing \"-\": invalid syntax",
        ),
        (
            json!({"foo": [1]}),
            json!({"op": "add", "path": "/foo/2", "value": 1}),
            "error in add for path: '/foo/2': Unable to access invalid index: 2: invalid index referenced",
        ),
        (json!({}), json!({"op": null, "path": ""}), "Unexpected kind: unknown"),
        (json!({}), json!({"op": "merge", "path": ""}), "Unexpected kind: merge"),
        (
            json!({}),
            json!({"op": "copy", "from": null}),
            "copy operation failed to decode from: operation, missing from field: missing value",
        ),
        (
            json!({"foo": [1]}),
            json!({"op": "copy", "path": "/foo/2", "from": "/foo/0"}),
            "error while adding value during copy: Unable to access invalid index: 2: invalid index referenced",
        ),
        (
            json!({"foo": 1}),
            json!({"op": "test", "path": "/foo", "value": 2}),
            "testing value /foo failed: test failed",
        ),
        (
            json!({"foo": {}}),
            json!({"op": "test", "path": "/foo", "value": null}),
            "testing value /foo failed: test failed",
        ),
        (
            json!({}),
            json!({"op": "test", "path": 5}),
            "test operation failed to decode path: json: cannot unmarshal number into Go value of type string",
        ),
        (
            json!({}),
            json!({"op": "replace", "path": "", "value": 5}),
            "replace operation value must be object or array",
        ),
        (
            json!({"a": 1}),
            json!({"op": "add", "path": "/a/b", "value": 5}),
            "add operation does not apply: doc is missing path: \"/a/b\": missing value",
        ),
    ] {
        assert_eq!(apply(&live, json!([operation])), Err(expect.into()), "{operation}");
    }
    for (patch, expect) in [
        (
            json!({}),
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch",
        ),
        (
            json!(["x"]),
            "json: cannot unmarshal string into Go value of type jsonpatch.Operation",
        ),
    ] {
        assert_eq!(
            json_patch(&json!({}), &patch),
            Err(PatchError::BadRequest(expect.into()))
        );
    }
}

#[test]
fn patches_have_limits() {
    let many: Vec<Value> = vec![json!({"op": "test", "path": "/a"}); OPERATIONS_MAX + 1];
    let expect = "The allowed maximum operations in a JSON patch is 10000, got 10001";
    assert_eq!(
        json_patch(&json!({}), &many.into()),
        Err(PatchError::TooLarge(expect.into()))
    );

    // Each copy doubles the list: without the limit forty of them would fill any memory.
    let doubling: Vec<Value> = vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 40];
    let error = apply(&json!({"a": ["x"]}), doubling.into()).unwrap_err();
    assert!(
        error.starts_with("Unable to complete the copy, the accumulated size increase of copy is "),
        "{error}"
    );
}

#[test]
fn copies_into_themselves_end() {
    let nesting: Vec<Value> = vec![json!({"op": "copy", "from": "/a", "path": "/a/a"}); DEPTH_MAX];
    let live = json!({"a": {"a": {}}});
    assert_eq!(apply(&live, nesting.into()), Err("exceeded max depth".into()));
    let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    for (op, levels, good) in [
        ("add", DEPTH_MAX - 1, true),
        ("add", DEPTH_MAX, false),
        ("replace", DEPTH_MAX, false),
    ] {
        let patch = json!([{"op": op, "path": "/a", "value": deep(levels)}]);
        assert_eq!(apply(&live, patch).is_ok(), good, "{op} {levels}");
    }
}

#[test]
fn unknown_members_are_told() {
    let patch = json!([{"op": "add", "path": "/a", "value": 1}, {"op": "add", "pth": "/a"}]);
    assert_eq!(json_patch_unknown_fields(&patch), ["[1].pth"]);
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!("x"))];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_patch_panics(
        live in tree(),
        operations in prop::collection::vec(
            ("(add|remove|replace|move|test|copy)", "(/(a|b|0|1|-|-1|~0)){0,3}", "(/(a|b|0|1)){0,3}", tree()), 0..6),
    ) {
        let operations: Vec<Value> = operations
            .into_iter()
            .map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
            .collect();
        let _ = json_patch(&live, &operations.into());
        let _ = crate::patch::merge_patch(&live, &live);
    }
}
