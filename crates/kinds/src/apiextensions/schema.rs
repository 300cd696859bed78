//! The rules of the schemas of custom resources: what OpenAPI may say, Kubernetes' extensions of it, and rules in CEL with what
//! they may cost.
//!
//! Source: `ValidateCustomResourceDefinitionOpenAPISchema` of
//! `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`, and `cel_validation.go` beside it.

use std::collections::BTreeSet;

use api::Value;
use api::field::{Error, ErrorList, Path};
use cel::admission::{NEW, STORED};
use cel::declared::Declared;

use crate::check::At;
use crate::custom::field_path::normalized;
use crate::custom::rules::compile_rule;
use crate::view::View;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];
const META_FIELDS: [&str; 3] = ["metadata", "kind", "apiVersion"];

/// What one rule may cost at most (upstream: `StaticEstimatedCostLimit`), and all of a version (`StaticEstimatedCRDCostLimit`).
const RULE_COST_MAX: u64 = 10_000_000;
const TOTAL_COST_MAX: u64 = 100_000_000;
/// How many of the most expensive rules are named.
const EXPENSIVE_MAX: usize = 4;

/// What is asked of a schema.
#[derive(Clone)]
pub struct Options<'o> {
    /// Every version has a schema.
    pub schemas: bool,
    /// Types are those of OpenAPI v3.
    pub valid_types: bool,
    /// Schemas are structural.
    pub structural: bool,
    /// Defaults have no unknown fields.
    pub pruned_defaults: bool,
    /// What is in a set is atomic.
    pub atomic_sets: bool,
    /// The keys of maps are always there.
    pub map_keys: bool,
    /// Expressions that are stored already.
    pub known: Known<'o>,
    /// Versions whose schema stays as it was.
    pub unchanged: BTreeSet<&'o str>,
    /// The cost of each rule is not judged again.
    pub suppress_cost: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            schemas: true,
            valid_types: true,
            structural: true,
            pruned_defaults: true,
            atomic_sets: true,
            map_keys: true,
            known: Known::default(),
            unchanged: BTreeSet::new(),
            suppress_cost: false,
        }
    }
}

/// Expressions of the stored definition, which may use what the version before the server's does not have.
#[derive(Clone, Default)]
pub struct Known<'o> {
    rules: BTreeSet<&'o str>,
    messages: BTreeSet<&'o str>,
}

impl<'o> Known<'o> {
    /// Those of some schemas.
    pub fn of(schemas: impl Iterator<Item = &'o Value>) -> Known<'o> {
        let mut known = Known::default();
        for schema in schemas {
            visit(schema, &mut |schema| {
                for rule in schema.list("x-kubernetes-validations") {
                    known.rules.insert(rule.text("rule"));
                    known.messages.insert(rule.text("messageExpression"));
                }
            });
        }
        known
    }
}

/// Visits a schema and every schema inside of it.
pub fn visit<'s>(schema: &'s Value, each: &mut dyn FnMut(&'s Value)) {
    if !schema.is_object() {
        return;
    }
    each(schema);
    match schema.at("items") {
        Value::Array(items) => items.iter().for_each(|item| visit(item, each)),
        items => visit(items, each),
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        schema.list(name).iter().for_each(|nested| visit(nested, each));
    }
    for name in ["not", "additionalProperties", "additionalItems"] {
        visit(schema.at(name), each);
    }
    for name in ["properties", "patternProperties", "definitions", "dependencies"] {
        schema.entries(name).for_each(|(_, nested)| visit(nested, each));
    }
}

/// Whether something holds for a schema or one inside of it.
pub fn any(schema: &Value, holds: &dyn Fn(&Value) -> bool) -> bool {
    let mut found = false;
    visit(schema, &mut |schema| found = found || holds(schema));
    found
}

/// Whether a schema has extensions that ask for structure.
pub fn has_extensions(schema: &Value) -> bool {
    any(schema, &|schema| {
        ["x-kubernetes-embedded-resource", "x-kubernetes-int-or-string"]
            .iter()
            .any(|flag| schema.flag(flag))
            || schema.has("x-kubernetes-preserve-unknown-fields")
            || schema.has("x-kubernetes-list-type")
            || !schema.list("x-kubernetes-list-map-keys").is_empty()
            || !schema.list("x-kubernetes-validations").is_empty()
    })
}

/// Whether a schema's type is none of OpenAPI v3.
pub fn has_invalid_type(schema: &Value) -> bool {
    let kind = schema.text("type");
    !kind.is_empty() && !TYPES.contains(&kind)
}

/// Whether a schema is a set of things that have parts.
pub fn has_open_set(schema: &Value) -> bool {
    schema.text("x-kubernetes-list-type") == "set" && open_item(schema.at("items")).is_some()
}

/// What is wrong with an element of a set.
fn open_item(items: &Value) -> Option<&'static str> {
    let (list, map) = ("x-kubernetes-list-type", "x-kubernetes-map-type");
    match items.text("type") {
        "array" if !matches!(items.text(list), "" | "atomic") => Some(list),
        "object" if items.text(map) != "atomic" => Some(map),
        _ => None,
    }
}

