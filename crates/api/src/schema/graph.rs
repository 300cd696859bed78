//! The compact form: flat tables of nodes, fields and wire steps over one text that holds all names.

use std::borrow::Cow;
use std::collections::HashMap;

use super::field::{Field, Omit, PatchStrategy};
use super::shape::{Fields, ListKeys, ListType, Scalar, Shape};

/// The place of a type in its graph.
pub type NodeId = u32;

/// Set in the id of a built-in type that another graph refers to.
pub(crate) const BUILTIN: NodeId = 1 << 31;

/// A piece of the graph's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Text {
    start: u32,
    len: u32,
}

/// Types that refer to each other, made once and never changed.
pub struct Graph {
    text: Cow<'static, str>,
    nodes: Vec<NodeData>,
    fields: Vec<FieldData>,
    keys: Vec<Text>,
    wire: Vec<WireStep>,
    builtin: bool,
}

#[derive(Clone, Copy)]
struct NodeData {
    name: Text,
    shape: ShapeData,
    flags: Flags,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ShapeData {
    Object { start: u32, len: u16, wire: (u32, u16) },
    Map { value: NodeId },
    List { item: NodeId, kind: ListKind },
    Scalar { scalar: Scalar, inner: NodeId },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ListKind {
    Atomic,
    Set,
    Map { start: u32, len: u16 },
}

/// What else is to be said of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// Owned as one by server-side apply.
    pub atomic: bool,
    /// The map or list type was declared.
    pub declared: bool,
    /// Unknown fields are kept.
    pub preserve_unknown: bool,
    /// Null is a value.
    pub nullable: bool,
    /// A whole object of its own.
    pub embedded: bool,
}

/// What stands in normal form where a field is absent or null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Nothing.
    Leave,
    /// A null.
    Null,
    /// The type's zero value.
    Zero,
}

pub(crate) struct FieldData {
    pub(crate) name: Text,
    pub(crate) facts: Text,
    pub(crate) merge_key: Text,
    pub(crate) node: NodeId,
    pub(crate) tag: u16,
    pub(crate) patch: PatchStrategy,
    pub(crate) omit: Omit,
    pub(crate) pointer: bool,
    pub(crate) required: bool,
    pub(crate) wrapped: bool,
    /// What normal form writes where the field is absent.
    pub(crate) absent: Absent,
    /// Whether normal form treats an empty or zero value as absent.
    pub(crate) drop_zero: bool,
}

/// One entry of a protobuf message, in the order of tags.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WireStep {
    /// A field of the object, by its place among the object's fields.
    Field { tag: u16, field: u16 },
    /// A message whose fields are inlined in JSON: its steps.
    Inline { tag: u16, start: u32, len: u16 },
}

impl WireStep {
    pub(crate) fn tag(&self) -> u16 {
        match self {
            WireStep::Field { tag, .. } | WireStep::Inline { tag, .. } => *tag,
        }
    }
}

impl Graph {
    pub(super) fn is_builtin(&self) -> bool {
        self.builtin
    }

    pub(super) fn text(&self, text: Text) -> &str {
        &self.text[text.start as usize..(text.start + text.len) as usize]
    }

    pub(super) fn name(&self, id: NodeId) -> &str {
        self.text(self.nodes[id as usize].name)
    }

    pub(super) fn flags(&self, id: NodeId) -> Flags {
        self.nodes[id as usize].flags
    }

    pub(super) fn field(&self, index: usize) -> &FieldData {
        &self.fields[index]
    }

    pub(super) fn fields_in(&self, start: usize, len: usize) -> &[FieldData] {
        &self.fields[start..start + len]
    }

