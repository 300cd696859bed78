//! The built-in types: read once, lazily, from the text that `cargo xtask generate schema` makes of the API facts.
//!
//! Names and facts are pieces of that text, which lies in the executable; only the tables are on the heap.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use serde::Deserialize;

use super::Node;
use super::field::{Omit, PatchStrategy};
use super::graph::{Builder, FieldSpec, Flags, Graph, NodeId};
use super::shape::Scalar;
use crate::{GroupVersion, GroupVersionKind};

static TEXT: &str = include_str!("../../data/schema-v1.36.txt");

/// Fields whose empty list keeps a default away and is refused: `GenerateHPAScaleUpRules` of `pkg/apis/autoscaling/v2/defaults.go`
/// asks whether there is a list, not whether there is something in it.
const EMPTY_IS_GIVEN: [(&str, &str); 1] = [("api.autoscaling.v2.HPAScalingRules", "policies")];

/// A resource that upstream serves.
#[derive(Clone, Debug)]
pub struct ResourceRow {
    /// Its group version.
    pub group_version: GroupVersion,
    /// The plural in the path.
    pub plural: &'static str,
    /// Its kind.
    pub kind: String,
    /// Whether it lives in namespaces.
    pub namespaced: bool,
    /// The API's own words: `get`, `list`, ...
    pub verbs: Vec<String>,
    /// Its subresources by name.
    pub subresources: BTreeMap<String, SubresourceRow>,
}

/// A subresource of a resource.
#[derive(Clone, Debug)]
pub struct SubresourceRow {
    /// The kind it is served as; its group version is not always the resource's.
    pub gvk: GroupVersionKind,
    /// The API's own words.
    pub verbs: Vec<String>,
}

/// All resources that upstream serves, by group version and plural.
pub fn resources() -> &'static [ResourceRow] {
    static ROWS: OnceLock<Vec<ResourceRow>> = OnceLock::new();
    ROWS.get_or_init(|| {
        TEXT.lines()
            .filter_map(|line| line.strip_prefix("R "))
            .map(resource)
            .collect()
    })
}

/// Every kind that has a type, with `DeleteOptions` and `WatchEvent` named once (they are kinds of every group version).
pub fn all_kinds() -> impl Iterator<Item = GroupVersionKind> {
    tables()
        .kinds
        .iter()
        .map(|&((group, version, kind), _)| GroupVersionKind::new(group, version, kind))
}

/// The group, version and name of every kind that a built-in type is served as, as [`all_kinds`] has them.
pub(crate) fn kinds_of(node: Node<'_>) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let id = node.id();
    let kinds = tables().kinds.iter().filter(move |(_, of)| *of == id);
    kinds.map(|(kind, _)| *kind)
}

/// The definition names of all types, without `io.k8s.`.
pub fn all_types() -> impl Iterator<Item = &'static str> {
    let mut names: Vec<&'static str> = tables().definitions.keys().copied().collect();
    names.sort_unstable();
    names.into_iter()
}

pub(super) fn graph() -> &'static Graph {
    &tables().graph
}

pub(super) fn definition(name: &str) -> Option<NodeId> {
    let name = name.strip_prefix("io.k8s.").unwrap_or(name);
    tables().definitions.get(name).copied()
}

pub(super) fn kind(gvk: &GroupVersionKind) -> Option<NodeId> {
    let tables = tables();
    let key = (&*gvk.group, &*gvk.version, &*gvk.kind);
    if let Ok(found) = tables.kinds.binary_search_by(|(candidate, _)| candidate.cmp(&key)) {
        return Some(tables.kinds[found].1);
    }
    // Source: k8s.io/apimachinery/pkg/apis/meta/v1/register.go, AddToGroupVersion.
    let everywhere = matches!(
        &*gvk.kind,
        "WatchEvent"
            | "ListOptions"
            | "GetOptions"
            | "DeleteOptions"
            | "CreateOptions"
            | "UpdateOptions"
            | "PatchOptions"
    );
    if everywhere && !gvk.version.is_empty() {
        return definition(&format!("apimachinery.pkg.apis.meta.v1.{}", gvk.kind));
    }
    None
}

