//! Label selectors.
//!
//! Source: `k8s.io/apimachinery/pkg/labels/selector.go` (text form) and `apis/meta/v1/helpers.go` (object form).

use std::fmt;

use super::SelectorError;
use super::lexer::{Token, scan};
use crate::field::{self, Path};
use crate::{Value, validation};

/// How a requirement relates a label to its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    GreaterThan,
    LessThan,
    Exists,
    DoesNotExist,
}

/// Upstream's list of binary operators in its error texts.
const BINARY_OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

/// A conjunction of requirements, or nothing at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Sorted by key.
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    /// Selects no object.
    pub fn nothing() -> LabelSelector {
        LabelSelector {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// Reads the text form of query parameters and `kubectl -l`: `app=web,tier in (a,b),!old`.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Parser::new(text).parse()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector {
            requirements,
            nothing: false,
        })
    }

    /// Reads the object form (`matchLabels`, `matchExpressions`). Absent selects nothing, empty selects everything.
    pub fn from_object(selector: &Value) -> Result<LabelSelector, SelectorError> {
        if selector.is_null() {
            return Ok(LabelSelector::nothing());
        }
        let mut requirements = Vec::new();
        let labels = selector.get("matchLabels").and_then(Value::as_object);
        for (key, value) in labels.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_string();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            requirements.push(expression_requirement(expression)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector {
            requirements,
            nothing: false,
        })
    }

    /// Exactly these labels, as the selectors of Services and ReplicationControllers; they are not validated.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSelector {
        let mut requirements: Vec<Requirement> = labels
            .into_iter()
            .map(|(key, value)| Requirement {
                key: key.into(),
                operator: Operator::Equals,
                values: vec![value.into()],
            })
            .collect();
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector {
            requirements,
            nothing: false,
        }
    }

    /// Adds a requirement.
    pub fn add(&mut self, requirement: Requirement) {
        self.requirements.push(requirement);
        self.requirements.sort_by(|a, b| a.key.cmp(&b.key));
    }

    /// Whether an object with these labels is selected; `labels` looks one up.
    pub fn matches<'a>(&self, labels: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels(&r.key)))
    }

    /// Whether an object tree is selected by its `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(|key| crate::meta::label(object, key))
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether it was made to select nothing.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The one value that the label must have, if the first requirement on it says so.
    pub fn exact_value(&self, key: &str) -> Option<&str> {
        let first = self.requirements.iter().find(|r| r.key == key)?;
        match (first.operator, &first.values[..]) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl Requirement {
    /// A checked requirement; the error is upstream's aggregate.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Requirement, SelectorError> {
        use Operator::*;
        let mut errors = Vec::new();
        let path = Path::new("values");
        if let Some(error) = label_key_error(key, &Path::new("key")) {
            errors.push(error);
        }
        let count = match operator {
            In | NotIn if values.is_empty() => Some("for 'in', 'notin' operators, values set can't be empty"),
            Equals | DoubleEquals | NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Exists | DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            GreaterThan | LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(detail) = count {
            errors.push(field::Error::invalid(&path, values.clone(), detail));
        }
        for (index, value) in values.iter().enumerate() {
            if matches!(operator, GreaterThan | LessThan) && value.parse::<i64>().is_err() {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(field::Error::invalid(&path.index(index), &**value, detail));
            }
        }
        for (index, value) in values.iter().enumerate() {
            let broken = validation::label_value(value);
            if !broken.is_empty() {
                let path = path.index(index).key(key);
                errors.push(field::Error::invalid(&path, &**value, broken.join("; ")));
            }
        }
        if !errors.is_empty() {
            return Err(SelectorError(field::aggregate(&errors)));
        }
        Ok(Requirement {
            key: key.into(),
            operator,
            values,
        })
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The operator.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether a label with this value (absent: `None`) meets it.
    pub fn matches(&self, label: Option<&str>) -> bool {
        use Operator::*;
        let listed = |label: &str| self.values.iter().any(|value| value == label);
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|value| number(value));
        match self.operator {
            In | Equals | DoubleEquals => label.is_some_and(listed),
            NotIn | NotEquals => !label.is_some_and(listed),
            Exists => label.is_some(),
            DoesNotExist => label.is_none(),
            GreaterThan => label.and_then(number).zip(bound()).is_some_and(|(a, b)| a > b),
            LessThan => label.and_then(number).zip(bound()).is_some_and(|(a, b)| a < b),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Operator::*;
        let mut values = self.values.clone();
        values.sort();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            In => write!(f, "{key} in ({values})"),
            NotIn => write!(f, "{key} notin ({values})"),
            Equals => write!(f, "{key}={values}"),
            DoubleEquals => write!(f, "{key}=={values}"),
            NotEquals => write!(f, "{key}!={values}"),
            GreaterThan => write!(f, "{key}>{values}"),
            LessThan => write!(f, "{key}<{values}"),
            Exists => write!(f, "{key}"),
            DoesNotExist => write!(f, "!{key}"),
        }
    }
}

fn expression_requirement(expression: &Value) -> Result<Requirement, SelectorError> {
    let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
    let operator = match text("operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            let quoted = field::quote(other);
            return Err(SelectorError(format!(
                "{quoted} is not a valid label selector operator"
            )));
        }
    };
    let values = expression.get("values").and_then(Value::as_array);
    let values = values.into_iter().flatten().filter_map(Value::as_str).map(String::from);
    Requirement::new(text("key"), operator, values.collect())
}