    /// The field at that place of an object's fields.
    pub(crate) fn field_of(&self, id: NodeId, place: u16) -> Field<'_> {
        match self.nodes[id as usize].shape {
            ShapeData::Object { start, .. } => Field::new(self, start as usize + place as usize),
            _ => unreachable!("invariant: only objects have wire steps"),
        }
    }

    /// The protobuf message of an object; `None` when it has no protobuf form.
    pub(crate) fn wire(&self, id: NodeId) -> Option<&[WireStep]> {
        match self.nodes[id as usize].shape {
            ShapeData::Object { wire, len, .. } if wire.1 > 0 || len == 0 => Some(self.wire_in(wire.0, wire.1)),
            _ => None,
        }
    }

    pub(crate) fn wire_in(&self, start: u32, len: u16) -> &[WireStep] {
        &self.wire[start as usize..start as usize + len as usize]
    }

    /// The `JSONSchemaProps` of a scalar that may be one.
    pub(crate) fn inner(&self, id: NodeId) -> NodeId {
        match self.nodes[id as usize].shape {
            ShapeData::Scalar { inner, .. } => inner,
            _ => unreachable!("invariant: only scalars are asked for what is inside"),
        }
    }

    pub(super) fn shape(&self, id: NodeId) -> Shape<'_> {
        match self.nodes[id as usize].shape {
            ShapeData::Object { start, len, .. } => Shape::Object(Fields {
                graph: self,
                start: start as usize,
                len: len as usize,
            }),
            ShapeData::Map { value } => Shape::Map {
                value: super::Node::new(self, value),
            },
            ShapeData::List { item, kind } => Shape::List {
                item: super::Node::new(self, item),
                list_type: match kind {
                    ListKind::Atomic => ListType::Atomic,
                    ListKind::Set => ListType::Set,
                    ListKind::Map { start, len } => ListType::Map(ListKeys {
                        graph: self,
                        keys: &self.keys[start as usize..start as usize + len as usize],
                    }),
                },
            },
            ShapeData::Scalar { scalar, .. } => Shape::Scalar(scalar),
        }
    }

    /// Bytes of memory, the text of the built-in graph (which lies in the executable) left out.
    pub fn memory_bytes(&self) -> usize {
        let text = match &self.text {
            Cow::Borrowed(_) => 0,
            Cow::Owned(text) => text.capacity(),
        };
        text + self.nodes.capacity() * size_of::<NodeData>()
            + self.fields.capacity() * size_of::<FieldData>()
            + self.keys.capacity() * size_of::<Text>()
            + self.wire.capacity() * size_of::<WireStep>()
    }
}

/// A field as a builder takes it.
#[derive(Clone, Debug)]
pub struct FieldSpec<'a> {
    /// Its name in JSON.
    pub name: &'a str,
    /// Its type.
    pub node: NodeId,
    /// When it is left out.
    pub omit: Omit,
    /// Whether unset differs from zero.
    pub pointer: bool,
    /// Whether it is required.
    pub required: bool,
    /// Strategic merge.
    pub patch: PatchStrategy,
    /// Strategic merge's key; empty for none.
    pub merge_key: &'a str,
    /// The tags from the outermost protobuf message to the innermost; empty for none.
    pub tags: &'a [u16],
    /// Whether protobuf wraps the list in a message.
    pub wrapped: bool,
    /// Enum, default, gates and markers as a JSON object's text; empty for none.
    pub facts: &'a str,
}

/// Makes a graph: types first (their ids may be used before their fields are known), then [`Builder::finish`].
pub struct Builder {
    graph: Graph,
    /// Where a text that was seen before stands; unused while the text is borrowed.
    texts: HashMap<Box<str>, Text>,
    interned: HashMap<(ShapeData, Flags), NodeId>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder::over(Cow::Owned(String::new()), false)
    }
}

impl Builder {
    /// A builder whose names are pieces of a text that is there already.
    pub(super) fn over_static(text: &'static str) -> Builder {
        Builder::over(Cow::Borrowed(text), true)
    }

    fn over(text: Cow<'static, str>, builtin: bool) -> Builder {
        Builder {
            graph: Graph {
                text,
                nodes: Vec::new(),
                fields: Vec::new(),
                keys: Vec::new(),
                wire: Vec::new(),
                builtin,
            },
            texts: HashMap::new(),
            interned: HashMap::new(),
        }
    }

