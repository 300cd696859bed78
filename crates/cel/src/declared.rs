//! The types of custom resources as their rules see them: which fields there are, of which types, and how large they may be,
//! by which rules are admitted.
//!
//! Source: `k8s.io/apiserver/pkg/cel/common/schemas.go`, and `compilation.go` of
//! `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::ast::{Expr, Kind};
use crate::cost::estimate::Sizes;
use crate::program::Program;
use crate::types::{Field, Identity, ObjectType, Type, escape};

/// The largest request that is taken (upstream: `celconfig.MaxRequestSizeBytes`): no value is larger.
const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// Quotation marks, brackets or braces around a value.
const AROUND_BYTES: u64 = 2;
/// What the texts of times take in JSON: `MaxDatetimeSizeJSON`, `JSONDateSize`, `MinDatetimeSizeJSON`, `MinDurationSizeJSON`.
const TIME_BYTES_MAX: u64 = 32;
const DATE_BYTES: u64 = 12;
const TIME_BYTES_MIN: u64 = 21;
const DURATION_BYTES_MIN: u64 = 3;

/// The type of a part of a custom resource.
#[derive(Clone, Debug)]
pub struct Declared {
    kind: Type,
    /// The most characters, elements or entries.
    elements_max: u64,
    /// The least bytes in JSON.
    bytes_min: u64,
    /// By the names that expressions use.
    fields: BTreeMap<String, Declared>,
    /// Of the elements of a list, the values of a map.
    element: Option<Box<Declared>>,
}

impl Declared {
    /// The type of what a structural schema describes; `None` when expressions do not see it. The root of a resource has
    /// `apiVersion`, `kind` and the names of its metadata, whatever its schema says.
    pub fn of(schema: &Json, is_resource: bool) -> Option<Declared> {
        of_schema(schema, is_resource, "object")
    }

    /// The type.
    pub fn kind(&self) -> &Type {
        &self.kind
    }

    /// The type of a property, by its name in JSON.
    pub fn property(&self, name: &str) -> Option<&Declared> {
        self.fields.get(&escape(name)?)
    }

    /// The type of the elements of a list or the values of a map.
    pub fn element(&self) -> Option<&Declared> {
        self.element.as_deref()
    }

    /// How many values of this type one object can hold at most.
    pub fn cardinality(&self) -> u64 {
        // At least a comma stands between two of them.
        REQUEST_BYTES_MAX / (self.bytes_min + 1)
    }
}

impl Sizes for Declared {
    fn max(&self, path: &[Arc<str>], _: &Type) -> Option<u64> {
        let (_, steps) = path.split_first()?;
        let mut here = self;
        for step in steps {
            here = match &**step {
                "@items" | "@values" => here.element.as_deref()?,
                // The length of a key is not bounded by anything but the request.
                "@keys" if here.element.is_some() => return Some(REQUEST_BYTES_MAX - AROUND_BYTES),
                name => here.fields.get(name)?,
            };
        }
        Some(here.elements_max)
    }
}

impl Program {
    /// Whether the expression reads a variable.
    pub fn reads(&self, variable: &str) -> bool {
        reads(&self.checked.root, variable)
    }
}

fn reads(expr: &Expr, variable: &str) -> bool {
    match &expr.kind {
        Kind::Ident(name) => &**name == variable,
        Kind::Literal(_) | Kind::TypeName(_) | Kind::Constant(_) => false,
        Kind::Member(member) => reads(&member.0, variable),
        Kind::Select(select) => reads(&select.operand, variable),
        Kind::Call(call) => any_reads(call.target.iter().chain(&call.arguments), variable),
        Kind::List(elements) => any_reads(elements.iter().map(|element| &element.value), variable),
        Kind::Map(entries) => any_reads(entries.iter().flat_map(|entry| [&entry.key, &entry.value]), variable),
        Kind::Struct(made) => any_reads(made.fields.iter().map(|field| &field.value), variable),
        Kind::Fold(fold) => {
            let parts = [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result];
            any_reads(parts, variable)
        }
    }
}

