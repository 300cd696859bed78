//! JSON as Go reads it.
//!
//! Our own parser instead of `serde_json`'s, for what the API promises: fields given twice are told with their path,
//! depth is limited without a panic, integers keep 64 bits and anything larger becomes a float as upstream's decoder
//! does, bytes that are no UTF-8 become U+FFFD, and the error texts are Go's (`encoding/json/scanner.go`).

mod walk;

pub use walk::Walk;

use super::{DecodeError, Decoded, Limits, STRICT_ERRORS_MAX};
use crate::{Map, Value};

/// Reads one JSON value.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    let mut parser = Parser::new(bytes, limits);
    let value = parser.value()?;
    parser.end()?;
    Ok(Decoded {
        value,
        duplicates: parser.duplicates,
    })
}

/// Reads a JSON text of our own making, which is as deep as what we take from others.
pub fn read(bytes: &[u8]) -> Result<Value, DecodeError> {
    Ok(decode(bytes, &Limits::default())?.value)
}

/// The strict errors of fields that were given twice, worded as upstream words them: `duplicate field "spec.replicas"`.
pub fn strict_errors(duplicates: &[String]) -> Vec<String> {
    let told = duplicates.iter();
    told.map(|path| format!("duplicate field {}", crate::field::quote(path)))
        .collect()
}

/// What strict validation found in a JSON text that [`decode`] has read, in the order in which upstream's decoder meets
/// it: an unknown field where it stands, a repeated one where it stands again. Upstream goes over the value of an unknown
/// field without a look (`sigs.k8s.io/json`, `saveStrictError`).
pub fn strict_errors_in_order(bytes: &[u8], limits: &Limits, duplicates: &[String], unknown: &[String]) -> Vec<String> {
    let mut parser = Parser {
        met: Some(Vec::new()),
        ..Parser::new(bytes, limits)
    };
    // Errors were told by whoever decoded the text.
    let _ = parser.value();
    let mut places = std::collections::HashMap::<String, Vec<usize>>::new();
    for (place, path) in parser.met.unwrap_or_default().into_iter().enumerate() {
        places.entry(path).or_default().push(place);
    }
    let place_of = |path: &String, nth: usize| places.get(path).and_then(|places| places.get(nth)).copied();
    let looked_into = |path: &&String| !unknown.iter().any(|unknown| is_below(path, unknown));
    let mut told: Vec<(Option<usize>, String)> = Vec::new();
    for path in unknown {
        told.push((
            place_of(path, 0),
            format!("unknown field {}", crate::field::quote(path)),
        ));
    }
    let duplicates: Vec<String> = duplicates.iter().filter(looked_into).cloned().collect();
    for (path, text) in duplicates.iter().zip(strict_errors(&duplicates)) {
        told.push((place_of(path, 1), text));
    }
    told.sort_by_key(|(place, _)| place.unwrap_or(usize::MAX));
    told.truncate(STRICT_ERRORS_MAX);
    told.into_iter().map(|(_, text)| text).collect()
}

/// Whether a path leads into what is at another one, or again to it.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What a value is, in the words of Go's decoder: `cannot unmarshal array into …`.
pub fn kind_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The value as compact JSON with sorted keys, `<`, `>` and `&` as they are.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

