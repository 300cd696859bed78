//! Custom resources: what a CustomResourceDefinition makes of them, as the generic verbs take it.
//!
//! A [`Definition`] is read from a CustomResourceDefinition that was validated; each of its versions is a row of its own, since
//! a request sees, defaults and validates objects in the version that it speaks. What a version costs in memory before somebody
//! writes to it is its schema's text and its graph: rules and patterns are compiled by the first write.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/customresource_handler.go` and `pkg/registry/customresource`.

mod columns;
pub(crate) mod embedded;
pub(crate) mod field_path;
pub(crate) mod formats;
pub(crate) mod lists;
pub(crate) mod openapi;
mod path;
pub(crate) mod ratchet;
pub(crate) mod rules;
mod scale;
mod strategy;

use std::sync::{Arc, OnceLock};

use api::schema::SchemaRef;
use api::{GroupResource, GroupVersionKind, Value};

pub use columns::PrintedColumn;
pub use path::JsonPath;
pub use scale::ScalePaths;

use crate::names;
use crate::row::{DeletePolicy, Propagation, ServedVersion, StorageKind, Subresource, SubresourceRole};
use crate::view::View;
use openapi::Patterns;
use rules::Rules;

const VERBS: &[&str] = &[
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];
const READ_WRITE: &[&str] = &["get", "patch", "update"];

/// What a CustomResourceDefinition says.
pub struct Definition {
    /// The name of the CustomResourceDefinition: `widgets.example.com`.
    pub name: String,
    /// Its uid: another one of the same name has other objects.
    pub uid: String,
    /// The group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The plural.
    pub plural: String,
    /// Which of the versions is stored.
    pub storage: usize,
    /// All versions, in the order of the definition.
    pub versions: Vec<Arc<Version>>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Whether the definition is being deleted.
    pub terminating: bool,
    /// `spec.conversion`.
    pub conversion: Value,
    singular: String,
}

/// A version of a custom resource.
pub struct Version {
    /// The kind in this version.
    pub gvk: GroupVersionKind,
    /// Whether it is served.
    pub served: bool,
    /// The kind of lists.
    pub list_kind: String,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// What `kubectl get` prints after the name.
    pub columns: Vec<PrintedColumn>,
    /// The fields that a field selector may name, with their paths.
    pub selectable: Vec<(String, JsonPath)>,
    /// Where the replicas are, when the version can be scaled.
    pub scale: Option<ScalePaths>,
    /// What every request in a deprecated version is told.
    pub warning: Option<String>,
    /// The shape of its objects.
    pub schema: SchemaRef,
    /// `openAPIV3Schema` as JSON.
    pub text: Arc<str>,
    /// Whether the status is written apart.
    pub has_status: bool,
    rules: OnceLock<Compiled>,
}

/// What judging an object needs, made by the first write.
struct Compiled {
    schema: Value,
    patterns: Patterns,
    rules: Option<Rules>,
}

impl Definition {
    /// What a validated CustomResourceDefinition says.
    ///
    /// # Errors
    /// It cannot be served: it has no storage version, no accepted names, or a schema that is none.
    pub fn of(crd: &Value) -> Result<Definition, String> {
        let names = crd.at("status.acceptedNames");
        let (group, kind) = (crd.text("spec.group"), names.text("kind"));
        for name in ["plural", "singular", "kind", "listKind"] {
            if names.text(name).is_empty() {
                return Err(format!("unexpected empty status.acceptedNames.{name}"));
            }
        }
        let versions = crd.list("spec.versions");
        let storage = versions.iter().position(|version| version.flag("storage"));
        let made = versions
            .iter()
            .map(|version| Version::of(crd, version, versions).map(Arc::new));
        Ok(Definition {
            name: crd.text("metadata.name").to_owned(),
            uid: crd.text("metadata.uid").to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            plural: names.text("plural").to_owned(),
            singular: names.text("singular").to_owned(),
            storage: storage.ok_or("there is no storage version")?,
            versions: made.collect::<Result<_, String>>()?,
            namespaced: crd.text("spec.scope") == "Namespaced",
            terminating: is_true(crd, "Terminating"),
            conversion: crd.at("spec.conversion").clone(),
        })
    }

    /// The resource, whatever the version.
    pub fn resource(&self) -> GroupResource {
        GroupResource {
            group: self.group.clone(),
            resource: self.plural.clone(),
        }
    }

    /// The row of requests in one of the versions; all rows store the same objects.
    pub fn row(&self, index: usize) -> StorageKind {
        let version = &self.versions[index];
        StorageKind {
            group: self.group.clone().into(),
            hub: version.gvk.version.clone().into(),
            kind: self.kind.clone().into(),
            plural: self.plural.clone().into(),
            singular: self.singular.clone().into(),
            namespaced: self.namespaced,
            key_prefix: format!("/registry/{}/{}", self.group, self.plural).into(),
            strategy: Arc::new(strategy::Custom(version.clone())),
            name_rule: names::subdomain,
            delete: DeletePolicy {
                default_propagation: Propagation::Background,
                graceful: false,
                returns_object: false,
            },
            ttl_seconds: None,
            create_on_update: false,
            unconditional_update: false,
            has_generation: true,
            trigger: None,
            read_fields: version.selectable.is_empty().then_some(&[]),
            served: self.versions.iter().map(|version| self.served(version)).collect(),
        }
    }