fn label_key_error(key: &str, path: &Path) -> Option<field::Error> {
    let broken = validation::qualified_name(key);
    (!broken.is_empty()).then(|| field::Error::invalid(path, key, broken.join("; ")))
}

/// The recursive descent of upstream's parser, with its error texts.
struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    position: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parser<'a> {
        Parser {
            tokens: scan(text),
            position: 0,
        }
    }

    /// The next token; `in` and `notin` are identifiers where a value may stand.
    fn look(&self) -> (Token, &'a str) {
        let (token, text) = self.look_at_operator();
        match token {
            Token::In | Token::NotIn => (Token::Identifier, text),
            _ => (token, text),
        }
    }

    fn look_at_operator(&self) -> (Token, &'a str) {
        self.tokens.get(self.position).copied().unwrap_or((Token::End, ""))
    }

    fn consume(&mut self) -> (Token, &'a str) {
        let next = self.look();
        self.position += 1;
        next
    }

    fn parse(mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.look() {
                (Token::End, _) => return Ok(requirements),
                (Token::Identifier | Token::DoesNotExist, _) => {}
                (_, found) => return Err(expected(found, "!, identifier, or 'end of string'")),
            }
            let requirement = self
                .requirement()
                .map_err(|error| SelectorError(format!("unable to parse requirement: {error}")))?;
            requirements.push(requirement);
            match self.consume() {
                (Token::End, _) => return Ok(requirements),
                (Token::Comma, _) => match self.look() {
                    (Token::Identifier | Token::DoesNotExist, _) => {}
                    (_, found) => return Err(expected(found, "identifier after ','")),
                },
                (_, found) => return Err(expected(found, "',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut key) = self.consume();
        let absent = token == Token::DoesNotExist;
        if absent {
            (token, key) = self.consume();
        }
        if token != Token::Identifier {
            return Err(expected(key, "identifier"));
        }
        if let Some(error) = label_key_error(key, &Path::root()) {
            return Err(SelectorError(error.to_string()));
        }
        if absent {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.look().0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        values.sort();
        values.dedup();
        Requirement::new(key, operator, values.into_iter().map(String::from).collect())
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let (token, found) = self.look_at_operator();
        self.position += 1;
        Ok(match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::GreaterThan => Operator::GreaterThan,
            Token::LessThan => Operator::LessThan,
            _ => return Err(expected(found, BINARY_OPERATORS)),
        })
    }

    fn values(&mut self) -> Result<Vec<&'a str>, SelectorError> {
        let (token, found) = self.consume();
        if token != Token::Open {
            // Upstream has no comma in this one text.
            return Err(SelectorError(format!("found '{found}' expected: '('")));
        }
        let (token, first) = self.look();
        match token {
            Token::Identifier | Token::Comma => {
                let values = self.value_list()?;
                if self.consume().0 != Token::Closed {
                    return Err(expected(first, "')'"));
                }
                Ok(values)
            }
            Token::Closed => {
                self.consume();
                Ok(vec![""])
            }
            _ => Err(expected(first, "',', ')' or identifier")),
        }
    }

    /// Values between commas; two commas, or one at an end, stand for the empty value.
    fn value_list(&mut self) -> Result<Vec<&'a str>, SelectorError> {
        let mut values = Vec::new();
        loop {
            match self.consume() {
                (Token::Identifier, value) => {
                    values.push(value);
                    match self.look() {
                        (Token::Comma, _) => {}
                        (Token::Closed, _) => return Ok(values),
                        (_, found) => return Err(expected(found, "',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push("");
                    }
                    match self.look().0 {
                        Token::Closed => {
                            values.push("");
                            return Ok(values);
                        }
                        Token::Comma => values.push(""),
                        _ => {}
                    }
                }
                (_, found) => return Err(expected(found, "',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<&'a str, SelectorError> {
        if matches!(self.look().0, Token::End | Token::Comma) {
            return Ok("");
        }
        match self.consume() {
            (Token::Identifier, value) => Ok(value),
            (_, found) => Err(expected(found, "identifier")),
        }
    }
}

fn expected(found: &str, what: &str) -> SelectorError {
    SelectorError(format!("found '{found}', expected: {what}"))
}

#[cfg(test)]
#[path = "label_tests.rs"]
mod tests;
