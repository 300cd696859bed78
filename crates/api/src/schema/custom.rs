//! The structural schema of a custom resource as a graph.
//!
//! Source of the rules: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema` (structural schemas, pruning, object
//! metadata). Only what shapes an object is kept: types, which fields are known, how lists and maps merge, defaults.
//! Descriptions and validation stay in the CRD itself, so that hundreds of CRDs cost little.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::field::{Field, Omit, PatchStrategy};
use super::graph::{BUILTIN, Builder, FieldSpec, Flags, NodeId};
use super::shape::Scalar;
use super::{SchemaRef, builtin};

/// How deep schemas may nest; an object can be no deeper.
const DEPTH_MAX: usize = 128;

/// Most types of one custom resource. The largest public CRDs have ten thousand.
const NODES_MAX: usize = 100_000;

/// Why a schema cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomSchemaError {
    /// The text of a part that is no schema.
    #[error("{path}: {what}")]
    Invalid {
        /// Where it stands in the schema.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// More levels than [`DEPTH_MAX`].
    #[error("the schema nests deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// More types than [`NODES_MAX`].
    #[error("the schema has more than {NODES_MAX} types")]
    TooLarge,
}

impl SchemaRef {
    /// The type of a custom resource with this `openAPIV3Schema`. `apiVersion`, `kind` and `metadata` are there
    /// whatever the schema says of them.
    pub fn from_json_schema(props: &Value) -> Result<SchemaRef, CustomSchemaError> {
        let mut reader = Reader {
            builder: Builder::default(),
            nodes: 0,
        };
        let root = reader.node(props, "openAPIV3Schema", 0, true)?;
        Ok(SchemaRef::own(Arc::new(reader.builder.finish()), root))
    }
}

struct Reader {
    builder: Builder,
    nodes: usize,
}

fn flag(props: &Map<String, Value>, name: &str) -> bool {
    props.get(name) == Some(&Value::Bool(true))
}

fn text<'a>(props: &'a Map<String, Value>, name: &str) -> &'a str {
    props.get(name).and_then(Value::as_str).unwrap_or("")
}

fn invalid(path: &str, what: impl Into<String>) -> CustomSchemaError {
    CustomSchemaError::Invalid {
        path: path.into(),
        what: what.into(),
    }
}

impl Reader {
    fn node(&mut self, props: &Value, path: &str, depth: usize, is_root: bool) -> Result<NodeId, CustomSchemaError> {
        let props = props.as_object().ok_or_else(|| invalid(path, "must be an object"))?;
        if depth > DEPTH_MAX {
            return Err(CustomSchemaError::TooDeep);
        }
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(CustomSchemaError::TooLarge);
        }
        let flags = Flags {
            preserve_unknown: flag(props, "x-kubernetes-preserve-unknown-fields"),
            nullable: flag(props, "nullable"),
            embedded: flag(props, "x-kubernetes-embedded-resource"),
            atomic: text(props, "x-kubernetes-map-type") == "atomic",
            declared: props.contains_key("x-kubernetes-map-type") || props.contains_key("x-kubernetes-list-type"),
        };
        if flag(props, "x-kubernetes-int-or-string") {
            return Ok(self.builder.scalar(Scalar::IntOrString, flags));
        }
        let scalar = match text(props, "type") {
            "object" => return self.object(props, flags, path, depth, is_root),
            "array" => return self.list(props, flags, path, depth),
            "" if is_root || flags.embedded => return self.object(props, flags, path, depth, is_root),
            "" => Scalar::Any,
            "string" => Scalar::String,
            "boolean" => Scalar::Bool,
            "integer" if text(props, "format") == "int32" => Scalar::Int32,
            "integer" => Scalar::Int64,
            "number" => Scalar::Double,
            other => return Err(invalid(path, format!("type {other:?} is not supported"))),
        };
        Ok(self.builder.scalar(scalar, flags))
    }

    fn object(
        &mut self,
        props: &Map<String, Value>,
        flags: Flags,
        path: &str,
        depth: usize,
        is_root: bool,
    ) -> Result<NodeId, CustomSchemaError> {
        let empty = Map::new();
        let properties = match props.get("properties") {
            None => &empty,
            Some(Value::Object(properties)) => properties,
            Some(_) => return Err(invalid(path, "properties must be an object")),
        };
        let is_resource = is_root || flags.embedded;
        if properties.is_empty() && !is_resource {
            match props.get("additionalProperties") {
                Some(values @ Value::Object(_)) => {
                    let path = format!("{path}.additionalProperties");
                    let value = self.node(values, &path, depth + 1, false)?;
                    return Ok(self.builder.map(value, flags));
                }
                Some(Value::Bool(true)) => {
                    let value = self.builder.scalar(Scalar::Any, Flags::default());
                    return Ok(self.builder.map(value, flags));
                }
                _ => {}
            }
        }
        // A resource's own fields are the server's, whatever the schema says of them.
        let mut types: Vec<(&str, NodeId, String)> = Vec::new();
        if is_resource {
            let word = self.builder.scalar(Scalar::String, Flags::default());
            let metadata = builtin::definition("apimachinery.pkg.apis.meta.v1.ObjectMeta")
                .expect("invariant: ObjectMeta is a built-in type");
            types.push(("apiVersion", word, String::new()));
            types.push(("kind", word, String::new()));
            types.push(("metadata", metadata | BUILTIN, String::new()));
        }
        for (name, props) in properties {
            if is_resource && types.iter().take(3).any(|(own, ..)| own == name) {
                continue;
            }
            let node = self.node(props, &format!("{path}.properties[{name}]"), depth + 1, false)?;
            types.push((name, node, facts(props)));
        }
        types.sort_by_key(|(name, ..)| *name);
        let required: Vec<&str> = props
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let fields: Vec<FieldSpec<'_>> = types
            .iter()
            .map(|(name, node, facts)| FieldSpec {
                required: required.contains(name),
                facts,
                ..FieldSpec::as_given(name, *node)
            })
            .collect();
        let id = self.builder.object("", flags);
        self.builder.set_fields(id, &fields);
        Ok(id)
    }

    fn list(
        &mut self,
        props: &Map<String, Value>,
        flags: Flags,
        path: &str,
        depth: usize,
    ) -> Result<NodeId, CustomSchemaError> {
        let items = props
            .get("items")
            .ok_or_else(|| invalid(path, "items is required for a list"))?;
        let item = self.node(items, &format!("{path}.items"), depth + 1, false)?;
        match text(props, "x-kubernetes-list-type") {
            "set" => Ok(self.builder.list(item, true, flags)),
            "map" => {
                let keys = props.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
                if keys.is_empty() {
                    return Err(invalid(
                        path,
                        "x-kubernetes-list-map-keys is required for a list of type map",
                    ));
                }
                Ok(self.builder.keyed_list(item, &keys, flags))
            }
            "" | "atomic" => Ok(self.builder.list(item, false, flags)),
            other => Err(invalid(path, format!("list type {other:?} is not supported"))),
        }
    }
}

