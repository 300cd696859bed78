//! An apply configuration laid over an object without anybody coming to own anything: what a mutating policy does.
//!
//! Source: `ApplyStructuredMergeDiff` of `k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch/smd.go`.

use super::element::{PathElement, path_text};
use super::merge::merge;
use super::types::{Atom, Type};
use super::{TRACKED_DEPTH_MAX, validate};
use crate::Value;
use crate::schema::SchemaRef;

/// The object with the configuration's fields. Lists, maps and records that are owned as one may not be in it: whoever
/// names some of their fields would take away the others.
///
/// # Errors
/// Why that cannot be done, in upstream's words.
pub fn overlay(live: &Value, configuration: &Value, schema: &SchemaRef) -> Result<Value, String> {
    let ty = Type::Node(schema.node());
    let typed = |what: &str, object: &Value, duplicates: bool| {
        let checked = match crate::patch::depth(object) {
            0..=TRACKED_DEPTH_MAX => validate::validate(object, ty, duplicates),
            _ => Err("exceeded max depth".into()),
        };
        checked.map_err(|why| format!("failed to convert {what} object to typed object: {why}"))
    };
    typed("patch", configuration, false)?;
    let mut atomics = Vec::new();
    find_atomics(configuration, ty, &mut Vec::new(), &mut atomics);
    if !atomics.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            atomics.join(", ")
        ));
    }
    typed("original", live, true)?;
    Ok(merge(live, configuration, ty))
}

/// The paths of what is owned as one. Maps of any key are not looked into, as upstream does not.
fn find_atomics(value: &Value, ty: Type<'_>, path: &mut Vec<PathElement>, found: &mut Vec<String>) {
    match (value, ty.atom(Some(value))) {
        (Value::Object(map), Atom::Map(ty)) => {
            if ty.is_atomic() {
                found.push(path_text(path));
            }
            let mut types = ty.children();
            for (key, value) in map {
                if ty.declares(key)
                    && let Some(child) = types.of(key)
                {
                    path.push(PathElement::field(key));
                    find_atomics(value, child, path, found);
                    path.pop();
                }
            }
        }
        (Value::Array(list), Atom::List(ty)) => {
            if ty.is_atomic() {
                found.push(path_text(path));
            }
            for (index, value) in list.iter().enumerate() {
                path.push(PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX)));
                find_atomics(value, ty.item(), path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::GroupVersionKind;

    #[test]
    fn configurations_are_merged_by_the_types_of_lists_and_maps() {
        let schema = SchemaRef::builtin(&GroupVersionKind::new("", "v1", "Pod")).unwrap();
        let live = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "1"}},
            "spec": {"containers": [{"name": "a", "image": "i"}]}});
        let with = |mut patch: Value| {
            patch["apiVersion"] = "v1".into();
            patch["kind"] = "Pod".into();
            patch
        };
        let merged = |patch: Value| overlay(&live, &with(patch), &schema);
        let mut expect = live.clone();
        expect["metadata"]["labels"]["y"] = "2".into();
        assert_eq!(merged(json!({"metadata": {"labels": {"y": "2"}}})).unwrap(), expect);
        let mut expect = live.clone();
        expect["spec"]["containers"] = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]);
        let added = merged(json!({"spec": {"containers": [{"name": "b", "image": "j"}]}})).unwrap();
        assert_eq!(added, expect);
        for (patch, expect) in [
            (
                json!({"spec": {"containers": [{"name": "a", "args": ["x"]}]}}),
                "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.containers[0].args",
            ),
            (
                json!({"spec": {"nodeSelector": {"a": "b"}}}),
                "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.nodeSelector",
            ),
            (
                json!({"spec": {"nothing": 1}}),
                "failed to convert patch object to typed object: .spec.nothing: field not declared in schema",
            ),
        ] {
            assert_eq!(merged(patch).unwrap_err(), expect);
        }
    }
}
