//! Label and field selectors as far as tests need them.

use api::Value;

/// Which objects a request means.
#[derive(Clone, Default)]
pub(super) struct Selecting {
    labels: Vec<Term>,
    fields: Vec<Term>,
    namespace: String,
}

#[derive(Clone)]
enum Term {
    Equal(String, String),
    NotEqual(String, String),
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
}

impl Selecting {
    pub(super) fn new(namespace: &str, labels: &str, fields: &str) -> Selecting {
        Selecting {
            labels: terms(labels),
            fields: terms(fields),
            namespace: namespace.into(),
        }
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        (self.namespace.is_empty() || api::meta::namespace(object) == self.namespace)
            && self
                .labels
                .iter()
                .all(|term| term.holds(|key| api::meta::label(object, key).map(String::from)))
            && self
                .fields
                .iter()
                .all(|term| term.holds(|path| Some(field(object, path))))
    }
}

impl Term {
    fn holds(&self, value: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Term::Equal(key, want) => value(key).as_ref() == Some(want),
            Term::NotEqual(key, want) => value(key).as_ref() != Some(want),
            Term::Exists(key) => value(key).is_some(),
            Term::Absent(key) => value(key).is_none(),
            Term::In(key, wanted) => value(key).is_some_and(|value| wanted.contains(&value)),
        }
    }
}

/// The value of a dotted path; empty when it is not there.
fn field(object: &Value, path: &str) -> String {
    match path.split('.').try_fold(object, |value, part| value.get(part)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn terms(selector: &str) -> Vec<Term> {
    let mut terms = Vec::new();
    let mut rest = selector.trim();
    while !rest.is_empty() {
        // A comma within parentheses does not end a term.
        let mut depth = 0;
        let end = rest.find(|letter| {
            match letter {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            letter == ',' && depth == 0
        });
        let (term, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after.trim_start_matches(',').trim();
        let term = term.trim();
        let pair = |separator: &str| {
            term.split_once(separator)
                .map(|(key, value)| (key.trim().to_string(), value.trim().to_string()))
        };
        if let Some((key, values)) = pair(" in ") {
            let values = values
                .trim_matches(['(', ')'])
                .split(',')
                .map(|value| value.trim().to_string());
            terms.push(Term::In(key, values.collect()));
        } else if let Some((key, value)) = pair("!=") {
            terms.push(Term::NotEqual(key, value));
        } else if let Some((key, value)) = pair("==").or_else(|| pair("=")) {
            terms.push(Term::Equal(key, value));
        } else if let Some(key) = term.strip_prefix('!') {
            terms.push(Term::Absent(key.trim().into()));
        } else {
            terms.push(Term::Exists(term.into()));
        }
    }
    terms
}
