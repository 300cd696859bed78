//! Objects with something wrong in them: normal form either refuses them or is as good as ever.

use api::Value;
use api::codec::protobuf;
use api::normalize::{UnknownFields, normalize};
use api::schema::{SchemaRef, all_kinds};
use api::testing::{Fill, object};
use serde_json::json;

/// How many objects are tried; each has a seed that the failure prints.
const ROUNDS: u64 = 3000;

/// xorshift64*: enough to pick places and values, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below.max(1)
    }
}

fn surprise(random: &mut Random) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(i64::MIN),
        json!(""),
        json!("x"),
        json!("0001-01-01T00:00:00Z"),
        json!("2026-11-21T00:06:36.123456+02:00"),
        json!("1e-100"),
        json!("AAA="),
        json!([]),
        json!([null]),
        json!([[]]),
        json!([{}]),
        json!({}),
        json!({"": null}),
        json!({"a": {"b": []}}),
    ];
    values[random.next(values.len())].clone()
}

/// Puts a surprise at a place below `value`.
fn mutate(value: &mut Value, random: &mut Random) {
    let stop = random.next(4) == 0;
    match value {
        Value::Object(map) if !stop && !map.is_empty() => {
            let key = map.keys().nth(random.next(map.len())).unwrap().clone();
            mutate(&mut map[&key], random);
        }
        Value::Array(items) if !stop && !items.is_empty() => {
            let index = random.next(items.len());
            mutate(&mut items[index], random);
        }
        place => *place = surprise(random),
    }
}

#[test]
fn a_surprise_is_refused_or_has_a_normal_form() {
    let kinds: Vec<_> = all_kinds().filter(|gvk| gvk.kind != "Table").collect();
    let mut refused = 0;
    for seed in 1..=ROUNDS {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let gvk = &kinds[random.next(kinds.len())];
        let schema = SchemaRef::builtin(gvk).unwrap();
        let mut value = object(gvk, schema.node(), Fill::Full);
        for _ in 0..=random.next(3) {
            mutate(&mut value, &mut random);
        }
        let what = format!("seed {seed} {gvk}");
        if normalize(&mut value, &schema, UnknownFields::Report).is_err() {
            refused += 1;
            continue;
        }
        let once = value.clone();
        assert!(
            normalize(&mut value, &schema, UnknownFields::Report)
                .unwrap()
                .is_empty(),
            "{what}"
        );
        assert_eq!(value, once, "{what}: not idempotent");
        let bytes = protobuf::encode(&once, &schema).unwrap_or_else(|error| panic!("{what}: {error}"));
        let (_, mut back) = protobuf::decode_as(&bytes, &schema).unwrap_or_else(|error| panic!("{what}: {error}"));
        normalize(&mut back, &schema, UnknownFields::Ignore).unwrap();
        assert_eq!(back, once, "{what}: protobuf");
        // A cut or flipped message is read or refused, never a panic.
        let _ = protobuf::decode_as(&bytes[..random.next(bytes.len())], &schema);
        let mut flipped = bytes;
        let at = random.next(flipped.len());
        flipped[at] ^= 1 << random.next(8);
        if let Ok((_, mut read)) = protobuf::decode_as(&flipped, &schema) {
            let _ = normalize(&mut read, &schema, UnknownFields::Report);
        }
    }
    assert!(refused > ROUNDS / 20 && refused < ROUNDS, "{refused}");
}