struct Tables {
    graph: Graph,
    definitions: HashMap<&'static str, NodeId>,
    kinds: Vec<((&'static str, &'static str, &'static str), NodeId)>,
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| decode(TEXT))
}

/// Reads the whole text; exported for measuring.
#[doc(hidden)]
pub fn decode_again() -> Graph {
    decode(TEXT).graph
}

fn decode(text: &'static str) -> Tables {
    let mut builder = Builder::over_static(text);
    let mut definitions = HashMap::new();
    let mut kinds = Vec::new();
    let mut sections: Vec<(&'static str, NodeId, Vec<&'static str>)> = Vec::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("T ") {
            let (name, flags) = match head.split_once(' ') {
                Some((name, _)) => (name, ATOMIC),
                None => (head, Flags::default()),
            };
            let id = match scalar_of(name) {
                Some(scalar) => builder.named_scalar(name, scalar),
                None => builder.object(name, flags),
            };
            definitions.insert(name, id);
            sections.push((name, id, Vec::new()));
        } else if let Some(field) = line.strip_prefix(' ') {
            sections
                .last_mut()
                .expect("invariant: fields follow their type")
                .2
                .push(field);
        } else if let Some(served) = line.strip_prefix('=') {
            let (group_version, kind) = served.split_once(' ').expect("invariant: a kind has a group version");
            let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
            let id = sections.last().expect("invariant: kinds follow their type").1;
            kinds.push(((group, version, kind), id));
        }
    }
    // The scalars that may be a JSONSchemaProps learn its id now.
    if let Some(props) = definitions.get("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps") {
        builder.set_inner(*props);
    }
    let mut reader = Reader {
        builder,
        definitions: &definitions,
        variants: HashMap::new(),
    };
    for (name, id, lines) in &sections {
        if scalar_of(name).is_none() {
            reader.object(name, *id, lines);
        }
    }
    let mut builder = reader.builder;
    for ((original, _), variant) in reader.variants {
        builder.copy_shape(variant, original);
    }
    kinds.sort_unstable();
    Tables {
        graph: builder.finish(),
        definitions,
        kinds,
    }
}

const ATOMIC: Flags = Flags {
    atomic: true,
    declared: true,
    preserve_unknown: false,
    nullable: false,
    embedded: false,
};

const DECLARED: Flags = Flags {
    atomic: false,
    ..ATOMIC
};

struct Reader<'a> {
    builder: Builder,
    definitions: &'a HashMap<&'static str, NodeId>,
    /// Objects that differ from another one in their flags only.
    variants: HashMap<(NodeId, Flags), NodeId>,
}

impl Reader<'_> {
    fn object(&mut self, owner: &'static str, id: NodeId, lines: &[&'static str]) {
        let package = owner.rsplit_once('.').map_or("", |(package, _)| package);
        let mut tags: Vec<Vec<u16>> = Vec::with_capacity(lines.len());
        let mut fields = Vec::with_capacity(lines.len());
        for line in lines {
            let column = line.split('\t').nth(3).unwrap_or("");
            let path = column.trim_end_matches('w').split('.').filter(|tag| !tag.is_empty());
            tags.push(
                path.map(|tag| tag.parse().expect("invariant: tags are numbers"))
                    .collect(),
            );
        }
        for (line, tags) in lines.iter().zip(&tags) {
            let mut columns = line.split('\t');
            let mut column = || columns.next().unwrap_or("");
            let (name, ty, flags, tag, patch, facts) = (column(), column(), column(), column(), column(), column());
            let (strategy, merge_key) = patch.split_once(':').unwrap_or((patch, ""));
            fields.push(FieldSpec {
                name,
                node: self.node(package, ty),
                omit: if EMPTY_IS_GIVEN.contains(&(owner, name)) {
                    Omit::NotGiven
                } else if flags.contains('n') {
                    Omit::Never
                } else if flags.contains('z') {
                    Omit::Zero
                } else {
                    Omit::Empty
                },
                pointer: flags.contains('p'),
                required: flags.contains('r'),
                patch: PatchStrategy::parse(strategy),
                merge_key,
                tags,
                wrapped: tag.ends_with('w'),
                facts,
            });
        }
        self.builder.set_fields(id, &fields);
    }

    /// The node of a type expression; see the header of the text for its grammar.
    fn node(&mut self, package: &str, text: &'static str) -> NodeId {
        if let Some(inner) = text.strip_prefix('[') {
            let end = inner.rfind(']').expect("invariant: a list closes");
            let item = self.node(package, &inner[..end]);
            let suffix = &inner[end + 1..];
            return match suffix.as_bytes().first() {
                None => self.builder.list(item, false, Flags::default()),
                Some(b'a') => self.builder.list(item, false, DECLARED),
                Some(b's') => self.builder.list(item, true, DECLARED),
                _ => {
                    let keys: Vec<&str> = suffix[2..suffix.len() - 1].split(',').collect();
                    self.builder.keyed_list(item, &keys, DECLARED)
                }
            };
        }
        let (base, flags) = match text.split_once('!') {
            Some((base, "a")) => (base, Some(ATOMIC)),
            Some((base, _)) => (base, Some(DECLARED)),
            None => (text, None),
        };
        if let Some(inner) = base.strip_prefix('{') {
            let value = self.node(package, &inner[..inner.len() - 1]);
            return self.builder.map(value, flags.unwrap_or_default());
        }
        let scalar = match base {
            "s" => Some(Scalar::String),
            "y" => Some(Scalar::Bytes),
            "b" => Some(Scalar::Bool),
            "i" => Some(Scalar::Int32),
            "l" => Some(Scalar::Int64),
            "d" => Some(Scalar::Double),
            "*" => Some(Scalar::Any),
            _ => None,
        };
        if let Some(scalar) = scalar {
            return self.builder.scalar(scalar, flags.unwrap_or_default());
        }
        let found = if base.contains('.') {
            self.definitions.get(base)
        } else {
            self.definitions.get(&*format!("{package}.{base}"))
        };
        let id = *found.unwrap_or_else(|| panic!("invariant: type {base} of {package} is defined"));
        match flags {
            None => id,
            Some(flags) => {
                let builder = &mut self.builder;
                *self
                    .variants
                    .entry((id, flags))
                    .or_insert_with(|| builder.variant(id, flags))
            }
        }
    }
}

