//! Texts: the standard functions and cel-go's extension of version 0. Indices count characters.
//! Sources: cel-go's `common/types/string.go` and `ext/strings.go`.

use super::Native::Plain;
use super::standard::list;
use super::{Line, Outcome, no_overload};
use crate::program::Error;
use crate::value::{Text, Value};

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("contains_string", "string::contains(string) -> bool", Plain(contains)),
    ("ends_with_string", "string::endsWith(string) -> bool", Plain(ends_with)),
    ("starts_with_string", "string::startsWith(string) -> bool", Plain(starts_with)),
    ("string_char_at_int", "string::charAt(int) -> string", Plain(char_at)),
    ("string_index_of_string", "string::indexOf(string) -> int", Plain(index_of)),
    ("string_index_of_string_int", "string::indexOf(string, int) -> int", Plain(index_of)),
    ("string_last_index_of_string", "string::lastIndexOf(string) -> int", Plain(last_index_of)),
    ("string_last_index_of_string_int", "string::lastIndexOf(string, int) -> int", Plain(last_index_of)),
    ("string_lower_ascii", "string::lowerAscii() -> string", Plain(lower_ascii)),
    ("string_upper_ascii", "string::upperAscii() -> string", Plain(upper_ascii)),
    ("string_replace_string_string", "string::replace(string, string) -> string", Plain(replace)),
    ("string_replace_string_string_int", "string::replace(string, string, int) -> string", Plain(replace)),
    ("string_split_string", "string::split(string) -> list(string)", Plain(split)),
    ("string_split_string_int", "string::split(string, int) -> list(string)", Plain(split)),
    ("string_substring_int", "string::substring(int) -> string", Plain(substring)),
    ("string_substring_int_int", "string::substring(int, int) -> string", Plain(substring)),
    ("string_trim", "string::trim() -> string", Plain(trim)),
    ("list_join", "list(string)::join() -> string", Plain(join)),
    ("list_join_string", "list(string)::join(string) -> string", Plain(join)),
];

pub(super) fn text<'v>(value: &'v Value<'_>) -> Result<&'v str, Error> {
    value.as_str().ok_or_else(no_overload)
}

pub(super) fn int(value: &Value<'_>) -> Result<i64, Error> {
    match value {
        Value::Int(value) => Ok(*value),
        _ => Err(no_overload()),
    }
}

fn out_of_range(index: i64) -> Error {
    Error::evaluation(format!("index out of range: {index}"))
}

/// A part of a text that stays where the text is, when it is borrowed.
fn part<'a>(whole: &Value<'a>, from: usize, to: usize) -> Outcome<'a> {
    match whole {
        Value::String(Text::Borrowed(text)) => Ok(Value::String(Text::Borrowed(&text[from..to]))),
        _ => Ok(text(whole)?[from..to].to_owned().into()),
    }
}

/// Where the `index`-th character begins; the end for the one after the last.
fn byte_at(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    let mut starts = text.char_indices().map(|(at, _)| at).chain(std::iter::once(text.len()));
    starts.nth(index)
}

fn characters(text: &str) -> i64 {
    i64::try_from(text.chars().count()).unwrap_or(i64::MAX)
}

fn contains<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(text(&arguments[0])?.contains(text(&arguments[1])?)))
}

fn ends_with<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(text(&arguments[0])?.ends_with(text(&arguments[1])?)))
}

fn starts_with<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(text(&arguments[0])?.starts_with(text(&arguments[1])?)))
}

fn char_at<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (whole, index) = (text(&arguments[0])?, int(&arguments[1])?);
    let from = byte_at(whole, index).ok_or_else(|| out_of_range(index))?;
    let length = whole[from..].chars().next().map_or(0, char::len_utf8);
    part(&arguments[0], from, from + length)
}

/// Where a search begins: an offset in characters that is not negative.
fn offset(argument: Option<&Value<'_>>) -> Result<Option<i64>, Error> {
    match argument.map(int).transpose()? {
        Some(offset) if offset < 0 => Err(out_of_range(offset)),
        offset => Ok(offset),
    }
}

fn index_of<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (whole, wanted) = (text(&arguments[0])?, text(&arguments[1])?);
    let offset = offset(arguments.get(2))?.unwrap_or(0);
    if wanted.is_empty() {
        return Ok(Value::Int(offset.min(characters(whole))));
    }
    // Past the end there is nothing to find.
    let Some(from) = byte_at(whole, offset) else {
        return Ok(Value::Int(-1));
    };
    let found = whole[from..].find(wanted);
    Ok(Value::Int(
        found.map_or(-1, |at| offset + characters(&whole[from..from + at])),
    ))
}