fn any_reads<'e>(exprs: impl IntoIterator<Item = &'e Expr>, variable: &str) -> bool {
    exprs.into_iter().any(|expr| reads(expr, variable))
}

fn flag(schema: &Json, name: &str) -> bool {
    schema.get(name) == Some(&Json::Bool(true))
}

/// A limit of a schema; negative ones are none.
fn limit(schema: &Json, name: &str) -> Option<u64> {
    let limit = schema.get(name)?.as_i64()?;
    Some(u64::try_from(limit).unwrap_or(0))
}

fn scalar(kind: Type, elements_max: u64, bytes_min: u64) -> Declared {
    Declared {
        kind,
        elements_max,
        bytes_min,
        fields: BTreeMap::new(),
        element: None,
    }
}

fn of_schema(schema: &Json, is_resource: bool, name: &str) -> Option<Declared> {
    let whole_text = REQUEST_BYTES_MAX - AROUND_BYTES;
    // The longest text counts as bytes, of which a character takes four.
    let text_max = limit(schema, "maxLength").map(|length| length.saturating_mul(4));
    if flag(schema, "x-kubernetes-int-or-string") {
        return Some(scalar(Type::Dyn, text_max.unwrap_or(whole_text), 1));
    }
    match schema.get("type").and_then(Json::as_str)? {
        "array" => list(schema, name),
        "object" => match schema.get("additionalProperties") {
            Some(values @ Json::Object(_)) => map(schema, values, name),
            _ => Some(object(schema, is_resource, name)),
        },
        "string" => Some(match schema.get("format").and_then(Json::as_str) {
            Some("byte") => scalar(
                Type::Bytes,
                limit(schema, "maxLength").unwrap_or(whole_text),
                AROUND_BYTES,
            ),
            Some("duration") => scalar(Type::Duration, TIME_BYTES_MAX, DURATION_BYTES_MIN),
            Some("date") => scalar(Type::Timestamp, DATE_BYTES, DATE_BYTES),
            Some("date-time") => scalar(Type::Timestamp, TIME_BYTES_MAX, TIME_BYTES_MIN),
            _ => {
                let values = schema.get("enum").and_then(Json::as_array);
                let longest = values.map(|values| {
                    let lengths = values.iter().filter_map(Json::as_str).map(|text| text.len() as u64);
                    lengths.max().unwrap_or(0)
                });
                let max = text_max.or(longest).unwrap_or(whole_text);
                scalar(Type::String, max, AROUND_BYTES)
            }
        }),
        "boolean" => Some(scalar(Type::Bool, 0, 4)),
        "number" => Some(scalar(Type::Double, 0, 1)),
        "integer" => Some(scalar(Type::Int, 0, 1)),
        _ => None,
    }
}

fn list(schema: &Json, name: &str) -> Option<Declared> {
    let items = schema.get("items")?;
    let element = of_schema(
        items,
        flag(items, "x-kubernetes-embedded-resource"),
        &format!("{name}.@idx"),
    )?;
    let fits = (REQUEST_BYTES_MAX - AROUND_BYTES) / (element.bytes_min + 1);
    Some(Declared {
        kind: Type::List(Arc::new(element.kind.clone()), identity(schema)),
        elements_max: limit(schema, "maxItems").unwrap_or(fits),
        bytes_min: AROUND_BYTES,
        fields: BTreeMap::new(),
        element: Some(Box::new(element)),
    })
}

fn identity(schema: &Json) -> Identity {
    match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
        Some("set") => Identity::Whole,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
            let keys = keys.into_iter().flatten().filter_map(Json::as_str);
            Identity::Keys(keys.map(str::to_owned).collect())
        }
        _ => Identity::Place,
    }
}

fn map(schema: &Json, values: &Json, name: &str) -> Option<Declared> {
    let element = of_schema(
        values,
        flag(values, "x-kubernetes-embedded-resource"),
        &format!("{name}.@elem"),
    )?;
    // A key of no characters, its quotation marks, the colon and the comma.
    let fits = (REQUEST_BYTES_MAX - AROUND_BYTES) / (element.bytes_min + 6);
    Some(Declared {
        kind: Type::map(Type::String, element.kind.clone()),
        elements_max: limit(schema, "maxProperties").unwrap_or(fits),
        bytes_min: AROUND_BYTES,
        fields: BTreeMap::new(),
        element: Some(Box::new(element)),
    })
}

