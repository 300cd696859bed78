//! The evaluator: it walks the plan, and counts what that costs as cel-go's `interpreter/runtimecost.go` does.
//!
//! Identifiers, selections and indices cost 1 each, constants nothing, calls what [`crate::cost::actual`] says. cel-go
//! makes one "attribute" of a variable with all that is selected from it, and does not count it where it is a branch of
//! `?:` or an index: [`Evaluator::uncounted`].
//!
//! Beside upstream's cost it counts work: what upstream takes for constant (adding lists) or looks at only from above
//! (comparing them) is bounded too, because nothing here looks at a clock.

mod access;
mod folds;

use std::sync::Arc;

use crate::ast::{Call, Expr, Kind, Literal, operator};
use crate::cost::actual::call_cost;
use crate::library::{Native, no_overload};
use crate::program::{Error, ErrorKind, Program, Variables};
use crate::types::{Identity, Type};
use crate::value::{Key, Map, Value, WORK_MAX};

/// The most parts of a value that an expression makes: who compares or prints it looks at all of them.
const PARTS_MAX: usize = 1_000_000;
/// Bytes that are copied as fast as an element is.
const BYTES_PER_WORK: usize = 64;
/// The work of compiling a pattern that is no literal.
const PATTERN_WORK: usize = 5_000;

type Outcome<'a> = Result<Value<'a>, Error>;

/// Evaluates a tree of a program: its value, and what that cost.
pub(crate) fn run<'a>(program: &Program, plan: &Expr, variables: &dyn Variables<'a>, limit: u64) -> (Outcome<'a>, u64) {
    let mut evaluator = Evaluator {
        program,
        variables,
        scopes: Vec::new(),
        cost: 0,
        work: 0,
        limit,
    };
    let value = evaluator.eval(plan);
    (value, evaluator.cost)
}

struct Evaluator<'p, 'a> {
    program: &'p Program,
    variables: &'p dyn Variables<'a>,
    /// Variables of loops, the innermost last. An accumulator may hold an error.
    scopes: Vec<(&'p str, Outcome<'a>)>,
    cost: u64,
    work: usize,
    limit: u64,
}

/// Whether cel-go takes an expression for an attribute.
fn is_attribute(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Ident(_) | Kind::Select(_) => true,
        Kind::Call(call) => matches!(
            &*call.function,
            operator::INDEX | operator::OPTIONAL_INDEX | operator::OPTIONAL_SELECT | operator::CONDITIONAL
        ),
        _ => false,
    }
}

/// What an attribute costs by itself, beside what is selected from it: `?:` nothing, `has()` gave it back already.
fn attribute_cost(expr: &Expr) -> u64 {
    match &expr.kind {
        Kind::Ident(_) => 1,
        Kind::Select(select) if select.test => 0,
        Kind::Select(select) if is_attribute(&select.operand) => attribute_cost(&select.operand),
        Kind::Select(_) => 1,
        Kind::Call(call) => match (&*call.function, call.arguments.first()) {
            (operator::CONDITIONAL, _) => 0,
            (_, Some(operand)) if is_attribute(expr) && is_attribute(operand) => attribute_cost(operand),
            _ => u64::from(is_attribute(expr)),
        },
        _ => 0,
    }
}

