//! One step of a path to an owned field.
//!
//! Source of order and text forms: `sigs.k8s.io/structured-merge-diff/fieldpath` (`element.go`, `serialize-pe.go`).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::Value;

/// A step from an object, map or list to what is inside.
#[derive(Clone, Debug)]
pub enum PathElement {
    /// A field of an object or a key of a map: `f:name`.
    Field(Arc<str>),
    /// An element of a list of type map by its keys, sorted by name: `k:{"name":"x"}`.
    Key(Arc<[(Arc<str>, Value)]>),
    /// An element of a set: `v:"x"`.
    Value(Value),
    /// An element of a list by its index: `i:0`.
    Index(i64),
}

impl PathElement {
    /// A field.
    pub fn field(name: &str) -> PathElement {
        PathElement::Field(name.into())
    }

    /// Reads the form of `FieldsV1`. `None` is a kind of element that only a later version knows.
    pub(super) fn parse(text: &str) -> Result<Option<PathElement>, String> {
        if text.len() < 2 {
            return Err("key must be 2 characters long:".into());
        }
        let Some((kind, content)) = text.split_once(':').filter(|(kind, _)| kind.len() == 1) else {
            return Err(format!("missing colon: {text}"));
        };
        let json = |content: &str| serde_json::from_str::<Value>(content).map_err(|error| error.to_string());
        Ok(Some(match kind {
            "f" => PathElement::field(content),
            "v" => PathElement::Value(json(content)?),
            "k" => match json(content)? {
                Value::Object(map) => PathElement::Key(map.into_iter().map(|(k, v)| (k.into(), v)).collect()),
                _ => return Err(format!("expected an object: {text}")),
            },
            "i" => PathElement::Index(content.parse().map_err(|_| format!("no index: {text}"))?),
            _ => return Ok(None),
        }))
    }

    /// Writes the form of `FieldsV1`.
    pub(super) fn serialize(&self) -> String {
        match self {
            PathElement::Field(name) => ["f:", name].concat(),
            PathElement::Key(keys) => {
                let mut text = String::from("k:{");
                for (index, (name, value)) in keys.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    let name = go_json(&Value::from(&**name));
                    text.push_str(&format!("{comma}{name}:{}", go_json(value)));
                }
                text.push('}');
                text
            }
            PathElement::Value(value) => ["v:", &*go_json(value)].concat(),
            PathElement::Index(index) => format!("i:{index}"),
        }
    }
}

/// JSON as Go writes it by default: characters of HTML are escaped.
pub(super) fn go_json(value: &Value) -> String {
    // Go writes a whole float without its fraction.
    const WHOLE_MAX: f64 = 1e15;
    let text = match value
        .as_f64()
        .filter(|number| value.is_f64() && number.abs() < WHOLE_MAX && number.fract() == 0.0)
    {
        Some(whole) => format!("{whole:.0}"),
        None => value.to_string(),
    };
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text;
    }
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(keys) => {
                f.write_str("[")?;
                for (index, (name, value)) in keys.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", shown(value))?;
                }
                f.write_str("]")
            }
            PathElement::Value(value) => write!(f, "[={}]", shown(value)),
            PathElement::Index(index) => write!(f, "[{index}]"),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => crate::field::quote(text),
        other => other.to_string(),
    }
}

/// A whole path as conflicts show it: `.spec.template.spec.containers[name="x"].image`.
pub fn path_text(path: &[PathElement]) -> String {
    path.iter().map(PathElement::to_string).collect()
}

impl Ord for PathElement {
    fn cmp(&self, other: &PathElement) -> Ordering {
        use PathElement::*;
        match (self, other) {
            (Field(a), Field(b)) => a.cmp(b),
            (Key(a), Key(b)) => {
                let pairs = a.iter().zip(b.iter());
                let differing = pairs.map(|(a, b)| a.0.cmp(&b.0).then_with(|| compare(&a.1, &b.1)));
                let first = differing.into_iter().find(|order| order.is_ne());
                first.unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Value(a), Value(b)) => compare(a, b),
            (Index(a), Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PathElement {
    fn rank(&self) -> u8 {
        match self {
            PathElement::Field(_) => 0,
            PathElement::Key(_) => 1,
            PathElement::Value(_) => 2,
            PathElement::Index(_) => 3,
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &PathElement) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &PathElement) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PathElement {}

/// A total order of values: numbers (as numbers, whatever their spelling), strings, booleans, lists, maps, null.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => {
                let float = |n: &serde_json::Number| n.as_f64().unwrap_or(0.0);
                float(x).total_cmp(&float(y))
            }
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (Value::Array(x), Value::Array(y)) => {
            let differing = x.iter().zip(y).map(|(x, y)| compare(x, y)).find(|order| order.is_ne());
            differing.unwrap_or_else(|| x.len().cmp(&y.len()))
        }
        (Value::Object(x), Value::Object(y)) => {
            let differing = x
                .iter()
                .zip(y)
                .map(|(x, y)| x.0.cmp(y.0).then_with(|| compare(x.1, y.1)));
            let first = differing.into_iter().find(|order| order.is_ne());
            first.unwrap_or_else(|| x.len().cmp(&y.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

/// Whether two values are equal; `1` equals `1.0`.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.0 == y.0 && equal(x.1, y.1))
        }
        (Value::Number(_), Value::Number(_)) => compare(a, b).is_eq(),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_read_and_write_their_forms() {
        for (text, path) in [
            ("f:spec", ".spec"),
            ("f:", "."),
            ("f:a:b", ".a:b"),
            (
                "k:{\"containerPort\":80,\"protocol\":\"TCP\"}",
                "[containerPort=80,protocol=\"TCP\"]",
            ),
            ("v:\"x/y\"", "[=\"x/y\"]"),
            ("v:1", "[=1]"),
            ("v:\"a\\u0026b\"", "[=\"a&b\"]"),
            ("i:3", "[3]"),
        ] {
            let element = PathElement::parse(text).unwrap().expect("a known kind");
            assert_eq!((&*element.serialize(), &*element.to_string()), (text, path));
        }
        let float = PathElement::Key([("n".into(), json!(2.0))].into());
        assert_eq!(float.serialize(), "k:{\"n\":2}");
        assert_eq!(PathElement::parse("z:x"), Ok(None));
        for bad in ["", "f", "fx", "spec:", "v:{", "k:1", "i:x"] {
            assert!(PathElement::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn elements_have_an_order() {
        let element = |text: &str| PathElement::parse(text).unwrap().expect("a known kind");
        let sorted = [
            "f:a",
            "f:b",
            "k:{\"a\":1}",
            "k:{\"a\":1,\"b\":1}",
            "k:{\"a\":2}",
            "v:1",
            "v:2",
            "v:\"a\"",
            "v:true",
            "i:1",
        ];
        for pair in sorted.windows(2) {
            assert!(element(pair[0]) < element(pair[1]), "{pair:?}");
        }
        assert_eq!(PathElement::Value(json!(1)), PathElement::Value(json!(1.0)));
    }
}