/// Whether the keys of a list of type map can be absent.
pub fn has_loose_keys(schema: &Value) -> bool {
    !map_keys(schema, &Path::root()).is_empty()
}

/// Why a schema cannot even be read as a structural one.
pub fn unconvertible(schema: &Value) -> Option<String> {
    let mut why = None;
    visit(schema, &mut |schema| {
        let mut found = |text: &str| {
            why.get_or_insert_with(|| text.to_owned());
        };
        if schema.at("items").is_array() {
            found("OpenAPIV3Schema 'items' must be a schema, but is an array");
        }
        for (field, name) in [
            ("id", "id"),
            ("$schema", "schema"),
            ("$ref", "$ref"),
            ("patternProperties", "patternProperties"),
            ("dependencies", "dependencies"),
            ("additionalItems", "additionalItems"),
            ("definitions", "definitions"),
        ] {
            if schema.has(field) && !schema.at(field).as_str().is_some_and(str::is_empty) {
                found(&format!("OpenAPIV3Schema '{name}' is not supported"));
            }
        }
    });
    why
}

/// The fields of a root schema beside which a status subresource may stand, in upstream's words and order.
const ROOT_FIELDS: [(&str, &str); 22] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];

/// With a status subresource the root says nothing that a schema of the status alone would miss.
pub fn root_fields(at: &At, validation: &Path) {
    let kind = at.value.text("type");
    if !matches!(kind, "" | "object") {
        at.elsewhere(validation.child("openAPIV3Schema.type"), at.value)
            .invalid_as(
                kind,
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled",
            );
        return;
    }
    let is_known = |name: &str| ROOT_FIELDS.iter().any(|(_, field)| *field == name);
    let stranger = at
        .value
        .entries("")
        .any(|(name, value)| !value.is_null() && !is_known(name));
    if stranger {
        let names: Vec<&str> = ROOT_FIELDS.iter().map(|(name, _)| *name).collect();
        at.invalid(format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            names.join(" ")
        ));
    }
}

/// What all rules of a schema cost, and which cost most.
#[derive(Default)]
pub struct TotalCost {
    total: u64,
    expensive: Vec<(u64, Path)>,
}

impl TotalCost {
    fn add(&mut self, path: Path, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if cost < TOTAL_COST_MAX / 100 {
            return;
        }
        self.expensive.push((cost, path));
        self.expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        self.expensive.truncate(EXPENSIVE_MAX);
    }

    /// What there is to say of it.
    pub fn errors(&self, path: &Path) -> ErrorList {
        if self.total <= TOTAL_COST_MAX {
            return ErrorList::new();
        }
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        let mut errors: ErrorList = self
            .expensive
            .iter()
            .map(|(_, path)| Error::forbidden(path, why))
            .collect();
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(Error::forbidden(path, too_expensive(what, self.total, TOTAL_COST_MAX)));
        errors
    }
}