impl<'p, 'a> Evaluator<'p, 'a> {
    fn charge(&mut self, cost: u64) -> Result<(), Error> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit {
            Err(Error::too_expensive())
        } else {
            Ok(())
        }
    }

    fn work(&mut self, work: usize) -> Result<(), Error> {
        self.work = self.work.saturating_add(work);
        if self.work > WORK_MAX {
            Err(Error::too_expensive())
        } else {
            Ok(())
        }
    }

    /// A value that was just made, unless it is too large.
    fn weighed(&mut self, value: Value<'a>) -> Outcome<'a> {
        let mut left = PARTS_MAX;
        if !value.is_within(&mut left) {
            return Err(Error::too_expensive());
        }
        self.work(PARTS_MAX - left)?;
        Ok(value)
    }

    fn eval(&mut self, expr: &'p Expr) -> Outcome<'a> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(literal_value(literal)),
            Kind::Constant(value) => Ok(Value::clone(value)),
            Kind::TypeName(kind) => Ok(Value::Type(match kind {
                Type::Type(Some(named)) => (**named).clone(),
                other => other.clone(),
            })),
            Kind::Ident(name) => self.ident(name),
            Kind::Select(select) => self.select(select),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(_) | Kind::Map(_) => self.aggregate(expr),
            Kind::Struct(_) => self.made(expr),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Member(member) => {
                let value = self.eval(&member.0)?;
                Ok(Value::Bool(Key::of(&value).is_some_and(|key| member.1.contains(&key))))
            }
        }
    }

    /// Evaluates a branch or an index, where cel-go does not count an attribute.
    fn uncounted(&mut self, expr: &'p Expr) -> Outcome<'a> {
        let value = self.eval(expr)?;
        if is_attribute(expr) {
            self.cost = self.cost.saturating_sub(attribute_cost(expr));
        }
        Ok(value)
    }

    fn ident(&mut self, name: &str) -> Outcome<'a> {
        self.charge(1)?;
        if let Some((_, value)) = self.scopes.iter().rev().find(|(known, _)| *known == name) {
            return value.clone();
        }
        let name = name.strip_prefix('.').unwrap_or(name);
        let missing = || Error::evaluation(format!("no such attribute(s): {name}"));
        self.variables.variable(name).ok_or_else(missing)
    }

    fn call(&mut self, expr: &'p Expr, call: &'p Call) -> Outcome<'a> {
        match &*call.function {
            operator::AND => self.logical(call, false),
            operator::OR => self.logical(call, true),
            operator::CONDITIONAL => self.conditional(call),
            operator::EQUALS => self.equality(call, true),
            operator::NOT_EQUALS => self.equality(call, false),
            operator::INDEX => self.index(call, false),
            operator::OPTIONAL_INDEX => self.index(call, true),
            operator::OPTIONAL_SELECT => self.optional_select(call),
            operator::NOT_STRICTLY_FALSE => self.not_strictly_false(call),
            "or" | "orValue" if call.target.is_some() => self.or(call),
            crate::macros::MAP_INSERT => self.map_insert(call),
            operator::ADD => self.add(expr, call),
            _ => {
                let arguments = self.arguments(call)?;
                self.function(expr, call, &arguments)
            }
        }
    }

    fn arguments(&mut self, call: &'p Call) -> Result<Vec<Value<'a>>, Error> {
        call.target
            .iter()
            .chain(&call.arguments)
            .map(|argument| self.eval(argument))
            .collect()
    }

    /// Calls the overload that takes the arguments.
    fn function(&mut self, expr: &'p Expr, call: &'p Call, arguments: &[Value<'a>]) -> Outcome<'a> {
        let program = self.program;
        let candidates = &program.checked.overloads[expr.id];
        let takes = |parameters: &[Type]| {
            parameters.len() == arguments.len()
                && parameters.iter().zip(arguments).all(|(kind, value)| is_of(value, kind))
        };
        let chosen = candidates.iter().find(|overload| takes(&overload.parameters));
        let native = match chosen {
            Some(overload) => overload.native,
            None => return Err(no_such_overload(&call.function, arguments)),
        };
        let value = match native {
            Native::Plain(function) => function(arguments)?,
            Native::Comparing(function) => {
                let value = function(&mut self.work, arguments)?;
                self.work(0)?;
                value
            }
            Native::Regex(function) => {
                if !program.regexes.knows(arguments.get(1)) {
                    self.work(PATTERN_WORK)?;
                }
                function(&program.regexes, arguments)?
            }
            Native::Evaluator => return Err(no_overload()),
        };
        // What was made, whatever upstream takes for it.
        self.work(match &value {
            Value::List(list) => list.len(),
            Value::String(text) => text.len() / BYTES_PER_WORK,
            _ => 0,
        })?;
        let id = if let [only] = &candidates[..] { only.id } else { "" };
        self.charge(call_cost(&call.function, id, arguments, &value))?;
        Ok(value)
    }

    /// `&&` and `||`: one operand may decide although the other failed.
    fn logical(&mut self, call: &'p Call, decisive: bool) -> Outcome<'a> {
        let mut error = None;
        for operand in &call.arguments {
            match self.eval(operand) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => error = error.or_else(|| Some(no_overload())),
                Err(fatal) if fatal.kind() != ErrorKind::Evaluation => return Err(fatal),
                Err(failed) => error = error.or(Some(failed)),
            }
        }
        error.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn conditional(&mut self, call: &'p Call) -> Outcome<'a> {
        let [condition, one, other] = &call.arguments[..] else {
            return Err(no_overload());
        };
        match self.eval(condition)? {
            Value::Bool(true) => self.uncounted(one),
            Value::Bool(false) => self.uncounted(other),
            _ => Err(no_overload()),
        }
    }

    fn equality(&mut self, call: &'p Call, equal: bool) -> Outcome<'a> {
        let [one, other] = &call.arguments[..] else {
            return Err(no_overload());
        };
        let arguments = [self.eval(one)?, self.eval(other)?];
        let same = arguments[0].equals_counting(&arguments[1], &mut self.work);
        self.work(0)?;
        let value = Value::Bool(same == equal);
        self.charge(call_cost(
            &call.function,
            if equal { "equals" } else { "not_equals" },
            &arguments,
            &value,
        ))?;
        Ok(value)
    }

    /// Of loops: go on unless it is clear that it is false. An error is not clear.
    fn not_strictly_false(&mut self, call: &'p Call) -> Outcome<'a> {
        let value = call.arguments.first().map(|argument| self.eval(argument));
        self.charge(1)?;
        match value {
            Some(Ok(Value::Bool(value))) => Ok(Value::Bool(value)),
            Some(Err(fatal)) if fatal.kind() != ErrorKind::Evaluation => Err(fatal),
            _ => Ok(Value::Bool(true)),
        }
    }

    /// `optional.or(other)` and `optional.orValue(other)`, which look at the other only when they need it.
    fn or(&mut self, call: &'p Call) -> Outcome<'a> {
        let (Some(target), [other]) = (&call.target, &call.arguments[..]) else {
            return Err(no_overload());
        };
        match self.eval(target)? {
            Value::Optional(Some(value)) if &*call.function == "orValue" => Ok((*value).clone()),
            some @ Value::Optional(Some(_)) => Ok(some),
            Value::Optional(None) => self.eval(other),
            _ => Err(no_overload()),
        }
    }

    /// `a + b`. An accumulator is taken out of its scope first: its loop replaces it by the sum, so that a list that grows
    /// is not copied each time.
    fn add(&mut self, expr: &'p Expr, call: &'p Call) -> Outcome<'a> {
        let [one, other] = &call.arguments[..] else {
            return Err(no_overload());
        };
        let (one, other) = (self.taken(one)?, self.eval(other)?);
        let (list, more) = match (one, other) {
            (Value::List(list), Value::List(more)) => (list, more),
            (one, other) => return self.add_values(expr, call, [one, other]),
        };
        if list.is_unordered() {
            let united = list.united(&more, &mut self.work);
            self.work(0)?;
            self.charge(1)?;
            return Ok(Value::List(united));
        }
        let mut values = match list {
            crate::value::List::Made(values, _) => values,
            other => {
                self.work(other.len())?;
                Arc::new(other.iter().collect())
            }
        };
        if Arc::get_mut(&mut values).is_none() {
            self.work(values.len())?;
        }
        self.work(more.len())?;
        Arc::make_mut(&mut values).extend(more.iter());
        self.charge(1)?;
        Ok(Value::List(crate::value::List::Made(values, Identity::Place)))
    }

    fn aggregate(&mut self, expr: &'p Expr) -> Outcome<'a> {
        match &expr.kind {
            Kind::List(elements) => {
                let mut values = Vec::with_capacity(elements.len());
                for element in elements {
                    let value = self.eval(&element.value)?;
                    match (element.optional, value) {
                        (false, value) => values.push(value),
                        (true, Value::Optional(value)) => values.extend(value.map(|value| (*value).clone())),
                        (true, value) => {
                            let message =
                                format!("cannot initialize optional list element from non-optional value {value}");
                            return Err(Error::evaluation(message));
                        }
                    }
                }
                self.charge(crate::cost::LIST)?;
                self.weighed(Value::list(values))
            }
            Kind::Map(entries) => {
                let mut made = std::collections::BTreeMap::new();
                for entry in entries {
                    let key = self.eval(&entry.key)?;
                    let value = self.eval(&entry.value)?;
                    let name = Key::of(&key).ok_or_else(|| crate::library::unsupported_key(&key))?;
                    match (entry.optional, value) {
                        (false, value) => _ = made.insert(name, value),
                        (true, Value::Optional(Some(value))) => _ = made.insert(name, (*value).clone()),
                        (true, Value::Optional(None)) => _ = made.remove(&name),
                        (true, value) => return Err(not_optional(&key, &value)),
                    }
                }
                self.charge(crate::cost::MAP)?;
                self.weighed(Value::Map(Map::made(made)))
            }
            _ => Err(no_overload()),
        }
    }

    fn made(&mut self, expr: &'p Expr) -> Outcome<'a> {
        let Kind::Struct(made) = &expr.kind else {
            return Err(no_overload());
        };
        let program = self.program;
        let Type::Object(object) = &program.checked.types[expr.id] else {
            return Err(no_overload());
        };
        let mut fields = std::collections::BTreeMap::new();
        for field in &made.fields {
            let value = self.eval(&field.value)?;
            let name = Value::shared(&field.name);
            let key = Key::of(&name).ok_or_else(no_overload)?;
            match (field.optional, value) {
                (false, value) => _ = fields.insert(key, value),
                (true, Value::Optional(Some(value))) => _ = fields.insert(key, (*value).clone()),
                (true, Value::Optional(None)) => _ = fields.remove(&key),
                (true, value) => return Err(not_optional(&name, &value)),
            }
        }
        self.charge(crate::cost::STRUCT)?;
        self.weighed(Value::Map(Map::MadeRecord(Arc::new(fields), object.clone())))
    }
}

fn not_optional(key: &Value<'_>, value: &Value<'_>) -> Error {
    Error::evaluation(format!(
        "cannot initialize optional entry '{key}' from non-optional value {value}"
    ))
}

fn literal_value<'a>(literal: &Literal) -> Value<'a> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::shared(text),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

/// Whether a value is of a parameter's type; what is inside of lists and maps is not looked at.
fn is_of(value: &Value<'_>, kind: &Type) -> bool {
    match (value, kind) {
        (_, Type::Dyn | Type::Param(_)) => true,
        (Value::Null, Type::Null)
        | (Value::Bool(_), Type::Bool)
        | (Value::Int(_), Type::Int)
        | (Value::Uint(_), Type::Uint)
        | (Value::Double(_), Type::Double)
        | (Value::String(_), Type::String)
        | (Value::Bytes(_), Type::Bytes)
        | (Value::Duration(_), Type::Duration)
        | (Value::Timestamp(_), Type::Timestamp)
        | (Value::List(_), Type::List(..))
        | (Value::Map(_), Type::Map(..) | Type::Object(_))
        | (Value::Optional(_), Type::Optional(_))
        | (Value::Type(_), Type::Type(_)) => true,
        (Value::Opaque(value), Type::Opaque(name)) => value.type_name() == *name,
        _ => false,
    }
}

/// Operators say only that there is none; functions name themselves and their arguments.
fn no_such_overload(function: &str, arguments: &[Value<'_>]) -> Error {
    if function.starts_with(['_', '!', '-', '@']) {
        return no_overload();
    }
    let kinds: Vec<String> = arguments.iter().map(|value| value.kind().name().to_owned()).collect();
    Error::evaluation(format!("no such overload: {function}({})", kinds.join(", ")))
}
