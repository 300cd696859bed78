//! Types as JSON schemas, in the dialect of either version.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::paths::{Answer, Operation, camel};
use super::{OpenApiResource, Source};
use crate::schema::{Field, ListType, Node, Omit, Scalar, SchemaRef, Shape, kinds_of};
use crate::{GroupVersion, GroupVersionKind};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Types of which one field, or at most one, is set (upstream: `+union` and `+unionMember` of its types): the field that says
/// which (none: whoever is set), and those that are a member each.
const UNIONS: [(&str, &str, &[&str]); 6] = [
    ("api.core.v1.AppArmorProfile", "type", &["localhostProfile"]),
    ("api.core.v1.PodSchedulingGroup", "", &["podGroupName"]),
    ("api.core.v1.SeccompProfile", "type", &["localhostProfile"]),
    ("api.flowcontrol.v1.LimitResponse", "type", &["queuing"]),
    (
        "api.flowcontrol.v1.PriorityLevelConfigurationSpec",
        "type",
        &["exempt", "limited"],
    ),
    (
        "api.flowcontrol.v1.Subject",
        "kind",
        &["group", "serviceAccount", "user"],
    ),
];

/// Fields that may be left out and are declared to be Go's zero then, which says nothing to defaulting (upstream: `+default=""` and
/// the like of its types).
const ZEROS: [(&str, &str); 13] = [
    ("api.autoscaling.v1.ScaleSpec", "replicas"),
    ("api.core.v1.AzureDiskVolumeSource", "readOnly"),
    ("api.core.v1.ConfigMapEnvSource", "name"),
    ("api.core.v1.ConfigMapKeySelector", "name"),
    ("api.core.v1.ConfigMapProjection", "name"),
    ("api.core.v1.ConfigMapVolumeSource", "name"),
    ("api.core.v1.FileKeySelector", "optional"),
    ("api.core.v1.GRPCAction", "service"),
    ("api.core.v1.LocalObjectReference", "name"),
    ("api.core.v1.ReplicationControllerSpec", "minReadySeconds"),
    ("api.core.v1.SecretEnvSource", "name"),
    ("api.core.v1.SecretKeySelector", "name"),
    ("api.core.v1.SecretProjection", "name"),
];

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

/// What an operation does, and with which kind.
pub(super) fn say_action(operation: &Operation, out: &mut Value) {
    if operation.action.is_empty() {
        return;
    }
    let gvk = &operation.gvk;
    out["x-kubernetes-action"] = operation.action.into();
    out["x-kubernetes-group-version-kind"] = json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
}

/// The schema of an operation's answer.
pub(super) fn answer(operation: &Operation, mut refer: impl FnMut(String) -> Value) -> Value {
    let kind = || name_of_kind(&operation.gvk);
    match operation.answer {
        Answer::Object => refer(kind()),
        Answer::List => refer(format!("{}List", kind())),
        Answer::Event => refer(format!("{META}.WatchEvent")),
        Answer::Discovery(kind) => refer(format!("{META}.{kind}")),
        Answer::Version => refer("io.k8s.apimachinery.pkg.version.Info".into()),
        Answer::Status => refer(format!("{META}.Status")),
        Answer::Log | Answer::Text | Answer::OpenId(_) => json!({"type": "string"}),
    }
}

/// All schemas that these names lead to, for the document of a group version or of everything.
pub(super) fn schemas(
    source: &Source<'_>,
    dialect: Dialect,
    of: Option<&GroupVersion>,
    roots: BTreeSet<String>,
) -> Map<String, Value> {
    let mut done: BTreeMap<String, Value> = BTreeMap::new();
    each_schema(source, dialect, of, roots, &mut |name, schema| {
        drop(done.insert(name, schema))
    });
    done.into_iter().collect()
}

