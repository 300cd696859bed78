//! The decoders of objects, and the normal form behind them.
//!
//! An input begins with two bytes that choose a kind and how full an object of it was; the document follows.

use std::sync::LazyLock;

use api::codec::{Limits, json as json_codec, protobuf as protobuf_codec, yaml as yaml_codec};
use api::normalize::{UnknownFields, normalize};
use api::schema::{SchemaRef, all_kinds};
use api::testing::{self, Fill};
use api::{GroupVersionKind, Value};
use base::Random;

static KINDS: LazyLock<Vec<GroupVersionKind>> = LazyLock::new(|| all_kinds().collect());

/// Objects that are full are too large to be read often.
const FILLS: [Fill; 3] = [Fill::Sparse, Fill::Zeros, Fill::Pointers];

/// How many bytes choose.
const HEAD: usize = 2;

/// The object that the head of an input chooses, its kind, and the rest of the input.
pub fn split(input: &[u8]) -> (Value, &GroupVersionKind, SchemaRef, &[u8]) {
    let (head, rest) = input.split_at(input.len().min(HEAD));
    let byte = |at: usize| usize::from(head.get(at).copied().unwrap_or_default());
    let gvk = &KINDS[byte(0) % KINDS.len()];
    let schema = SchemaRef::builtin(gvk).expect("invariant: the kind is listed");
    let object = testing::object(gvk, schema.node(), FILLS[byte(1) % FILLS.len()]);
    (object, gvk, schema, rest)
}

/// An input whose document is made from the object that it chooses.
pub fn make(random: &Random, document: impl FnOnce(Value, &SchemaRef) -> Vec<u8>) -> Vec<u8> {
    let mut input = random.bytes::<HEAD>().to_vec();
    let (object, _, schema, _) = split(&input);
    input.extend(document(object, &schema));
    input
}

/// The object in normal form.
pub fn normal(mut object: Value, schema: &SchemaRef) -> Value {
    normalize(&mut object, schema, UnknownFields::Ignore).expect("a generated object is good");
    object
}

pub fn make_json(random: &Random) -> Vec<u8> {
    make(random, |object, _| json_codec::encode(&object))
}

pub fn make_yaml(random: &Random) -> Vec<u8> {
    make(random, |object, _| yaml_codec::encode(&object).into_bytes())
}

/// Kinds without a message give an empty document.
pub fn make_protobuf(random: &Random) -> Vec<u8> {
    make(random, |object, schema| {
        protobuf_codec::encode(&normal(object, schema), schema).unwrap_or_default()
    })
}

/// What we write we read, and read as what it was; whatever `serde_json` takes, we take.
pub fn json(input: &[u8]) -> String {
    let (_, _, schema, text) = split(input);
    let decoded = json_codec::decode(text, &Limits::default());
    // serde_json stops at 128 levels and has no opinion on bytes that are no UTF-8.
    if std::str::from_utf8(text).is_ok() && serde_json::from_slice::<Value>(text).is_ok() {
        assert!(decoded.is_ok(), "serde_json reads what we refuse: {decoded:?}");
    }
    match decoded {
        Err(error) => error.to_string(),
        Ok(decoded) => {
            let again = json_codec::decode(&json_codec::encode(&decoded.value), &Limits::default());
            assert_eq!(again.expect("our own JSON was refused").value, decoded.value);
            check(decoded.value, &schema)
        }
    }
}

pub fn yaml(input: &[u8]) -> String {
    let (_, _, schema, text) = split(input);
    match yaml_codec::decode(text, &Limits::default()) {
        Err(error) => error.to_string(),
        Ok(decoded) => check(decoded.value, &schema),
    }
}

pub fn protobuf(input: &[u8]) -> String {
    let (_, _, schema, bytes) = split(input);
    match protobuf_codec::decode(bytes) {
        Err(error) => error.to_string(),
        Ok((_, tree)) => check(tree, &schema),
    }
}

/// Normal form is a fixed point, and protobuf keeps it.
fn check(mut value: Value, schema: &SchemaRef) -> String {
    let unknown = match normalize(&mut value, schema, UnknownFields::Report) {
        Err(error) => return error.to_string(),
        Ok(unknown) => unknown.len().min(1),
    };
    let once = value.clone();
    let none = normalize(&mut value, schema, UnknownFields::Report).expect("normal form was refused");
    assert!(none.is_empty(), "normal form has unknown fields: {none:?}");
    assert_eq!(value, once, "normal form is not a fixed point");
    match protobuf_codec::encode(&once, schema) {
        Err(protobuf_codec::EncodeError::NoMessage(_)) => {}
        Err(error) => panic!("normal form has no protobuf form: {error}"),
        Ok(bytes) => {
            if let Ok((_, mut back)) = protobuf_codec::decode_as(&bytes, schema) {
                normalize(&mut back, schema, UnknownFields::Ignore).expect("our own protobuf was refused");
                assert_eq!(back, once, "protobuf lost something");
            }
        }
    }
    ["good", "with unknown fields"][unknown].to_owned()
}
