//! What the checker's types do not tell of literals: times, patterns, and lists of one type. Source: the validators of
//! cel-go that Kubernetes switched on with 1.29 (`cel/validator.go`).

use std::collections::HashSet;

use super::Checked;
use crate::ast::{Call, Expr, Kind, Literal};
use crate::issues::Issues;
use crate::library::Regexes;
use crate::library::formatting::check_template;
use crate::types::Type;
use crate::value::Timestamp;
use crate::value::time::parse_duration;

pub(super) fn validate(checked: &Checked, places: &[usize], issues: &mut Issues) {
    // What stands in the arguments of `format` may be of any type.
    let mut exempt = HashSet::new();
    visit(&checked.root, &mut |expr| {
        if let Kind::Call(call) = &expr.kind
            && &*call.function == "format"
        {
            for argument in call.target.iter().chain(&call.arguments) {
                visit(argument, &mut |inner| _ = exempt.insert(inner.id));
            }
        }
    });
    visit(&checked.root, &mut |expr| match &expr.kind {
        Kind::Call(call) if &*call.function == "format" => template(checked, expr.id, call, places, issues),
        Kind::List(_) | Kind::Map(_) if exempt.contains(&expr.id) => {}
        Kind::Call(call) => {
            let Some(Expr {
                id,
                kind: Kind::Literal(Literal::String(text)),
                ..
            }) = call.arguments.first()
            else {
                return;
            };
            let good = match &*call.function {
                "duration" => parse_duration(text).is_ok(),
                "timestamp" => Timestamp::parse(text).is_some(),
                "matches" => Regexes::default().add(text).is_ok(),
                _ => return,
            };
            if !good {
                issues.add(places[*id], format!("invalid {} argument", call.function));
            }
        }
        Kind::List(elements) => {
            let types: Vec<(usize, Type)> = elements
                .iter()
                .map(|one| (one.value.id, one.optional))
                .map(typed(checked))
                .collect();
            homogeneous(&types, places, issues);
        }
        Kind::Map(entries) => {
            let keys: Vec<(usize, Type)> = entries
                .iter()
                .map(|one| (one.key.id, false))
                .map(typed(checked))
                .collect();
            let values: Vec<(usize, Type)> = entries
                .iter()
                .map(|one| (one.value.id, one.optional))
                .map(typed(checked))
                .collect();
            homogeneous(&keys, places, issues);
            homogeneous(&values, places, issues);
        }
        _ => {}
    });
}

/// A literal template with literal arguments is checked before it is ever formatted.
fn template(checked: &Checked, id: usize, call: &Call, places: &[usize], issues: &mut Issues) {
    let Some(Kind::Literal(Literal::String(text))) = call.target.as_ref().map(|target| &target.kind) else {
        return;
    };
    let [
        Expr {
            kind: Kind::List(elements),
            ..
        },
    ] = &call.arguments[..]
    else {
        return;
    };
    let kinds: Vec<&Type> = elements
        .iter()
        .map(|element| &checked.types[element.value.id])
        .collect();
    if let Err((argument, why)) = check_template(text, &kinds) {
        let blamed = argument.map_or(id, |argument| elements[argument].value.id);
        issues.add(places[blamed], why);
    }
}

/// An element with its type, without the optional around it.
fn typed(checked: &Checked) -> impl Fn((usize, bool)) -> (usize, Type) + '_ {
    |(id, optional)| match (&checked.types[id], optional) {
        (Type::Optional(inner), true) => (id, (**inner).clone()),
        (kind, _) => (id, kind.clone()),
    }
}

fn homogeneous(elements: &[(usize, Type)], places: &[usize], issues: &mut Issues) {
    let Some((_, first)) = elements.first() else { return };
    if let Some((id, other)) = elements.iter().find(|(_, kind)| !equivalent(first, kind)) {
        issues.add(places[*id], format!("expected type '{first}' but found '{other}'"));
    }
}

fn equivalent(one: &Type, other: &Type) -> bool {
    match (one, other) {
        (Type::Object(one), Type::Object(other)) => one.name == other.name,
        (Type::List(one, _), Type::List(other, _)) | (Type::Optional(one), Type::Optional(other)) => {
            equivalent(one, other)
        }
        (Type::Map(key, value), Type::Map(other_key, other_value)) => {
            equivalent(key, other_key) && equivalent(value, other_value)
        }
        (Type::Type(_), Type::Type(_)) => true,
        _ => one == other,
    }
}

/// Shows every node of a tree.
pub(crate) fn visit<'e>(expr: &'e Expr, see: &mut dyn FnMut(&'e Expr)) {
    see(expr);
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) | Kind::TypeName(_) | Kind::Constant(_) => {}
        Kind::Member(member) => visit(&member.0, see),
        Kind::Select(select) => visit(&select.operand, see),
        Kind::Call(call) => call
            .target
            .iter()
            .chain(&call.arguments)
            .for_each(|one| visit(one, see)),
        Kind::List(elements) => elements.iter().for_each(|one| visit(&one.value, see)),
        Kind::Map(entries) => {
            for entry in entries {
                visit(&entry.key, see);
                visit(&entry.value, see);
            }
        }
        Kind::Struct(made) => made.fields.iter().for_each(|field| visit(&field.value, see)),
        Kind::Fold(fold) => {
            for one in [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result] {
                visit(one, see);
            }
        }
    }
}
