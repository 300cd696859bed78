//! Loops: what `all`, `map`, `filter` and the others became.

use crate::ast::{ACCUMULATOR, Call, Expr, Fold, Kind};
use crate::cost::actual::call_cost;
use crate::library::{map_insert, no_overload};
use crate::program::{Error, ErrorKind};
use crate::value::{Key, List, Map, Value};

use super::{Evaluator, Outcome};

/// What a loop goes over.
enum Range<'a> {
    List(List<'a>),
    Map(Map<'a>, Vec<Key<'a>>),
}

impl<'a> Range<'a> {
    fn len(&self) -> usize {
        match self {
            Range::List(list) => list.len(),
            Range::Map(_, keys) => keys.len(),
        }
    }

    /// The values of the loop's variables; the second one only if there are two.
    fn item(&self, index: usize, two: bool) -> (Value<'a>, Option<Value<'a>>) {
        let value = |value: Option<Value<'a>>| value.unwrap_or(Value::Null);
        match self {
            Range::List(list) if two => (
                Value::Int(i64::try_from(index).unwrap_or(i64::MAX)),
                Some(value(list.get(index))),
            ),
            Range::List(list) => (value(list.get(index)), None),
            Range::Map(map, keys) => {
                let key = &keys[index];
                (key.value(), two.then(|| value(map.get(key))))
            }
        }
    }
}

impl<'p, 'a> Evaluator<'p, 'a> {
    pub(super) fn fold(&mut self, fold: &'p Fold) -> Outcome<'a> {
        let range = match self.eval(&fold.range)? {
            Value::List(list) => Range::List(list),
            Value::Map(map) => {
                // Keys are listed before the loop, whether it ends early or not.
                self.work(map.len())?;
                let keys = map.keys();
                Range::Map(map, keys)
            }
            other => {
                let kind = other.kind();
                return Err(Error::evaluation(format!(
                    "got '{}', expected iterable type",
                    kind.name()
                )));
            }
        };
        let outside = self.scopes.len();
        let init = self.eval(&fold.init);
        if let Err(fatal) = &init
            && fatal.kind() != ErrorKind::Evaluation
        {
            return init;
        }
        self.scopes.push((&fold.accumulator, init));
        let value = self.iterate(fold, &range, outside).and_then(|()| {
            self.scopes.truncate(outside + 1);
            self.eval(&fold.result)
        });
        self.scopes.truncate(outside);
        value
    }

    fn iterate(&mut self, fold: &'p Fold, range: &Range<'a>, accumulator: usize) -> Result<(), Error> {
        for index in 0..range.len() {
            let (first, second) = range.item(index, fold.variable2.is_some());
            self.scopes.push((&fold.variable, Ok(first)));
            if let (Some(variable), Some(value)) = (&fold.variable2, second) {
                self.scopes.push((variable, Ok(value)));
            }
            let condition = self.eval(&fold.condition);
            if matches!(&condition, Err(fatal) if fatal.kind() != ErrorKind::Evaluation) {
                return condition.map(|_| ());
            }
            if matches!(condition, Ok(Value::Bool(false))) {
                self.scopes.truncate(accumulator + 1);
                return Ok(());
            }
            let step = self.eval(&fold.step);
            if matches!(&step, Err(fatal) if fatal.kind() != ErrorKind::Evaluation) {
                return step.map(|_| ());
            }
            self.scopes.truncate(accumulator + 1);
            self.scopes[accumulator].1 = step;
        }
        Ok(())
    }

    /// The value of an operand; an accumulator's is taken away, because the step that asks replaces it.
    pub(super) fn taken(&mut self, operand: &'p Expr) -> Outcome<'a> {
        let Kind::Ident(name) = &operand.kind else {
            return self.eval(operand);
        };
        if &**name != ACCUMULATOR {
            return self.eval(operand);
        }
        self.charge(1)?;
        let innermost = self.scopes.iter_mut().rev().find(|(known, _)| *known == ACCUMULATOR);
        let (_, slot) = innermost.ok_or_else(no_overload)?;
        match slot {
            // Counters are cheap, and the error of an accumulator is wanted again.
            Ok(Value::List(_) | Value::Map(_)) => std::mem::replace(slot, Ok(Value::Null)),
            other => other.clone(),
        }
    }

    pub(super) fn map_insert(&mut self, call: &'p Call) -> Outcome<'a> {
        let Some((target, rest)) = call.arguments.split_first() else {
            return Err(no_overload());
        };
        let target = self.taken(target)?;
        let rest: Vec<Value<'a>> = rest.iter().map(|one| self.eval(one)).collect::<Result<_, _>>()?;
        for value in &rest {
            self.weighed(value.clone())?;
        }
        let value = map_insert(target, &rest)?;
        self.charge(1)?;
        Ok(value)
    }

    /// The rest of `a + b`, when `a` is no list.
    pub(super) fn add_values(&mut self, expr: &'p Expr, call: &'p Call, arguments: [Value<'a>; 2]) -> Outcome<'a> {
        let candidates = &self.program.checked.overloads[expr.id];
        let value = crate::library::add(&arguments)?;
        let id = if let [only] = &candidates[..] { only.id } else { "" };
        self.charge(call_cost(&call.function, id, &arguments, &value))?;
        Ok(value)
    }
}
