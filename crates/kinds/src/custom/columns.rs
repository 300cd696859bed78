//! The columns that a CustomResourceDefinition asks for (`additionalPrinterColumns`).
//!
//! Source: `apiextensions-apiserver/pkg/registry/customresource/tableconvertor/tableconvertor.go`.

use api::{Map, Value};

use super::path::JsonPath;
use crate::print::{human_duration, seconds};
use crate::row::PrintContext;
use crate::view::View;

/// A column after the name.
pub struct PrintedColumn {
    /// Its definition in a Table.
    pub definition: Value,
    kind: String,
    path: JsonPath,
}

impl PrintedColumn {
    /// The cell of an object.
    pub fn cell(&self, object: &Value, context: &PrintContext) -> Value {
        let Some(value) = self.path.first(object).filter(|value| !value.is_null()) else {
            return Value::Null;
        };
        match (&*self.kind, value) {
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Number(number)) => match number.as_i64() {
                Some(number) => number.into(),
                // Go cuts off the fraction.
                None => number.as_f64().map_or(Value::Null, |number| (number as i64).into()),
            },
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("date", Value::String(text)) => match seconds(text) {
                Some(then) => human_duration(context.now_seconds - then).into(),
                None => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

/// The columns of a version: its own, or how old the object is.
pub fn of(version: &Value) -> Vec<PrintedColumn> {
    let own = version.list("additionalPrinterColumns");
    if own.is_empty() {
        let description = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
        let age = serde_json::json!({"name": "Age", "type": "date", "description": description,
            "jsonPath": ".metadata.creationTimestamp"});
        return column(&age).into_iter().collect();
    }
    // A path that is none ends the row, as upstream.
    own.iter().map_while(column).collect()
}

fn column(own: &Value) -> Option<PrintedColumn> {
    let path = own.text("jsonPath");
    let description = match own.text("description") {
        "" => format!("Custom resource definition column (in JSONPath format): {path}"),
        text => text.to_owned(),
    };
    let mut definition = Map::new();
    definition.insert("name".into(), own.at("name").clone());
    definition.insert("type".into(), own.at("type").clone());
    definition.insert("format".into(), own.text("format").into());
    definition.insert("description".into(), description.into());
    definition.insert("priority".into(), own.count("priority").into());
    Some(PrintedColumn {
        definition: Value::Object(definition),
        kind: own.text("type").to_owned(),
        path: JsonPath::parse(path)?,
    })
}