    /// A scalar type; the same one each time.
    pub fn scalar(&mut self, scalar: Scalar, flags: Flags) -> NodeId {
        self.intern(ShapeData::Scalar { scalar, inner: 0 }, flags)
    }

    /// A map type; the same one for the same values.
    pub fn map(&mut self, value: NodeId, flags: Flags) -> NodeId {
        self.intern(ShapeData::Map { value }, flags)
    }

    /// A list without keys.
    pub fn list(&mut self, item: NodeId, set: bool, flags: Flags) -> NodeId {
        let kind = if set { ListKind::Set } else { ListKind::Atomic };
        self.intern(ShapeData::List { item, kind }, flags)
    }

    /// A list whose elements are told apart by these fields.
    pub fn keyed_list(&mut self, item: NodeId, keys: &[&str], flags: Flags) -> NodeId {
        let start = self.graph.keys.len() as u32;
        for key in keys {
            let text = self.text(key);
            self.graph.keys.push(text);
        }
        let kind = ListKind::Map {
            start,
            len: keys.len() as u16,
        };
        self.push(ShapeData::List { item, kind }, Text::default(), flags)
    }

    /// An object type without fields yet.
    pub fn object(&mut self, name: &str, flags: Flags) -> NodeId {
        let name = self.text(name);
        let shape = ShapeData::Object {
            start: 0,
            len: 0,
            wire: (0, 0),
        };
        self.push(shape, name, flags)
    }

    /// A scalar that stands under a name of its own.
    pub(super) fn named_scalar(&mut self, name: &str, scalar: Scalar) -> NodeId {
        let name = self.text(name);
        self.push(ShapeData::Scalar { scalar, inner: 0 }, name, Flags::default())
    }

    /// Tells the scalars that may be a `JSONSchemaProps` where that is.
    pub(super) fn set_inner(&mut self, id: NodeId) {
        for node in &mut self.graph.nodes {
            if let ShapeData::Scalar { inner, .. } = &mut node.shape {
                *inner = id;
            }
        }
    }

    /// A node of the same name with other flags, whose shape [`Builder::copy_shape`] sets later.
    pub(super) fn variant(&mut self, id: NodeId, flags: Flags) -> NodeId {
        let NodeData { name, shape, .. } = self.graph.nodes[id as usize];
        self.push(shape, name, flags)
    }

    /// Gives a variant the fields of its original.
    pub(super) fn copy_shape(&mut self, variant: NodeId, original: NodeId) {
        self.graph.nodes[variant as usize].shape = self.graph.nodes[original as usize].shape;
    }

