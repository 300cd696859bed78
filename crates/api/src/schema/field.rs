//! A field of an object and the rules that go with it.

use serde_json::Value;

use super::graph::FieldData;
use super::{Graph, Node};

/// When upstream leaves a field out of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Omit {
    /// When it is empty (`omitempty`). Go counts a struct that is not behind a pointer as never empty.
    Empty,
    /// When it is the zero value, structs included (`omitzero`).
    Zero,
    /// Never.
    Never,
    /// When it was not given: a list that is empty is not the same as none. Go tells the two apart before an object is stored;
    /// what is stored has no empty one.
    NotGiven,
    /// Custom resources: written exactly when it was given.
    AsGiven,
}

/// What strategic merge does with a list or object (`x-kubernetes-patch-strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PatchStrategy {
    /// Lists merge element by element.
    pub merge: bool,
    /// The value is replaced.
    pub replace: bool,
    /// Keys that `$retainKeys` does not name are dropped.
    pub retain_keys: bool,
}

impl PatchStrategy {
    /// As OpenAPI writes it: `merge,retainKeys`; `None` when nothing is declared.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            PatchStrategy { replace: true, .. } => Some("replace"),
            PatchStrategy {
                merge: true,
                retain_keys: true,
                ..
            } => Some("merge,retainKeys"),
            PatchStrategy { merge: true, .. } => Some("merge"),
            PatchStrategy { retain_keys: true, .. } => Some("retainKeys"),
            PatchStrategy { .. } => None,
        }
    }

    pub(super) fn parse(text: &str) -> PatchStrategy {
        let mut strategy = PatchStrategy::default();
        for word in text.split(',') {
            match word {
                "merge" => strategy.merge = true,
                "replace" => strategy.replace = true,
                "retainKeys" => strategy.retain_keys = true,
                _ => {}
            }
        }
        strategy
    }
}

/// A field of an object.
#[derive(Clone, Copy)]
pub struct Field<'g> {
    graph: &'g Graph,
    index: usize,
}

impl<'g> Field<'g> {
    pub(super) fn new(graph: &'g Graph, index: usize) -> Field<'g> {
        Field { graph, index }
    }

    pub(crate) fn data(self) -> &'g FieldData {
        self.graph.field(self.index)
    }

    /// Its name in JSON.
    pub fn name(self) -> &'g str {
        self.graph.text(self.data().name)
    }

    /// Its type.
    pub fn schema(self) -> Node<'g> {
        Node::new(self.graph, self.data().node)
    }

    /// When it is left out of JSON.
    pub fn omit(self) -> Omit {
        self.data().omit
    }

    /// Whether Go holds it behind a pointer, so that unset differs from zero.
    pub fn is_pointer(self) -> bool {
        self.data().pointer
    }

    /// Whether OpenAPI lists it as required.
    pub fn is_required(self) -> bool {
        self.data().required
    }

    /// Its tag in the innermost protobuf message; 0 when it has none.
    pub fn tag(self) -> u16 {
        self.data().tag
    }

    /// What strategic merge does with it.
    pub fn patch_strategy(self) -> PatchStrategy {
        self.data().patch
    }

    /// The field that identifies elements in strategic merge.
    pub fn merge_key(self) -> Option<&'g str> {
        Some(self.graph.text(self.data().merge_key)).filter(|key| !key.is_empty())
    }

    /// Its static default.
    pub fn default(self) -> Option<Value> {
        self.fact("default")
    }

    /// The values it may have, when they are enumerated.
    pub fn enum_values(self) -> Vec<String> {
        self.strings("enum")
    }

    /// The feature gates that own it.
    pub fn gates(self) -> Vec<String> {
        self.strings("gates")
    }

    /// Upstream's declarative validation markers.
    pub fn markers(self) -> Vec<String> {
        self.strings("markers")
    }

    /// All rarely needed facts as JSON text; empty when there are none.
    pub fn facts(self) -> &'g str {
        self.graph.text(self.data().facts)
    }

    fn fact(self, name: &str) -> Option<Value> {
        let facts = self.facts();
        if facts.is_empty() {
            return None;
        }
        let mut facts: serde_json::Map<String, Value> =
            serde_json::from_str(facts).expect("invariant: the builder writes facts as JSON");
        facts.remove(name)
    }

    fn strings(self, name: &str) -> Vec<String> {
        let Some(Value::Array(items)) = self.fact(name) else {
            return Vec::new();
        };
        items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => text,
                other => other.to_string(),
            })
            .collect()
    }
}

impl std::fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.name(), self.schema())
    }
}
