//! Whether a value is what an OpenAPI v3 schema says, in the words of kube-openapi's validator; and on an update, only where
//! something changed.
//!
//! Source: `k8s.io/kube-openapi/pkg/validation/validate`, and `ratcheting.go` and `validation.go` of
//! `apiextensions-apiserver/pkg/apiserver/validation`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::Value;
use api::field::{Error, ErrorList, Path, quote};
use regex::Regex;

use super::formats;
use super::ratchet::Correlated;
use crate::view::View;

/// Compiled patterns of a schema: each is made when a value first meets it.
#[derive(Default)]
pub struct Patterns(Mutex<HashMap<String, Option<Arc<Regex>>>>);

impl Patterns {
    fn get(&self, pattern: &str) -> Option<Arc<Regex>> {
        let mut patterns = match self.0.lock() {
            Ok(patterns) => patterns,
            // Somebody panicked while the map was whole: there is no state between.
            Err(poisoned) => poisoned.into_inner(),
        };
        if let Some(known) = patterns.get(pattern) {
            return known.clone();
        }
        let made = Regex::new(pattern).ok().map(Arc::new);
        patterns.insert(pattern.to_owned(), made.clone());
        made
    }
}

/// Validates a value against a schema. `path` stands before the names of fields; `old` is what the value replaces.
pub fn validate(
    path: Option<&Path>,
    value: &Value,
    schema: &Value,
    old: Option<&Correlated<'_>>,
    patterns: &Patterns,
) -> ErrorList {
    let check = Check { path, patterns };
    check.schema(value, schema, "", old).errors
}

struct Check<'c> {
    path: Option<&'c Path>,
    patterns: &'c Patterns,
}

/// What was found, and how many checks were passed through on the way: of alternatives, the one with the most is told.
#[derive(Default)]
struct Found {
    errors: ErrorList,
    matches: usize,
}

impl Found {
    fn merge(&mut self, other: Found) {
        self.matches += other.matches;
        for error in other.errors {
            self.push(error);
        }
    }

    fn push(&mut self, error: Error) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }
}

/// The types of a schema as the validator has them.
pub fn types_of(schema: &Value) -> Vec<&str> {
    if schema.flag("x-kubernetes-int-or-string") {
        return vec!["integer", "string"];
    }
    match schema.text("type") {
        "" => Vec::new(),
        kind => vec![kind],
    }
}

/// The format, unless it means nothing.
fn format_of<'s>(schema: &'s Value, types: &[&str]) -> &'s str {
    let format = schema.text("format");
    let kind = match types {
        [kind] => kind,
        _ => "",
    };
    match formats::is_known(kind, format) {
        true => format,
        false => "",
    }
}

/// A JSON type, and the format that Go's value of it has.
fn type_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::Number(number) if number.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