fn too_expensive(what: &str, cost: u64, max: u64) -> String {
    let factor = cost as f64 / max as f64;
    let factor = match factor {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// Where a schema stands among those around it, for its rules.
#[derive(Clone)]
pub struct Context {
    /// How many values the schema has at most; `None` when nothing around it says.
    cardinality: Option<u64>,
    is_root: bool,
}

impl Context {
    /// Of the root.
    pub fn root() -> Context {
        Context {
            cardinality: Some(1),
            is_root: true,
        }
    }

    fn below(&self, schema: &Value) -> Context {
        let limit = |name: &str| schema.number(name).map(|limit| u64::try_from(limit).unwrap_or(0));
        let factor = match schema.text("type") {
            "object" if schema.has("additionalProperties") => limit("maxProperties"),
            "array" => limit("maxItems"),
            _ => Some(1),
        };
        let cardinality = match (self.cardinality, factor) {
            (Some(cardinality), Some(factor)) => Some(cardinality.saturating_mul(factor)),
            _ => None,
        };
        Context {
            cardinality,
            is_root: false,
        }
    }
}

/// What changes on the way down.
#[derive(Clone, Default)]
struct Around {
    is_root: bool,
    /// Why there may be no defaults here.
    no_defaults: Option<String>,
    in_metadata: bool,
    /// Below this the parts of two states cannot be told to be the same.
    uncorrelatable: Option<Path>,
}

#[derive(Default)]
struct Errors {
    schema: ErrorList,
    rules: ErrorList,
}

impl Errors {
    fn append(&mut self, other: Errors) {
        self.schema.extend(other.schema);
        self.rules.extend(other.rules);
    }
}

/// Judges a root schema. Without a context its rules in CEL are not looked at.
pub fn validate(
    schema: &Value,
    path: &Path,
    options: &Options,
    context: Option<Context>,
    total: &mut TotalCost,
) -> ErrorList {
    let around = Around {
        is_root: true,
        ..Around::default()
    };
    let mut found = judge(schema, path, options, &around, context, total);
    found.schema.append(&mut found.rules);
    found.schema
}

fn judge(
    schema: &Value,
    path: &Path,
    options: &Options,
    around: &Around,
    context: Option<Context>,
    total: &mut TotalCost,
) -> Errors {
    let mut found = Errors::default();
    if !schema.is_object() {
        return found;
    }
    plain(schema, path, options, around, &mut found.schema);
    let inner = Around {
        is_root: false,
        ..around.clone()
    };
    let below = || context.as_ref().map(|context| context.below(schema));
    let additional = schema.at("additionalProperties");
    if !additional.is_null() {
        let at = path.child("additionalProperties");
        if schema.entries("properties").next().is_some() && *additional != Value::Bool(true) {
            let why = "additionalProperties and properties are mutual exclusive";
            found.schema.push(Error::forbidden(&at, why));
        }
        let mut inner = inner.clone();
        if around.in_metadata {
            inner.no_defaults = Some("inside additionalProperties applying to object metadata".into());
        }
        found.append(judge(additional, &at, options, &inner, below(), total));
    }
    for (name, property) in schema.entries("properties") {
        let mut inner = inner.clone();
        if (around.is_root || schema.flag("x-kubernetes-embedded-resource")) && META_FIELDS.contains(&name) {
            inner.in_metadata = true;
            if around.is_root {
                inner.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        let at = path.child("properties").key(name);
        found.append(judge(property, &at, options, &inner, below(), total));
    }
    found.append(judge(
        schema.at("not"),
        &path.child("not"),
        options,
        &inner,
        None,
        total,
    ));
    for name in ["allOf", "oneOf", "anyOf"] {
        for (index, nested) in schema.list(name).iter().enumerate() {
            let at = path.child(name).index(index);
            found.append(judge(nested, &at, options, &inner, None, total));
        }
    }
    for name in ["definitions", "dependencies"] {
        for (key, nested) in schema.entries(name) {
            let at = path.child(name).key(key);
            found.append(judge(nested, &at, options, &inner, None, total));
        }
    }
    let items = schema.at("items");
    if !items.is_null() {
        let mut inner = inner;
        if schema.text("x-kubernetes-list-type") != "map" && inner.uncorrelatable.is_none() {
            inner.uncorrelatable = Some(path.clone());
        }
        let at = path.child("items");
        match items {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    found.append(judge(item, &at.index(index), options, &inner, below(), total));
                }
            }
            items => found.append(judge(items, &at, options, &inner, below(), total)),
        }
    }
    extensions(schema, path, options, &mut found.schema);
    rules(schema, path, options, around, context.as_ref(), &mut found, total);
    found
}

/// What OpenAPI v3 may say in a definition.
fn plain(schema: &Value, path: &Path, options: &Options, around: &Around, errors: &mut ErrorList) {
    let kind = schema.text("type");
    if options.valid_types && has_invalid_type(schema) {
        errors.push(Error::not_supported(&path.child("type"), kind, &TYPES));
    }
    if let (true, Some(reason)) = (schema.has("default"), &around.no_defaults) {
        let why = format!("must not be set {reason}");
        errors.push(Error::forbidden(&path.child("default"), why));
    }
    for field in [
        "id",
        "additionalItems",
        "patternProperties",
        "definitions",
        "dependencies",
        "$ref",
    ] {
        let value = schema.at(field);
        let is_empty = value.as_str().is_some_and(str::is_empty) || value.as_object().is_some_and(api::Map::is_empty);
        if !value.is_null() && !is_empty {
            let why = format!("{field} is not supported");
            errors.push(Error::forbidden(&path.child(field), why));
        }
    }
    if kind == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        errors.push(Error::forbidden(&path.child("type"), why));
    }
    if schema.at("items").as_array().is_some_and(|items| !items.is_empty()) {
        let why = "items must be a schema object and not an array";
        errors.push(Error::forbidden(&path.child("items"), why));
    }
    if around.in_metadata && schema.flag("x-kubernetes-embedded-resource") {
        let why = "must not be used inside of resource meta";
        errors.push(Error::forbidden(&path.child("x-kubernetes-embedded-resource"), why));
    }
    if schema.flag("uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Error::forbidden(&path.child("uniqueItems"), why));
    }
}

fn extensions(schema: &Value, path: &Path, options: &Options, errors: &mut ErrorList) {
    let (preserve, map, list, keys) = (
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-map-type",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
    );
    let kind = schema.text("type");
    if *schema.at(preserve) == Value::Bool(false) {
        errors.push(Error::invalid(
            &path.child(preserve),
            false,
            "must be true or undefined",
        ));
    }
    let mut needs = |wanted: &str, because: &str| {
        let why = format!("must be {wanted} if {because} is specified");
        errors.push(match kind {
            "" => Error::required(&path.child("type"), why),
            kind => Error::invalid(&path.child("type"), kind, why),
        });
    };
    let (map_type, list_type) = (schema.text(map), schema.text(list));
    if schema.has(map) && kind != "object" {
        needs("object", map);
    }
    if schema.has(list) && kind != "array" {
        needs("array", list);
    }
    if schema.has(map) && !matches!(map_type, "atomic" | "granular") {
        errors.push(Error::not_supported(
            &path.child(map),
            map_type,
            &["atomic", "granular"],
        ));
    }
    let items = schema.at("items");
    let at_items = path.child("items");
    if kind == "array"
        && options.atomic_sets
        && list_type == "set"
        && let Some(field) = open_item(items)
    {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let shown = items.at(list).clone();
        errors.push(Error::invalid(&at_items.child(field), shown, why));
    }
    if schema.has(list) && !matches!(list_type, "atomic" | "set" | "map") {
        errors.push(Error::not_supported(
            &path.child(list),
            list_type,
            &["atomic", "set", "map"],
        ));
    }
    let names = schema.list(keys);
    if !names.is_empty() && list_type != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(match schema.has(list) {
            true => Error::invalid(&path.child(list), list_type, why),
            false => Error::required(&path.child(list), why),
        });
    }
    if list_type == "map" {
        let at_keys = path.child(keys);
        if names.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            errors.push(Error::required(&at_keys, why));
        }
        match items {
            Value::Null => {
                let why = "must have a schema if x-kubernetes-list-type is map";
                errors.push(Error::required(&at_items, why));
            }
            Value::Array(_) => {
                let why = "must only have a single schema if x-kubernetes-list-type is map";
                errors.push(Error::invalid(&at_items, items.clone(), why));
            }
            items if items.text("type") != "object" => {
                let why = "must be object if parent array's x-kubernetes-list-type is map";
                errors.push(Error::invalid(&at_items.child("type"), items.text("type"), why));
            }
            items => {
                let mut seen = BTreeSet::new();
                for name in schema.texts(keys) {
                    match items.at("properties").get(name) {
                        Some(property) if matches!(property.text("type"), "array" | "object") => {
                            let at = at_items.child("properties").key(name).child("type");
                            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                            errors.push(Error::invalid(&at, items.text("type"), why));
                        }
                        Some(_) => {}
                        None => {
                            let why = "entries must all be names of item properties";
                            errors.push(Error::invalid(&at_keys, schema.at(keys).clone(), why));
                        }
                    }
                    if !seen.insert(name) {
                        let why = "must not contain duplicate entries";
                        errors.push(Error::invalid(&at_keys, schema.at(keys).clone(), why));
                    }
                }
            }
        }
    }
    if options.map_keys {
        errors.extend(map_keys(schema, path));
    }
}

