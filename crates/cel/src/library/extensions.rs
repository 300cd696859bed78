//! cel-go's extension of texts that came with version 2: `strings.quote`.

use super::Native::Plain;
use super::strings::text;
use super::{Line, Outcome};
use crate::value::Value;

#[rustfmt::skip]
pub(super) const STRINGS_2: &[Line] = &[
    ("strings_quote", "strings.quote(string) -> string", Plain(quote)),
];

fn quote<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let mut quoted = String::from("\"");
    for one in text(&arguments[0])?.chars() {
        match one {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(quoted.into())
}
