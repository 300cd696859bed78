//! Typed code reads views made of `k8s-openapi`'s structs (design D3): for every type of the schema, the struct has the same
//! fields under the same names with the same types.
//!
//! The structs are generated code of one fixed form. Reading it costs a blink; compiling a decoder of every type costs
//! minutes in each build. That the decoders do what the structs say is tested where they are compiled, in
//! `crates/client/src/kinds.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use api::schema::{Node, Scalar, SchemaRef, Shape, all_types};

/// Types that have no struct, with the reason. Lists have none either: all are the generic `List`.
const WITHOUT_STRUCT: &[(&str, &str)] = &[
    ("api.core.v1.List", "a list of anything"),
    ("api.core.v1.NodeProxyOptions", QUERY),
    ("api.core.v1.PodAttachOptions", QUERY),
    ("api.core.v1.PodExecOptions", QUERY),
    ("api.core.v1.PodLogOptions", QUERY),
    ("api.core.v1.PodPortForwardOptions", QUERY),
    ("api.core.v1.PodProxyOptions", QUERY),
    ("api.core.v1.PodStatusResult", NO_PATH),
    ("api.core.v1.RangeAllocation", NO_PATH),
    ("api.core.v1.SerializedReference", NO_PATH),
    ("api.core.v1.ServiceProxyOptions", QUERY),
    ("apimachinery.pkg.apis.meta.v1.ApplyOptions", QUERY),
    ("apimachinery.pkg.apis.meta.v1.CreateOptions", QUERY),
    ("apimachinery.pkg.apis.meta.v1.GetOptions", QUERY),
    ("apimachinery.pkg.apis.meta.v1.ListOptions", QUERY),
    ("apimachinery.pkg.apis.meta.v1.PartialObjectMetadata", NEGOTIATED),
    ("apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList", NEGOTIATED),
    ("apimachinery.pkg.apis.meta.v1.PatchOptions", QUERY),
    ("apimachinery.pkg.apis.meta.v1.Table", NEGOTIATED),
    ("apimachinery.pkg.apis.meta.v1.TableColumnDefinition", NEGOTIATED),
    ("apimachinery.pkg.apis.meta.v1.TableOptions", QUERY),
    ("apimachinery.pkg.apis.meta.v1.TableRow", NEGOTIATED),
    ("apimachinery.pkg.apis.meta.v1.TableRowCondition", NEGOTIATED),
    ("apimachinery.pkg.apis.meta.v1.UpdateOptions", QUERY),
    (
        "apimachinery.pkg.apis.meta.v1.WatchEvent",
        "an enum by the event's type",
    ),
];
const QUERY: &str = "parameters of a query, absent from upstream's OpenAPI";
const NO_PATH: &str = "no path serves it, so upstream's OpenAPI has it not";
const NEGOTIATED: &str = "asked for by the Accept header, absent from upstream's OpenAPI";

/// There are more types than this in v1.36.
const TYPES_MIN: usize = 650;

/// A struct's fields by their names in JSON, each with its type.
type Struct = BTreeMap<String, String>;

/// All structs by the names of their definitions without `io.k8s.`.
fn structs(directory: &Path, found: &mut BTreeMap<String, Struct>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            structs(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let definitions = text
            .lines()
            .filter_map(|line| line.strip_prefix("// Generated from definition io.k8s."));
        for definition in definitions {
            if text.contains("\npub struct ") {
                found.insert(definition.to_owned(), fields(&text));
            }
        }
    }
}

/// The fields that the decoder knows, and the types that the struct has for them.
fn fields(text: &str) -> Struct {
    let body = text
        .split_once("\npub struct ")
        .and_then(|(_, rest)| rest.split_once("\n}\n"))
        .map_or("", |(body, _)| body);
    let types: BTreeMap<&str, &str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    pub ")?.strip_suffix(',')?.split_once(": "))
        .collect();
    let known = text.lines().filter_map(|line| {
        let (name, key) = line.trim().strip_prefix('"')?.split_once("\" => Field::Key_")?;
        Some((name, key.strip_suffix(',')?))
    });
    let ty = |key: &str| match types.get(key).or_else(|| types.get(&*format!("r#{key}"))) {
        Some(ty) => struct_type(ty),
        // Constants of the type.
        None if matches!(key, "api_version" | "kind") => "string".into(),
        None => "?".into(),
    };
    known.map(|(name, key)| (name.to_owned(), ty(key))).collect()
}

