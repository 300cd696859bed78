//! Objects of every kind with anything at all in their fields: rules may find fault, but never fall over.

use api::normalize::{UnknownFields, normalize};
use api::schema::{Node, Scalar, SchemaRef, Shape};
use api::{GroupVersionKind, Value};
use serde_json::{Map, json};

use crate::row::{PrintContext, StorageKind, WriteContext};

/// A small generator of numbers (xorshift), the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }

    fn of(&mut self, choices: &[Value]) -> Value {
        choices[self.below(choices.len())].clone()
    }
}

/// A value of the type, at most `depth` levels deep.
fn value(node: Node, depth: usize, random: &mut Random) -> Value {
    match node.shape() {
        Shape::Object(fields) => {
            let mut object = Map::new();
            for field in fields.iter() {
                if depth == 0 || random.below(3) == 0 {
                    continue;
                }
                let enums = field.enum_values();
                let some = if !enums.is_empty() && random.below(8) != 0 {
                    enums[random.below(enums.len())].clone().into()
                } else {
                    value(field.schema(), depth - 1, random)
                };
                object.insert(field.name().to_string(), some);
            }
            Value::Object(object)
        }
        Shape::Map { value: of } => {
            let keys = [
                "a",
                "",
                "cpu",
                "memory",
                "hugepages-2Mi",
                "a.b/c",
                "ä é",
                "kubernetes.io/x",
                "x/y/z",
            ];
            let some = (0..random.below(3)).map(|_| {
                let key = keys[random.below(keys.len())].to_string();
                (key, value(of, depth.saturating_sub(1), random))
            });
            Value::Object(some.collect())
        }
        Shape::List { item, .. } => {
            let count = if depth == 0 { 0 } else { random.below(4) };
            (0..count).map(|_| value(item, depth - 1, random)).collect()
        }
        Shape::Scalar(scalar) => scalar_value(scalar, random),
    }
}

fn scalar_value(scalar: Scalar, random: &mut Random) -> Value {
    let text = [
        json!(""),
        json!("a"),
        json!("ä→é"),
        json!("/"),
        json!("/a/../b"),
        json!("a:b:c"),
        json!("10.0.0.1"),
        json!("::1"),
        json!("10.0.0.0/33"),
        json!("http"),
        json!("None"),
        json!("*"),
        json!("a=b,c in (d)"),
        json!("$(A)"),
        json!("99999999999999999999"),
        json!("cpu"),
        json!("x".repeat(300)),
    ];
    match scalar {
        Scalar::Bytes => random.of(&[json!(""), json!("AAAA"), json!("4pyT")]),
        Scalar::Bool => random.of(&[json!(true), json!(false)]),
        Scalar::Int32 => random.of(&[
            json!(0),
            json!(1),
            json!(-1),
            json!(80),
            json!(i32::MAX),
            json!(i32::MIN),
        ]),
        Scalar::Int64 => random.of(&[
            json!(0),
            json!(1),
            json!(-1),
            json!(30),
            json!(i64::MAX),
            json!(i64::MIN),
        ]),
        Scalar::Double => random.of(&[json!(0.5), json!(-1.0), json!(1e300)]),
        Scalar::Quantity => random.of(&[
            json!("1"),
            json!("0"),
            json!("-5"),
            json!("1500m"),
            json!("8E"),
            json!("1e30"),
        ]),
        Scalar::Time => random.of(&[
            json!("2026-01-02T03:04:05Z"),
            json!("0001-01-01T00:00:00Z"),
            Value::Null,
        ]),
        Scalar::MicroTime => random.of(&[json!("2026-01-02T03:04:05.000000Z"), Value::Null]),
        Scalar::IntOrString => random.of(&[
            json!(0),
            json!(-1),
            json!(i32::MAX),
            json!("50%"),
            json!("%"),
            json!("é"),
        ]),
        Scalar::Any => random.of(&[json!({}), json!([1]), json!("a"), json!({"a": {"b": null}})]),
        _ => random.of(&text),
    }
}