    /// Sets the fields of an object, which have to come sorted by name.
    pub fn set_fields(&mut self, id: NodeId, fields: &[FieldSpec<'_>]) {
        debug_assert!(fields.is_sorted_by(|a, b| a.name < b.name));
        let start = self.graph.fields.len() as u32;
        for field in fields {
            let data = self.field_data(field);
            self.graph.fields.push(data);
        }
        let mut routes: Vec<(&[u16], u16)> = Vec::new();
        for (place, field) in fields.iter().enumerate().filter(|(_, field)| !field.tags.is_empty()) {
            routes.push((field.tags, place as u16));
        }
        routes.sort();
        let wire = self.wire_of(&routes);
        self.graph.nodes[id as usize].shape = ShapeData::Object {
            start,
            len: fields.len() as u16,
            wire,
        };
    }

    /// The graph. What normal form writes for absent fields is settled here, when all types are known.
    pub fn finish(mut self) -> Graph {
        for index in 0..self.graph.fields.len() {
            let (absent, drop_zero) = rule(Field::new(&self.graph, index));
            let field = &mut self.graph.fields[index];
            (field.absent, field.drop_zero) = (absent, drop_zero);
        }
        self.graph.nodes.shrink_to_fit();
        self.graph.fields.shrink_to_fit();
        self.graph.wire.shrink_to_fit();
        self.graph
    }

    /// The steps of one message: routes that start with the same tag and go on share an inlined message.
    fn wire_of(&mut self, routes: &[(&[u16], u16)]) -> (u32, u16) {
        let mut steps = Vec::new();
        for group in routes.chunk_by(|a, b| a.0[0] == b.0[0]) {
            let tag = group[0].0[0];
            if group[0].0.len() == 1 {
                steps.push(WireStep::Field { tag, field: group[0].1 });
                continue;
            }
            let inner: Vec<(&[u16], u16)> = group.iter().map(|(tags, field)| (&tags[1..], *field)).collect();
            let (start, len) = self.wire_of(&inner);
            steps.push(WireStep::Inline { tag, start, len });
        }
        let start = self.graph.wire.len() as u32;
        self.graph.wire.extend(&steps);
        (start, steps.len() as u16)
    }

    fn field_data(&mut self, field: &FieldSpec<'_>) -> FieldData {
        FieldData {
            name: self.text(field.name),
            facts: self.text(field.facts),
            merge_key: self.text(field.merge_key),
            node: field.node,
            tag: field.tags.last().copied().unwrap_or(0),
            patch: field.patch,
            omit: field.omit,
            pointer: field.pointer,
            required: field.required,
            wrapped: field.wrapped,
            absent: Absent::Leave,
            drop_zero: false,
        }
    }

    fn intern(&mut self, shape: ShapeData, flags: Flags) -> NodeId {
        if let Some(found) = self.interned.get(&(shape, flags)) {
            return *found;
        }
        let id = self.push(shape, Text::default(), flags);
        self.interned.insert((shape, flags), id);
        id
    }

    fn push(&mut self, shape: ShapeData, name: Text, flags: Flags) -> NodeId {
        self.graph.nodes.push(NodeData { name, shape, flags });
        (self.graph.nodes.len() - 1) as NodeId
    }

    fn text(&mut self, text: &str) -> Text {
        if text.is_empty() {
            return Text::default();
        }
        match &mut self.graph.text {
            Cow::Borrowed(whole) => {
                let start = text.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
                assert!(
                    start + text.len() <= whole.len(),
                    "invariant: names are pieces of the text"
                );
                Text {
                    start: start as u32,
                    len: text.len() as u32,
                }
            }
            Cow::Owned(whole) => *self.texts.entry(text.into()).or_insert_with(|| {
                let start = whole.len() as u32;
                whole.push_str(text);
                Text {
                    start,
                    len: text.len() as u32,
                }
            }),
        }
    }
}

/// What Go's encoder does with the field, told once: `(absent, drop_zero)`.
fn rule(field: Field<'_>) -> (Absent, bool) {
    let data = field.data();
    if matches!(data.omit, Omit::AsGiven | Omit::NotGiven) {
        return (Absent::Leave, false);
    }
    let never = data.omit == Omit::Never;
    let omitted = |absent| if never { absent } else { Absent::Leave };
    if data.pointer {
        return (omitted(Absent::Null), false);
    }
    match field.schema().shape() {
        // An empty list without `omitempty` is null once it has been through protobuf, as all stored objects have.
        Shape::Map { .. } | Shape::List { .. } => (omitted(Absent::Null), true),
        Shape::Scalar(Scalar::Bytes) => (omitted(Absent::Null), !never),
        // `omitempty` does not apply to structs, only `omitzero` does.
        Shape::Object(_) if data.omit != Omit::Zero => (Absent::Zero, false),
        Shape::Scalar(Scalar::Time | Scalar::MicroTime) if data.omit != Omit::Zero => (Absent::Null, false),
        Shape::Scalar(Scalar::Quantity | Scalar::IntOrString) => (Absent::Zero, false),
        Shape::Scalar(scalar) if scalar.is_opaque() => (Absent::Null, false),
        Shape::Scalar(Scalar::Time | Scalar::MicroTime) | Shape::Object(_) => (Absent::Leave, true),
        Shape::Scalar(_) => (omitted(Absent::Zero), !never),
    }
}
