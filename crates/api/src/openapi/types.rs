//! Types as JSON schemas, in the dialect of either version.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Source;
use crate::schema::{Field, ListType, Node, Omit, Scalar, SchemaRef, Shape, all_kinds};
use crate::{GroupVersion, GroupVersionKind};

/// Which version of OpenAPI a schema is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Swagger: no `oneOf`, no `nullable`, no defaults.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Dialect {
    fn prefix(self) -> &'static str {
        match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        }
    }

    pub(super) fn reference(self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.prefix())})
    }
}

/// The name under which a kind stands among the schemas: `io.k8s.api.core.v1.Pod`, `com.example.v1.Widget`.
pub(super) fn name_of_kind(gvk: &GroupVersionKind) -> String {
    match SchemaRef::builtin(gvk) {
        Some(schema) => format!("io.k8s.{}", schema.node().name()),
        None => {
            let mut parts: Vec<&str> = gvk.group.split('.').rev().collect();
            parts.extend([&*gvk.version, &*gvk.kind]);
            parts.join(".")
        }
    }
}

/// All schemas that these names lead to.
pub(super) fn schemas(source: &Source<'_>, dialect: Dialect, roots: BTreeSet<String>) -> Map<String, Value> {
    let mut writer = Writer {
        source,
        dialect,
        kinds: kinds_by_type(source),
        wanted: roots.into_iter().collect(),
    };
    let mut done: BTreeMap<String, Value> = BTreeMap::new();
    while let Some(name) = writer.wanted.pop() {
        if done.contains_key(&name) {
            continue;
        }
        let schema = match SchemaRef::builtin_type(&name) {
            Some(schema) => writer.definition(&name, schema.node()),
            None => match writer.custom(&name) {
                Some(schema) => schema,
                None => continue,
            },
        };
        done.insert(name, schema);
    }
    done.into_iter().collect()
}

/// The kinds that a built-in type is served as.
fn kinds_by_type(source: &Source<'_>) -> BTreeMap<String, Vec<Value>> {
    let mut kinds: BTreeMap<String, BTreeSet<(String, String, String)>> = BTreeMap::new();
    let mut add = |gvk: &GroupVersionKind| {
        let key = (gvk.group.clone(), gvk.version.clone(), gvk.kind.clone());
        kinds.entry(name_of_kind(gvk)).or_default().insert(key);
    };
    all_kinds().for_each(|gvk| add(&gvk));
    for resource in source.resources {
        let of = GroupVersion::new(&*resource.gvk.group, &*resource.gvk.version);
        add(&of.kind("DeleteOptions"));
        add(&of.kind("WatchEvent"));
    }
    let render =
        |(group, version, kind): (String, String, String)| json!({"group": group, "kind": kind, "version": version});
    kinds
        .into_iter()
        .map(|(name, set)| (name, set.into_iter().map(render).collect()))
        .collect()
}

struct Writer<'w, 's> {
    source: &'w Source<'s>,
    dialect: Dialect,
    kinds: BTreeMap<String, Vec<Value>>,
    wanted: Vec<String>,
}

impl Writer<'_, '_> {
    fn refer(&mut self, name: &str) -> Value {
        let name = format!("io.k8s.{name}");
        let reference = self.dialect.reference(&name);
        self.wanted.push(name);
        reference
    }

    /// A type that has a name.
    fn definition(&mut self, name: &str, node: Node<'_>) -> Value {
        let mut schema = match node.shape() {
            // A patch may be a list too, but upstream's document says this.
            Shape::Scalar(_) if name.ends_with(".meta.v1.Patch") => scalar_definition(Scalar::RawObject, self.dialect),
            Shape::Scalar(scalar) => scalar_definition(scalar, self.dialect),
            _ => self.object(node),
        };
        if let Some(text) = (self.source.describe)(node.name(), "") {
            schema.insert("description".into(), text.into());
        }
        if let Some(kinds) = self.kinds.get(name) {
            schema.insert("x-kubernetes-group-version-kind".into(), Value::Array(kinds.clone()));
        }
        Value::Object(schema)
    }