/// The facts of a field that defaulting needs.
fn facts(props: &Value) -> String {
    match props.get("default") {
        Some(default) => serde_json::json!({"default": default}).to_string(),
        None => String::new(),
    }
}

impl<'a> FieldSpec<'a> {
    /// A field of a custom resource: written exactly when it was given.
    pub fn as_given(name: &'a str, node: NodeId) -> FieldSpec<'a> {
        FieldSpec {
            name,
            node,
            omit: Omit::AsGiven,
            pointer: true,
            required: false,
            patch: PatchStrategy::default(),
            merge_key: "",
            tags: &[],
            wrapped: false,
            facts: "",
        }
    }
}

/// Fills in the defaults of a custom resource where a field is absent, or null without being nullable; a null that is no value
/// and has no default goes.
///
/// Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting/algorithm.go`. Built-in types have their
/// defaults in code, so only types of one's own are walked.
pub fn apply_defaults(value: &mut Value, schema: &SchemaRef) {
    default_node(value, schema.node());
}

fn default_node(value: &mut Value, node: super::Node<'_>) {
    use super::Shape;
    if node.is_builtin() {
        return;
    }
    match (node.shape(), value) {
        (Shape::Object(fields), Value::Object(map)) => {
            for field in fields.iter() {
                default_field(map, field);
            }
        }
        (Shape::Map { value: of }, Value::Object(map)) => {
            // Values of which nothing is said (`additionalProperties: true`) stay as they are.
            let any = matches!(of.shape(), Shape::Scalar(Scalar::Any)) && !of.preserves_unknown();
            map.retain(|_, value| of.is_nullable() || any || !value.is_null());
            map.values_mut().for_each(|value| default_node(value, of));
        }
        (Shape::List { item, .. }, Value::Array(items)) => {
            items.iter_mut().for_each(|value| default_node(value, item));
        }
        _ => {}
    }
}

fn default_field(map: &mut Map<String, Value>, field: Field<'_>) {
    let missing = match map.get(field.name()) {
        None => true,
        Some(Value::Null) => !field.schema().is_nullable() && !field.schema().is_builtin(),
        Some(_) => false,
    };
    if missing {
        match field.default() {
            Some(default) => {
                map.insert(field.name().into(), default);
            }
            // A null that is no value is none (upstream: `PruneNonNullableNullsWithoutDefaults`).
            None => {
                map.remove(field.name());
            }
        }
    }
    if let Some(value) = map.get_mut(field.name()) {
        default_node(value, field.schema());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{ListType, Shape};
    use super::*;
    use crate::normalize::{UnknownFields, normalize};

    fn widget() -> SchemaRef {
        SchemaRef::from_json_schema(&json!({"type": "object", "required": ["spec"], "properties": {
            "metadata": {"type": "object"},
            "spec": {"type": "object", "required": ["size"], "properties": {
                "size": {"type": "integer", "default": 3},
                "note": {"type": "string", "nullable": true, "default": "n"},
                "port": {"x-kubernetes-int-or-string": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"},
                "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}, "weight": {"type": "integer", "default": 1}}}},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
                "any": {"x-kubernetes-preserve-unknown-fields": true}}}}}))
        .unwrap()
    }

    fn check(mut value: Value, expect: Value, unknown: &[&str]) {
        let told = normalize(&mut value, &widget(), UnknownFields::Report).unwrap();
        let told: Vec<&str> = told.iter().map(|field| &*field.path).collect();
        assert_eq!((&value, &*told), (&expect, unknown));
    }

    #[test]
    fn unknown_fields_go_and_everything_else_stays_as_given() {
        check(
            json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "creationTimestamp": null, "x": 1},
                "spec": {"size": "wrong type", "labels": {}, "parts": [{"name": "a", "y": 1}], "z": {}, "note": null}}),
            json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"},
                "spec": {"size": "wrong type", "labels": {}, "parts": [{"name": "a"}], "note": null}}),
            &["metadata.x", "spec.parts[0].y", "spec.z"],
        );
        check(
            json!({"spec": {"raw": {"a": [null]}, "any": [1, {}], "template": {"kind": "Pod", "metadata": {"q": 1}, "spec": {"x": 1}}}}),
            json!({"spec": {"raw": {"a": [null]}, "any": [1, {}], "template": {"kind": "Pod", "metadata": {}, "spec": {"x": 1}}}}),
            &["spec.template.metadata.q"],
        );
    }

    #[test]
    fn shapes_are_those_of_the_schema() {
        let widget = widget();
        let parts = widget.at(&["spec", "parts"]).unwrap();
        let Shape::List {
            list_type: ListType::Map(keys),
            ..
        } = parts.shape()
        else {
            panic!("{parts:?}");
        };
        assert_eq!(keys.iter().collect::<Vec<_>>(), ["name"]);
        assert!(widget.at(&["spec", "labels"]).unwrap().node().is_atomic());
        assert!(matches!(
            widget.at(&["spec", "port"]).unwrap().shape(),
            Shape::Scalar(Scalar::IntOrString)
        ));
        assert_eq!(
            widget.at(&["metadata"]).unwrap().node().name(),
            "apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
        assert!(widget.node().field("spec").unwrap().is_required());
    }

    #[test]
    fn defaults_fill_what_is_absent() {
        let mut value = json!({"spec": {"size": null, "note": null, "parts": [{"name": "a"}]}});
        apply_defaults(&mut value, &widget());
        assert_eq!(
            value,
            json!({"spec": {"size": 3, "note": null, "parts": [{"name": "a", "weight": 1}]}})
        );
    }

    #[test]
    fn bad_schemas_are_errors() {
        for (props, expect) in [
            (json!([]), "openAPIV3Schema: must be an object"),
            (
                json!({"type": "object", "properties": {"a": {"type": "file"}}}),
                "openAPIV3Schema.properties[a]: type \"file\" is not supported",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array"}}}),
                "openAPIV3Schema.properties[a]: items is required for a list",
            ),
        ] {
            let error = SchemaRef::from_json_schema(&props).unwrap_err();
            assert_eq!(error.to_string(), expect);
        }
        let mut deep = json!({"type": "string"});
        for _ in 0..200 {
            deep = json!({"type": "array", "items": deep});
        }
        let error = SchemaRef::from_json_schema(&json!({"properties": {"a": deep}})).unwrap_err();
        assert_eq!(error, CustomSchemaError::TooDeep);
    }

    #[test]
    fn a_large_schema_is_small_in_memory() {
        let field = json!({"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "string"},
            "list": {"type": "array", "items": {"type": "string"}}}});
        let fields: Map<String, Value> = (0..1000)
            .map(|index| (format!("field{index}"), field.clone()))
            .collect();
        let schema =
            SchemaRef::from_json_schema(&json!({"properties": {"spec": {"type": "object", "properties": fields}}}));
        let bytes = schema.unwrap().node().graph().memory_bytes();
        // 4,000 fields; the design has 200 kB for each of 500 CRDs, most of which are smaller.
        assert!(bytes < 400_000, "{bytes}");
    }
}