/// Definitions that are not objects in JSON, or that the schema does not look into.
fn scalar_of(definition: &str) -> Option<Scalar> {
    Some(match definition {
        "apimachinery.pkg.api.resource.Quantity" => Scalar::Quantity,
        "apimachinery.pkg.apis.meta.v1.Time" => Scalar::Time,
        "apimachinery.pkg.apis.meta.v1.MicroTime" => Scalar::MicroTime,
        "apimachinery.pkg.apis.meta.v1.FieldsV1" => Scalar::FieldsV1,
        "apimachinery.pkg.apis.meta.v1.Patch" => Scalar::Any,
        "apimachinery.pkg.runtime.RawExtension" => Scalar::RawObject,
        "apimachinery.pkg.util.intstr.IntOrString" => Scalar::IntOrString,
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => Scalar::Any,
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool" => Scalar::SchemaOrBool,
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray" => Scalar::SchemaOrArray,
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => Scalar::SchemaOrStrings,
        _ => return None,
    })
}

fn resource(line: &'static str) -> ResourceRow {
    #[derive(Deserialize)]
    struct Facts {
        kind: String,
        namespaced: bool,
        verbs: Vec<String>,
        subresources: BTreeMap<String, SubFacts>,
    }
    #[derive(Deserialize)]
    struct SubFacts {
        kind: String,
        verbs: Vec<String>,
    }
    let mut parts = line.splitn(3, ' ');
    let mut part = || parts.next().expect("invariant: a resource has three parts");
    let (group_version, plural, facts) = (part(), part(), part());
    let facts: Facts = serde_json::from_str(facts).expect("invariant: the generator writes JSON");
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    let group_version = GroupVersion::new(group, version);
    let subresource = |(name, facts): (String, SubFacts)| {
        let row = SubresourceRow {
            gvk: gvk_of_subresource(&group_version, &facts.kind),
            verbs: facts.verbs,
        };
        (name, row)
    };
    let subresources = facts.subresources.into_iter().map(subresource).collect();
    ResourceRow {
        group_version,
        plural,
        kind: facts.kind,
        namespaced: facts.namespaced,
        verbs: facts.verbs,
        subresources,
    }
}

/// Three kinds of subresources belong to a group of their own.
fn gvk_of_subresource(parent: &GroupVersion, kind: &str) -> GroupVersionKind {
    match kind {
        "Scale" => GroupVersionKind::new("autoscaling", "v1", kind),
        "Eviction" => GroupVersionKind::new("policy", "v1", kind),
        "TokenRequest" => GroupVersionKind::new("authentication.k8s.io", "v1", kind),
        _ => parent.kind(kind),
    }
}
