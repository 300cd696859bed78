//! YAML as `sigs.k8s.io/yaml` reads it: YAML 1.1 words and octal numbers, merge keys, keys of any scalar as strings.
//!
//! Like there, a document is a spelling of JSON: whole floats are integers, times are strings, and of several
//! documents the first one counts.

mod repeated;

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::{DecodeError, Decoded, Limits, STRICT_ERRORS_MAX, json};
use crate::{Map, Value};

/// Levels of objects and lists. No object that means something comes near it, and the reader's frames are large.
const YAML_DEPTH_MAX: usize = 128;

/// The reader takes up to 20 KiB of stack a level in a debug build, more than the stack of a task has to spare, so it
/// gets a thread of its own for the moment. Only pages that are touched cost memory.
const STACK_BYTES: usize = 16 << 20;

/// How much aliases may repeat: what go-yaml calls "excessive aliasing".
const REPLAYED_EVENTS_MAX: usize = 100_000;

/// Most objects, lists and scalars of a document, aliases counted each time they are used. The largest object that
/// fits a request has fewer.
const NODES_MAX: usize = 1_000_000;

/// Reads the first document. A body that is JSON, as most clients send under this type, is read as such. Keys given twice
/// are told as [`strict_error`] takes them.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{')
        && let Ok(decoded) = json::decode(bytes, limits)
        && decoded.duplicates.is_empty()
    {
        return Ok(decoded);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| failed(None, "invalid Unicode character"))?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("yaml".into()).stack_size(STACK_BYTES);
        let reader = thread.spawn_scoped(scope, || decode_here(text, limits));
        let reader = reader.map_err(|error| failed(None, &format!("no thread to read it: {error}")))?;
        reader.join().unwrap_or_else(|_| Err(failed(None, "the reader failed")))
    })
}

/// What `sigs.k8s.io/yaml` puts before go-yaml's error, where it reads into an object.
pub const ERROR_PREFIX: &str = "error converting YAML to JSON: ";

/// The one strict error of a document with keys that are given twice (`yaml.TypeError` of go-yaml).
pub fn strict_error(duplicates: &[String]) -> Option<String> {
    let lines = duplicates.join("\n  ");
    (!duplicates.is_empty()).then(|| format!("{STRICT_ERROR_PREFIX}  {lines}"))
}

/// How [`strict_error`] begins; a line each follows.
pub const STRICT_ERROR_PREFIX: &str = "yaml: unmarshal errors:\n";

/// The value as YAML, keys sorted.
pub fn encode(value: &Value) -> String {
    serde_saphyr::to_string(value).expect("invariant: a tree of values always serialises")
}

fn decode_here(text: &str, limits: &Limits) -> Result<Decoded, DecodeError> {
    let is_repeated = Cell::new(false);
    let text = first_document(text);
    let depth_max = limits.depth_max.min(YAML_DEPTH_MAX);
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options(depth_max), |de| {
        Tree(&is_repeated).deserialize(de)
    });
    let value = read.map_err(|error| explain(&error))?;
    let mut duplicates = Vec::new();
    if is_repeated.get() {
        let told = serde_saphyr::from_str_with_options(text, options(depth_max));
        let repeated::Repeated(told) = told.map_err(|error| explain(&error))?;
        duplicates = told;
        duplicates.truncate(STRICT_ERRORS_MAX);
    }
    Ok(Decoded { value, duplicates })
}

fn options(depth_max: usize) -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: Some(serde_saphyr::budget! {
            max_depth: depth_max,
            flow_nesting_limit: depth_max + 1,
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
        }.expect("invariant: the macro makes a budget")),
        // The tree keeps the last, and sees that there was another.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPLAYED_EVENTS_MAX },
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

/// Everything up to the marker that begins a second document or ends the first.
fn first_document(text: &str) -> &str {
    let mut seen_content = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let is_marker = |marker: &str| {
            content == marker || (content.starts_with(marker) && content[marker.len()..].starts_with([' ', '\t']))
        };
        if is_marker("...") || (is_marker("---") && seen_content) {
            return &text[..at];
        }
        let is_directive = content.starts_with('%') && !seen_content;
        let is_blank = content.is_empty() || content.trim_start().starts_with('#');
        // A first marker begins the first document, whatever stands behind it.
        seen_content |= is_marker("---") || !(is_directive || is_blank);
        at += line.len();
    }
    text
}

