//! What an expression may cost, before it is evaluated: rules of custom resources are admitted by that. Source: cel-go's
//! `checker/cost.go`.
//!
//! Each node has a range of costs. Texts, lists and maps have a range of sizes: from the expression itself, from the host
//! by the path of a variable's field, or from nothing to anything.

use std::collections::HashMap;
use std::sync::Arc;

use super::calls::{Argument, call_estimate};
use super::{LIST, MAP, STRUCT};
use crate::ast::{Call, Expr, Fold, Id, Kind, Literal, operator};
use crate::check::Checked;
use crate::types::Type;

/// From the least to the most: a cost, or a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// At least.
    pub min: u64,
    /// At most; [`u64::MAX`] when there is no bound.
    pub max: u64,
}

/// How large the values of variables may be.
pub trait Sizes {
    /// The most characters, bytes, elements or entries of what a path leads to: the name of a variable, then names of
    /// fields, `@items`, `@keys`, `@values`. The path is empty for what comes from no variable. `None` when nothing is known.
    fn max(&self, path: &[Arc<str>], kind: &Type) -> Option<u64>;
}

/// Nothing is known.
#[derive(Clone, Copy, Debug)]
pub struct UnknownSizes;

impl Sizes for UnknownSizes {
    fn max(&self, _: &[Arc<str>], _: &Type) -> Option<u64> {
        None
    }
}

impl Estimate {
    pub(super) const ANY: Estimate = Estimate { min: 0, max: u64::MAX };

    pub(super) fn exactly(value: u64) -> Estimate {
        Estimate { min: value, max: value }
    }

