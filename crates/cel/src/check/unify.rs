//! Which type may stand where another is expected, and what placeholders come to stand for. Source of the rules: cel-go's
//! `checker/types.go`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::Type;

/// What placeholders stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct Bindings {
    bound: HashMap<Arc<str>, Type>,
    /// What was bound before since the last attempt began, to take an attempt back.
    undo: Vec<(Arc<str>, Option<Type>)>,
    fresh: usize,
}

impl Bindings {
    /// A placeholder of the checker's own.
    pub(super) fn fresh(&mut self) -> Type {
        let name = format!("_var{}", self.fresh);
        self.fresh += 1;
        Type::param(&name)
    }

    /// A type with every placeholder replaced that is known; with `close` the others become `dyn`.
    pub(super) fn resolve(&self, kind: &Type, close: bool) -> Type {
        match kind {
            Type::Param(name) => match self.bound.get(name) {
                Some(bound) => self.resolve(bound, close),
                None if close => Type::Dyn,
                None => kind.clone(),
            },
            _ => kind.map_parameters(&mut |inner| self.resolve(inner, close)),
        }
    }

    /// Whether each of `given` may stand for its `expected`; what placeholders became is only kept if so.
    pub(super) fn assign_all(&mut self, given: &[Type], expected: &[Type]) -> bool {
        if given.len() != expected.len() {
            return false;
        }
        self.undo.clear();
        let fits = given
            .iter()
            .zip(expected)
            .all(|(given, expected)| self.fits(given, expected));
        while let Some((name, before)) = self.undo.pop().filter(|_| !fits) {
            match before {
                Some(before) => self.bound.insert(name, before),
                None => self.bound.remove(&name),
            };
        }
        fits
    }

    fn bind(&mut self, name: &Arc<str>, kind: Type) {
        let before = self.bound.insert(name.clone(), kind);
        self.undo.push((name.clone(), before));
    }

    /// Whether a type has at most `left` parts, all placeholders replaced; takes them away.
    pub(super) fn is_within(&self, kind: &Type, left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(1) else { return false };
        *left = rest;
        match kind {
            Type::Param(name) => self.bound.get(name).is_none_or(|bound| self.is_within(bound, left)),
            _ => kind.parameters().into_iter().all(|inner| self.is_within(inner, left)),
        }
    }

    pub(super) fn assign(&mut self, given: &Type, expected: &Type) -> bool {
        self.assign_all(std::slice::from_ref(given), std::slice::from_ref(expected))
    }

    fn fits(&mut self, one: &Type, other: &Type) -> bool {
        if let Type::Param(name) = other {
            match self.stands_for(one, other, name) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Param(name) = one {
            return self.stands_for(other, one, name).0;
        }
        if one.is_dyn_or_error() || other.is_dyn_or_error() {
            return true;
        }
        match (one, other) {
            (Type::Null, other) | (other, Type::Null) => is_nullable(other),
            (Type::List(one, _), Type::List(other, _)) | (Type::Optional(one), Type::Optional(other)) => {
                self.fits(one, other)
            }
            (Type::Map(key, value), Type::Map(other_key, other_value)) => {
                self.fits(key, other_key) && self.fits(value, other_value)
            }
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Object(one), Type::Object(other)) => Arc::ptr_eq(one, other) || one.name == other.name,
            _ => one == other,
        }
    }

    /// Whether a placeholder may stand for a type, and whether it already stood for one.
    fn stands_for(&mut self, kind: &Type, placeholder: &Type, name: &Arc<str>) -> (bool, bool) {
        if kind == placeholder {
            return (true, true);
        }
        if let Some(bound) = self.bound.get(name).cloned() {
            if bound == *kind {
                return (true, true);
            }
            if !self.fits(kind, &bound) {
                return (false, true);
            }
            let general = most_general(kind, &bound);
            if !self.occurs(name, &general) {
                self.bind(name, general);
            }
            return (true, true);
        }
        if self.occurs(name, kind) {
            return (false, false);
        }
        self.bind(name, kind.clone());
        (true, false)
    }

    /// Whether a placeholder is part of a type.
    fn occurs(&self, name: &Arc<str>, within: &Type) -> bool {
        match within {
            Type::Param(other) if other == name => true,
            Type::Param(other) => self.bound.get(other).is_some_and(|bound| self.occurs(name, bound)),
            _ => within.parameters().into_iter().any(|inner| self.occurs(name, inner)),
        }
    }
}

/// `null` may stand for records, times and the values of libraries.
fn is_nullable(kind: &Type) -> bool {
    matches!(
        kind,
        Type::Null | Type::Object(_) | Type::Duration | Type::Timestamp | Type::Opaque(_) | Type::Optional(_)
    )
}

/// The more general of two types that fit each other.
pub(super) fn most_general(one: &Type, other: &Type) -> Type {
    if is_less_specific(one, other) {
        one.clone()
    } else {
        other.clone()
    }
}

fn is_less_specific(one: &Type, other: &Type) -> bool {
    match (one, other) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(one, _), Type::List(other, _)) | (Type::Optional(one), Type::Optional(other)) => {
            is_less_specific(one, other)
        }
        (Type::Map(key, value), Type::Map(other_key, other_value)) => {
            is_less_specific(key, other_key) && is_less_specific(value, other_value)
        }
        (Type::Type(_), Type::Type(_)) => true,
        _ => one == other,
    }
}