fn explain(error: &serde_saphyr::Error) -> DecodeError {
    let error = error.without_snippet();
    let text = error.to_string();
    let is_deep = matches!(
        error,
        serde_saphyr::Error::Budget {
            breach: BudgetBreach::Depth { .. },
            ..
        }
    );
    // The scanner below has a limit of its own and no variant for it.
    if is_deep || text.contains("recursion limit exceeded") {
        return DecodeError::too_deep();
    }
    let line = error.location().map(|location| location.line());
    failed(line, &text)
}

fn failed(line: Option<u64>, what: &str) -> DecodeError {
    let line = line.map_or(String::new(), |line| format!("line {line}: "));
    DecodeError::syntax(format!("{ERROR_PREFIX}yaml: {line}{what}"))
}

/// Builds the tree and notes whether a key is given twice.
#[derive(Clone, Copy)]
struct Tree<'c>(&'c Cell<bool>);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(match i64::try_from(number) {
            Ok(number) => Value::from(number),
            // Upstream's decoder makes a float of what does not fit.
            Err(_) => Value::from(number as f64),
        })
    }

    fn visit_f64<E: serde::de::Error>(self, float: f64) -> Result<Value, E> {
        if !float.is_finite() {
            return Err(E::custom(format!("json: unsupported value: {float}")));
        }
        Ok(crate::normalize::number_of(float))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.into()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key_seed(Key)? {
            let value = access.next_value_seed(self)?;
            if map.insert(key, value).is_some() {
                self.0.set(true);
            }
        }
        Ok(Value::Object(map))
    }
}