/// Hands out all schemas that these names lead to, each once.
pub(super) fn each_schema(
    source: &Source<'_>,
    dialect: Dialect,
    of: Option<&GroupVersion>,
    roots: BTreeSet<String>,
    each: &mut dyn FnMut(String, Value),
) {
    let mut writer = Writer {
        source,
        dialect,
        of,
        customs: customs_by_name(source, of),
        wanted: roots.into_iter().collect(),
    };
    let mut done: BTreeSet<String> = BTreeSet::new();
    while let Some(name) = writer.wanted.pop() {
        if done.contains(&name) {
            continue;
        }
        let schema = match SchemaRef::builtin_type(&name) {
            Some(schema) => writer.definition(&name, schema.node()),
            None => match writer.custom(&name) {
                Some(schema) => schema,
                None => continue,
            },
        };
        done.insert(name.clone());
        each(name, schema);
    }
}

/// Custom resources of a group version, or of all, by the names of their kinds and, with true, of their lists.
fn customs_by_name<'s>(source: &Source<'s>, of: Option<&GroupVersion>) -> HashMap<String, (&'s OpenApiResource, bool)> {
    let mut names = HashMap::new();
    let wanted = |resource: &&OpenApiResource| of.is_none_or(|wanted| resource.is_of(wanted));
    let customs = source.resources.iter().filter(|resource| resource.custom.is_some());
    for resource in customs.filter(wanted) {
        let kind = name_of_kind(&resource.gvk);
        names.entry(format!("{kind}List")).or_insert((resource, true));
        names.insert(kind, (resource, false));
    }
    names
}

struct Writer<'w, 's> {
    source: &'w Source<'s>,
    dialect: Dialect,
    /// The group version that the document is of.
    of: Option<&'w GroupVersion>,
    customs: HashMap<String, (&'s OpenApiResource, bool)>,
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
        if let Some(text) = (self.source.describe)(node.name(), "").or_else(|| list_of(node)) {
            schema.insert("description".into(), text.into());
        }
        if let Some((_, says, members)) = UNIONS.iter().find(|(union, ..)| *union == node.name()) {
            let members: Map<String, Value> = members
                .iter()
                .map(|name| ((*name).to_owned(), camel(name).into()))
                .collect();
            let mut union = json!({"fields-to-discriminateBy": members});
            if !says.is_empty() {
                union["discriminator"] = (*says).into();
            }
            schema.insert("x-kubernetes-unions".into(), json!([union]));
        }
        let kinds = self.kinds(node);
        if !kinds.is_empty() {
            schema.insert("x-kubernetes-group-version-kind".into(), kinds.into());
        }
        Value::Object(schema)
    }