impl Check<'_> {
    fn at(&self, name: &str) -> Path {
        let name = name.strip_prefix('.').unwrap_or(name);
        match (self.path, name) {
            (Some(path), "") => path.clone(),
            (Some(path), name) => path.child(name),
            (None, "") => Path::root(),
            (None, name) => Path::new(name),
        }
    }

    /// An error that upstream puts at the root, naming its field in the text only.
    fn composite(&self, text: String) -> Error {
        Error::invalid(&self.at(""), "", text)
    }

    fn schema(&self, value: &Value, schema: &Value, name: &str, old: Option<&Correlated<'_>>) -> Found {
        let mut found = Found::default();
        let types = types_of(schema);
        let format = format_of(schema, &types);
        if !types.is_empty() || !format.is_empty() {
            match self.of_type(value, schema, &types, format, name) {
                Some(error) => found.push(error),
                None => found.matches += 1,
            }
            found.matches += 1;
        }
        if !value.is_null() {
            found.merge(self.alternatives(value, schema, name, old));
            found.matches += 1;
            match value {
                Value::String(text) => self.text(text, schema, format, name, &mut found),
                Value::Number(_) => self.number(value, schema, &types, format, name, &mut found),
                Value::Array(items) => self.items(items, schema, name, old, &mut found),
                _ => {}
            }
        }
        self.enumeration(value, schema, name, &mut found);
        if let Value::Object(map) = value {
            self.object(map, schema, name, old, &mut found);
        }
        if !found.errors.is_empty() && old.is_some_and(Correlated::is_unchanged) {
            found.errors.clear();
        }
        found
    }

    fn of_type(&self, value: &Value, schema: &Value, types: &[&str], format: &str, name: &str) -> Option<Error> {
        let wrong = |wanted: &str, is: &str| {
            let detail = format!("{name} in body must be of type {wanted}: {}", quote(is));
            Some(Error::type_invalid(&self.at(name), is, detail))
        };
        let (kind, own_format) = type_of(value);
        if value.is_null() {
            let is_allowed = types.is_empty() || schema.flag("nullable");
            return if is_allowed {
                None
            } else {
                wrong(&types.join(","), "null")
            };
        }
        let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
        let float_as_int = kind == "number" && whole && types.contains(&"integer");
        let int_as_float = kind == "integer" && types.contains(&"number");
        let fits = types.contains(&kind) || float_as_int || int_as_float;
        let is_text_or_list = matches!(value, Value::String(_) | Value::Array(_));
        if !is_text_or_list && !format.is_empty() && !fits && own_format != format {
            return wrong(format, own_format);
        }
        let of_numbers = types.contains(&"number") || types.contains(&"integer");
        if !of_numbers && !format.is_empty() && is_text_or_list {
            return None;
        }
        if fits {
            return None;
        }
        wrong(&types.join(","), kind)
    }

    fn alternatives(&self, value: &Value, schema: &Value, name: &str, old: Option<&Correlated<'_>>) -> Found {
        let mut found = Found::default();
        let any = schema.list("anyOf");
        if !any.is_empty() {
            let mut best: Option<Found> = None;
            let mut valid = None;
            for schema in any {
                let outcome = self.schema(value, schema, name, old);
                if outcome.errors.is_empty() {
                    valid = Some(outcome);
                    break;
                }
                if best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
                    best = Some(outcome);
                }
            }
            match valid {
                Some(valid) => found.merge(valid),
                None => {
                    let text = format!("{} must validate at least one schema (anyOf)", quote(name));
                    found.push(self.composite(text));
                    found.merge(best.unwrap_or_default());
                }
            }
        }
        let one = schema.list("oneOf");
        if !one.is_empty() {
            let mut best: Option<Found> = None;
            let mut first = None;
            let mut valid = 0;
            for schema in one {
                let outcome = self.schema(value, schema, name, old);
                if outcome.errors.is_empty() {
                    valid += 1;
                    best = None;
                    first.get_or_insert(outcome);
                } else if valid == 0 && best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
                    best = Some(outcome);
                }
            }
            if valid == 1 {
                found.merge(first.unwrap_or_default());
            } else {
                let why = match valid {
                    0 => "Found none valid".to_owned(),
                    valid => format!("Found {valid} valid alternatives"),
                };
                let text = format!("{} must validate one and only one schema (oneOf). {why}", quote(name));
                found.push(self.composite(text));
                found.merge(best.unwrap_or_default());
            }
        }
        let all = schema.list("allOf");
        if !all.is_empty() {
            let mut valid = 0;
            for schema in all {
                let outcome = self.schema(value, schema, name, old);
                valid += usize::from(outcome.errors.is_empty());
                found.merge(outcome);
            }
            if valid != all.len() {
                let why = if valid == 0 { ". None validated" } else { "" };
                let text = format!("{} must validate all the schemas (allOf){why}", quote(name));
                found.push(self.composite(text));
            }
        }
        let not = schema.at("not");
        if not.is_object() && self.schema(value, not, name, old).errors.is_empty() {
            let text = format!("{} must not validate the schema (not)", quote(name));
            found.push(self.composite(text));
        }
        found.matches += 1;
        found
    }

    fn text(&self, text: &str, schema: &Value, format: &str, name: &str, found: &mut Found) {
        let invalid = |detail: String| Error::invalid(&self.at(name), text, detail);
        let length = text.chars().count() as i64;
        let pattern = schema.text("pattern");
        if let Some(max) = schema.number("maxLength").filter(|max| length > *max) {
            found.push(Error::too_long(&self.at(name), max));
        } else if let Some(min) = schema.number("minLength").filter(|min| length < *min) {
            found.push(invalid(format!("{name} in body should be at least {min} chars long")));
        } else if !pattern.is_empty() {
            let holds = self.patterns.get(pattern).is_some_and(|regex| regex.is_match(text));
            if !holds {
                found.push(invalid(format!("{name} in body should match '{pattern}'")));
            }
        }
        if !format.is_empty() && !formats::matches(format, text) {
            let detail = format!("{name} in body must be of type {format}: {}", quote(text));
            found.push(Error::type_invalid(&self.at(name), text, detail));
        }
        found.matches += 1;
    }

    fn number(&self, value: &Value, schema: &Value, types: &[&str], format: &str, name: &str, found: &mut Found) {
        let Some(number) = value.as_f64() else { return };
        let invalid = |detail: String| Error::invalid(&self.at(name), value.clone(), detail);
        let of_integers = *types == ["integer"];
        let in_range = |number: f64, whole: Option<i64>| match (of_integers, format) {
            (true, "int32") => whole.is_some_and(|whole| i32::try_from(whole).is_ok()),
            (true, _) => whole.is_some() || (number.fract() == 0.0 && number.abs() < 9.3e18),
            (false, "float") => number.abs() <= f64::from(f32::MAX),
            _ => true,
        };
        let whole = |value: &Value| {
            let float = value
                .as_f64()
                .filter(|float| float.fract() == 0.0 && float.abs() < 9.2e18);
            value.as_i64().or(float.map(|float| float as i64))
        };
        if !in_range(number, whole(value)) {
            let kind = if of_integers { "integer" } else { "number" };
            let text = match format {
                "" => format!("Checked value must be of type {kind} (default format) in {name}"),
                format => format!("Checked value must be of type {kind} with format {format} in {name}"),
            };
            found.push(self.composite(text));
        }
        let factor = schema.at("multipleOf");
        if let Some(by) = factor.as_f64() {
            let shown = go_number(factor);
            let is_multiple = match (value.as_i64(), whole(factor)) {
                (Some(value), Some(by)) if by > 0 => value % by == 0,
                _ if by > 0.0 && by < 1.0 => (1.0 / by * number).fract() == 0.0,
                _ if by > 0.0 => (number / by).fract() == 0.0,
                _ => true,
            };
            if by <= 0.0 {
                found.push(invalid(format!(
                    "factor MultipleOf declared for {name} must be positive: {shown}"
                )));
            } else if !is_multiple {
                found.push(invalid(format!("{name} in body should be a multiple of {shown}")));
            }
        }
        let maximum = schema.at("maximum");
        if let Some(max) = maximum.as_f64() {
            let exclusive = schema.flag("exclusiveMaximum");
            if number > max || (exclusive && number >= max) {
                let words = if exclusive {
                    "less than"
                } else {
                    "less than or equal to"
                };
                found.push(invalid(format!(
                    "{name} in body should be {words} {}",
                    go_number(maximum)
                )));
            }
        }
        let minimum = schema.at("minimum");
        if let Some(min) = minimum.as_f64() {
            let exclusive = schema.flag("exclusiveMinimum");
            if number < min || (exclusive && number <= min) {
                let words = if exclusive {
                    "greater than"
                } else {
                    "greater than or equal to"
                };
                found.push(invalid(format!(
                    "{name} in body should be {words} {}",
                    go_number(minimum)
                )));
            }
        }
        found.matches += 1;
    }

    fn items(&self, items: &[Value], schema: &Value, name: &str, old: Option<&Correlated<'_>>, found: &mut Found) {
        let of_items = schema.at("items");
        if of_items.is_object() {
            for (index, item) in items.iter().enumerate() {
                let old = old.and_then(|old| old.index(index));
                found.merge(self.schema(item, of_items, &format!("{name}[{index}]"), old.as_ref()));
            }
        }
        let count = items.len();
        if let Some(min) = schema.number("minItems").filter(|min| (count as i64) < *min) {
            let detail = format!("{name} in body should have at least {min} items");
            found.push(Error::invalid(&self.at(name), count, detail));
        }
        if let Some(max) = schema.number("maxItems").filter(|max| (count as i64) > *max) {
            found.push(Error::too_many(
                &self.at(name),
                count,
                usize::try_from(max).unwrap_or(0),
            ));
        }
        if schema.flag("uniqueItems") && (1..count).any(|index| items[..index].contains(&items[index])) {
            let detail = format!("{name} in body shouldn't contain duplicates");
            found.push(Error::invalid(&self.at(name), "", detail));
        }
        found.matches += 1;
    }

    fn enumeration(&self, value: &Value, schema: &Value, name: &str, found: &mut Found) {
        let values = schema.list("enum");
        if values.is_empty() {
            return;
        }
        let equal = |wanted: &Value| match (value.as_f64(), wanted.as_f64()) {
            (Some(one), Some(other)) => one == other,
            _ => value == wanted && !value.is_null(),
        };
        if values.iter().any(equal) {
            found.matches += 1;
            return;
        }
        let shown: Vec<String> = values
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        found.push(Error::not_supported(&self.at(name), value.clone(), &shown));
    }

    fn object(&self, map: &api::Map, schema: &Value, name: &str, old: Option<&Correlated<'_>>, found: &mut Found) {
        let count = map.len();
        if let Some(min) = schema.number("minProperties").filter(|min| (count as i64) < *min) {
            let detail = format!("{name} in body should have at least {min} properties");
            found.push(Error::invalid(&self.at(name), count, detail));
        }
        if let Some(max) = schema.number("maxProperties").filter(|max| (count as i64) > *max) {
            found.push(Error::too_many(
                &self.at(name),
                count,
                usize::try_from(max).unwrap_or(0),
            ));
        }
        let properties = schema.at("properties");
        let additional = schema.at("additionalProperties");
        let is_root = name.is_empty();
        // The type of the object is no field that an update changes: old and new were brought to the same version.
        let of_field = |key: &str| {
            old.filter(|_| !(is_root && matches!(key, "apiVersion" | "kind")))
                .and_then(|old| old.key(key))
        };
        for (key, value) in map {
            if properties.get(key).is_some() {
                continue;
            }
            if additional == &Value::Bool(false) {
                let detail = format!("{name}.{key} in body is a forbidden property");
                found.push(Error::invalid(&self.at(name), key.as_str(), detail));
            } else if additional.is_object() {
                let name = format!("{name}.{key}");
                found.merge(self.schema(value, additional, &name, of_field(key).as_ref()));
            }
        }
        for (key, schema) in properties.entries("") {
            if let Some(value) = map.get(key) {
                let name = if is_root {
                    key.to_owned()
                } else {
                    format!("{name}.{key}")
                };
                found.merge(self.schema(value, schema, &name, of_field(key).as_ref()));
            }
        }
        for key in schema.texts("required") {
            if !map.contains_key(key) {
                found.push(Error::required(&self.at(&format!("{name}.{key}")), ""));
            }
        }
        found.matches += 1;
    }
}

