//! The tree that the parser makes, with macros expanded.
//!
//! Invariant: every node has an id of its own, by which its place in the text, its type and its overloads are found; its
//! height is bounded by [`HEIGHT_MAX`], so that whoever walks it may recurse.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::types::Type;
use crate::value::{Key, Value};

/// The highest tree, as cel-go limits the recursion of its parser. Whoever walks a tree recurses, on stacks of 2 MiB.
pub(crate) const HEIGHT_MAX: u16 = 250;

/// The number of a node.
pub(crate) type Id = usize;

/// A node.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) id: Id,
    /// The nodes on the longest way down from here.
    pub(crate) height: u16,
    pub(crate) kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(Arc<str>),
    /// A name that the checker found to be a type's; this is the type of that type.
    TypeName(Type),
    /// A value that folding found.
    Constant(Box<Value<'static>>),
    /// Whether a value is one of a set, which folding made of a list of literals.
    Member(Box<(Expr, Arc<BTreeSet<Key<'static>>>)>),
    Select(Box<Select>),
    Call(Box<Call>),
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct(Box<Struct>),
    Fold(Box<Fold>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

/// `operand.field`, or with `test` `has(operand.field)`.
#[derive(Clone, Debug)]
pub(crate) struct Select {
    pub(crate) operand: Expr,
    pub(crate) field: Arc<str>,
    pub(crate) test: bool,
}

/// `function(arguments)`, or with a target `target.function(arguments)`.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) function: Arc<str>,
    pub(crate) target: Option<Expr>,
    pub(crate) arguments: Vec<Expr>,
}

/// One of a list's elements; an optional one is left out when it has no value.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// One of a map's entries; an optional one is left out when its value has no value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// `Name{field: value}`.
#[derive(Clone, Debug)]
pub(crate) struct Struct {
    pub(crate) name: Arc<str>,
    pub(crate) fields: Vec<FieldInit>,
}

/// One of a record's fields.
#[derive(Clone, Debug)]
pub(crate) struct FieldInit {
    pub(crate) id: Id,
    pub(crate) name: Arc<str>,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// What macros with a variable become: the accumulator begins as `init`, and for each item of `range` while `condition`
/// holds it becomes `step`; then comes `result`.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub(crate) range: Expr,
    pub(crate) variable: Arc<str>,
    pub(crate) variable2: Option<Arc<str>>,
    pub(crate) accumulator: Arc<str>,
    pub(crate) init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

impl Fold {
    /// Whether this only binds a name to a value: `cel.bind` and `optMap`, which never loop.
    pub(crate) fn is_bind(&self) -> bool {
        matches!(&self.range.kind, Kind::List(elements) if elements.is_empty())
            && matches!(self.condition.kind, Kind::Literal(Literal::Bool(false)))
            && &*self.accumulator != ACCUMULATOR
    }
}

/// The accumulator of loops, which no expression can name.
pub(crate) const ACCUMULATOR: &str = "@result";

impl Kind {
    /// The height of a node of this kind.
    pub(crate) fn height(&self) -> u16 {
        let below = match self {
            Kind::Literal(_) | Kind::Ident(_) | Kind::TypeName(_) | Kind::Constant(_) => 0,
            Kind::Member(member) => member.0.height,
            Kind::Select(select) => select.operand.height,
            Kind::Call(call) => call
                .target
                .iter()
                .chain(&call.arguments)
                .map(|one| one.height)
                .max()
                .unwrap_or(0),
            Kind::List(elements) => elements.iter().map(|one| one.value.height).max().unwrap_or(0),
            Kind::Map(entries) => {
                let both = |entry: &Entry| entry.key.height.max(entry.value.height);
                entries.iter().map(both).max().unwrap_or(0)
            }
            Kind::Struct(made) => made.fields.iter().map(|field| field.value.height).max().unwrap_or(0),
            Kind::Fold(fold) => [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result]
                .map(|one| one.height)
                .into_iter()
                .max()
                .unwrap_or(0),
        };
        below.saturating_add(1)
    }
}

/// The names by which operators are declared and called.
pub(crate) mod operator {
    pub(crate) const CONDITIONAL: &str = "_?_:_";
    pub(crate) const AND: &str = "_&&_";
    pub(crate) const OR: &str = "_||_";
    pub(crate) const NOT: &str = "!_";
    pub(crate) const EQUALS: &str = "_==_";
    pub(crate) const NOT_EQUALS: &str = "_!=_";
    pub(crate) const LESS: &str = "_<_";
    pub(crate) const LESS_EQUALS: &str = "_<=_";
    pub(crate) const GREATER: &str = "_>_";
    pub(crate) const GREATER_EQUALS: &str = "_>=_";
    pub(crate) const ADD: &str = "_+_";
    pub(crate) const SUBTRACT: &str = "_-_";
    pub(crate) const MULTIPLY: &str = "_*_";
    pub(crate) const DIVIDE: &str = "_/_";
    pub(crate) const MODULO: &str = "_%_";
    pub(crate) const NEGATE: &str = "-_";
    pub(crate) const INDEX: &str = "_[_]";
    pub(crate) const OPTIONAL_INDEX: &str = "_[?_]";
    pub(crate) const OPTIONAL_SELECT: &str = "_?._";
    pub(crate) const IN: &str = "@in";
    pub(crate) const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
}