/// A random object in normal form; `None` when it cannot be brought there.
fn object(row: &StorageKind, version: (&str, &str), random: &mut Random) -> Option<Value> {
    let gvk = GroupVersionKind::new(version.0, version.1, &row.kind);
    let schema = SchemaRef::builtin(&gvk).unwrap_or_else(|| panic!("{gvk} has no schema"));
    let depth = 3 + random.below(9);
    let mut object = value(schema.node(), depth, random);
    object["apiVersion"] = gvk.group_version().to_string().into();
    object["kind"] = row.kind.as_ref().into();
    normalize(&mut object, &schema, UnknownFields::Ignore).ok()?;
    Some(object)
}

pub fn normal(row: &StorageKind, version: (&str, &str), object: &mut Value) {
    let gvk = GroupVersionKind::new(version.0, version.1, &row.kind);
    object["apiVersion"] = gvk.group_version().to_string().into();
    let schema = SchemaRef::builtin(&gvk).expect("it was found before");
    let unknown = normalize(object, &schema, UnknownFields::Report).unwrap_or_else(|error| panic!("{gvk}: {error:?}"));
    assert!(unknown.is_empty(), "{gvk}: {unknown:?}");
}

/// Defaults of whatever there is are in normal form, and once is enough.
fn defaults_settle(row: &StorageKind, mut object: Value) {
    let hub = (row.group.as_ref(), row.hub.as_ref());
    row.strategy.default(&mut object);
    normal(row, hub, &mut object);
    let once = object.clone();
    row.strategy.default(&mut object);
    normal(row, hub, &mut object);
    assert_eq!(object, once, "{}", row.kind);
}

/// Everything that is ever asked of a strategy.
fn exercise(row: &StorageKind, mut object: Value, old: &Value, subresource: &str) {
    let strategy = &row.strategy;
    for version in ["v1", "events.k8s.io/v1"] {
        let context = WriteContext {
            now: crate::testing::NOW,
            subresource,
            user: crate::row::Writer::named("u"),
            version,
        };
        strategy.default(&mut object);
        let mut created = object.clone();
        strategy.prepare_for_create(&mut created, &context);
        strategy.validate_create(&created, &context);
        strategy.warnings(&created, None, &context);
        strategy.canonicalize(&mut created);
        strategy.prepare_for_update(&mut object, old, &context);
        strategy.validate_update(&object, old, &context);
        strategy.warnings(&object, Some(old), &context);
        strategy.generation_changed(&object, old);
    }
    for requested in [None, Some(0), Some(-1), Some(i64::MAX)] {
        strategy.grace_period_seconds(&object, requested);
    }
    if let Some(trigger) = row.trigger {
        trigger(&object);
    }
}

#[test]
fn nothing_makes_a_rule_fall_over() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for row in crate::rows() {
        let hub = (row.group.as_ref(), row.hub.as_ref());
        let rounds = if row.strategy.is_deep() { ROUNDS } else { ROUNDS / 4 };
        let mut old = json!({"metadata": {"name": "old"}});
        for _ in 0..rounds {
            let Some(new) = object(&row, hub, &mut random) else {
                continue;
            };
            defaults_settle(&row, new.clone());
            for served in &row.served {
                exercise(&row, new.clone(), &old, "");
                for subresource in &served.subresources {
                    exercise(&row, new.clone(), &old, subresource.name);
                }
                let text = new.to_string();
                let read = match row.read_fields {
                    Some(paths) => api::sparse::Fields::of(paths.iter().copied())
                        .read(&text)
                        .expect("it is JSON"),
                    None => new.clone(),
                };
                for (name, field) in served.selectable_fields {
                    assert_eq!(field(&read), field(&new), "{}: {name}", row.kind);
                }
                assert_eq!(
                    row.trigger.map(|of| of(&read)),
                    row.trigger.map(|of| of(&new)),
                    "{}",
                    row.kind
                );
                let version = (served.group.as_ref(), served.version.as_ref());
                let shown = object(&row, version, &mut random).unwrap_or_else(|| json!({"metadata": {}}));
                let now_seconds = 1_767_323_045;
                if let Some(columns) = &served.columns {
                    (columns.cells)(&shown, &PrintContext { now_seconds });
                }
                if let Some(conversion) = &served.conversion {
                    // Both directions take anything that has the right types.
                    (conversion.to_hub)(shown).ok();
                    // What one version cannot say is lost at the first conversion, nothing at the next ones.
                    let mut stored = new.clone();
                    row.strategy.default(&mut stored);
                    let there = (conversion.from_hub)(stored).expect("the hub converts to all versions");
                    let mut back = (conversion.to_hub)(there.clone()).expect("what was converted converts back");
                    normal(&row, hub, &mut back);
                    let mut again = (conversion.from_hub)(back).expect("the hub converts to all versions");
                    let mut there = there;
                    normal(&row, version, &mut there);
                    normal(&row, version, &mut again);
                    assert_eq!(again, there, "{}", row.kind);
                }
            }
            old = new;
        }
    }
}