/// A number as Go's `%v` prints it.
fn go_number(number: &Value) -> String {
    match number.as_f64() {
        Some(float) if float.fract() == 0.0 && float.abs() < 1e21 => format!("{float:.0}"),
        Some(float) => float.to_string(),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, value: Value, expect: &[&str]) {
        let found = validate(None, &value, &schema, None, &Patterns::default());
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts, expect, "{schema} {value}");
    }

    fn of(spec: Value) -> Value {
        json!({"type": "object", "properties": {"a": spec}})
    }

    #[test]
    fn wrong_values_are_told_as_upstream_tells_them() {
        let int = || of(json!({"type": "integer", "minimum": 1, "maximum": 10}));
        check(int(), json!({"a": 5}), &[]);
        check(int(), json!({"a": 5.0}), &[]);
        check(
            int(),
            json!({"a": "x"}),
            &[r#"a: Invalid value: "string": a in body must be of type integer: "string""#],
        );
        check(
            int(),
            json!({"a": 11}),
            &["a: Invalid value: 11: a in body should be less than or equal to 10"],
        );
        check(
            int(),
            json!({"a": 0}),
            &["a: Invalid value: 0: a in body should be greater than or equal to 1"],
        );
        check(
            of(json!({"type": "string", "enum": ["x", "y"]})),
            json!({"a": "z"}),
            &[r#"a: Unsupported value: "z": supported values: "x", "y""#],
        );
        check(
            of(json!({"type": "string", "pattern": "^x"})),
            json!({"a": "z"}),
            &[r#"a: Invalid value: "z": a in body should match '^x'"#],
        );
        check(
            of(json!({"type": "string", "maxLength": 2})),
            json!({"a": "zzz"}),
            &["a: Too long: may not be more than 2 bytes"],
        );
        check(
            of(json!({"type": "string", "format": "date-time"})),
            json!({"a": "z"}),
            &[r#"a: Invalid value: "z": a in body must be of type date-time: "z""#],
        );
        check(
            of(json!({"type": "array", "maxItems": 1, "items": {"type": "string"}})),
            json!({"a": ["x", 1]}),
            &[
                r#"a[1]: Invalid value: "integer": a[1] in body must be of type string: "integer""#,
                "a: Too many: 2: must have at most 1 item",
            ],
        );
        check(
            of(json!({"type": "string"})),
            json!({"a": null}),
            &[r#"a: Invalid value: "null": a in body must be of type string: "null""#],
        );
        check(of(json!({"type": "string", "nullable": true})), json!({"a": null}), &[]);
        check(of(json!({"x-kubernetes-int-or-string": true})), json!({"a": "x"}), &[]);
        check(
            of(json!({"x-kubernetes-int-or-string": true})),
            json!({"a": true}),
            &[r#"a: Invalid value: "boolean": a in body must be of type integer,string: "boolean""#],
        );
        let required = json!({"type": "object", "properties": {"s": {"type": "object", "required": ["b"]}}});
        check(required, json!({"s": {}}), &["s.b: Required value"]);
    }

    #[test]
    fn alternatives_are_counted() {
        let one = of(json!({"type": "integer", "oneOf": [{"minimum": 5}, {"maximum": 10}]}));
        check(one.clone(), json!({"a": 3}), &[]);
        check(
            one,
            json!({"a": 7}),
            &[
                r#"<nil>: Invalid value: "": "a" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        );
        check(
            of(json!({"type": "string", "not": {"enum": ["x"]}})),
            json!({"a": "x"}),
            &[r#"<nil>: Invalid value: "": "a" must not validate the schema (not)"#],
        );
        check(
            of(json!({"type": "string", "anyOf": [{"pattern": "^a"}, {"pattern": "^b"}]})),
            json!({"a": "x"}),
            &[
                r#"<nil>: Invalid value: "": "a" must validate at least one schema (anyOf)"#,
                r#"a: Invalid value: "x": a in body should match '^a'"#,
            ],
        );
    }

    #[test]
    fn what_did_not_change_is_not_judged_again() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1}}});
        let (old, new) = (json!({"a": "long", "b": "x"}), json!({"a": "long", "b": "long"}));
        let correlated = Correlated::new(&new, &old, &schema);
        let found = validate(None, &new, &schema, Some(&correlated), &Patterns::default());
        let fields: Vec<&str> = found.iter().map(|error| &*error.field).collect();
        assert_eq!(fields, ["b"]);
    }
}