fn last_index_of<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (whole, wanted) = (text(&arguments[0])?, text(&arguments[1])?);
    let offset = offset(arguments.get(2))?;
    if wanted.is_empty() {
        let length = characters(whole);
        return Ok(Value::Int(offset.map_or(length, |offset| offset.min(length))));
    }
    let end = match offset {
        None => whole.len(),
        Some(offset) => match byte_at(whole, offset) {
            // A match may begin at the offset at the latest; past the end, upstream finds none.
            Some(from) if from < whole.len() => {
                let mut end = from.saturating_add(wanted.len()).min(whole.len());
                while !whole.is_char_boundary(end) {
                    end -= 1;
                }
                end
            }
            _ => return Ok(Value::Int(-1)),
        },
    };
    let found = whole[..end].rfind(wanted);
    Ok(Value::Int(found.map_or(-1, |at| characters(&whole[..at]))))
}

fn lower_ascii<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(text(&arguments[0])?.to_ascii_lowercase().into())
}

fn upper_ascii<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(text(&arguments[0])?.to_ascii_uppercase().into())
}

/// The longest text that `replace` and `join` may make: cost is counted after a call, so the call itself has a bound.
/// Objects are at most 3 MiB; a result 16 times as long serves no rule.
const MADE_BYTES_MAX: usize = 48 * 1024 * 1024;

/// A text that would be longer than any may be.
pub(super) fn within_limit(length: usize) -> Result<(), Error> {
    if length > MADE_BYTES_MAX {
        Err(Error::too_expensive())
    } else {
        Ok(())
    }
}

fn replace<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (whole, old, new) = (text(&arguments[0])?, text(&arguments[1])?, text(&arguments[2])?);
    let most = match arguments.get(3).map(int).transpose()? {
        None => usize::MAX,
        Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
    };
    let count = whole.matches(old).count().min(most);
    within_limit(whole.len().saturating_add(count.saturating_mul(new.len())))?;
    Ok(whole.replacen(old, new, most).into())
}

fn split<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (whole, separator) = (text(&arguments[0])?, text(&arguments[1])?);
    let most = match arguments.get(2).map(int).transpose()? {
        None => usize::MAX,
        Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
    };
    if most == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let start = whole.as_ptr() as usize;
    let piece = |piece: &str| {
        let from = piece.as_ptr() as usize - start;
        part(&arguments[0], from, from + piece.len())
    };
    let pieces: Result<Vec<_>, Error> = if separator.is_empty() {
        // Characters, and in the last piece the rest.
        let mut starts: Vec<usize> = whole.char_indices().map(|(at, _)| at).take(most).collect();
        starts.push(whole.len());
        starts
            .windows(2)
            .map(|ends| part(&arguments[0], ends[0], ends[1]))
            .collect()
    } else {
        whole.splitn(most, separator).map(piece).collect()
    };
    pieces.map(Value::list)
}

fn substring<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (whole, start) = (text(&arguments[0])?, int(&arguments[1])?);
    let from = byte_at(whole, start);
    let Some(end) = arguments.get(2).map(int).transpose()? else {
        return part(&arguments[0], from.ok_or_else(|| out_of_range(start))?, whole.len());
    };
    if start > end {
        return Err(Error::evaluation(format!(
            "invalid substring range. start: {start}, end: {end}"
        )));
    }
    let from = from.ok_or_else(|| out_of_range(start))?;
    part(
        &arguments[0],
        from,
        byte_at(whole, end).ok_or_else(|| out_of_range(end))?,
    )
}

fn trim<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let whole = text(&arguments[0])?;
    let trimmed = whole.trim();
    let from = whole.len() - whole.trim_start().len();
    part(&arguments[0], from, from + trimmed.len())
}

fn join<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let separator = arguments.get(1).map_or(Ok(""), text)?;
    let mut joined = String::new();
    for (index, value) in list(&arguments[0])?.iter().enumerate() {
        let invalid = || Error::evaluation(format!("join: invalid input: {value}"));
        let value = value.as_str().ok_or_else(invalid)?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(value);
        within_limit(joined.len())?;
    }
    Ok(joined.into())
}

pub(super) fn quote<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
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