    /// The kinds that a type is served as. Those that every group version has are named for the one that the document is of, and
    /// for the first.
    fn kinds(&self, node: Node<'_>) -> Vec<Value> {
        let mut kinds: BTreeSet<(&str, &str, &str)> = kinds_of(node).collect();
        let everywhere = ["DeleteOptions", "WatchEvent"].into_iter().find(|kind| {
            let name = node.name().strip_prefix("apimachinery.pkg.apis.meta.v1.");
            name == Some(*kind)
        });
        if let Some(kind) = everywhere {
            // Custom groups are not among them, as upstream's scheme does not know them.
            let built_in = self
                .source
                .resources
                .iter()
                .filter(|resource| resource.custom.is_none());
            let own = built_in.filter(|resource| self.of.is_none_or(|wanted| resource.is_of(wanted)));
            kinds.extend(own.map(|resource| (&*resource.gvk.group, &*resource.gvk.version, kind)));
        }
        let render =
            |(group, version, kind): (&str, &str, &str)| json!({"group": group, "kind": kind, "version": version});
        kinds.into_iter().map(render).collect()
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
        let text = (self.source.describe)(owner.name(), field.name());
        if let Some(text) = text.or_else(|| self.of_list(owner, field.name())) {
            extra.insert("description".into(), text.into());
        }
        if self.dialect == Dialect::V3
            && let Some(default) = default_of(owner, field)
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

    /// What the descriptions do not have, for they know one list for all kinds: a field of a list's own type.
    fn of_list(&self, owner: Node<'_>, field: &str) -> Option<String> {
        let item = item_of(owner)?;
        let like = |ty: &str| (self.source.describe)(ty, field);
        match field {
            "items" => Some(format!("The list of objects of kind {item}.")),
            "metadata" => like("apimachinery.pkg.apis.meta.v1.Status"),
            "apiVersion" | "kind" => like("api.core.v1.Pod"),
            _ => None,
        }
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

    /// An element of a list or map: since v1.36 upstream says nothing of its default.
    fn element(&mut self, node: Node<'_>) -> Value {
        Value::Object(self.value(node))
    }

    /// The schema of a custom kind or of its list.
    fn custom(&mut self, name: &str) -> Option<Value> {
        let (resource, is_list) = *self.customs.get(name)?;
        let own = resource.custom.as_ref()?;
        let gvk = &resource.gvk;
        let mut schema = match is_list {
            true => self.custom_list(resource, &own.list_kind),
            false => self.custom_object(&own.text)?,
        };
        let kind = if is_list {
            own.list_kind.as_str()
        } else {
            gvk.kind.as_str()
        };
        schema["x-kubernetes-group-version-kind"] = json!([{"group": gvk.group, "version": gvk.version, "kind": kind}]);
        if self.dialect == Dialect::V3 && !own.selectable.is_empty() {
            let fields = own.selectable.iter().map(|field| json!({"fieldPath": field}));
            schema["x-kubernetes-selectable-fields"] = fields.collect();
        }
        Some(schema)
    }

    fn custom_list(&mut self, resource: &OpenApiResource, list_kind: &str) -> Value {
        let kind = name_of_kind(&resource.gvk);
        let items = self.dialect.reference(&kind);
        self.wanted.push(kind);
        let doc = format!(
            "List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
            resource.plural
        );
        let mut schema = json!({
            "type": "object", "required": ["items"], "description": format!("{list_kind} is a list of {}", resource.gvk.kind),
            "properties": {"items": {"type": "array", "items": items, "description": doc}},
        });
        self.resource_fields(&mut schema, "ListMeta");
        schema
    }

    fn custom_object(&mut self, text: &str) -> Option<Value> {
        let mut schema: Value = serde_json::from_str(text).ok()?;
        // Clients of v2 take fields beside those that are listed for unknown.
        if self.dialect == Dialect::V2 && is_flag(&schema, PRESERVE) {
            return Some(json!({"type": "object"}));
        }
        unfold(&mut schema, self.dialect);
        if self.dialect == Dialect::V2 {
            simplify(&mut schema);
        }
        self.embedded(&mut schema, true);
        schema.as_object_mut()?.entry("type").or_insert_with(|| "object".into());
        self.resource_fields(&mut schema, "ObjectMeta");
        Some(schema)
    }

    /// `apiVersion`, `kind` and `metadata`, which are the server's.
    fn resource_fields(&mut self, schema: &mut Value, metadata: &str) {
        // Their descriptions are the same wherever they stand.
        let owner = match metadata {
            "ListMeta" => "api.core.v1.PodList",
            _ => "api.core.v1.Pod",
        };
        let describe = self.source.describe;
        let word = |field: &str| match describe(owner, field) {
            Some(text) => json!({"type": "string", "description": text}),
            None => json!({"type": "string"}),
        };
        let (api_version, kind) = (word("apiVersion"), word("kind"));
        let mut reference = self.refer(&format!("apimachinery.pkg.apis.meta.v1.{metadata}"));
        if let Some(text) = describe(owner, "metadata") {
            // What stands beside a reference is not read in v3.
            if self.dialect == Dialect::V3 {
                reference = json!({"allOf": [reference]});
            }
            reference["description"] = text.into();
        }
        let Some(schema) = schema.as_object_mut() else { return };
        let properties = schema.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            properties.insert("apiVersion".into(), api_version);
            properties.insert("kind".into(), kind);
            properties.insert("metadata".into(), reference);
        }
    }

    /// Objects inside of objects have these fields, too.
    fn embedded(&mut self, schema: &mut Value, is_root: bool) {
        let Some(map) = schema.as_object_mut() else { return };
        if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
            properties
                .values_mut()
                .for_each(|property| self.embedded(property, false));
        }
        for name in ["items", "additionalProperties"] {
            if let Some(inner) = map.get_mut(name) {
                self.embedded(inner, false);
            }
        }
        let hidden = self.dialect == Dialect::V2 && is_flag(schema, PRESERVE);
        if is_root || hidden || !is_flag(schema, "x-kubernetes-embedded-resource") {
            return;
        }
        self.resource_fields(schema, "ObjectMeta");
        let Some(map) = schema.as_object_mut() else { return };
        let required = map.entry("required").or_insert_with(|| json!([]));
        if let Some(required) = required.as_array_mut() {
            for name in ["kind", "apiVersion"] {
                if !required.iter().any(|own| own == name) {
                    required.push(name.into());
                }
            }
        }
    }
}

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EITHER: &str = "x-kubernetes-int-or-string";