/// Appends what [`encode`] makes. It is what `serde_json` makes, which looks at each byte of a text by itself.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => write_text(text, out),
        Value::Object(map) => {
            out.push(b'{');
            for (index, (key, value)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_text(key, out);
                out.push(b':');
                write(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            serde_json::to_writer(out, value).expect("invariant: a tree of values always serialises");
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    if plain_len(text.as_bytes()) < text.len() {
        return serde_json::to_writer(out, text).expect("invariant: a text always serialises");
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// How many bytes from the beginning stand for themselves in a JSON string: no quotes, backslashes and control characters.
pub fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    let is_special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
    let mut at = 0;
    // Eight at a time: the high bit of the first special byte is left over (as in "Bit Twiddling Hacks", "determine if a word has
    // a byte less than n"); those behind it may be wrong, and are not asked for.
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let special = (quote | backslash | control) & HIGH_BITS;
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let special = bytes[at..].iter().position(|&byte| is_special(byte));
    special.map_or(bytes.len(), |special| at + special)
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    limits: &'a Limits,
    path: Vec<Step>,
    duplicates: Vec<String>,
    /// The paths of all fields in their order, if somebody asks.
    met: Option<Vec<String>>,
}

enum Step {
    /// A key, by the place of its text in the bytes (quotes included).
    Key(usize, usize),
    Index(usize),
}

fn invalid(byte: u8, context: &str) -> DecodeError {
    // Go looks at single bytes here and prints each as a character.
    let shown = match byte {
        b'\'' => r"\'".into(),
        b'"' => "\"".into(),
        b'\n' => "\\n".into(),
        b'\r' => "\\r".into(),
        b'\t' => "\\t".into(),
        0x07 => "\\a".into(),
        0x08 => "\\b".into(),
        0x0b => "\\v".into(),
        0x0c => "\\f".into(),
        b'\\' => "\\\\".into(),
        0..0x20 | 0x7f => format!("\\x{byte:02x}"),
        0x80..0xa0 | 0xad => format!("\\u{byte:04x}"),
        _ => char::from(byte).to_string(),
    };
    DecodeError::syntax(format!("invalid character '{shown}' {context}"))
}

fn truncated() -> DecodeError {
    DecodeError::syntax("unexpected end of JSON input")
}

impl<'a> Parser<'a> {
    fn new(bytes: &'a [u8], limits: &'a Limits) -> Parser<'a> {
        Parser {
            bytes,
            at: 0,
            depth: 0,
            limits,
            path: Vec::new(),
            duplicates: Vec::new(),
            met: None,
        }
    }

    /// Nothing but blanks may be left.
    fn end(&mut self) -> Result<(), DecodeError> {
        self.skip_blanks();
        match self.peek() {
            None => Ok(()),
            Some(byte) => Err(invalid(byte, "after top-level value")),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<Value, DecodeError> {
        self.skip_blanks();
        match self.peek().ok_or_else(truncated)? {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => Ok(Value::String(self.string()?)),
            b't' => self.word(b"true", Value::Bool(true)),
            b'f' => self.word(b"false", Value::Bool(false)),
            b'n' => self.word(b"null", Value::Null),
            b'-' | b'0'..=b'9' => self.number(),
            byte => Err(invalid(byte, "looking for beginning of value")),
        }
    }

    fn deeper(&mut self) -> Result<(), DecodeError> {
        self.depth += 1;
        if self.depth > self.limits.depth_max {
            return Err(DecodeError::too_deep());
        }
        self.at += 1;
        Ok(())
    }

    fn object(&mut self) -> Result<Value, DecodeError> {
        self.deeper()?;
        let mut map = Map::new();
        self.skip_blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            self.depth -= 1;
            return Ok(Value::Object(map));
        }
        loop {
            self.skip_blanks();
            match self.peek().ok_or_else(truncated)? {
                b'"' => {}
                byte => return Err(invalid(byte, "looking for beginning of object key string")),
            }
            let start = self.at;
            let key = self.string()?;
            self.path.push(Step::Key(start, self.at));
            if self.met.is_some() {
                let path = self.written_path();
                self.met.get_or_insert_default().push(path);
            }
            self.skip_blanks();
            match self.peek().ok_or_else(truncated)? {
                b':' => self.at += 1,
                byte => return Err(invalid(byte, "after object key")),
            }
            let value = self.value()?;
            if map.insert(key, value).is_some() {
                self.tell_duplicate();
            }
            self.path.pop();
            self.skip_blanks();
            match self.peek().ok_or_else(truncated)? {
                b',' => self.at += 1,
                b'}' => break,
                byte => return Err(invalid(byte, "after object key:value pair")),
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(Value::Object(map))
    }

    fn array(&mut self) -> Result<Value, DecodeError> {
        self.deeper()?;
        let mut items = Vec::new();
        self.skip_blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            self.depth -= 1;
            return Ok(Value::Array(items));
        }
        loop {
            self.path.push(Step::Index(items.len()));
            items.push(self.value()?);
            self.path.pop();
            self.skip_blanks();
            match self.peek().ok_or_else(truncated)? {
                b',' => self.at += 1,
                b']' => break,
                byte => return Err(invalid(byte, "after array element")),
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(Value::Array(items))
    }

    /// The way to the field at hand as upstream writes it: `spec.containers[0].image`.
    fn written_path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Key(start, end) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    let raw = &self.bytes[*start..*end];
                    path.push_str(&serde_json::from_slice::<String>(raw).unwrap_or_default());
                }
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    fn tell_duplicate(&mut self) {
        if self.duplicates.len() >= STRICT_ERRORS_MAX {
            return;
        }
        let path = self.written_path();
        if !self.duplicates.contains(&path) {
            self.duplicates.push(path);
        }
    }

    fn word(&mut self, word: &'static [u8], value: Value) -> Result<Value, DecodeError> {
        for (place, expect) in word.iter().enumerate() {
            let byte = *self.bytes.get(self.at + place).ok_or_else(truncated)?;
            if byte != *expect {
                let word = std::str::from_utf8(word).expect("invariant: the words are ASCII");
                let context = format!("in literal {word} (expecting '{}')", char::from(*expect));
                return Err(invalid(byte, &context));
            }
        }
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Result<Value, DecodeError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek().ok_or_else(truncated)? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.skip_digits(),
            byte => return Err(invalid(byte, "in numeric literal")),
        }
        let mut is_float = false;
        if self.peek() == Some(b'.') {
            is_float = true;
            self.at += 1;
            match self.peek().ok_or_else(truncated)? {
                b'0'..=b'9' => self.skip_digits(),
                byte => return Err(invalid(byte, "after decimal point in numeric literal")),
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            is_float = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            match self.peek().ok_or_else(truncated)? {
                b'0'..=b'9' => self.skip_digits(),
                byte => return Err(invalid(byte, "in exponent of numeric literal")),
            }
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).expect("invariant: digits are ASCII");
        if !is_float && let Ok(number) = text.parse::<i64>() {
            return Ok(Value::from(number));
        }
        match text.parse::<f64>() {
            Ok(float) if float.is_finite() => Ok(Value::from(float)),
            _ => Err(DecodeError::new(
                super::DecodeErrorKind::Type,
                format!("json: cannot unmarshal number {text} into Go value of type float64"),
            )),
        }
    }

    fn skip_digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    /// A string; the parser stands at its opening quote.
    fn string(&mut self) -> Result<String, DecodeError> {
        self.at += 1;
        let start = self.at;
        self.skip_plain();
        if self.peek() == Some(b'"') {
            let raw = &self.bytes[start..self.at];
            // Nearly always; the other way looks at each character.
            let text = std::str::from_utf8(raw).map(str::to_owned);
            self.at += 1;
            return Ok(text.unwrap_or_else(|_| String::from_utf8_lossy(raw).into_owned()));
        }
        let mut raw = self.bytes[start..self.at].to_vec();
        loop {
            match self.peek().ok_or_else(truncated)? {
                b'"' => {
                    self.at += 1;
                    break;
                }
                b'\\' => {
                    self.at += 1;
                    self.escape(&mut raw)?;
                }
                0..0x20 => return Err(invalid(self.bytes[self.at], "in string literal")),
                _ => {
                    let start = self.at;
                    self.skip_plain();
                    raw.extend_from_slice(&self.bytes[start..self.at]);
                }
            }
        }
        Ok(match String::from_utf8(raw) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// Steps over bytes that stand for themselves.
    fn skip_plain(&mut self) {
        self.at += plain_len(&self.bytes[self.at..]);
    }

    fn escape(&mut self, raw: &mut Vec<u8>) -> Result<(), DecodeError> {
        let byte = self.peek().ok_or_else(truncated)?;
        self.at += 1;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let character = self.unicode_escape()?;
                raw.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            byte => return Err(invalid(byte, "in string escape code")),
        };
        raw.push(plain);
        Ok(())
    }

    /// The character of an escape and, when it is half of a pair, of the one behind it. Halves alone are U+FFFD.
    fn unicode_escape(&mut self) -> Result<char, DecodeError> {
        let first = self.hex4()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        let is_high = (0xd800..0xdc00).contains(&first);
        if is_high && self.bytes[self.at..].starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, DecodeError> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self.peek().ok_or_else(truncated)?;
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Err(invalid(byte, "in \\u hexadecimal character escape"));
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{DEPTH_MAX, DecodeErrorKind};
    use serde_json::json;

    fn check(text: &str, expect: Result<Value, &str>) {
        let got = decode(text.as_bytes(), &Limits::default());
        let got = got
            .as_ref()
            .map(|decoded| &decoded.value)
            .map_err(|error| &*error.message);
        assert_eq!(got, expect.as_ref().map_err(|error| *error), "{text}");
    }

    #[test]
    fn trees_are_written_as_serde_json_writes_them() {
        let long = "an ordinary text of more than thirty-two bytes, ";
        for value in [
            json!(null),
            json!([true, false, -1, 0, u64::MAX, i64::MIN, 1.5, -0.0, 1e300, 1e-7]),
            json!({}),
            json!([]),
            json!({"": "", "b": [{}, []], "a\"": "\\", "\u{1}": "\n\r\t\u{8}\u{c}\u{1f}\u{7f}", "ü": "<&>\u{2028}😀"}),
            json!({long: [long, format!("{long}\""), format!("{long}ü{long}\u{0}{long}")]}),
        ] {
            assert_eq!(encode(&value), serde_json::to_vec(&value).unwrap(), "{value}");
        }
    }

    #[test]
    fn what_stands_for_itself_is_measured() {
        for length in 0..100 {
            let text = "x".repeat(length);
            assert_eq!(plain_len(text.as_bytes()), length);
            for special in ["\"", "\\", "\u{0}", "\u{1f}"] {
                let all = format!("{text}{special}{}", "é".repeat(40));
                assert_eq!(plain_len(all.as_bytes()), length, "{special:?}");
            }
        }
    }

    #[test]
    fn values() {
        check("{}", Ok(json!({})));
        check(
            " [1, -2, 0.5, 1e2, true, false, null, \"a\"] ",
            Ok(json!([1, -2, 0.5, 100.0, true, false, null, "a"])),
        );
        check("-0", Ok(json!(0)));
        check("9223372036854775807", Ok(json!(i64::MAX)));
        check("9223372036854775808", Ok(json!(9223372036854775808.0)));
        check(r#""\u00e9\ud83d\ude00\ud800x\n\/""#, Ok(json!("é😀\u{fffd}x\n/")));
    }

    #[test]
    fn errors_are_go_s() {
        check("", Err("unexpected end of JSON input"));
        check("{", Err("unexpected end of JSON input"));
        check(
            "{\"a\":1,}",
            Err("invalid character '}' looking for beginning of object key string"),
        );
        check(
            "{a:1}",
            Err("invalid character 'a' looking for beginning of object key string"),
        );
        check("{\"a\" 1}", Err("invalid character '1' after object key"));
        check(
            "{\"a\":1 \"b\"}",
            Err("invalid character '\"' after object key:value pair"),
        );
        check("[1 2]", Err("invalid character '2' after array element"));
        check("[1,]", Err("invalid character ']' looking for beginning of value"));
        check("{} x", Err("invalid character 'x' after top-level value"));
        check("trux", Err("invalid character 'x' in literal true (expecting 'e')"));
        check("-a", Err("invalid character 'a' in numeric literal"));
        check(
            "1.x",
            Err("invalid character 'x' after decimal point in numeric literal"),
        );
        check("1ex", Err("invalid character 'x' in exponent of numeric literal"));
        check("\"\n\"", Err("invalid character '\\n' in string literal"));
        check("\"\\x\"", Err("invalid character 'x' in string escape code"));
        check(
            "\"\\u12g4\"",
            Err("invalid character 'g' in \\u hexadecimal character escape"),
        );
        check("kind: Pod", Err("invalid character 'k' looking for beginning of value"));
        check(
            "1e999",
            Err("json: cannot unmarshal number 1e999 into Go value of type float64"),
        );
    }

    #[test]
    fn bytes_that_are_no_utf8_are_replaced() {
        let decoded = decode(b"\"a\xff\"", &Limits::default()).unwrap();
        assert_eq!(decoded.value, json!("a\u{fffd}"));
    }

    #[test]
    fn fields_given_twice_are_told_once_each() {
        let text = r#"{"spec":{"a":1,"a":2,"c":[{"x":1,"x":1}],"a":3},"spec":{"b":1}}"#;
        let decoded = decode(text.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(decoded.value, json!({"spec": {"b": 1}}));
        assert_eq!(
            strict_errors(&decoded.duplicates),
            [
                r#"duplicate field "spec.a""#,
                r#"duplicate field "spec.c[0].x""#,
                r#"duplicate field "spec""#
            ]
        );
    }

    #[test]
    fn strict_errors_come_in_the_order_of_the_text() {
        fn check(text: &str, unknown: &[&str], expect: &[&str]) {
            let decoded = decode(text.as_bytes(), &Limits::default()).unwrap();
            let unknown: Vec<String> = unknown.iter().map(|path| (*path).to_owned()).collect();
            let told = strict_errors_in_order(text.as_bytes(), &Limits::default(), &decoded.duplicates, &unknown);
            assert_eq!(told, expect, "{text}");
        }
        let (unknown, twice) = (r#"unknown field "spec.u""#, r#"duplicate field "spec.a""#);
        check(r#"{"spec":{"u":1,"a":2,"a":3}}"#, &["spec.u"], &[unknown, twice]);
        check(r#"{"spec":{"a":2,"a":3,"u":1}}"#, &["spec.u"], &[twice, unknown]);
        check(r#"{"spec":{"a":2,"u":1,"a":3}}"#, &["spec.u"], &[unknown, twice]);
        check(
            r#"{"z":1,"b":{"y":1}}"#,
            &["b.y", "z"],
            &[r#"unknown field "z""#, r#"unknown field "b.y""#],
        );
        // What is unknown is not looked into; a neighbour with a longer name is.
        check(
            r#"{"u":{"a":1,"a":2},"u":3,"up":1,"up":2}"#,
            &["u"],
            &[r#"unknown field "u""#, r#"duplicate field "up""#],
        );
    }

    #[test]
    fn nesting_ends_in_an_error() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for (depth, ok) in [
                (DEPTH_MAX, true),
                (DEPTH_MAX + 1, false),
                (10_000, false),
                (1_000_000, false),
            ] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                let got = decode(text.as_bytes(), &Limits::default());
                assert_eq!(got.is_ok(), ok, "{depth}");
                if let Err(error) = got {
                    assert_eq!(error.kind, DecodeErrorKind::TooDeep);
                    assert_eq!(error.message, "exceeded max depth");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = decode(&bytes, &Limits::default());
        }

        #[test]
        fn what_serde_reads_is_read_alike(text in "[\\[\\]{}\":, 0-9a-c\\\\.-]{0,24}") {
            let ours = decode(text.as_bytes(), &Limits::default());
            let theirs = serde_json::from_str::<Value>(&text);
            assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}: {ours:?} {theirs:?}");
        }
    }
}
