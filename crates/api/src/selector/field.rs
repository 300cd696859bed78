//! Field selectors: `metadata.name=x,status.phase!=Running`.
//!
//! Source: `k8s.io/apimachinery/pkg/fields/selector.go`.

use std::fmt;

use super::SelectorError;

/// One term: a field is, or is not, this text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field's path.
    pub field: String,
    /// Whether it must be equal, or must differ.
    pub equal: bool,
    /// The text, without escapes.
    pub value: String,
}

/// A conjunction of terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Selects every object.
    pub fn everything() -> FieldSelector {
        FieldSelector::default()
    }

    /// One term of equality.
    pub fn equal(field: &str, value: &str) -> FieldSelector {
        FieldSelector {
            terms: vec![FieldTerm {
                field: field.into(),
                equal: true,
                value: value.into(),
            }],
        }
    }

    /// Reads the text form. Terms are sorted by their text, as upstream's are.
    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let Some((field, equal, value)) = split_term(part) else {
                let message = format!("invalid selector: '{text}'; can't understand '{part}'");
                return Err(SelectorError(message));
            };
            terms.push(FieldTerm {
                field: field.into(),
                equal,
                value: unescape(value)?,
            });
        }
        Ok(FieldSelector { terms })
    }

    /// The terms.
    pub fn requirements(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The one value that the field must have.
    pub fn exact_value(&self, field: &str) -> Option<&str> {
        let term = self.terms.iter().find(|term| term.equal && term.field == field)?;
        Some(&term.value)
    }

    /// Whether an object with these fields is selected; a field that is not there is the empty text.
    pub fn matches<'a>(&self, fields: impl Fn(&str) -> Option<&'a str>) -> bool {
        let value = |term: &FieldTerm| fields(&term.field).unwrap_or_default() == term.value;
        self.terms.iter().all(|term| value(term) == term.equal)
    }

    /// Checks each term, such as whether its field is one that the kind can be selected by; hands on the first error.
    pub fn check<E>(&self, mut check: impl FnMut(&FieldTerm) -> Result<(), E>) -> Result<(), E> {
        self.terms.iter().try_for_each(&mut check)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

/// Puts a backslash before `\`, `,` and `=`.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let invalid = |what: String| SelectorError(format!("invalid field selector: {what}"));
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(invalid(format!("invalid escape sequence: \\{c}"))),
                None => return Err(invalid("invalid escape sequence: \\".into())),
            },
            // Upstream prints the character's number.
            ',' | '=' => return Err(invalid(format!("unescaped character in value: {}", c as u32))),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Splits at commas that have no backslash before them.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// The field, whether it must be equal, and the text after the first operator.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (index, _) in term.char_indices() {
        let rest = &term[index..];
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..index], equal, value));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        for (text, expect) in [
            ("", ""),
            (",", ""),
            ("x=a,y=b,z=c", "x=a,y=b,z=c"),
            ("z=1,a!=2", "a!=2,z=1"),
            ("x==a", "x=a"),
            ("x=", "x="),
            ("x=a\\,b\\=c\\\\", "x=a\\,b\\=c\\\\"),
            ("metadata.name=föö", "metadata.name=föö"),
            ("=a", "=a"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap().to_string(), expect, "{text}");
        }
    }

    #[test]
    fn bad_texts_are_refused_in_upstreams_words() {
        for (text, expect) in [
            ("x", "invalid selector: 'x'; can't understand 'x'"),
            ("x=a||y=b", "invalid field selector: unescaped character in value: 61"),
            ("x==a==b", "invalid field selector: unescaped character in value: 61"),
            ("x=\\n", "invalid field selector: invalid escape sequence: \\n"),
            ("x=\\", "invalid field selector: invalid escape sequence: \\"),
            ("x=a,b", "invalid selector: 'x=a,b'; can't understand 'b'"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), expect, "{text}");
        }
    }

    #[test]
    fn fields_match() {
        let fields = |name: &str| match name {
            "x" => Some("a"),
            "y" => Some(""),
            _ => None,
        };
        for (text, expect) in [
            ("", true),
            ("x=a", true),
            ("x!=a", false),
            ("x=a,y=", true),
            ("absent=", true),
            ("absent!=b", true),
            ("x=b", false),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(fields), expect, "{text}");
        }
        let selector = FieldSelector::parse("x!=a,x=b").unwrap();
        assert_eq!(selector.exact_value("x"), Some("b"));
        assert_eq!(selector.exact_value("y"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_prints_and_reads_the_same(text in "[a,=!\\\\é]{0,20}") {
            let sorted = |selector: FieldSelector| {
                let mut terms = selector.terms;
                terms.sort_by(|a, b| (&a.field, a.equal, &a.value).cmp(&(&b.field, b.equal, &b.value)));
                terms
            };
            if let Ok(selector) = FieldSelector::parse(&text) {
                let again = FieldSelector::parse(&selector.to_string());
                proptest::prop_assert_eq!(again.map(sorted), Ok(sorted(selector)));
            }
        }
    }
}