/// The keys of a list of type map are always there, and no element of a set or map is null.
fn map_keys(schema: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let items = schema.at("items");
    let list_type = schema.text("x-kubernetes-list-type");
    if !items.is_object() || !matches!(list_type, "set" | "map") {
        return errors;
    }
    let at = path.child("items");
    if items.flag("nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(Error::forbidden(&at.child("nullable"), why));
    }
    if list_type == "set" {
        return errors;
    }
    let required: Vec<&str> = items.texts("required").collect();
    for name in schema.texts("x-kubernetes-list-map-keys") {
        let Some(property) = items.at("properties").get(name) else {
            continue;
        };
        let at = at.child("properties").key(name);
        if !required.contains(&name) && !property.has("default") {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(Error::required(&at.child("default"), why));
        }
        if property.flag("nullable") {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(Error::forbidden(&at.child("nullable"), why));
        }
    }
    errors
}

fn has_line_break(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

fn rules(
    schema: &Value,
    path: &Path,
    options: &Options,
    around: &Around,
    context: Option<&Context>,
    found: &mut Errors,
    total: &mut TotalCost,
) {
    let list = schema.list("x-kubernetes-validations");
    let at = |index: usize, field: &str| path.child("x-kubernetes-validations").index(index).child(field);
    for (index, rule) in list.iter().enumerate() {
        rule_texts(rule, schema, &|field| at(index, field), &mut found.schema);
    }
    let Some(context) = context.filter(|_| !list.is_empty() && found.schema.is_empty()) else {
        return;
    };
    let is_resource = context.is_root || schema.flag("x-kubernetes-embedded-resource");
    let Some(declared) = Declared::of(schema, is_resource) else {
        let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
        let at = path.child("x-kubernetes-validations");
        found.rules.push(Error::internal(&at, why));
        return;
    };
    let times = context.cardinality.unwrap_or_else(|| declared.cardinality());
    for (index, rule) in list.iter().enumerate() {
        let minor = |known: bool| if known { STORED } else { NEW };
        let (text, message) = (rule.text("rule"), rule.text("messageExpression"));
        let compiled = compile_rule(
            rule,
            &declared,
            minor(options.known.rules.contains(text)),
            minor(options.known.messages.contains(message)),
        );
        let errors = &mut found.rules;
        let cost = compiled.cost.saturating_mul(times);
        if !options.suppress_cost && cost > RULE_COST_MAX {
            let why = too_expensive("estimated rule cost", cost, RULE_COST_MAX);
            errors.push(Error::forbidden(&at(index, "rule"), why));
        }
        total.add(at(index, "rule"), cost);
        if let Err(why) = compiled.program {
            errors.push(Error::invalid(&at(index, "rule"), shown(rule), why));
        }
        match compiled.message {
            Err(why) => errors.push(Error::invalid(&at(index, "messageExpression"), shown(rule), why)),
            Ok(None) => {}
            Ok(Some(_)) => {
                let cost = compiled.message_cost;
                if !options.suppress_cost && cost > RULE_COST_MAX {
                    let why = too_expensive("estimated messageExpression cost", cost, RULE_COST_MAX);
                    errors.push(Error::forbidden(&at(index, "messageExpression"), why));
                }
                total.add(at(index, "messageExpression"), cost);
            }
        }
        if compiled.uses_old {
            if let Some(above) = &around.uncorrelatable {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {above}");
                errors.push(Error::invalid(&at(index, "rule"), text, why));
            }
        } else if rule.has("optionalOldSelf") {
            let why = "may not be set if oldSelf is not used in rule";
            let shown = rule.at("optionalOldSelf").clone();
            errors.push(Error::invalid(&at(index, "optionalOldSelf"), shown, why));
        }
    }
}

/// A rule as Go's `%#v`-like JSON of its internal type shows it.
fn shown(rule: &Value) -> Value {
    let mut shown = api::Map::new();
    for (field, name) in [
        ("rule", "Rule"),
        ("message", "Message"),
        ("messageExpression", "MessageExpression"),
        ("reason", "Reason"),
        ("fieldPath", "FieldPath"),
        ("optionalOldSelf", "OptionalOldSelf"),
    ] {
        let value = match (field, rule.at(field)) {
            ("reason" | "optionalOldSelf", value) => value.clone(),
            (_, Value::Null) => "".into(),
            (_, value) => value.clone(),
        };
        shown.insert(name.into(), value);
    }
    Value::Object(shown)
}

fn rule_texts(rule: &Value, schema: &Value, at: &dyn Fn(&str) -> Path, errors: &mut ErrorList) {
    let (text, message) = (rule.text("rule").trim(), rule.text("message").trim());
    let given = rule.text("message");
    if text.is_empty() {
        errors.push(Error::required(&at("rule"), "rule is not specified"));
    } else if !given.is_empty() && message.is_empty() {
        errors.push(Error::invalid(&at("message"), given, "must be non-empty if specified"));
    } else if has_line_break(message) {
        errors.push(Error::invalid(&at("message"), given, "must not contain line breaks"));
    } else if has_line_break(text) && message.is_empty() {
        let why = "message must be specified if rule contains line breaks";
        errors.push(Error::required(&at("message"), why));
    }
    let expression = rule.text("messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        errors.push(Error::required(&at("messageExpression"), why));
    }
    if rule.has("reason") && !REASONS.contains(&rule.text("reason")) {
        errors.push(Error::not_supported(&at("reason"), rule.text("reason"), &REASONS));
    }
    let field = rule.text("fieldPath");
    if field.is_empty() {
        return;
    }
    if field.trim().is_empty() {
        errors.push(Error::invalid(
            &at("fieldPath"),
            field,
            "must be non-empty if specified",
        ));
    }
    if has_line_break(field) {
        errors.push(Error::invalid(&at("fieldPath"), field, "must not contain line breaks"));
    }
    if normalized(field, schema, true).is_err() {
        errors.push(Error::invalid(&at("fieldPath"), field, "must be a valid path"));
    }
}
