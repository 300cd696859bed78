//! Macros: calls that the parser replaces by other trees. Sources: cel-go's `parser/macro.go`, `ext/comprehensions.go`,
//! `ext/bindings.go`, `ext/lists.go` and the optional library.

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Element, Expr, Fold, Id, Kind, Literal, Select, operator};
use crate::build::Build;

/// A variable that nothing uses.
const UNUSED: &str = "#unused";
/// The old name of the accumulator, which stays forbidden.
const OLD_ACCUMULATOR: &str = "__result__";
/// Inserts an entry into a map that must not have its key yet.
pub(crate) const MAP_INSERT: &str = "cel.@mapInsert";
/// Sorts a list by a list of keys.
pub(crate) const SORT_BY_KEYS: &str = "@sortByAssociatedKeys";

/// A call, or what its macro makes of it.
pub(crate) fn call(build: &mut Build, id: Id, function: &str, target: Option<Expr>, arguments: Vec<Expr>) -> Expr {
    let syntax = build.syntax;
    let count = arguments.len();
    let Some(target) = target else {
        if function == "has" && count == 1 {
            return has(build, id, arguments);
        }
        return build.call_at(id, function, None, arguments);
    };
    let quantifier = matches!(function, "all" | "exists" | "exists_one" | "existsOne");
    let transform = matches!(function, "transformList" | "transformMap" | "transformMapEntry");
    let expansion = Expansion { build, id, arguments };
    match function {
        _ if quantifier && count == 2 => expansion.quantifier(function, target, 1),
        _ if quantifier && count == 3 && syntax.two_variables => expansion.quantifier(function, target, 2),
        _ if transform && matches!(count, 3 | 4) && syntax.two_variables => expansion.transform(function, target),
        "map" if matches!(count, 2 | 3) => expansion.map(target),
        "filter" if count == 2 => expansion.filter(target),
        "optMap" | "optFlatMap" if count == 2 && syntax.optionals => expansion.optional(function, target),
        "bind" if count == 3 && syntax.bind && matches!(&target.kind, Kind::Ident(name) if &**name == "cel") => {
            expansion.bind()
        }
        "sortBy" if count == 2 && syntax.sort_by => expansion.sort_by(target),
        _ => {
            let Expansion { build, id, arguments } = expansion;
            build.call_at(id, function, Some(target), arguments)
        }
    }
}

fn has(build: &mut Build, id: Id, mut arguments: Vec<Expr>) -> Expr {
    let argument = arguments.remove(0);
    let place = build.place(id);
    match argument.kind {
        Kind::Select(select) if !select.test => {
            let test = Select {
                operand: select.operand,
                field: select.field,
                test: true,
            };
            build.new_node(place, Kind::Select(Box::new(test)))
        }
        _ => build.error(argument.id, "invalid argument to has() macro"),
    }
}

fn ident(expr: &Expr) -> Option<Arc<str>> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        _ => None,
    }
}

/// A macro's call while it is expanded.
struct Expansion<'a> {
    build: &'a mut Build,
    id: Id,
    arguments: Vec<Expr>,
}

/// A loop's variables; what is wrong with them was reported.
struct Variables {
    first: Arc<str>,
    second: Option<Arc<str>>,
}

