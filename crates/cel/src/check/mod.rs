//! The checker: which variable and which overload each name means, and of what type everything is. Source of the rules and
//! the messages: cel-go's `checker/checker.go`.

mod literals;
mod unify;

use std::sync::Arc;

use crate::ast::{Call, Expr, Fold, Id, Kind, Literal, Select, Struct, operator};
use crate::environment::Environment;
use crate::issues::Issues;
use crate::library::{Overload, overloads, type_named};
use crate::parser::{Parsed, dotted};
use crate::types::{ObjectType, Type};

use unify::Bindings;

/// A tree of which everything is known.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) root: Expr,
    /// The type of each node by its id.
    pub(crate) types: Vec<Type>,
    /// The overloads that a call may mean, by its id; usually one.
    pub(crate) overloads: Vec<Vec<&'static Overload>>,
}

impl std::fmt::Debug for Overload {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(self.id)
    }
}

/// Checks a tree; names in it are replaced by what they mean.
pub(crate) fn check(environment: &Environment, text: &str, parsed: Parsed) -> Result<Checked, Issues> {
    let Parsed { mut root, places } = parsed;
    let count = places.len();
    let mut checker = Checker {
        environment,
        places,
        issues: Issues::new(text),
        scopes: Vec::new(),
        bindings: Bindings::default(),
        types: vec![Type::Error; count],
        overloads: (0..count).map(|_| Vec::new()).collect(),
    };
    checker.check(&mut root);
    let Checker {
        bindings,
        mut types,
        overloads,
        mut issues,
        places,
        ..
    } = checker;
    for kind in &mut types {
        *kind = bindings.resolve(kind, true);
    }
    let checked = Checked { root, types, overloads };
    if issues.is_empty() && environment.minor() >= 29 {
        literals::validate(&checked, &places, &mut issues);
    }
    if issues.is_empty() {
        Ok(checked)
    } else {
        Err(issues.sorted())
    }
}

/// The most parts of a type. Maps of maps of one another double with each step, and rules of resources have a few dozen.
const TYPE_PARTS_MAX: usize = 1000;

struct Checker<'e> {
    environment: &'e Environment,
    places: Vec<usize>,
    issues: Issues,
    /// Variables of loops, the innermost last.
    scopes: Vec<(Arc<str>, Type)>,
    bindings: Bindings,
    types: Vec<Type>,
    overloads: Vec<Vec<&'static Overload>>,
}