    fn served(&self, version: &Arc<Version>) -> ServedVersion {
        let mut subresources = Vec::new();
        if version.has_status {
            subresources.push(Subresource {
                name: "status",
                kind: None,
                verbs: READ_WRITE,
                role: SubresourceRole::View,
            });
        }
        if version.scale.is_some() {
            subresources.push(Subresource {
                name: "scale",
                kind: Some(("autoscaling", "v1", "Scale")),
                verbs: READ_WRITE,
                role: SubresourceRole::Scale,
            });
        }
        ServedVersion {
            group: self.group.clone().into(),
            version: version.gvk.version.clone().into(),
            conversion: None,
            verbs: VERBS,
            subresources,
            selectable_fields: &[],
            short_names: &[],
            categories: &[],
            columns: None,
            custom: Some(version.clone()),
        }
    }
}

/// Whether a condition of a CustomResourceDefinition is true.
pub fn is_true(crd: &Value, condition: &str) -> bool {
    let mut conditions = crd.list("status.conditions").iter();
    conditions.any(|own| own.text("type") == condition && own.text("status") == "True")
}

impl Version {
    fn of(crd: &Value, version: &Value, all: &[Value]) -> Result<Version, String> {
        let names = crd.at("status.acceptedNames");
        let (group, name) = (crd.text("spec.group"), version.text("name"));
        let texts = |field: &str| names.texts(field).map(str::to_owned).collect();
        let mut props = version.at("schema.openAPIV3Schema").clone();
        let preserves = crd.flag("spec.preserveUnknownFields");
        if !props.is_object() {
            props = serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        } else if preserves {
            props["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        let schema = SchemaRef::from_json_schema(&props).map_err(|error| error.to_string())?;
        let selectable = version.list("selectableFields").iter().filter_map(|field| {
            let path = field.text("jsonPath");
            let name = path.strip_prefix('.').unwrap_or(path);
            Some((name.to_owned(), JsonPath::parse(path)?))
        });
        Ok(Version {
            gvk: GroupVersionKind::new(group, name, names.text("kind")),
            served: version.flag("served"),
            list_kind: names.text("listKind").to_owned(),
            short_names: texts("shortNames"),
            categories: texts("categories"),
            columns: columns::of(version),
            selectable: selectable.collect(),
            scale: ScalePaths::of(version.at("subresources.scale")),
            warning: version
                .flag("deprecated")
                .then(|| match version.text("deprecationWarning") {
                    "" => deprecation(crd, name, all),
                    warning => warning.to_owned(),
                }),
            has_status: version.at("subresources.status").is_object(),
            schema,
            text: props.to_string().into(),
            rules: OnceLock::new(),
        })
    }

    fn compiled(&self) -> &Compiled {
        self.rules.get_or_init(|| {
            let mut schema: Value = serde_json::from_str(&self.text).unwrap_or_default();
            only_rules(&mut schema);
            Compiled {
                rules: Rules::of(&schema, true),
                patterns: Patterns::default(),
                schema,
            }
        })
    }

    /// The value of a selectable field as a selector compares it.
    pub fn selected(path: &JsonPath, object: &Value) -> String {
        match path.first(object) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }
}

/// Leaves out of a schema what is for people: it is the larger part of it, and objects are not judged by it.
fn only_rules(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for text in ["description", "title", "example", "externalDocs"] {
        map.remove(text);
    }
    for (word, inner) in map.iter_mut() {
        match (&**word, inner) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(only_rules),
            ("items" | "additionalProperties" | "not", inner) => only_rules(inner),
            ("allOf" | "anyOf" | "oneOf", Value::Array(nested)) => nested.iter_mut().for_each(only_rules),
            _ => {}
        }
    }
}

/// Upstream's words for a deprecated version that has none of its own (`defaultDeprecationWarning`).
fn deprecation(crd: &Value, version: &str, all: &[Value]) -> String {
    let (group, kind) = (crd.text("spec.group"), crd.text("spec.names.kind"));
    let mut better: Vec<&str> = all
        .iter()
        .filter(|other| other.flag("served") && !other.flag("deprecated"))
        .map(|other| other.text("name"))
        .filter(|other| rank(other) > rank(version))
        .collect();
    better.sort_by_key(|version| std::cmp::Reverse(rank(version)));
    let text = format!("{group}/{version} {kind} is deprecated");
    match better.first() {
        Some(better) => format!("{text}; use {group}/{better} {kind}"),
        None => text,
    }
}

/// Kubernetes' order of versions: v2, v1, v1beta2, v1beta1, v1alpha1, then others by name.
fn rank(version: &str) -> (u8, u32, u32, std::cmp::Reverse<String>) {
    let other = (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else {
        return other;
    };
    let (stability, major, minor) = match (rest.split_once("alpha"), rest.split_once("beta")) {
        (Some((major, minor)), _) => (1, major, minor),
        (_, Some((major, minor))) => (2, major, minor),
        _ => (3, rest, "0"),
    };
    match (major.parse(), minor.parse()) {
        (Ok(major), Ok(minor)) => (stability, major, minor, std::cmp::Reverse(String::new())),
        _ => other,
    }
}

#[cfg(test)]
mod tests;
