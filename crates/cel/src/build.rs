//! Makes the nodes of a tree: ids, places and limits.

use std::sync::Arc;

use crate::ast::{Call, Expr, HEIGHT_MAX, Id, Kind, Literal};
use crate::issues::Issues;
use crate::parser::Syntax;

/// The most nodes that macros may expand to: `optMap` copies what it is called on, so that a chain of it doubles.
const NODES_MAX: usize = 200_000;

/// Makes nodes.
pub(crate) struct Build {
    /// For each id, the character from the start of the text.
    pub(crate) places: Vec<usize>,
    pub(crate) issues: Issues,
    pub(crate) syntax: Syntax,
    /// A limit was passed: the tree is no good.
    pub(crate) too_much: bool,
}

impl Build {
    /// A new id for a node at a place of the text.
    pub(crate) fn id(&mut self, place: usize) -> Id {
        self.places.push(place);
        self.places.len() - 1
    }

    pub(crate) fn place(&self, id: Id) -> usize {
        self.places[id]
    }

    /// A node; when the tree grows past its limits, an empty one, and the parser ends.
    pub(crate) fn node(&mut self, id: Id, kind: Kind) -> Expr {
        let height = kind.height();
        if height > HEIGHT_MAX || self.places.len() > NODES_MAX {
            self.too_much = true;
            return Expr {
                id,
                height: 1,
                kind: Kind::Literal(Literal::Null),
            };
        }
        Expr { id, height, kind }
    }

    pub(crate) fn new_node(&mut self, place: usize, kind: Kind) -> Expr {
        let id = self.id(place);
        self.node(id, kind)
    }

    pub(crate) fn ident(&mut self, place: usize, name: &str) -> Expr {
        self.new_node(place, Kind::Ident(Arc::from(name)))
    }

    pub(crate) fn literal(&mut self, place: usize, literal: Literal) -> Expr {
        self.new_node(place, Kind::Literal(literal))
    }

    pub(crate) fn call(&mut self, place: usize, function: &str, arguments: Vec<Expr>) -> Expr {
        let id = self.id(place);
        self.call_at(id, function, None, arguments)
    }

    pub(crate) fn call_at(&mut self, id: Id, function: &str, target: Option<Expr>, arguments: Vec<Expr>) -> Expr {
        let call = Call {
            function: Arc::from(function),
            target,
            arguments,
        };
        self.node(id, Kind::Call(Box::new(call)))
    }

    /// Reports an error at a node, and what stands in its place.
    pub(crate) fn error(&mut self, id: Id, message: impl Into<String>) -> Expr {
        let place = self.place(id);
        self.issues.add(place, message);
        self.literal(place, Literal::Null)
    }

    /// The same tree with ids of its own.
    pub(crate) fn copy(&mut self, expr: &Expr) -> Expr {
        let mut copy = expr.clone();
        self.renumber(&mut copy);
        copy
    }

    fn renumber(&mut self, expr: &mut Expr) {
        if self.places.len() > NODES_MAX {
            self.too_much = true;
            return;
        }
        expr.id = self.id(self.place(expr.id));
        match &mut expr.kind {
            Kind::Literal(_) | Kind::Ident(_) | Kind::TypeName(_) | Kind::Constant(_) => {}
            Kind::Member(member) => self.renumber(&mut member.0),
            Kind::Select(select) => self.renumber(&mut select.operand),
            Kind::Call(call) => call
                .target
                .iter_mut()
                .chain(&mut call.arguments)
                .for_each(|one| self.renumber(one)),
            Kind::List(elements) => elements.iter_mut().for_each(|one| self.renumber(&mut one.value)),
            Kind::Map(entries) => {
                for entry in entries {
                    self.renumber(&mut entry.key);
                    self.renumber(&mut entry.value);
                }
            }
            Kind::Struct(made) => {
                for field in &mut made.fields {
                    field.id = self.id(self.place(field.id));
                    self.renumber(&mut field.value);
                }
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
                    self.renumber(one);
                }
            }
        }
    }
}