fn object(schema: &Json, is_resource: bool, name: &str) -> Declared {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Json::as_array)
        .map_or(Vec::new(), |names| names.iter().filter_map(Json::as_str).collect());
    let mut fields: BTreeMap<String, Declared> = BTreeMap::new();
    let mut types: BTreeMap<String, Field> = BTreeMap::new();
    let mut bytes_min = AROUND_BYTES;
    let mut add = |key: &str, declared: Declared| {
        if let Some(escaped) = escape(key) {
            let field = Field {
                key: key.to_owned(),
                kind: declared.kind.clone(),
            };
            types.insert(escaped.clone(), field);
            fields.insert(escaped, declared);
        }
    };
    let properties = schema.get("properties").and_then(Json::as_object);
    for (key, property) in properties.into_iter().flatten() {
        if is_resource && matches!(&**key, "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let embedded = flag(property, "x-kubernetes-embedded-resource");
        let Some(declared) = of_schema(property, embedded, &format!("{name}.{key}")) else {
            continue;
        };
        if required.contains(&&**key) && property.get("default").is_none_or(Json::is_null) {
            bytes_min += key.len() as u64 + declared.bytes_min + 4;
        }
        add(key, declared);
    }
    if is_resource {
        let text = || scalar(Type::String, REQUEST_BYTES_MAX - AROUND_BYTES, AROUND_BYTES);
        add("apiVersion", text());
        add("kind", text());
        let names = serde_json::json!({"type": "object", "properties": {
            "name": {"type": "string"}, "generateName": {"type": "string"}}});
        add("metadata", object(&names, false, &format!("{name}.metadata")));
    }
    let kind = Type::Object(Arc::new(ObjectType {
        name: name.to_owned(),
        fields: types,
        open: false,
    }));
    Declared {
        kind,
        elements_max: 0,
        bytes_min,
        fields,
        element: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Environment, compile};

    fn cost(schema: &Json, rule: &str) -> u64 {
        let declared = Declared::of(schema, true).unwrap();
        let environment = Environment::kubernetes(36).with("self", declared.kind().clone());
        compile(&environment, rule).unwrap().estimate(&declared).max
    }

    #[test]
    fn limits_of_the_schema_bound_the_cost() {
        let list = |limits: Json| {
            let mut list = json!({"type": "array", "items": {"type": "string", "maxLength": 10}});
            list.as_object_mut()
                .unwrap()
                .extend(limits.as_object().unwrap().clone());
            json!({"type": "object", "properties": {"list": list}})
        };
        let rule = "self.list.all(x, x.contains('a'))";
        let bounded = cost(&list(json!({"maxItems": 10})), rule);
        let unbounded = cost(&list(json!({})), rule);
        assert!(bounded < 1000 && unbounded > 1_000_000, "{bounded} {unbounded}");
    }

    #[test]
    fn resources_have_their_names() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "x-y": {"type": "integer"}, "raw": {"x-kubernetes-preserve-unknown-fields": true}}}}});
        let declared = Declared::of(&schema, true).unwrap();
        let environment = Environment::kubernetes(36)
            .with("self", declared.kind().clone())
            .with("oldSelf", declared.kind().clone());
        for (rule, expect, old) in [
            ("self.metadata.name == 'a' && self.kind != ''", "", false),
            ("self.spec.x__dash__y > oldSelf.spec.x__dash__y", "", true),
            ("self.spec.raw == 1", "undefined field 'raw'", false),
            ("self.metadata.labels == {}", "undefined field 'labels'", false),
        ] {
            match compile(&environment, rule) {
                Ok(program) => assert_eq!(("", program.reads("oldSelf")), (expect, old), "{rule}"),
                Err(issues) => assert_eq!(issues.list()[0].message, expect, "{rule}"),
            }
        }
    }
}
