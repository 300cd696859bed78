//! Paths into custom resources: what printed columns, selectable fields and the scale subresource name.
//!
//! Columns take Kubernetes' JSONPath with its brackets and filters; of what a path finds, the first value counts.
//! Source: `k8s.io/client-go/util/jsonpath`.

use api::Value;

/// How many steps a path has at most; longer ones lead nowhere in an object.
const STEPS_MAX: usize = 128;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// From the end when negative.
    Index(i64),
    /// From, to (not included).
    Slice(Option<i64>, Option<i64>),
    All,
    /// Everything below, and the value itself.
    Deep,
    /// The elements for which a comparison holds.
    Filter(JsonPath, Comparison, Value),
    /// The elements in which a path finds something.
    Has(JsonPath),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl JsonPath {
    /// Parses a path; `None` when it is none.
    pub fn parse(text: &str) -> Option<JsonPath> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        rest = rest.strip_prefix('$').unwrap_or(rest);
        while !rest.is_empty() {
            if steps.len() >= STEPS_MAX {
                return None;
            }
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Deep);
                rest = after;
                if !rest.starts_with('[') {
                    rest = field(rest, &mut steps)?;
                }
            } else if let Some(after) = rest.strip_prefix('.') {
                if after.is_empty() || after.starts_with('[') {
                    rest = after;
                    continue;
                }
                rest = field(after, &mut steps)?;
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after)?;
                steps.push(bracket(after[..end].trim())?);
                rest = &after[end + 1..];
            } else {
                rest = field(rest, &mut steps)?;
            }
        }
        Some(JsonPath(steps))
    }

    /// A path in dot notation, every name as it is.
    pub fn simple(text: &str) -> JsonPath {
        let names = text.strip_prefix('.').unwrap_or(text).split('.');
        JsonPath(names.map(|name| Step::Field(name.to_owned())).collect())
    }

    /// The first value that the path finds.
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.all(value).into_iter().next()
    }

    fn all<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.from(value)).collect();
        }
        found
    }
}

impl Step {
    fn from<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let elements = value.as_array().map_or(&[] as &[Value], Vec::as_slice);
        let place = |index: i64| match usize::try_from(index) {
            Ok(index) => index,
            Err(_) => elements.len().saturating_sub(index.unsigned_abs() as usize),
        };
        match self {
            Step::Field(name) => value.get(name.as_str()).into_iter().collect(),
            Step::Index(index) => elements.get(place(*index)).into_iter().collect(),
            Step::Slice(from, to) => {
                let to = to.map_or(elements.len(), place).min(elements.len());
                let from = from.map_or(0, place).min(to);
                elements[from..to].iter().collect()
            }
            Step::All => match value {
                Value::Object(map) => map.values().collect(),
                _ => elements.iter().collect(),
            },
            Step::Deep => {
                let mut found = vec![value];
                below(value, &mut found);
                found
            }
            Step::Filter(path, comparison, wanted) => {
                let holds = |element: &&Value| path.first(element).is_some_and(|found| comparison.holds(found, wanted));
                elements.iter().filter(holds).collect()
            }
            Step::Has(path) => elements
                .iter()
                .filter(|element| path.first(element).is_some())
                .collect(),
        }
    }
}

fn below<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
    let children: Vec<&Value> = match value {
        Value::Object(map) => map.values().collect(),
        Value::Array(list) => list.iter().collect(),
        _ => return,
    };
    for child in children {
        found.push(child);
        below(child, found);
    }
}

impl Comparison {
    fn holds(self, one: &Value, other: &Value) -> bool {
        let order = match (one, other) {
            (Value::Number(one), Value::Number(other)) => one.as_f64().partial_cmp(&other.as_f64()),
            (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
            (one, other) => {
                return match self {
                    Comparison::Equal => one == other,
                    Comparison::NotEqual => one != other,
                    _ => false,
                };
            }
        };
        order.is_some_and(|order| match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::AtMost => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::AtLeast => order.is_ge(),
        })
    }
}

/// A name up to the next dot or bracket; a backslash takes the next character as it is.
fn field<'t>(text: &'t str, steps: &mut Vec<Step>) -> Option<&'t str> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    let mut end = text.len();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.push(characters.next()?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            ']' | '{' | '}' => return None,
            character => name.push(character),
        }
    }
    match &*name {
        "" => return None,
        "*" => steps.push(Step::All),
        _ => steps.push(Step::Field(name)),
    }
    Some(&text[end..])
}

/// Where the bracket closes that was just opened, texts and inner brackets aside.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), character) if character == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        return self::filter(filter);
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Field(name));
    }
    if let Some((from, to)) = text.split_once(':') {
        let bound = |text: &str| match text.trim() {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        };
        return Some(Step::Slice(bound(from)?, bound(to)?));
    }
    text.parse().ok().map(Step::Index)
}

fn quoted(text: &str) -> Option<String> {
    let open = text.chars().next().filter(|open| matches!(open, '\'' | '"'))?;
    let inner = text.strip_prefix(open)?.strip_suffix(open)?;
    Some(inner.to_owned())
}

fn filter(text: &str) -> Option<Step> {
    let outside = |wanted: &str| {
        let mut quote = None;
        text.char_indices().find_map(|(at, character)| {
            match (quote, character) {
                (Some(open), character) if character == open => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(character),
                (None, _) if text[at..].starts_with(wanted) => return Some(at),
                _ => {}
            }
            None
        })
    };
    let path = |text: &str| JsonPath::parse(text.trim().strip_prefix('@')?);
    let found = COMPARISONS
        .iter()
        .find_map(|(words, comparison)| Some((outside(words)?, *words, *comparison)));
    let Some((at, words, comparison)) = found else {
        return path(text).map(Step::Has);
    };
    let wanted = text[at + words.len()..].trim();
    let wanted = match quoted(wanted) {
        Some(text) => Value::String(text),
        None => serde_json::from_str(wanted).ok()?,
    };
    Some(Step::Filter(path(&text[..at])?, comparison, wanted))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_the_first_value() {
        let object = json!({"spec": {"n": 3, "a.b": "dotted", "list": [{"t": "x", "v": 1}, {"t": "y", "v": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Done", "status": "False"}]}});
        for (path, expect) in [
            (".spec.n", Some(json!(3))),
            ("spec.n", Some(json!(3))),
            (".spec.a\\.b", Some(json!("dotted"))),
            (".spec['a.b']", Some(json!("dotted"))),
            (".spec.list[1].v", Some(json!(2))),
            (".spec.list[-1].v", Some(json!(2))),
            (".spec.list[*].t", Some(json!("x"))),
            (".spec.list[1:].t", Some(json!("y"))),
            (".status.conditions[?(@.type==\"Done\")].status", Some(json!("False"))),
            (".status.conditions[?(@.type == 'Ready')].status", Some(json!("True"))),
            (".spec.list[?(@.v>1)].t", Some(json!("y"))),
            (".spec.absent", None),
            (".spec.list[7]", None),
            ("..status.status", None),
        ] {
            let parsed = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(parsed.first(&object).cloned(), expect, "{path}");
        }
        for bad in [".spec.list[", ".spec[?(@.x==)]", ".a]"] {
            assert_eq!(JsonPath::parse(bad), None, "{bad}");
        }
    }
}