    fn object(&mut self, node: Node<'_>) -> Map<String, Value> {
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        let Shape::Object(fields) = node.shape() else {
            return schema;
        };
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in fields.iter() {
            properties.insert(field.name().into(), self.field(node, field));
            if field.is_required() {
                required.push(Value::from(field.name()));
            }
        }
        if !properties.is_empty() {
            schema.insert("properties".into(), Value::Object(properties));
        }
        if !required.is_empty() {
            schema.insert("required".into(), Value::Array(required));
        }
        if node.is_atomic() {
            schema.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        schema
    }

    fn field(&mut self, owner: Node<'_>, field: Field<'_>) -> Value {
        let node = field.schema();
        let mut schema = self.value(node);
        let mut extra = Map::new();
        if let Some(text) = (self.source.describe)(owner.name(), field.name()) {
            extra.insert("description".into(), text.into());
        }
        if self.dialect == Dialect::V3
            && let Some(default) = default_of(field)
        {
            extra.insert("default".into(), default);
        }
        let mut values: Vec<String> = field.enum_values();
        values.sort();
        if !values.is_empty() {
            let holder = match schema.get_mut("items").and_then(Value::as_object_mut) {
                Some(items) => items,
                None => &mut extra,
            };
            holder.insert("enum".into(), values.into());
        }
        if let Some(strategy) = field.patch_strategy().as_str() {
            extra.insert("x-kubernetes-patch-strategy".into(), strategy.into());
        }
        if let Some(key) = field.merge_key() {
            extra.insert("x-kubernetes-patch-merge-key".into(), key.into());
        }
        if let Shape::Object(_) = node.shape() {
            // The type says atomic itself; a field that says otherwise stands beside its reference.
            if node.topology_is_declared() && !node.is_atomic() {
                extra.insert("x-kubernetes-map-type".into(), "granular".into());
            }
        }
        if schema.contains_key("$ref") && !extra.is_empty() && self.dialect == Dialect::V3 {
            schema = Map::from_iter([("allOf".to_string(), json!([schema]))]);
        }
        schema.extend(extra);
        Value::Object(schema)
    }

    /// A value wherever it stands.
    fn value(&mut self, node: Node<'_>) -> Map<String, Value> {
        let schema = match node.shape() {
            Shape::Object(_) => self.refer(node.name()),
            Shape::Scalar(_) if !node.name().is_empty() => self.refer(node.name()),
            Shape::Scalar(scalar) => {
                let mut schema = scalar_definition(scalar, self.dialect);
                if node.topology_is_declared() {
                    schema.insert("x-kubernetes-list-type".into(), "atomic".into());
                }
                Value::Object(schema)
            }
            Shape::Map { value } => {
                let mut schema = json!({"type": "object", "additionalProperties": self.element(value)});
                if node.topology_is_declared() {
                    let word = if node.is_atomic() { "atomic" } else { "granular" };
                    schema["x-kubernetes-map-type"] = word.into();
                }
                schema
            }
            Shape::List { item, list_type } => {
                let mut schema = json!({"type": "array", "items": self.element(item)});
                if node.topology_is_declared() {
                    schema["x-kubernetes-list-type"] = match list_type {
                        ListType::Atomic => "atomic".into(),
                        ListType::Set => "set".into(),
                        ListType::Map(_) => "map".into(),
                    };
                }
                if let ListType::Map(keys) = list_type {
                    schema["x-kubernetes-list-map-keys"] = keys.iter().collect();
                }
                schema
            }
        };
        match schema {
            Value::Object(map) => map,
            _ => unreachable!("invariant: schemas are objects"),
        }
    }

    /// An element of a list or map.
    fn element(&mut self, node: Node<'_>) -> Value {
        let schema = self.value(node);
        if self.dialect == Dialect::V2 {
            return Value::Object(schema);
        }
        let Some(default) = go_zero(node) else {
            return Value::Object(schema);
        };
        let mut schema = if schema.contains_key("$ref") {
            Map::from_iter([("allOf".to_string(), json!([schema]))])
        } else {
            schema
        };
        schema.insert("default".into(), default);
        Value::Object(schema)
    }

    /// The schema of a custom kind or of its list.
    fn custom(&mut self, name: &str) -> Option<Value> {
        let resources = self.source.resources.iter();
        let mut customs = resources.filter_map(|resource| Some((resource, resource.custom.as_ref()?)));
        let (resource, props, is_list) = customs.find_map(|(resource, props)| {
            let kind = name_of_kind(&resource.gvk);
            let is_list = name == format!("{kind}List");
            (is_list || name == kind).then_some((resource, props, is_list))
        })?;
        let mut schema = if is_list {
            let items = self.dialect.reference(&name_of_kind(&resource.gvk));
            self.wanted.push(name_of_kind(&resource.gvk));
            json!({"type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": items}}})
        } else {
            let mut schema = (**props).clone();
            if self.dialect == Dialect::V2 {
                simplify(&mut schema);
            }
            schema
        };
        let map = schema.as_object_mut()?;
        map.entry("type").or_insert_with(|| "object".into());
        let properties = map.entry("properties").or_insert_with(|| json!({}));
        let properties = properties.as_object_mut()?;
        for word in ["apiVersion", "kind"] {
            properties.insert(word.into(), json!({"type": "string"}));
        }
        let metadata = if is_list { "ListMeta" } else { "ObjectMeta" };
        let reference = self.refer(&format!("apimachinery.pkg.apis.meta.v1.{metadata}"));
        properties.insert("metadata".into(), reference);
        let list = if is_list { "List" } else { "" };
        map.insert(
            "x-kubernetes-group-version-kind".into(),
            json!([{"group": resource.gvk.group, "version": resource.gvk.version, "kind": format!("{}{list}", resource.gvk.kind)}]),
        );
        Some(schema)
    }
}