impl Checker<'_> {
    fn report(&mut self, id: Id, message: impl Into<String>) {
        self.issues.add(self.places[id], message);
    }

    fn undeclared(&mut self, id: Id, name: &str) -> Type {
        self.report(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn mismatch(&mut self, id: Id, expected: &Type, found: &Type) {
        self.report(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn check(&mut self, expr: &mut Expr) -> Type {
        let id = expr.id;
        let kind = match &mut expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::TypeName(kind) => kind.clone(),
            // Folding comes later.
            Kind::Constant(_) | Kind::Member(_) => Type::Dyn,
            Kind::Ident(name) => {
                let name = name.clone();
                self.ident(expr, &name)
            }
            Kind::Select(_) => self.select(expr),
            Kind::Call(call) => self.call(id, call),
            Kind::List(_) | Kind::Map(_) => self.aggregate(expr),
            Kind::Struct(made) => self.made(id, made),
            Kind::Fold(fold) => self.fold(fold),
        };
        let mut parts = TYPE_PARTS_MAX;
        let kind = if self.bindings.is_within(&kind, &mut parts) {
            kind
        } else {
            self.report(id, "the type of this expression is too large");
            Type::Error
        };
        self.types[id] = kind.clone();
        kind
    }

    /// A variable's type, or a type's name.
    fn ident(&mut self, expr: &mut Expr, name: &str) -> Type {
        let (absolute, bare) = name.strip_prefix('.').map_or((false, name), |bare| (true, bare));
        if !absolute && let Some((_, kind)) = self.scopes.iter().rev().find(|(known, _)| **known == *bare) {
            return kind.clone();
        }
        if let Some(kind) = self.environment.variable(bare) {
            let kind = kind.clone();
            // A loop's variable of the same name does not hide it: the dot stays.
            let hidden = self.scopes.iter().any(|(known, _)| **known == *bare);
            expr.kind = Kind::Ident(if hidden { Arc::from(name) } else { Arc::from(bare) });
            return kind;
        }
        match type_named(bare, self.environment.minor()) {
            Some(named) => {
                let kind = Type::Type(Some(Arc::new(named)));
                expr.kind = Kind::TypeName(kind.clone());
                kind
            }
            None => self.undeclared(expr.id, name),
        }
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        let id = expr.id;
        // `net.IP` is a name, unless `net` is a variable.
        if let Some(name) = dotted(expr).filter(|name| !self.is_variable(name))
            && let Some(named) = type_named(&name, self.environment.minor())
        {
            let kind = Type::Type(Some(Arc::new(named)));
            expr.kind = Kind::TypeName(kind.clone());
            return kind;
        }
        if let Some(name) =
            dotted(expr).filter(|name| self.environment.variable(name).is_some() && !self.is_local(name))
        {
            return self.ident(expr, &name);
        }
        let Kind::Select(select) = &mut expr.kind else {
            return Type::Error;
        };
        let Select { operand, field, test } = &mut **select;
        let operand = self.check(operand);
        let kind = self.field(id, &operand, field, false);
        if *test { Type::Bool } else { kind }
    }

    fn is_local(&self, path: &str) -> bool {
        let first = path.split('.').next().unwrap_or(path);
        self.scopes.iter().any(|(known, _)| **known == *first)
    }

    fn is_variable(&self, path: &str) -> bool {
        let first = path.split('.').next().unwrap_or(path);
        self.is_local(path) || self.environment.variable(first).is_some()
    }

    /// The type of a field of an operand; of an optional one, or with `optional`, an optional type.
    fn field(&mut self, id: Id, operand: &Type, field: &str, optional: bool) -> Type {
        let operand = self.bindings.resolve(operand, false);
        let (operand, was_optional) = match operand {
            Type::Optional(inner) => ((*inner).clone(), true),
            other => (other, false),
        };
        let kind = match &operand {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(object) => self.object_field(id, object, field),
            Type::Param(_) => {
                self.bindings.assign(&Type::Dyn, &operand);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.report(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if was_optional || optional {
            Type::optional(kind)
        } else {
            kind
        }
    }

    fn object_field(&mut self, id: Id, object: &ObjectType, field: &str) -> Type {
        match object.fields.get(field) {
            Some(field) => field.kind.clone(),
            None if object.open => Type::Dyn,
            None => {
                self.report(id, format!("undefined field '{field}'"));
                Type::Error
            }
        }
    }

    fn call(&mut self, id: Id, call: &mut Call) -> Type {
        if &*call.function == operator::OPTIONAL_SELECT {
            return self.optional_select(id, call);
        }
        let mut arguments: Vec<Type> = Vec::with_capacity(call.arguments.len() + 1);
        for argument in &mut call.arguments {
            arguments.push(self.check(argument));
        }
        let libraries = self.environment.libraries();
        // A receiver may be the first part of a function's name: `optional.of`.
        if let Some(prefix) = call.target.as_ref().and_then(dotted) {
            let name = format!("{prefix}.{}", call.function);
            let known = overloads(name.trim_start_matches('.'), libraries);
            if !known.is_empty() {
                call.function = Arc::from(name.trim_start_matches('.'));
                call.target = None;
                return self.resolve(id, call, &arguments, &known);
            }
        }
        let target = call.target.as_mut().map(|target| self.check(target));
        let name = call.function.trim_start_matches('.');
        let known = overloads(name, libraries);
        if known.is_empty() {
            let name = call.function.clone();
            return self.undeclared(id, &name);
        }
        if name.len() != call.function.len() {
            call.function = Arc::from(name);
        }
        if let Some(target) = target {
            arguments.insert(0, target);
        }
        self.resolve(id, call, &arguments, &known)
    }

    fn optional_select(&mut self, id: Id, call: &mut Call) -> Type {
        let [operand, field] = &mut call.arguments[..] else {
            return Type::Error;
        };
        let kind = self.check(operand);
        let Kind::Literal(Literal::String(name)) = &field.kind else {
            return Type::Error;
        };
        let name = name.clone();
        self.types[field.id] = Type::String;
        self.overloads[id] = overloads(operator::OPTIONAL_SELECT, self.environment.libraries());
        self.field(id, &kind, &name, true)
    }

    /// The overloads that take these arguments, and what they give.
    fn resolve(&mut self, id: Id, call: &Call, arguments: &[Type], known: &[&'static Overload]) -> Type {
        let member = call.target.is_some();
        if matches!(&*call.function, operator::AND | operator::OR) {
            self.overloads[id] = known.to_vec();
            return self.logical(call, arguments);
        }
        let mut result: Option<Type> = None;
        for overload in known.iter().filter(|overload| overload.member == member) {
            let mut own: Vec<(Arc<str>, Type)> = Vec::new();
            let parameters: Vec<Type> = overload
                .parameters
                .iter()
                .map(|parameter| self.instance(parameter, &mut own))
                .collect();
            if !self.bindings.assign_all(arguments, &parameters) {
                continue;
            }
            self.overloads[id].push(overload);
            let given = self.instance(&overload.result, &mut own);
            let given = self.bindings.resolve(&given, false);
            result = Some(match result {
                None => given,
                Some(Type::Dyn) => Type::Dyn,
                Some(before) if before == given => before,
                Some(_) => Type::Dyn,
            });
        }
        if let Some(result) = result {
            return result;
        }
        let shown: Vec<String> = arguments
            .iter()
            .map(|one| self.bindings.resolve(one, true).to_string())
            .collect();
        let (receiver, rest) = if member {
            (format!("{}.", shown[0]), &shown[1..])
        } else {
            (String::new(), &shown[..])
        };
        let message = format!(
            "found no matching overload for '{}' applied to '{receiver}({})'",
            call.function,
            rest.join(", ")
        );
        self.report(id, message);
        Type::Error
    }

    /// `&&` and `||` name the operand that is no bool.
    fn logical(&mut self, call: &Call, arguments: &[Type]) -> Type {
        let mut result = Type::Bool;
        for (expr, kind) in call.arguments.iter().zip(arguments) {
            if !self.bindings.assign(kind, &Type::Bool) {
                let kind = self.bindings.resolve(kind, false);
                self.mismatch(expr.id, &Type::Bool, &kind);
                result = Type::Error;
            }
        }
        result
    }

    /// A signature's type with fresh placeholders for its letters.
    fn instance(&mut self, kind: &Type, own: &mut Vec<(Arc<str>, Type)>) -> Type {
        if let Type::Param(letter) = kind {
            if let Some((_, fresh)) = own.iter().find(|(known, _)| known == letter) {
                return fresh.clone();
            }
            let fresh = self.bindings.fresh();
            own.push((letter.clone(), fresh.clone()));
            return fresh;
        }
        kind.map_parameters(&mut |inner| self.instance(inner, own))
    }

    /// The common type of what was there and one more element.
    fn join(&mut self, id: Id, before: Option<Type>, next: Type) -> Type {
        let Some(before) = before else { return next };
        if self.bindings.assign(&before, &next) {
            return unify::most_general(&before, &next);
        }
        // Kubernetes has literals of one type only (HomogeneousAggregateLiterals).
        let (shown, found) = (
            self.bindings.resolve(&before, false),
            self.bindings.resolve(&next, false),
        );
        self.mismatch(id, &shown, &found);
        Type::Error
    }

    /// An element's type without the optional around it, when it is an optional one.
    fn element(&mut self, value: &mut Expr, optional: bool) -> Type {
        let kind = self.check(value);
        if !optional {
            return kind;
        }
        match self.bindings.resolve(&kind, false) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn => Type::Dyn,
            other => {
                self.mismatch(value.id, &Type::optional(other.clone()), &other);
                other
            }
        }
    }

    fn aggregate(&mut self, expr: &mut Expr) -> Type {
        match &mut expr.kind {
            Kind::List(elements) => {
                let mut common = None;
                for element in elements {
                    let kind = self.element(&mut element.value, element.optional);
                    common = Some(self.join(element.value.id, common, kind));
                }
                Type::list(common.unwrap_or_else(|| self.bindings.fresh()))
            }
            Kind::Map(entries) => {
                let (mut key, mut value) = (None, None);
                for entry in entries {
                    let kind = self.check(&mut entry.key);
                    key = Some(self.join(entry.key.id, key, kind));
                    let kind = self.element(&mut entry.value, entry.optional);
                    value = Some(self.join(entry.value.id, value, kind));
                }
                let key = key.unwrap_or_else(|| self.bindings.fresh());
                let value = value.unwrap_or_else(|| self.bindings.fresh());
                Type::map(key, value)
            }
            _ => Type::Error,
        }
    }

    fn made(&mut self, id: Id, made: &mut Struct) -> Type {
        let name = made.name.clone();
        let object = self.environment.object(name.trim_start_matches('.'));
        if object.is_none() {
            self.undeclared(id, &name);
        }
        for field in &mut made.fields {
            let given = self.element(&mut field.value, field.optional);
            let Some(object) = &object else { continue };
            let expected = self.object_field(field.id, object, &field.name);
            if !self.bindings.assign(&expected, &given) {
                let given = self.bindings.resolve(&given, false);
                let name = &field.name;
                let message = format!("expected type of field '{name}' is '{expected}' but provided type is '{given}'");
                self.report(field.id, message);
            }
        }
        object.map_or(Type::Error, Type::Object)
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        let range = self.check(&mut fold.range);
        let accumulated = self.check(&mut fold.init);
        let range = self.bindings.resolve(&range, false);
        let two = fold.variable2.is_some();
        let (first, second) = match &range {
            Type::List(element, _) if two => (Type::Int, (**element).clone()),
            Type::List(element, _) => ((**element).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.bindings.assign(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.report(fold.range.id, message);
                (Type::Error, Type::Error)
            }
        };
        let outside = self.scopes.len();
        self.scopes.push((fold.accumulator.clone(), accumulated.clone()));
        self.scopes.push((fold.variable.clone(), first));
        if let Some(variable) = &fold.variable2 {
            self.scopes.push((variable.clone(), second));
        }
        let condition = self.check(&mut fold.condition);
        self.expect(fold.condition.id, &Type::Bool, &condition);
        let step = self.check(&mut fold.step);
        self.expect(fold.step.id, &accumulated, &step);
        self.scopes.truncate(outside + 1);
        let result = self.check(&mut fold.result);
        self.scopes.truncate(outside);
        self.bindings.resolve(&result, false)
    }

    fn expect(&mut self, id: Id, expected: &Type, found: &Type) {
        if !self.bindings.assign(expected, found) {
            let (expected, found) = (
                self.bindings.resolve(expected, false),
                self.bindings.resolve(found, false),
            );
            self.mismatch(id, &expected, &found);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