impl Expansion<'_> {
    fn place(&self) -> usize {
        self.build.place(self.id)
    }

    fn call(&mut self, function: &str, arguments: Vec<Expr>) -> Expr {
        let place = self.place();
        self.build.call(place, function, arguments)
    }

    fn member(&mut self, function: &str, target: Expr) -> Expr {
        let id = self.build.id(self.place());
        self.build.call_at(id, function, Some(target), Vec::new())
    }

    fn accumulator(&mut self) -> Expr {
        let place = self.place();
        self.build.ident(place, ACCUMULATOR)
    }

    fn literal(&mut self, literal: Literal) -> Expr {
        let place = self.place();
        self.build.literal(place, literal)
    }

    fn list(&mut self, elements: Vec<Expr>) -> Expr {
        let place = self.place();
        let element = |value| Element { value, optional: false };
        let elements = elements.into_iter().map(element).collect();
        self.build.new_node(place, Kind::List(elements))
    }

    fn fold(&mut self, fold: Fold) -> Expr {
        let place = self.place();
        self.build.new_node(place, Kind::Fold(Box::new(fold)))
    }

    /// Takes the first `count` arguments as variables.
    fn variables(&mut self, count: usize, not_a_name: &str) -> Result<Variables, Expr> {
        let names: Vec<Expr> = self.arguments.drain(..count).collect();
        let mut taken: Vec<Arc<str>> = Vec::new();
        for expr in &names {
            let Some(name) = ident(expr) else {
                return Err(self.build.error(expr.id, not_a_name));
            };
            if taken.contains(&name) {
                return Err(self.build.error(expr.id, format!("duplicate variable name: {name}")));
            }
            if *name == *ACCUMULATOR || *name == *OLD_ACCUMULATOR {
                return Err(self
                    .build
                    .error(expr.id, "iteration variable overwrites accumulator variable"));
            }
            taken.push(name);
        }
        let mut taken = taken.into_iter();
        let first = taken.next().expect("invariant: a loop has a variable");
        Ok(Variables {
            first,
            second: taken.next(),
        })
    }

    fn quantifier(mut self, function: &str, range: Expr, count: usize) -> Expr {
        let variables = match self.variables(count, "argument must be a simple name") {
            Ok(variables) => variables,
            Err(error) => return error,
        };
        let predicate = self.arguments.remove(0);
        let (init, condition, step, result);
        match function {
            "all" => {
                init = self.literal(Literal::Bool(true));
                let so_far = self.accumulator();
                condition = self.call(operator::NOT_STRICTLY_FALSE, vec![so_far]);
                let so_far = self.accumulator();
                step = self.call(operator::AND, vec![so_far, predicate]);
                result = self.accumulator();
            }
            "exists" => {
                init = self.literal(Literal::Bool(false));
                let so_far = self.accumulator();
                let not = self.call(operator::NOT, vec![so_far]);
                condition = self.call(operator::NOT_STRICTLY_FALSE, vec![not]);
                let so_far = self.accumulator();
                step = self.call(operator::OR, vec![so_far, predicate]);
                result = self.accumulator();
            }
            _ => {
                init = self.literal(Literal::Int(0));
                condition = self.literal(Literal::Bool(true));
                let (so_far, one) = (self.accumulator(), self.literal(Literal::Int(1)));
                let more = self.call(operator::ADD, vec![so_far, one]);
                let same = self.accumulator();
                step = self.call(operator::CONDITIONAL, vec![predicate, more, same]);
                let (so_far, one) = (self.accumulator(), self.literal(Literal::Int(1)));
                result = self.call(operator::EQUALS, vec![so_far, one]);
            }
        }
        self.loop_over(range, variables, init, condition, step, result)
    }

    fn loop_over(
        &mut self,
        range: Expr,
        variables: Variables,
        init: Expr,
        condition: Expr,
        step: Expr,
        result: Expr,
    ) -> Expr {
        self.fold(Fold {
            range,
            variable: variables.first,
            variable2: variables.second,
            accumulator: Arc::from(ACCUMULATOR),
            init,
            condition,
            step,
            result,
        })
    }

    /// A loop that collects: `step`, where `filter` holds.
    fn collect(&mut self, range: Expr, variables: Variables, init: Expr, filter: Option<Expr>, step: Expr) -> Expr {
        let condition = self.literal(Literal::Bool(true));
        let step = match filter {
            None => step,
            Some(filter) => {
                let same = self.accumulator();
                self.call(operator::CONDITIONAL, vec![filter, step, same])
            }
        };
        let result = self.accumulator();
        self.loop_over(range, variables, init, condition, step, result)
    }

    /// `accumulator + [item]`.
    fn append(&mut self, item: Expr) -> Expr {
        let so_far = self.accumulator();
        let item = self.list(vec![item]);
        self.call(operator::ADD, vec![so_far, item])
    }

    fn map(mut self, range: Expr) -> Expr {
        let variables = match self.variables(1, "argument is not an identifier") {
            Ok(variables) => variables,
            Err(error) => return error,
        };
        let transform = self.arguments.pop().expect("invariant: two or three arguments");
        let filter = self.arguments.pop();
        let init = self.list(Vec::new());
        let step = self.append(transform);
        self.collect(range, variables, init, filter, step)
    }

    fn filter(mut self, range: Expr) -> Expr {
        let item = self.build.copy(&self.arguments[0]);
        let variables = match self.variables(1, "argument is not an identifier") {
            Ok(variables) => variables,
            Err(error) => return error,
        };
        let filter = self.arguments.pop();
        let init = self.list(Vec::new());
        let step = self.append(item);
        self.collect(range, variables, init, filter, step)
    }

    fn transform(mut self, function: &str, range: Expr) -> Expr {
        let variables = match self.variables(2, "argument must be a simple name") {
            Ok(variables) => variables,
            Err(error) => return error,
        };
        let transform = self.arguments.pop().expect("invariant: three or four arguments");
        let filter = self.arguments.pop();
        let place = self.place();
        if function == "transformList" {
            let init = self.list(Vec::new());
            let step = self.append(transform);
            return self.collect(range, variables, init, filter, step);
        }
        let init = self.build.new_node(place, Kind::Map(Vec::new()));
        let mut arguments = vec![self.accumulator()];
        if function == "transformMap" {
            arguments.push(self.build.ident(place, &variables.first));
        }
        arguments.push(transform);
        let step = self.call(MAP_INSERT, arguments);
        self.collect(range, variables, init, filter, step)
    }

    /// A name for a value: a loop that never loops.
    fn named(&mut self, name: Arc<str>, value: Expr, result: Expr) -> Expr {
        let range = self.list(Vec::new());
        let condition = self.literal(Literal::Bool(false));
        let place = self.place();
        let step = self.build.ident(place, &name);
        self.fold(Fold {
            range,
            variable: Arc::from(UNUSED),
            variable2: None,
            accumulator: name,
            init: value,
            condition,
            step,
            result,
        })
    }

    fn bind(mut self) -> Expr {
        let result = self.arguments.pop().expect("invariant: three arguments");
        let value = self.arguments.pop().expect("invariant: three arguments");
        let Some(name) = ident(&self.arguments[0]) else {
            return self.build.error(
                self.arguments[0].id,
                "cel.bind() variable names must be simple identifiers",
            );
        };
        self.named(name, value, result)
    }

    fn optional(mut self, function: &str, target: Expr) -> Expr {
        let result = self.arguments.pop().expect("invariant: two arguments");
        let Some(name) = ident(&self.arguments[0]) else {
            let message = format!("{function}() variable name must be a simple identifier");
            return self.build.error(self.arguments[0].id, message);
        };
        let copy = self.build.copy(&target);
        let there = self.member("hasValue", target);
        let value = self.member("value", copy);
        let mut mapped = self.named(name, value, result);
        if function == "optMap" {
            mapped = self.call("optional.of", vec![mapped]);
        }
        let none = self.call("optional.none", Vec::new());
        self.call(operator::CONDITIONAL, vec![there, mapped, none])
    }

    /// `list.sortBy(e, key)`: the list is bound, its keys are mapped, and both are sorted together.
    fn sort_by(mut self, target: Expr) -> Expr {
        const BOUND: &str = "@__sortBy_input__";
        if !matches!(
            target.kind,
            Kind::List(_) | Kind::Select(_) | Kind::Ident(_) | Kind::Fold(_) | Kind::Call(_)
        ) {
            let message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return self.build.error(target.id, message);
        }
        let place = self.place();
        let variables = match self.variables(1, "argument is not an identifier") {
            Ok(variables) => variables,
            Err(error) => return error,
        };
        let key = self.arguments.pop().expect("invariant: two arguments");
        let init = self.list(Vec::new());
        let step = self.append(key);
        let range = self.build.ident(place, BOUND);
        let keys = self.collect(range, variables, init, None, step);
        let list = self.build.ident(place, BOUND);
        let id = self.build.id(place);
        let sorted = self.build.call_at(id, SORT_BY_KEYS, Some(list), vec![keys]);
        self.named(Arc::from(BOUND), target, sorted)
    }
}
