//! Paths of fields as a CustomResourceDefinition writes them (`.spec.replicas`, `.spec.labels['a']`), checked against its
//! schema.
//!
//! Source: `ValidFieldPath` of `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`.

use api::Value;

/// A path that leads somewhere.
pub struct FieldPath<'s> {
    /// As errors write it: `spec.labels[a]`.
    pub text: String,
    /// Its first name.
    pub root: String,
    /// The schema of what it leads to.
    pub schema: &'s Value,
}

/// Follows a path through a schema.
///
/// # Errors
/// It is malformed, or leads nowhere.
pub fn normalized<'s>(path: &str, schema: &'s Value, brackets: bool) -> Result<FieldPath<'s>, String> {
    let mut found = FieldPath {
        text: String::new(),
        root: String::new(),
        schema,
    };
    let tokens = tokens(path)?;
    let mut tokens = tokens.iter().map(String::as_str);
    let end = || "unexpected end of JSON path".to_owned();
    while let Some(token) = tokens.next() {
        match token {
            "[" if !brackets => return Err("array notation is not allowed".into()),
            "[" => {
                let name = tokens.next().ok_or_else(end)?;
                let inner = name.strip_prefix('\'').and_then(|name| name.strip_suffix('\''));
                let inner = inner.ok_or_else(|| format!("expected single quoted string but got {name}"))?;
                found.step(&unescaped(inner)?)?;
                match tokens.next().ok_or_else(end)? {
                    "]" => {}
                    other => return Err(format!("expected ] but got {other}")),
                }
            }
            "." => {
                let name = tokens.next().ok_or_else(end)?;
                found.step(name)?;
            }
            other => return Err(format!("expected [ or . but got: {other}")),
        }
    }
    Ok(found)
}

impl FieldPath<'_> {
    fn step(&mut self, name: &str) -> Result<(), String> {
        let nowhere = || "does not refer to a valid field".to_owned();
        if self.root.is_empty() {
            self.root = name.to_owned();
        }
        let properties = self
            .schema
            .get("properties")
            .filter(|properties| properties.is_object());
        if let Some(properties) = properties {
            self.schema = properties.get(name).ok_or_else(nowhere)?;
            if !self.text.is_empty() {
                self.text.push('.');
            }
            self.text.push_str(name);
            return Ok(());
        }
        let values = self
            .schema
            .get("additionalProperties")
            .filter(|values| values.is_object());
        self.schema = values.ok_or_else(nowhere)?;
        self.text.push_str(&format!("[{name}]"));
        Ok(())
    }
}

/// Dots, brackets, and what stands between them; a quoted text is one.
fn tokens(path: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '.' | '[' | ']' => 1,
            '\'' => match closing_quote(rest) {
                Some(end) => end,
                None => rest.len(),
            },
            _ => rest.find(['.', '[', ']']).unwrap_or(rest.len()),
        };
        tokens.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
    Ok(tokens)
}

fn closing_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (1..bytes.len())
        .find(|at| bytes[*at] == b'\'' && bytes[at - 1] != b'\\')
        .map(|at| at + 1)
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        out.push(match characters.next() {
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some('\'') => '\'',
            Some('\\') => '\\',
            Some(other) => return Err(format!("invalid string literal: invalid escape char \\{other}")),
            None => '\\',
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_checked_against_the_schema() {
        let schema = json!({"properties": {"spec": {"properties": {"a": {"type": "string"},
            "m": {"additionalProperties": {"type": "integer"}}}}}});
        for (path, brackets, expect) in [
            (".spec.a", false, Ok("spec.a")),
            (".spec.m['x.y']", true, Ok("spec.m[x.y]")),
            ("['spec']['a']", true, Ok("spec.a")),
            (".spec.m['x']", false, Err("array notation is not allowed")),
            (".spec.b", true, Err("does not refer to a valid field")),
            ("spec.a", true, Err("expected [ or . but got: spec")),
            (".spec.", true, Err("unexpected end of JSON path")),
            (".spec[0]", true, Err("expected single quoted string but got 0")),
        ] {
            let found = normalized(path, &schema, brackets).map(|found| found.text);
            assert_eq!(found, expect.map(str::to_owned).map_err(str::to_owned), "{path}");
        }
    }
}