    #[must_use]
    pub(super) fn plus(self, other: Estimate) -> Estimate {
        Estimate {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }

    #[must_use]
    pub(super) fn times(self, other: Estimate) -> Estimate {
        Estimate {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }

    /// Rounded up.
    #[must_use]
    pub(super) fn scaled(self, factor: f64) -> Estimate {
        // The conversion saturates.
        let scale = |value: u64| (value as f64 * factor).ceil() as u64;
        Estimate {
            min: scale(self.min),
            max: scale(self.max),
        }
    }

    #[must_use]
    pub(super) fn or(self, other: Estimate) -> Estimate {
        Estimate {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// The sizes of what is inside of a list or a map.
#[derive(Clone, Copy)]
struct Inside {
    list: bool,
    key: Estimate,
    value: Estimate,
}

/// A variable of a loop, or a name bound to a value.
struct Local {
    name: Arc<str>,
    path: Vec<Arc<str>>,
    size: Option<Estimate>,
    inside: Option<Inside>,
}

/// The estimate of a checked expression.
pub(crate) fn estimate(checked: &Checked, sizes: &dyn Sizes) -> Estimate {
    let mut estimator = Estimator {
        checked,
        sizes,
        paths: HashMap::new(),
        computed: HashMap::new(),
        insides: HashMap::new(),
        locals: Vec::new(),
    };
    estimator.cost(&checked.root)
}

struct Estimator<'c> {
    checked: &'c Checked,
    sizes: &'c dyn Sizes,
    paths: HashMap<Id, Vec<Arc<str>>>,
    computed: HashMap<Id, Estimate>,
    insides: HashMap<Id, Inside>,
    locals: Vec<Local>,
}

const NOTHING: Estimate = Estimate { min: 0, max: 0 };
const ONE: Estimate = Estimate { min: 1, max: 1 };

impl<'c> Estimator<'c> {
    fn cost(&mut self, expr: &'c Expr) -> Estimate {
        match &expr.kind {
            Kind::Literal(_) | Kind::TypeName(_) | Kind::Constant(_) | Kind::Member(_) => NOTHING,
            Kind::Ident(name) => {
                let path = self
                    .local(name)
                    .map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                ONE
            }
            Kind::Select(select) => {
                let operand = self.cost(&select.operand);
                if select.test {
                    return operand;
                }
                let mut path = self.path(&select.operand);
                path.push(select.field.clone());
                self.paths.insert(expr.id, path);
                let kind = &self.checked.types[select.operand.id];
                if matches!(kind, Type::Map(..) | Type::Object(_) | Type::Param(_)) {
                    operand.plus(ONE)
                } else {
                    operand
                }
            }
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => {
                let mut sum = Estimate::exactly(LIST);
                let mut value = None;
                for element in elements {
                    sum = sum.plus(self.cost(&element.value));
                    value = Some(self.joined(value, &element.value));
                }
                self.insides.insert(
                    expr.id,
                    Inside {
                        list: true,
                        key: ONE,
                        value: value.unwrap_or(NOTHING),
                    },
                );
                sum
            }
            Kind::Map(entries) => {
                let mut sum = Estimate::exactly(MAP);
                let (mut key, mut value) = (None, None);
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    key = Some(self.joined(key, &entry.key));
                    value = Some(self.joined(value, &entry.value));
                }
                let inside = Inside {
                    list: false,
                    key: key.unwrap_or(NOTHING),
                    value: value.unwrap_or(NOTHING),
                };
                self.insides.insert(expr.id, inside);
                sum
            }
            Kind::Struct(made) => {
                let fields = made.fields.iter().map(|field| &field.value);
                fields.fold(Estimate::exactly(STRUCT), |sum, field| sum.plus(self.cost(field)))
            }
            Kind::Fold(fold) if fold.is_bind() => self.bind(expr, fold),
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn joined(&mut self, before: Option<Estimate>, expr: &'c Expr) -> Estimate {
        let size = self.size_or_any(expr);
        before.map_or(size, |before| before.or(size))
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| *local.name == *name)
    }

    fn path(&self, expr: &Expr) -> Vec<Arc<str>> {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn size_or_any(&mut self, expr: &'c Expr) -> Estimate {
        self.size(expr).unwrap_or(Estimate::ANY)
    }

    fn size(&mut self, expr: &'c Expr) -> Option<Estimate> {
        if let Some(size) = self.computed.get(&expr.id) {
            return Some(*size);
        }
        let own = match &expr.kind {
            Kind::Literal(Literal::String(text)) => Some(text.chars().count()),
            Kind::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
            Kind::Literal(_) => Some(1),
            Kind::List(elements) => Some(elements.len()),
            Kind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(own) = own {
            return Some(Estimate::exactly(own as u64));
        }
        if let Some(max) = self.hint(&self.path(expr), &self.checked.types[expr.id]) {
            self.computed.insert(expr.id, max);
            return Some(max);
        }
        if is_scalar(&self.checked.types[expr.id]) {
            return Some(ONE);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    fn hint(&self, path: &[Arc<str>], kind: &Type) -> Option<Estimate> {
        self.sizes.max(path, kind).map(|max| Estimate { min: 0, max })
    }

    fn inside(&self, expr: &Expr) -> Option<Inside> {
        let known = self.insides.get(&expr.id).copied();
        known.or_else(|| match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.inside),
            _ => None,
        })
    }

    fn call(&mut self, expr: &'c Expr, call: &'c Call) -> Estimate {
        if &*call.function == "dyn"
            && let [argument] = &call.arguments[..]
        {
            let cost = self.cost(argument);
            self.copy_sizes(expr, argument);
            return cost.plus(ONE);
        }
        let costs: Vec<Estimate> = call.arguments.iter().map(|argument| self.cost(argument)).collect();
        let target_cost = call.target.as_ref().map_or(NOTHING, |target| self.cost(target));
        let arguments: Vec<Argument<'c>> = call.arguments.iter().map(|argument| self.argument(argument)).collect();
        let target = call.target.as_ref().map(|target| self.argument(target));
        let sum = costs.iter().fold(NOTHING, |sum, cost| sum.plus(*cost));
        let checked = self.checked;
        let mut cost: Option<Estimate> = None;
        let mut result: Option<Estimate> = None;
        for overload in &checked.overloads[expr.id] {
            let (own, size) = match (&*call.function, &call.arguments[..]) {
                (operator::AND | operator::OR, _) => {
                    let first = costs.first().copied().unwrap_or(NOTHING);
                    (
                        Estimate {
                            min: first.min,
                            max: sum.max,
                        },
                        None,
                    )
                }
                (operator::CONDITIONAL, [_, one, other]) => {
                    let size = self.size_or_any(one).or(self.size_or_any(other));
                    self.join_insides(expr, one, other);
                    (costs[0].plus(costs[1].or(costs[2])), Some(size))
                }
                _ => {
                    let made = call_estimate(&call.function, overload.id, target.as_ref(), &arguments);
                    (made.cost.plus(sum), made.size)
                }
            };
            cost = Some(cost.map_or(own, |cost| cost.or(own)));
            if let Some(size) = size {
                result = Some(result.map_or(size, |result| result.or(size)));
            }
            if let ("index_list" | "index_map", [operand, ..]) = (overload.id, &call.arguments[..]) {
                result = self.inside(operand).map(|inside| inside.value);
                let mut path = self.path(operand);
                path.push(Arc::from(if overload.id == "index_list" {
                    "@items"
                } else {
                    "@values"
                }));
                self.paths.insert(expr.id, path);
            }
            if let ("add_list" | "add_string" | "add_bytes", [one, other]) = (overload.id, &call.arguments[..]) {
                self.join_insides(expr, one, other);
            }
            result = result.or_else(|| self.size(expr));
        }
        if let Some(result) = result {
            self.computed.insert(expr.id, result);
        }
        target_cost.plus(cost.unwrap_or(NOTHING))
    }

    fn argument(&mut self, expr: &'c Expr) -> Argument<'c> {
        let path = self.path(expr);
        let kind = &self.checked.types[expr.id];
        let element = match kind {
            Type::List(element, _) => {
                let mut items = path;
                if !items.is_empty() {
                    items.push(Arc::from("@items"));
                }
                let hint = self.hint(&items, element);
                Some((&**element, hint.unwrap_or(Estimate::ANY)))
            }
            _ => None,
        };
        Argument {
            expr,
            kind,
            size: self.size_or_any(expr),
            element,
        }
    }

    fn copy_sizes(&mut self, to: &'c Expr, from: &'c Expr) {
        if let Some(size) = self.size(from) {
            self.computed.insert(to.id, size);
        }
        if let Some(inside) = self.inside(from) {
            self.insides.insert(to.id, inside);
        }
    }

    fn join_insides(&mut self, to: &Expr, one: &Expr, other: &Expr) {
        if let (Some(one), Some(other)) = (self.inside(one), self.inside(other)) {
            let joined = Inside {
                list: one.list,
                key: one.key.or(other.key),
                value: one.value.or(other.value),
            };
            self.insides.insert(to.id, joined);
        }
    }

    fn bind(&mut self, expr: &'c Expr, fold: &'c Fold) -> Estimate {
        let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push(&fold.accumulator, &fold.init);
        let sum = sum.plus(self.cost(&fold.result));
        // While the name still means something.
        self.copy_sizes(expr, &fold.result);
        self.locals.pop();
        sum
    }

    fn push(&mut self, name: &Arc<str>, value: &'c Expr) {
        let local = Local {
            name: name.clone(),
            path: self.path(value),
            size: self.size(value),
            inside: self.inside(value),
        };
        self.locals.push(local);
    }

    /// A loop's variable: what it may be of the loop's range.
    fn push_item(&mut self, name: &Arc<str>, range: &'c Expr, of_list: &str, of_map: &str, value_of_map: bool) {
        let inside = self.inside(range);
        let list = inside.map_or(matches!(self.checked.types[range.id], Type::List(..)), |inside| {
            inside.list
        });
        let index = of_list == "@indices";
        let value = if list { !index } else { value_of_map };
        let mut path = self.path(range);
        path.push(Arc::from(if list { of_list } else { of_map }));
        let size = inside.map(|inside| if value { inside.value } else { inside.key });
        self.locals.push(Local {
            name: name.clone(),
            path,
            size,
            inside: None,
        });
    }

    fn fold(&mut self, expr: &'c Expr, fold: &'c Fold) -> Estimate {
        let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push(&fold.accumulator, &fold.init);
        let accumulator = self.locals.len();
        match &fold.variable2 {
            Some(second) => {
                self.push_item(&fold.variable, &fold.range, "@indices", "@keys", false);
                self.push_item(second, &fold.range, "@items", "@values", true);
            }
            None => self.push_item(&fold.variable, &fold.range, "@items", "@keys", false),
        }
        let condition = self.cost(&fold.condition);
        let step = self.cost(&fold.step);
        self.locals.truncate(accumulator);
        let sum = sum.plus(self.cost(&fold.result));
        self.locals.truncate(accumulator - 1);
        let count = self.size_or_any(&fold.range);
        match &fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.computed.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.computed.insert(expr.id, count);
                if let Some(inside) = self.inside(&fold.step) {
                    self.insides.insert(expr.id, inside);
                }
            }
            _ => {}
        }
        sum.plus(count.times(step.plus(condition)))
    }
}

fn is_scalar(kind: &Type) -> bool {
    match kind {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::program::compile;

    /// Sizes by dotted paths.
    struct Hints(&'static [(&'static str, u64)]);

    impl Sizes for Hints {
        fn max(&self, path: &[Arc<str>], _: &Type) -> Option<u64> {
            let path = path.join(".");
            self.0.iter().find(|(known, _)| *known == path).map(|(_, size)| *size)
        }
    }

    /// As in cel-go's `checker/cost_test.go`.
    fn check(text: &str, hints: &'static [(&'static str, u64)], min: u64, max: u64) {
        let records = Type::list(Type::map(Type::String, Type::Int));
        let nested = Type::map(
            Type::String,
            Type::map(Type::String, Type::map(Type::String, Type::Int)),
        );
        let environment = Environment::kubernetes(36)
            .with("input", Type::String)
            .with("data", Type::Bytes)
            .with("arg1", Type::String)
            .with("str1", Type::String)
            .with("str2", Type::String)
            .with("list", records.clone())
            .with("lists", Type::list(records))
            .with("strings", Type::list(Type::String))
            .with("list1", Type::list(Type::Int))
            .with("list2", Type::list(Type::Int))
            .with("texts1", Type::list(Type::String))
            .with("texts2", Type::list(Type::String))
            .with("map", Type::map(Type::String, Type::map(Type::String, Type::Int)))
            .with("nested", nested)
            .with("time", Type::Timestamp)
            .with("authorizer", Type::Opaque(crate::library::opaque::AUTHORIZER))
            .with("f", Type::Bool)
            .with("x", Type::Int)
            .with("y", Type::Int);
        let program = compile(&environment, text)
            .map_err(|issues| issues.to_string())
            .expect(text);
        assert_eq!(program.estimate(&Hints(hints)), Estimate { min, max }, "{text}");
    }

    #[test]
    fn estimates_are_those_of_cel_go() {
        check("input", &[], 1, 1);
        check("has(nested.a.b)", &[], 2, 2);
        check("{'a': 1, 'b': 2, 'c': 3}", &[], 30, 30);
        check("list.all(x, true)", &[("list", 100)], 2, 302);
        check(
            "lists.all(x, x.all(y, true))",
            &[("lists", 50), ("lists.@items", 10)],
            2,
            1752,
        );
        check("[1, 2, 3].all(x, true)", &[], 20, 20);
        check("input.matches('[0-9]')", &[("input", 500)], 3, 103);
        check("true || false", &[], 0, 0);
        check("f || f || f || f", &[], 1, 4);
        check("2 in [1, 2, 3]", &[], 13, 13);
        check("true ? 1 : 2", &[], 0, 0);
        check("string(data)", &[("data", 500)], 1, 51);
        check("string(data) == string(data)", &[("data", 500)], 3, 152);
        check("bytes(input) == bytes(input)", &[("input", 500)], 3, 302);
        check("input.contains(arg1)", &[("input", 500), ("arg1", 500)], 2, 2502);
        check("input.startsWith(arg1)", &[("arg1", 500)], 2, 52);
        check(
            "(x > 2 ? list1 : list2).all(y, true)",
            &[("list1", 1), ("list2", 1)],
            4,
            7,
        );
        check("map.all(k, map[k].single_int32 > 3)", &[("map", 10)], 2, 82);
        check(
            "nested.all(k, nested[k].all(x, true))",
            &[("nested", 5), ("nested.@values", 10)],
            2,
            187,
        );
        check(
            "nested.all(k, k.contains(k))",
            &[("nested", 5), ("nested.@keys", 10)],
            2,
            32,
        );
        check(
            "nested.all(k, nested[k].all(k, true) && k.contains(k))",
            &[("nested", 2), ("nested.@values", 2), ("nested.@keys", 5)],
            2,
            34,
        );
        check("(list1 + list2).all(x, true)", &[("list1", 10), ("list2", 10)], 4, 64);
        check("'abcdefg'.contains(str1 + str2)", &[("str1", 10), ("str2", 10)], 2, 6);
        check("list1.size() == list2.size()", &[], 5, 5);
        check("x > y ? list1.size() : list2.size()", &[], 5, 5);
        check("string(time) == string(time)", &[], 5, 1_844_674_407_370_955_268);
        check("time == time", &[], 3, 3);
        check("[1,2,3,4,5].filter(x, x % 2 == 0)", &[], 41, 101);
        check("[1,2,3,4,5].map(x, x)", &[], 86, 86);
        check("[1,2,3,4,5].map(x, x).filter(x, x % 2 == 0)", &[], 117, 177);
        check("[1,2,3,4,5].map(x, x).exists(x, x == 5) == true", &[], 108, 118);
        check("[1,2,3,4,5].map(x, x)[4]", &[], 87, 87);
        check("[[1,2],[1,2],[1,2],[1,2],[1,2]][4]", &[], 61, 61);
        check("{'a': [1,2], 'b': [1,2]}.b", &[], 51, 51);
        check(
            "[[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]].all(y, y.all(y, y == 1))",
            &[],
            76,
            136,
        );
        check("[1,2,3,4,5].map(x, [x, x]).all(y, y.all(y, y == 1))", &[], 157, 217);
        check(
            "['a', 'ab', 'abc', 'abcd', 'abcde'].map(x, [x, x]).all(y, y.all(y, y.startsWith('a')))",
            &[],
            157,
            217,
        );
        check(
            "strings.map(x, [x, x]).all(y, y.all(y, y.startsWith('a')))",
            &[("strings", 5), ("strings.@items", 10)],
            13,
            208,
        );
        check("[1,2,3].all(i, i in [1,2,3].map(j, j + j))", &[], 20, 230);
        check("dyn([1,2,3]).all(i, i in dyn([1,2,3]).map(j, j + j))", &[], 21, 234);
    }

    #[test]
    fn estimates_of_kubernetes_libraries() {
        check("[1, 2, 3, 4, 5].sum()", &[], 15, 15);
        check("authorizer.path('/x').check('get').allowed()", &[], 350_003, 350_003);
        check("lists.range(5)", &[], 16, 16);
        check("sets.contains([1, 2], [1])", &[], 23, 23);
        check("'abc'.trim()", &[], 1, 1);
        check("ip('192.168.0.1')", &[], 2, 2);
        check("cidr('192.168.0.0/24').containsIP('192.168.0.1')", &[], 5, 8);
        check("quantity('12')", &[], 1, 1);
    }
}