fn is_flag(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

/// Leaves out what structural schemas do not keep, and says in OpenAPI's words what an extension says.
fn unfold(schema: &mut Value, dialect: Dialect) {
    let either = is_flag(schema, EITHER);
    let Some(map) = schema.as_object_mut() else { return };
    map.remove("example");
    map.remove("externalDocs");
    if either && dialect == Dialect::V3 && !map.contains_key("anyOf") && !map.contains_key("allOf") {
        map.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|property| unfold(property, dialect));
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(name) {
            unfold(inner, dialect);
        }
    }
}

/// The kind that a list is of; `None`: it is no list.
fn item_of<'n>(node: Node<'n>) -> Option<&'n str> {
    let kind = node.name().rsplit('.').next()?.strip_suffix("List")?;
    let Shape::Object(fields) = node.shape() else {
        return None;
    };
    let mut fields = fields.iter();
    fields.any(|field| field.name() == "items").then_some(kind)
}

fn list_of(node: Node<'_>) -> Option<String> {
    item_of(node).map(|item| format!("{item}List is a list of objects of kind {item}."))
}

/// What OpenAPI writes as default: the declared one, or Go's zero value where the field cannot be absent.
fn default_of(owner: Node<'_>, field: Field<'_>) -> Option<Value> {
    if let Some(declared) = field.default() {
        return Some(declared);
    }
    if ZEROS.contains(&(owner.name(), field.name())) {
        return go_zero(field.schema());
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

/// Takes out of a custom schema what OpenAPI v2 has no words for, and what kubectl does not understand there.
///
/// Source: `k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2/conversion.go`.
fn simplify(schema: &mut Value) {
    let preserves = is_flag(schema, PRESERVE);
    let Some(map) = schema.as_object_mut() else { return };
    for word in ["allOf", "oneOf", "anyOf", "not"] {
        map.remove(word);
    }
    if map.remove("nullable") == Some(Value::Bool(true)) {
        map.remove("type");
        map.remove("items");
        map.remove("properties");
    }
    if preserves {
        map.remove("items");
        map.remove("properties");
    }
    let kind = map.get("type").and_then(Value::as_str).unwrap_or("");
    if (kind == "array" && !map.contains_key("items")) || (kind == "object" && preserves) {
        map.remove("type");
    }
    let nullable = |value: &Value| value.get("nullable") == Some(&Value::Bool(true));
    let properties = map.get("properties").and_then(Value::as_object).into_iter().flatten();
    let loose: Vec<String> = properties
        .filter(|(_, property)| nullable(property))
        .map(|(name, _)| name.clone())
        .collect();
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !loose.iter().any(|loose| name == loose));
        if required.is_empty() {
            map.remove("required");
        }
    }
    if map.get("additionalProperties").is_some_and(nullable) {
        map.remove("required");
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(simplify);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(name) {
            simplify(inner);
        }
    }
}
