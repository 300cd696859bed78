//! Folding of constants: lists and maps of literals, conversions of literals, and membership in a list of literals, as
//! cel-go's `OptOptimize` does. What is folded costs nothing at run time.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ast::{Expr, Kind, Literal, operator};
use crate::eval;
use crate::program::{Error, Program};
use crate::value::{Key, Value};

/// Functions that convert; of a literal they are literals.
const CONVERSIONS: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "dyn",
    "duration",
    "int",
    "string",
    "timestamp",
    "type",
    "uint",
];
/// Functions whose second argument is a pattern.
const PATTERNS: &[&str] = &["matches", "find", "findAll"];

/// Folds a program's plan and compiles its literal patterns.
pub(crate) fn fold_constants(program: &mut Program) -> Result<(), Error> {
    let mut plan = program.plan.clone();
    visit(program, &mut plan)?;
    program.plan = plan;
    Ok(())
}

fn is_constant(expr: &Expr) -> bool {
    matches!(expr.kind, Kind::Literal(_) | Kind::TypeName(_) | Kind::Constant(_))
}

fn visit(program: &mut Program, expr: &mut Expr) -> Result<(), Error> {
    let constant = match &mut expr.kind {
        Kind::Literal(_) | Kind::Ident(_) | Kind::TypeName(_) | Kind::Constant(_) | Kind::Member(_) => false,
        Kind::Select(select) => {
            visit(program, &mut select.operand)?;
            false
        }
        Kind::Call(call) => {
            for one in call.target.iter_mut().chain(&mut call.arguments) {
                visit(program, one)?;
            }
            if PATTERNS.contains(&&*call.function) {
                let pattern = if call.target.is_some() {
                    call.arguments.first()
                } else {
                    call.arguments.get(1)
                };
                if let Some(Expr {
                    kind: Kind::Literal(Literal::String(pattern)),
                    ..
                }) = pattern
                {
                    program.regexes.add(pattern).map_err(Error::evaluation)?;
                }
            }
            call.target.is_none()
                && CONVERSIONS.contains(&&*call.function)
                && matches!(&call.arguments[..], [only] if is_constant(only))
        }
        Kind::List(elements) => {
            for element in elements.iter_mut() {
                visit(program, &mut element.value)?;
            }
            elements
                .iter()
                .all(|element| is_constant(&element.value) && !element.optional)
        }
        Kind::Map(entries) => {
            for entry in entries.iter_mut() {
                visit(program, &mut entry.key)?;
                visit(program, &mut entry.value)?;
            }
            entries
                .iter()
                .all(|entry| is_constant(&entry.key) && is_constant(&entry.value) && !entry.optional)
        }
        Kind::Struct(made) => {
            for field in &mut made.fields {
                visit(program, &mut field.value)?;
            }
            false
        }
        Kind::Fold(fold) => {
            let fold = &mut **fold;
            for one in [
                &mut fold.range,
                &mut fold.init,
                &mut fold.condition,
                &mut fold.step,
                &mut fold.result,
            ] {
                visit(program, one)?;
            }
            false
        }
    };
    if constant {
        let (value, _) = eval::run(program, expr, &[], u64::MAX);
        expr.kind = Kind::Constant(Box::new(value?));
    } else if let Some(member) = membership(program, expr) {
        expr.kind = member;
    }
    Ok(())
}

/// `x in [1, 2]`: a look into a set, when every element can be one of a set's.
fn membership(program: &Program, expr: &mut Expr) -> Option<Kind> {
    let Kind::Call(call) = &mut expr.kind else { return None };
    let overloads = &program.checked.overloads[expr.id];
    if &*call.function != operator::IN || !matches!(&overloads[..], [only] if only.id == "in_list") {
        return None;
    }
    let Kind::Constant(list) = &call.arguments.get(1)?.kind else {
        return None;
    };
    let Value::List(list) = &**list else { return None };
    let set: Option<BTreeSet<Key<'static>>> = list.iter().map(|value| Key::of(&value)).collect();
    let set = Arc::new(set?);
    Some(Kind::Member(Box::new((call.arguments.swap_remove(0), set))))
}