/// A key, as upstream spells scalars as JSON strings.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, number or boolean as key")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<String, E> {
        Ok(flag.to_string())
    }

    fn visit_i64<E>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E>(self, float: f64) -> Result<String, E> {
        Ok(float.to_string())
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<String, E> {
        Ok(text)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<String, E> {
        Err(E::custom("Unsupported map key of type: %!s(<nil>), key: <nil>"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom("invalid map key"))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom("invalid map key"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::codec::DecodeErrorKind;

    fn check(text: &str, expect: Value) {
        let decoded = decode(text.as_bytes(), &Limits::default()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(decoded.value, expect, "{text}");
        assert_eq!(decoded.duplicates, Vec::<String>::new(), "{text}");
    }

    #[test]
    fn scalars_are_those_of_yaml_1_1() {
        check(
            "a: yes\nb: No\nc: on\nd: 'yes'\ne: true",
            json!({"a": true, "b": false, "c": true, "d": "yes", "e": true}),
        );
        check(
            "a: 0644\nb: 0o17\nc: 0x1F\nd: 1_000",
            json!({"a": 420, "b": 15, "c": 31, "d": 1000}),
        );
        check(
            "a: 1.0\nb: 1.5\nc: 1e3\nd: -0",
            json!({"a": 1, "b": 1.5, "c": 1000, "d": 0}),
        );
        check(
            "a: ~\nb:\nc: null\nd: ''",
            json!({"a": null, "b": null, "c": null, "d": ""}),
        );
        check(
            "a: 2001-01-01\nb: 2001-01-01T00:00:00Z",
            json!({"a": "2001-01-01", "b": "2001-01-01T00:00:00Z"}),
        );
        check("a: 9223372036854775807\nb: 1.2.3", json!({"a": i64::MAX, "b": "1.2.3"}));
        check("a: |\n  x\n  y\nb: >-\n  x\n  y", json!({"a": "x\ny\n", "b": "x y"}));
    }

    #[test]
    fn what_only_looks_like_a_number_is_text() {
        check(
            "a: 12:30:45\nb: 10:20\nc: 1.2.3\nd: 0xZZ\ne: 1e5x\nf: '-'\ng: 192.168.0.1\nh: 1 000\ni: v1",
            json!({"a": "12:30:45", "b": "10:20", "c": "1.2.3", "d": "0xZZ", "e": "1e5x", "f": "-",
                "g": "192.168.0.1", "h": "1 000", "i": "v1"}),
        );
        check(
            "a: +1\nb: 08\nc: 1.\nd: .5\ne: 0b11\nf: -0x10\ng: 9223372036854775808\nh: 1e2",
            json!({"a": 1, "b": 8, "c": 1, "d": 0.5, "e": 3, "f": -16, "g": 9223372036854775808.0, "h": 100}),
        );
    }

    #[test]
    fn keys_are_strings() {
        check(
            "1: a\nyes: b\n1.5: c\nx y: d",
            json!({"1": "a", "true": "b", "1.5": "c", "x y": "d"}),
        );
    }

    #[test]
    fn anchors_and_merge_keys() {
        check(
            "base: &b {v: 1, w: 2}\nuse:\n  <<: *b\n  w: 3\nlist: [*b]",
            json!({"base": {"v": 1, "w": 2}, "use": {"v": 1, "w": 3}, "list": [{"v": 1, "w": 2}]}),
        );
    }

    #[test]
    fn json_is_yaml_and_the_first_document_counts() {
        check(r#"{"a": [1, {"b": "c"}]}"#, json!({"a": [1, {"b": "c"}]}));
        check("{a: 1, b: [x]}", json!({"a": 1, "b": ["x"]}));
        check("# c\n---\na: 1\n---\nb: 2\n", json!({"a": 1}));
        check("a: 1\n...\nb: 2\n", json!({"a": 1}));
        check("", Value::Null);
    }

    #[test]
    fn keys_given_twice_are_told() {
        let decoded = decode(b"spec:\n  a: 1\n  b: [{x: 1, x: 2}]\n  a: 3\n", &Limits::default()).unwrap();
        assert_eq!(decoded.value, json!({"spec": {"a": 3, "b": [{"x": 2}]}}));
        assert_eq!(
            strict_error(&decoded.duplicates).as_deref(),
            Some(
                "yaml: unmarshal errors:\n  line 3: key \"x\" already set in map\n  line 4: key \"a\" already set in map"
            )
        );
        assert_eq!(strict_error(&[]), None);
    }

    /// The lines were computed with go-yaml v2's rules: that of the value, which begins where its first key or dash stands.
    #[test]
    fn keys_given_twice_are_told_by_the_line_of_the_value() {
        for (text, expect) in [
            ("a: 1\na: 2\n", vec!["line 2: key \"a\""]),
            ("a:\n  x: 1\na:\n  x: 2\n", vec!["line 4: key \"a\""]),
            ("a:\n- 1\na:\n- 2\n", vec!["line 4: key \"a\""]),
            ("a:\nb: 1\na:\nb: 2\n", vec!["line 3: key \"a\"", "line 4: key \"b\""]),
            ("yes: c\ntrue: d\n", vec!["line 2: key true"]),
            ("data:\n  1: a\n  x: b\n  1: c\n", vec!["line 4: key 1"]),
            ("11: a\n0xB: b\n", vec!["line 2: key 11"]),
            // Read as JSON, and told as YAML.
            ("{\"a\": 1,\n\"a\": 2}", vec!["line 2: key \"a\""]),
            // Two keys for go-yaml, and one in JSON.
            ("1: a\n\"1\": b\n", vec![]),
        ] {
            let decoded = decode(text.as_bytes(), &Limits::default()).unwrap();
            let expect: Vec<String> = expect
                .iter()
                .map(|start| format!("{start} already set in map"))
                .collect();
            assert_eq!(decoded.duplicates, expect, "{text}");
        }
    }

    #[test]
    fn bad_documents_are_errors() {
        for text in ["a: [", "a: b: c", "a: *nowhere", "? [1]\n: 2", "a: .inf"] {
            let error = decode(text.as_bytes(), &Limits::default()).unwrap_err();
            assert!(
                error.message.starts_with("error converting YAML to JSON: yaml: "),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn nesting_and_aliases_end_in_an_error() {
        let flow = "[".repeat(10_000);
        let block: String = (0..10_000).map(|_| "- ").collect();
        for text in [flow, block] {
            let error = decode(text.as_bytes(), &Limits::default()).unwrap_err();
            assert_eq!(error.kind, DecodeErrorKind::TooDeep, "{error}");
        }
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let uses = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
        }
        assert!(decode(bomb.as_bytes(), &Limits::default()).is_err());
        let deepest = format!("{}1{}", "[".repeat(YAML_DEPTH_MAX - 1), "]".repeat(YAML_DEPTH_MAX - 1));
        assert!(decode(deepest.as_bytes(), &Limits::default()).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}\":,&*<?!|>\n 0-9a-c-]{0,48}") {
            let _ = decode(text.as_bytes(), &Limits::default());
        }
    }
}
