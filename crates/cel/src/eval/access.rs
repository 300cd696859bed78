//! Selections and indices: `a.b`, `a[b]`, `a.?b`, `a[?b]`, `has(a.b)`.
//!
//! What follows an optional selection is optional too: nothing of nothing is nothing.

use crate::ast::{Call, Expr, Kind, Literal, Select};
use crate::library::no_overload;
use crate::program::Error;
use crate::value::{Key, List, Map, Value};

use super::{Evaluator, Outcome, is_attribute};

/// What was found: a value, or nothing where that is no error.
type Found<'a> = Result<Option<Value<'a>>, Error>;

impl<'p, 'a> Evaluator<'p, 'a> {
    /// The operand of a selection. One that is no attribute becomes one, and that costs.
    fn operand(&mut self, operand: &'p Expr) -> Outcome<'a> {
        let value = self.eval(operand)?;
        if !is_attribute(operand) {
            self.charge(1)?;
        }
        Ok(value)
    }

    /// A field that the host computes when it is asked for.
    fn lazy_field(&mut self, operand: &'p Expr, field: &str) -> Option<Outcome<'a>> {
        let Kind::Ident(name) = &operand.kind else { return None };
        if self.scopes.iter().any(|(known, _)| **known == **name) {
            return None;
        }
        self.variables.field(name, field)
    }

    pub(super) fn select(&mut self, select: &'p Select) -> Outcome<'a> {
        if select.test {
            return self.has(select);
        }
        if let Some(value) = self.lazy_field(&select.operand, &select.field) {
            self.charge(2)?;
            return value;
        }
        let operand = self.operand(&select.operand)?;
        if let Value::Optional(inner) = operand {
            return self.through(inner.as_deref(), |value| field_if_there(value, &select.field));
        }
        let value = field(&operand, &select.field)?;
        self.charge(1)?;
        Ok(value)
    }

    /// A selection from an optional value.
    fn through(&mut self, value: Option<&Value<'a>>, select: impl Fn(&Value<'a>) -> Found<'a>) -> Outcome<'a> {
        let Some(found) = value.map(select).transpose()?.flatten() else {
            return Ok(Value::Optional(None));
        };
        self.charge(1)?;
        Ok(Value::some(found))
    }

    /// `has(a.b)` costs what `a` costs.
    fn has(&mut self, select: &'p Select) -> Outcome<'a> {
        if let Some(value) = self.lazy_field(&select.operand, &select.field) {
            self.charge(1)?;
            return value.map(|_| Value::Bool(true));
        }
        let there = match self.eval(&select.operand)? {
            Value::Optional(None) => false,
            Value::Optional(Some(value)) => field_if_there(&value, &select.field)?.is_some(),
            Value::Map(map) => map.field(&select.field).is_some(),
            // A list has no fields, and asking for one is an error even here.
            Value::List(_) => return Err(Error::evaluation("unsupported index type 'string' in list")),
            _ => false,
        };
        Ok(Value::Bool(there))
    }

    pub(super) fn optional_select(&mut self, call: &'p Call) -> Outcome<'a> {
        let [
            operand,
            Expr {
                kind: Kind::Literal(Literal::String(name)),
                ..
            },
        ] = &call.arguments[..]
        else {
            return Err(no_overload());
        };
        if let Some(value) = self.lazy_field(operand, name) {
            self.charge(2)?;
            return value.map(Value::some);
        }
        match self.operand(operand)? {
            Value::Optional(inner) => self.through(inner.as_deref(), |value| field_if_there(value, name)),
            value => self.through(Some(&value), |value| field_if_there(value, name)),
        }
    }

    pub(super) fn index(&mut self, call: &'p Call, optional: bool) -> Outcome<'a> {
        let [operand, index] = &call.arguments[..] else {
            return Err(no_overload());
        };
        let operand = self.operand(operand)?;
        let index = if is_attribute(index) {
            self.uncounted(index)?
        } else {
            self.eval(index)?
        };
        match operand {
            Value::Optional(inner) => self.through(inner.as_deref(), |value| item_if_there(value, &index)),
            value if optional => self.through(Some(&value), |value| item_if_there(value, &index)),
            value => {
                let item = item(&value, &index)?;
                self.charge(1)?;
                Ok(item)
            }
        }
    }
}

fn field<'a>(operand: &Value<'a>, name: &str) -> Outcome<'a> {
    let missing = || Error::evaluation(format!("no such key: {name}"));
    match operand {
        Value::List(_) => Err(Error::evaluation("unsupported index type 'string' in list")),
        operand => field_if_there(operand, name)?.ok_or_else(missing),
    }
}

fn field_if_there<'a>(operand: &Value<'a>, name: &str) -> Found<'a> {
    match operand {
        Value::Map(map) => Ok(map.field(name)),
        Value::List(_) => Err(Error::evaluation("unsupported index type 'string' in list")),
        _ => Ok(None),
    }
}

fn item<'a>(operand: &Value<'a>, index: &Value<'a>) -> Outcome<'a> {
    let missing = || match operand {
        Value::List(_) => Error::evaluation(format!("index out of bounds: {index}")),
        _ => Error::evaluation(format!("no such key: {index}")),
    };
    item_if_there(operand, index)?.ok_or_else(missing)
}

fn item_if_there<'a>(operand: &Value<'a>, index: &Value<'a>) -> Found<'a> {
    match operand {
        Value::List(list) => list_item(list, index),
        Value::Map(map) => map_item(map, index),
        _ => Ok(None),
    }
}

fn list_item<'a>(list: &List<'a>, index: &Value<'a>) -> Found<'a> {
    let position = match index {
        Value::Int(index) => usize::try_from(*index).ok(),
        Value::Uint(index) => usize::try_from(*index).ok(),
        Value::Double(value) if value.fract() == 0.0 => (*value >= 0.0).then_some(*value as usize),
        Value::Double(_) => return Err(Error::evaluation(format!("unsupported index value {index} in list"))),
        other => {
            let kind = other.kind();
            return Err(Error::evaluation(format!(
                "unsupported index type '{}' in list",
                kind.name()
            )));
        }
    };
    Ok(position.and_then(|position| list.get(position)))
}

fn map_item<'a>(map: &Map<'a>, index: &Value<'a>) -> Found<'a> {
    Ok(Key::of(index).and_then(|key| map.get(&key)))
}
