//! Fuzzes everything that reads bytes from outside: `cargo run --release -p api --example fuzz -- SECONDS [SEED]`.
//!
//! Each round has a seed of its own, which is printed when the round fails and reproduces it alone. Inputs are objects
//! of every kind, written by our own encoders and then spoiled: flipped, cut, repeated and spliced bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use api::codec::{Limits, json, protobuf, yaml};
use api::normalize::{UnknownFields, normalize};
use api::patch::{json_patch, merge_patch, strategic_merge_patch};
use api::quantity::Quantity;
use api::schema::{SchemaRef, all_kinds};
use api::selector::{FieldSelector, LabelSelector};
use api::{GroupVersionKind, Value};

#[path = "../tests/it/generate.rs"]
#[allow(dead_code)]
mod generate;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

/// What formats and types stumble over.
const TOKENS: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\"",
    b"\\u",
    b"\\ud800",
    b"null",
    b"-0",
    b"1e999",
    b"9223372036854775808",
    b"\0",
    b"\xff\xfe",
    b"&a",
    b"*a",
    b"<<: ",
    b"\n- ",
    b"---\n",
    b"? ",
    b"!!binary ",
    b"\x0a\xff\xff\xff\xff\x0f",
    b"k8s\0",
];

fn spoil(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => {
                let end = (at + random.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let end = (at + random.below(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let token = TOKENS[random.below(TOKENS.len())];
                let times = if random.below(50) == 0 { 400 } else { 1 };
                bytes.splice(at..at, token.repeat(times));
            }
            _ => bytes.insert(at, random.below(256) as u8),
        }
    }
}

/// Normal form is a fixed point, and protobuf keeps it.
fn check_tree(mut value: Value, schema: &SchemaRef) {
    if normalize(&mut value, schema, UnknownFields::Report).is_err() {
        return;
    }
    let once = value.clone();
    let unknown = normalize(&mut value, schema, UnknownFields::Report).expect("normal form was refused");
    assert!(unknown.is_empty(), "normal form has unknown fields: {unknown:?}");
    assert_eq!(value, once, "normal form is not a fixed point");
    match protobuf::encode(&once, schema) {
        Err(protobuf::EncodeError::NoMessage(_)) => {}
        Err(error) => panic!("normal form has no protobuf form: {error}"),
        Ok(bytes) => {
            if let Ok((_, mut back)) = protobuf::decode_as(&bytes, schema) {
                normalize(&mut back, schema, UnknownFields::Ignore).expect("our own protobuf was refused");
                assert_eq!(back, once, "protobuf lost something");
            }
        }
    }
}

fn round(seed: u64, kinds: &[GroupVersionKind]) {
    let mut random = Random::seeded(seed);
    let gvk = &kinds[random.below(kinds.len())];
    let schema = SchemaRef::builtin(gvk).expect("invariant: the kind is listed");
    let fill = [generate::Fill::Sparse, generate::Fill::Zeros, generate::Fill::Pointers][random.below(3)];
    let object = generate::object(gvk, schema.node(), fill);
    let limits = Limits::default();

    let mut text = json::encode(&object);
    spoil(&mut text, &mut random);
    let tree = json::decode(&text, &limits).map(|decoded| decoded.value);
    if let Ok(tree) = &tree {
        let again = json::decode(&json::encode(tree), &limits).expect("our own JSON was refused");
        assert_eq!(&again.value, tree, "JSON lost something");
        check_tree(tree.clone(), &schema);
    }
    // serde_json stops at 128 levels and has no opinion on bytes that are no UTF-8.
    if std::str::from_utf8(&text).is_ok()
        && let Ok(theirs) = serde_json::from_slice::<Value>(&text)
    {
        assert!(tree.is_ok(), "serde_json reads what we refuse: {theirs}");
    }

    if random.below(8) == 0 {
        let mut text = yaml::encode(&object).into_bytes();
        spoil(&mut text, &mut random);
        if let Ok(decoded) = yaml::decode(&text, &limits) {
            check_tree(decoded.value, &schema);
        }
    }

    let mut normal = object.clone();
    normalize(&mut normal, &schema, UnknownFields::Ignore).expect("a generated object was refused");
    if let Ok(mut bytes) = protobuf::encode(&normal, &schema) {
        spoil(&mut bytes, &mut random);
        if let Ok((_, tree)) = protobuf::decode(&bytes) {
            check_tree(tree, &schema);
        }
    }

    if let Ok(patch) = tree {
        let _ = json_patch(&normal, &patch);
        let _ = merge_patch(&normal, &patch);
        let _ = strategic_merge_patch(&normal, &patch, &schema);
    }
    let mut text = b"a in (b,c),d!=e,!f,metadata.name=x\\,y,1.5Gi,100m,-1e-3".to_vec();
    spoil(&mut text, &mut random);
    let text = String::from_utf8_lossy(&text);
    let _ = LabelSelector::parse(&text);
    let _ = FieldSelector::parse(&text);
    for word in text.split(',') {
        if let Ok(quantity) = Quantity::parse(word) {
            let canonical = quantity.with_format(quantity.format()).to_string();
            let again = Quantity::parse(&canonical).expect("a canonical quantity was refused");
            assert_eq!(again, quantity, "{word} is not {canonical}");
        }
    }
}

/// Fuzzing takes as long as it is told to.
#[allow(clippy::disallowed_methods)]
fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<u64>().expect("a number"));
    let seconds = arguments.next().unwrap_or(10);
    let only = arguments.next();
    let kinds: Vec<GroupVersionKind> = all_kinds().collect();
    if let Some(seed) = only {
        return round(seed, &kinds);
    }
    let start = Instant::now();
    let mut seed = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        seed += 1;
        if catch_unwind(AssertUnwindSafe(|| round(seed, &kinds))).is_err() {
            eprintln!("seed {seed} failed: cargo run --release -p api --example fuzz -- 0 {seed}");
            std::process::exit(1);
        }
    }
    println!("{seed} rounds without a failure");
}