/// A type of a struct in the words of [`schema_type`].
fn struct_type(ty: &str) -> String {
    let inside = |prefix: &str| ty.strip_prefix(prefix)?.strip_suffix('>');
    if let Some(ty) = inside("Option<").or_else(|| inside("std::boxed::Box<")) {
        return struct_type(ty);
    }
    if let Some(ty) = inside("std::vec::Vec<") {
        return format!("[]{}", struct_type(ty));
    }
    if let Some(ty) = inside("std::collections::BTreeMap<std::string::String, ") {
        return format!("map[{}]", struct_type(ty));
    }
    let path = ty.strip_prefix("crate::").unwrap_or(ty).replace("::", ".");
    let last = path.rsplit('.').next().unwrap_or_default();
    match last {
        "String" | "Quantity" | "Time" | "MicroTime" | "IntOrString" | "ByteString" | "FieldsV1" => last.to_lowercase(),
        "bool" | "i32" | "i64" | "f64" => last.to_owned(),
        "RawExtension" => "object".to_owned(),
        "JSON" => "any".to_owned(),
        "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => last.to_owned(),
        _ => path
            .replace("apiextensions_apiserver", "apiextensions-apiserver")
            .replace("kube_aggregator", "kube-aggregator"),
    }
}

/// A type of the schema in words that both sides have.
fn schema_type(node: Node<'_>) -> String {
    match node.shape() {
        Shape::Object(_) => node.name().to_owned(),
        Shape::List { item, .. } => format!("[]{}", schema_type(item)),
        Shape::Map { value } => format!("map[{}]", schema_type(value)),
        Shape::Scalar(scalar) => match scalar {
            Scalar::String => "string",
            Scalar::Bytes => "bytestring",
            Scalar::Bool => "bool",
            Scalar::Int32 => "i32",
            Scalar::Int64 => "i64",
            Scalar::Double => "f64",
            Scalar::Quantity => "quantity",
            Scalar::Time => "time",
            Scalar::MicroTime => "microtime",
            Scalar::IntOrString => "intorstring",
            Scalar::Any => "any",
            Scalar::FieldsV1 => "fieldsv1",
            Scalar::RawObject => "object",
            Scalar::SchemaOrBool => "JSONSchemaPropsOrBool",
            Scalar::SchemaOrArray => "JSONSchemaPropsOrArray",
            Scalar::SchemaOrStrings => "JSONSchemaPropsOrStringArray",
        }
        .to_owned(),
    }
}

#[test]
fn structs_are_the_schema() {
    let mut structs_by_name = BTreeMap::new();
    structs(Path::new(env!("K8S_OPENAPI_SOURCES")), &mut structs_by_name);
    let mut different = Vec::new();
    let mut without = Vec::new();
    let mut compared = 0;
    for name in all_types() {
        let schema = SchemaRef::builtin_type(name).unwrap();
        let Shape::Object(fields) = schema.shape() else {
            continue;
        };
        let own = schema.node().name();
        let Some(known) = structs_by_name.get(own) else {
            let is_list = own
                .strip_suffix("List")
                .is_some_and(|item| structs_by_name.contains_key(item));
            if !is_list {
                without.push(name);
            }
            continue;
        };
        compared += 1;
        let mut known = known.clone();
        let ours = fields
            .iter()
            .map(|field| (field.name().to_owned(), schema_type(field.schema())));
        for (field, ours) in ours {
            let theirs = known.remove(&field).unwrap_or_default();
            if ours != theirs {
                different.push(format!("{name}.{field}: {ours} {theirs}"));
            }
        }
        different.extend(known.iter().map(|(field, theirs)| format!("{name}.{field}:  {theirs}")));
    }
    assert!(
        different.is_empty(),
        "fields that differ, ours and theirs: {different:#?}"
    );
    let expect: Vec<&str> = WITHOUT_STRUCT.iter().map(|(name, _)| *name).collect();
    assert_eq!(without, expect);
    assert!(compared >= TYPES_MIN, "{compared}");
}
