//! Paths into an object and the errors of validation, as upstream's `field` package words them.
//!
//! Source of the texts: `k8s.io/apimachinery/pkg/util/validation/field/errors.go`. Clients match on them.

use std::fmt;

use crate::{StatusCause, Value};

/// The way to a field: `spec.containers[0].ports[1].name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path of one name.
    pub fn new(name: &str) -> Path {
        Path(name.into())
    }

    /// The empty path: the object itself.
    pub fn root() -> Path {
        Path::default()
    }

    /// A named field below this one. Joined, not formatted: validation makes the paths of all that it looks at.
    pub fn child(&self, name: &str) -> Path {
        if self.0.is_empty() {
            Path(name.into())
        } else {
            Path([&*self.0, ".", name].concat())
        }
    }

    /// An element of this list.
    pub fn index(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }

    /// A value of this map.
    pub fn key(&self, key: &str) -> Path {
        Path([&*self.0, "[", key, "]"].concat())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("<nil>")
        } else {
            f.write_str(&self.0)
        }
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// Something that the field refers to is not there.
    NotFound,
    /// A value has to be given.
    Required,
    /// Two elements that must differ are equal.
    Duplicate,
    /// The value breaks a rule of its format.
    Invalid,
    /// The value breaks a rule, and would tell nothing (upstream: `OmitValueType`).
    Broken,
    /// The value is none of those that are allowed.
    NotSupported,
    /// The value is well formed, and not allowed here.
    Forbidden,
    /// The value is too long.
    TooLong,
    /// There are too many elements.
    TooMany,
    /// The server failed.
    InternalError,
    /// The value is of another JSON type.
    TypeInvalid,
}

impl ErrorType {
    /// The reason of the Status cause.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid | ErrorType::Broken => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::InternalError => "InternalError",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            ErrorType::NotFound => "Not found",
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::Broken => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooMany => "Too many",
            ErrorType::InternalError => "Internal error",
            ErrorType::TypeInvalid => "Invalid value",
        }
    }
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What is wrong.
    pub kind: ErrorType,
    /// Where.
    pub field: String,
    /// The value as given; `Null` where the text shows none.
    pub value: Value,
    /// The rule, in words.
    pub detail: String,
}

/// All broken rules of an object.
pub type ErrorList = Vec<Error>;

impl Error {
    fn new(kind: ErrorType, path: &Path, value: Value, detail: impl Into<String>) -> Error {
        Error {
            kind,
            field: path.to_string(),
            value,
            detail: detail.into(),
        }
    }

    /// `field: Not found: value`.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Error {
        Error::new(ErrorType::NotFound, path, value.into(), "")
    }

    /// `field: Required value: detail`.
    pub fn required(path: &Path, detail: impl Into<String>) -> Error {
        Error::new(ErrorType::Required, path, Value::Null, detail)
    }

    /// `field: Duplicate value: value`.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Error {
        Error::new(ErrorType::Duplicate, path, value.into(), "")
    }

    /// `field: Invalid value: value: detail`.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Error {
        Error::new(ErrorType::Invalid, path, value.into(), detail)
    }

    /// `field: Invalid value: detail`.
    pub fn broken(path: &Path, detail: impl Into<String>) -> Error {
        Error::new(ErrorType::Broken, path, Value::Null, detail)
    }

    /// `field: Unsupported value: value: supported values: "a", "b"`.
    pub fn not_supported<S: AsRef<str>>(path: &Path, value: impl Into<Value>, supported: &[S]) -> Error {
        let mut detail = String::new();
        if !supported.is_empty() {
            let quoted: Vec<String> = supported.iter().map(|s| quote(s.as_ref())).collect();
            detail = format!("supported values: {}", quoted.join(", "));
        }
        Error::new(ErrorType::NotSupported, path, value.into(), detail)
    }

    /// `field: Forbidden: detail`.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Error {
        Error::new(ErrorType::Forbidden, path, Value::Null, detail)
    }

    /// `field: Too long: may not be more than N bytes`.
    pub fn too_long(path: &Path, max_bytes: i64) -> Error {
        let detail = if max_bytes >= 0 {
            format!("may not be more than {max_bytes} bytes")
        } else {
            "value is too long".into()
        };
        Error::new(ErrorType::TooLong, path, Value::Null, detail)
    }

    /// `field: Too many: actual: must have at most N items`.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Error {
        let items = if max == 1 { "item" } else { "items" };
        Error::new(
            ErrorType::TooMany,
            path,
            actual.into(),
            format!("must have at most {max} {items}"),
        )
    }

    /// `field: Internal error: detail`.
    pub fn internal(path: &Path, detail: impl Into<String>) -> Error {
        Error::new(ErrorType::InternalError, path, Value::Null, detail)
    }

    /// `field: Invalid value: value: detail`, with the reason of a wrong type.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Error {
        Error::new(ErrorType::TypeInvalid, path, value.into(), detail)
    }

    /// The text without the field: `Invalid value: "x": must be lower case`.
    pub fn body(&self) -> String {
        use ErrorType::*;
        let shows_value = !matches!(self.kind, Required | Forbidden | TooLong | InternalError | Broken);
        let mut text = self.kind.words().to_string();
        if shows_value {
            text.push_str(": ");
            text.push_str(&shown(&self.value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// The cause for `Status.details.causes`.
    pub fn cause(&self) -> StatusCause {
        StatusCause {
            reason: self.kind.reason().into(),
            message: self.body(),
            field: self.field.clone(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// Several errors as upstream's aggregate: one alone as it is, more in brackets, equal texts once.
pub fn aggregate(errors: &[Error]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match &texts[..] {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

/// What Go calls the type of a value that it has read from JSON.
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A text quoted as Go's `%q` quotes it, for the characters that occur in API objects.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_worded_as_upstream() {
        let path = Path::new("spec").child("ports").index(0).child("name");
        for (error, expect) in [
            (Error::required(&path, ""), "spec.ports[0].name: Required value"),
            (
                Error::required(&path, "must be set"),
                "spec.ports[0].name: Required value: must be set",
            ),
            (
                Error::invalid(&path, "A", "must be lower case"),
                "spec.ports[0].name: Invalid value: \"A\": must be lower case",
            ),
            (
                Error::invalid(&path, 70000, "too big"),
                "spec.ports[0].name: Invalid value: 70000: too big",
            ),
            (
                Error::not_supported(&path, "X", &["a", "b"]),
                "spec.ports[0].name: Unsupported value: \"X\": supported values: \"a\", \"b\"",
            ),
            (
                Error::too_long(&path, 63),
                "spec.ports[0].name: Too long: may not be more than 63 bytes",
            ),
            (
                Error::duplicate(&path, "x"),
                "spec.ports[0].name: Duplicate value: \"x\"",
            ),
        ] {
            assert_eq!(error.to_string(), expect);
        }
    }
}