/// Replaces something in `object` by what stands there in `from`.
fn graft(object: &mut Value, from: &Value, random: &mut Random) {
    let deeper = random.below(4) != 0;
    match (object, from) {
        (Value::Object(object), Value::Object(from)) if !from.is_empty() => {
            let (key, some) = from.iter().nth(random.below(from.len())).expect("it has as many");
            match object.get_mut(key) {
                Some(at @ (Value::Object(_) | Value::Array(_))) if deeper => graft(at, some, random),
                _ => {
                    object.insert(key.clone(), some.clone());
                }
            }
        }
        (Value::Array(object), Value::Array(from)) if !from.is_empty() => match object.first_mut() {
            Some(first) if deeper => graft(first, &from[0], random),
            _ => object.push(from[0].clone()),
        },
        _ => {}
    }
}

/// What was accepted once is accepted again, and comes out as it went in.
#[test]
fn what_is_valid_stays_valid() {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    for row in crate::rows().into_iter().filter(|row| row.strategy.is_deep()) {
        let hub = (row.group.as_ref(), row.hub.as_ref());
        let context = WriteContext {
            now: crate::testing::NOW,
            subresource: "",
            user: crate::row::Writer::named("u"),
            version: "v1",
        };
        let least = crate::tests::least(&row);
        let (mut accepted, mut tried) = (0, 0);
        for _ in 0..ROUNDS * 10 {
            let Some(from) = object(&row, hub, &mut random) else {
                continue;
            };
            let mut new = least.clone();
            for _ in 0..=random.below(3) {
                match (new.get_mut("spec"), from.get("spec")) {
                    (Some(spec), Some(from)) => graft(spec, from, &mut random),
                    _ => graft(&mut new, &from, &mut random),
                }
            }
            new["metadata"] = least["metadata"].clone();
            row.strategy.default(&mut new);
            row.strategy.prepare_for_create(&mut new, &context);
            row.strategy.default(&mut new);
            normal(&row, hub, &mut new);
            tried += 1;
            if !row.strategy.validate_create(&new, &context).is_empty() {
                continue;
            }
            accepted += 1;
            let mut again = new.clone();
            row.strategy.default(&mut again);
            row.strategy.prepare_for_update(&mut again, &new, &context);
            normal(&row, hub, &mut again);
            assert_eq!(again, new, "{}", row.kind);
            let mut errors = row.strategy.validate_update(&again, &new, &context);
            // Upstream looks for these in updates only.
            errors.retain(|error| !(row.kind == "Node" && error.field.starts_with("status.addresses")));
            assert!(errors.is_empty(), "{}: {errors:?}\n{new:#}", row.kind);
        }
        // Most fields of a CertificateSigningRequest or a PriorityLevelConfiguration have rules, so few are accepted.
        assert!(accepted > tried / 100, "{}: {accepted} of {tried}", row.kind);
    }
}

/// How many objects of each deep kind are tried.
const ROUNDS: usize = 60;
