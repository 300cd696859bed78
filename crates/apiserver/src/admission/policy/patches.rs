//! What mutating policies make of an object: an apply configuration laid over it, or a JSON patch.
//!
//! Source: `policy/mutating/patch/smd.go` and `json_patch.go`, `k8s.io/apiserver/pkg/cel/mutation/dynamic/objects.go`.

use api::apply::overlay;
use api::normalize::{UnknownFields, normalize};
use api::patch::json_patch;
use api::schema::SchemaRef;
use api::{Map, Status, Value};
use cel::{Key, List};

/// Why an object could not be changed.
pub enum Failure {
    /// The policy's fault: its failure policy decides.
    OfPolicy(String),
    /// The request cannot go on.
    OfServer(Status),
}

/// Lays an apply configuration over an object of that schema.
///
/// # Errors
/// It cannot be laid over.
pub fn apply(object: &Value, configuration: &cel::Value<'_>, schema: &SchemaRef) -> Result<Value, Failure> {
    check_names(configuration)?;
    let Some(Value::Object(mut fields)) = configuration.to_json() else {
        return Err(Failure::OfPolicy(format!(
            "unsupported return type from ApplyConfiguration expression: {}",
            configuration.kind().name()
        )));
    };
    for field in ["apiVersion", "kind"] {
        fields.insert(field.into(), object[field].clone());
    }
    overlay(object, &Value::Object(fields), schema)
        .map_err(|why| Failure::OfPolicy(format!("error applying patch: {why}")))
}

/// Applies the operations of a JSON patch. One whose test fails changes nothing.
///
/// # Errors
/// An operation does not apply, or what comes out is no object of that schema.
pub fn patch(object: &Value, operations: &cel::Value<'_>, schema: &SchemaRef) -> Result<Value, Failure> {
    let cel::Value::List(operations) = operations else {
        let message = "type mismatch: JSONPatchType.expression should evaluate to array";
        return Err(Failure::OfPolicy(message.into()));
    };
    let patch = operations.iter().map(|one| operation(&one)).collect::<Result<_, _>>()?;
    let mut patched = match json_patch(object, &Value::Array(patch)) {
        Ok(patched) => patched,
        Err(error) => {
            let why = error.to_string();
            return match why.ends_with(": test failed") {
                true => Ok(object.clone()),
                false => Err(Failure::OfPolicy(format!("JSON Patch: {why}"))),
            };
        }
    };
    let unknown = normalize(&mut patched, schema, UnknownFields::Report)
        .map_err(|error| Failure::OfServer(Status::internal(error)))?;
    match unknown.is_empty() {
        true => Ok(patched),
        false => {
            let told: Vec<String> = unknown.iter().map(ToString::to_string).collect();
            let why = format!("strict decoding error: {}", told.join(", "));
            Err(Failure::OfServer(Status::internal(why)))
        }
    }
}

/// One operation; texts that are empty are left out but for `op` and `path`.
fn operation(operation: &cel::Value<'_>) -> Result<Value, Failure> {
    let cel::Value::Map(fields) = operation else {
        let message = "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch";
        return Err(Failure::OfPolicy(message.into()));
    };
    let text = |field: &str| match fields.field(field) {
        Some(value) => value.as_str().unwrap_or("").to_owned(),
        None => String::new(),
    };
    let mut made = Map::new();
    made.insert("op".into(), text("op").into());
    made.insert("path".into(), text("path").into());
    if !text("from").is_empty() {
        made.insert("from".into(), text("from").into());
    }
    if let Some(value) = fields.field("value") {
        check_names(&value)?;
        let Some(value) = value.to_json() else {
            let why = "JSONPath valueExpression evaluated to a type that could not marshal to JSON";
            return Err(Failure::OfPolicy(why.into()));
        };
        made.insert("value".into(), value);
    }
    Ok(Value::Object(made))
}

/// The types of records that an expression makes have to be the path of the field they stand in.
fn check_names(value: &cel::Value<'_>) -> Result<(), Failure> {
    let cel::Value::Map(cel::Map::MadeRecord(_, object)) = value else {
        return Ok(());
    };
    let mut wrong = Vec::new();
    walk(value, &object.name, &mut wrong);
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure::OfPolicy(format!("type mismatch: {}", wrong.join("\n")))),
    }
}

fn walk(value: &cel::Value<'_>, path: &str, wrong: &mut Vec<String>) {
    match value {
        cel::Value::Map(cel::Map::MadeRecord(fields, object)) => {
            if object.name != path {
                let quote = api::field::quote;
                wrong.push(format!(
                    "unexpected type name {}, expected {}, which matches field name path from root Object type",
                    quote(&object.name),
                    quote(path)
                ));
            }
            for (key, value) in fields.iter() {
                if let Key::String(name) = key {
                    walk(value, &format!("{path}.{}", &**name), wrong);
                }
            }
        }
        // Lists and maps have no name of their own.
        cel::Value::Map(cel::Map::Made(entries)) => entries.values().for_each(|value| walk(value, path, wrong)),
        cel::Value::List(List::Made(values, _)) => values.iter().for_each(|value| walk(value, path, wrong)),
        _ => {}
    }
}