/// What OpenAPI writes as default: the declared one, or Go's zero value where the field cannot be absent.
fn default_of(field: Field<'_>) -> Option<Value> {
    if let Some(declared) = field.default() {
        return Some(declared);
    }
    let is_struct = matches!(field.schema().shape(), Shape::Object(_));
    if field.is_pointer() || (!is_struct && field.omit() != Omit::Never) {
        return None;
    }
    go_zero(field.schema())
}

fn go_zero(node: Node<'_>) -> Option<Value> {
    match node.shape() {
        Shape::Object(_) => Some(json!({})),
        Shape::Scalar(Scalar::String) => Some("".into()),
        Shape::Scalar(Scalar::Bool) => Some(false.into()),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double) => Some(0.into()),
        _ => None,
    }
}

fn scalar_definition(scalar: Scalar, dialect: Dialect) -> Map<String, Value> {
    let schema = match (scalar, dialect) {
        (Scalar::String, _) | (Scalar::Quantity, Dialect::V2) => json!({"type": "string"}),
        (Scalar::Bytes, _) => json!({"type": "string", "format": "byte"}),
        (Scalar::Bool, _) => json!({"type": "boolean"}),
        (Scalar::Int32, _) => json!({"type": "integer", "format": "int32"}),
        (Scalar::Int64, _) => json!({"type": "integer", "format": "int64"}),
        (Scalar::Double, _) => json!({"type": "number", "format": "double"}),
        (Scalar::Quantity, Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        (Scalar::Time | Scalar::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
        (Scalar::IntOrString, Dialect::V2) => json!({"type": "string", "format": "int-or-string"}),
        (Scalar::IntOrString, Dialect::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (Scalar::FieldsV1 | Scalar::RawObject, _) => json!({"type": "object"}),
        (Scalar::Any | Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings, _) => json!({}),
    };
    match schema {
        Value::Object(map) => map,
        _ => unreachable!("invariant: schemas are objects"),
    }
}

/// Takes out of a custom schema what OpenAPI v2 has no words for.
///
/// Source: `k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2/conversion.go`.
fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for word in ["oneOf", "anyOf", "not", "default"] {
        map.remove(word);
    }
    let is_flag = |map: &Map<String, Value>, name: &str| map.get(name) == Some(&Value::Bool(true));
    if is_flag(map, "x-kubernetes-preserve-unknown-fields") {
        // Clients of v2 reject what such an object holds as unknown when it lists some properties.
        map.remove("properties");
        map.remove("items");
    }
    if map.remove("nullable") == Some(Value::Bool(true)) || is_flag(map, "x-kubernetes-int-or-string") {
        for word in ["type", "items", "properties"] {
            map.remove(word);
        }
    }
    for (name, value) in map.iter_mut() {
        match (name.as_str(), value) {
            ("properties" | "definitions" | "patternProperties", Value::Object(named)) => {
                named.values_mut().for_each(simplify);
            }
            ("allOf", Value::Array(items)) => items.iter_mut().for_each(simplify),
            ("items" | "additionalProperties", value @ Value::Object(_)) => simplify(value),
            _ => {}
        }
    }
}
