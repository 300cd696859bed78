//! How rules are tested: an object in YAML, what it becomes, and which errors it earns.

use api::Value;
use api::field::Error;

use crate::row::{Strategy, WriteContext};
use crate::view::View;

/// When tests happen.
pub const NOW: &str = "2026-01-01T00:00:00Z";

/// One example.
pub struct Case<'a> {
    name: &'a str,
    object: Value,
    old: Option<Value>,
    subresource: &'a str,
    version: &'a str,
    errors: Vec<String>,
    fields: Vec<(&'a str, Value)>,
}

impl<'a> Case<'a> {
    /// An example and what it shows.
    pub fn new(name: &'a str) -> Case<'a> {
        Case {
            name,
            object: Value::Null,
            old: None,
            subresource: "",
            version: "v1",
            errors: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// The object in YAML.
    pub fn object(mut self, text: &str) -> Case<'a> {
        self.object = yaml(text);
        self
    }

    /// The object before an update, in YAML.
    pub fn old(mut self, text: &str) -> Case<'a> {
        self.old = Some(yaml(text));
        self
    }

    /// An update through a subresource.
    pub fn subresource(mut self, name: &'a str) -> Case<'a> {
        self.subresource = name;
        self
    }

    /// The version that the request spoke.
    pub fn version(mut self, version: &'a str) -> Case<'a> {
        self.version = version;
        self
    }

    /// The errors, in any order. None: it is valid.
    pub fn errors(mut self, errors: &[&str]) -> Case<'a> {
        self.errors = errors.iter().map(|error| error.to_string()).collect();
        self
    }

    /// What a field is after defaulting and preparing.
    pub fn field(mut self, path: &'a str, value: impl Into<Value>) -> Case<'a> {
        self.fields.push((path, value.into()));
        self
    }
}

/// Defaults, prepares and validates as a write does, and compares.
pub fn check(strategy: &dyn Strategy, case: Case) {
    let context = WriteContext {
        now: NOW,
        subresource: case.subresource,
        user: crate::row::Writer::named("tester"),
        version: case.version,
    };
    let default = |object: &mut Value| {
        strategy.default(object);
        let once = object.clone();
        strategy.default(object);
        assert_eq!(&once, object, "{}: defaulting twice is defaulting once", case.name);
    };
    let mut object = case.object.clone();
    default(&mut object);
    let errors = match case.old.clone() {
        None => {
            strategy.prepare_for_create(&mut object, &context);
            default(&mut object);
            strategy.validate_create(&object, &context)
        }
        Some(mut old) => {
            default(&mut old);
            strategy.prepare_for_update(&mut object, &old, &context);
            default(&mut object);
            strategy.validate_update(&object, &old, &context)
        }
    };
    strategy.canonicalize(&mut object);
    let mut got: Vec<String> = errors.iter().map(Error::to_string).collect();
    let mut expect = case.errors;
    got.sort();
    expect.sort();
    assert_eq!(got, expect, "{}", case.name);
    for (path, value) in &case.fields {
        assert_eq!(at(&object, path), value, "{}: {path} of {object:#}", case.name);
    }
}

/// Like [`View::at`], with list indexes as steps: `spec.containers.0.image`.
fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |here, step| match step.parse::<usize>() {
        Ok(index) if here.is_array() => here.get(index).unwrap_or(&Value::Null),
        _ => here.at(step),
    })
}

/// A document in YAML.
pub fn yaml(text: &str) -> Value {
    // In examples, y and n are names.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Messages that many rules give.
pub const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                         start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
                         validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
/// See [`LABEL`].
pub const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                             '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used \
                             for validation is \
                             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
/// See [`LABEL`].
pub const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                             with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used \
                             for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
/// See [`LABEL`].
pub const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                         and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or \
                         '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
/// What is wrong with an empty key of a label: two errors, without their field.
pub const LABEL_NAME_EMPTY: [&str; 2] = [
    "Invalid value: \"\": name part must be non-empty",
    concat!(
        "Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end ",
        "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is ",
        "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    ),
];
