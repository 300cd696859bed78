//! Every kind, filled in every way, through JSON, YAML and protobuf.

use api::codec::{Limits, json, protobuf, yaml};
use api::normalize::{UnknownFields, normalize};
use api::schema::{SchemaRef, all_kinds};
use api::testing::{FILLS, Fill, object};
use api::{GroupVersionKind, Value};

fn every_kind(check: impl Fn(&GroupVersionKind, &SchemaRef)) {
    let mut kinds = 0;
    for gvk in all_kinds() {
        let schema = SchemaRef::builtin(&gvk).unwrap();
        check(&gvk, &schema);
        kinds += 1;
    }
    assert!(kinds > 190, "{kinds}");
}

fn normal(value: &Value, schema: &SchemaRef, what: &str) -> Value {
    let mut value = value.clone();
    let unknown =
        normalize(&mut value, schema, UnknownFields::Report).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(unknown.is_empty(), "{what}: {unknown:?}");
    value
}

/// `Table` and `version.Info` are the only kinds without a message.
fn has_protobuf(gvk: &GroupVersionKind) -> bool {
    gvk.kind != "Table"
}

#[test]
fn normal_form_is_a_fixed_point_and_protobuf_keeps_it() {
    every_kind(|gvk, schema| {
        for fill in FILLS {
            let what = format!("{gvk} {fill:?}");
            let once = normal(&object(gvk, schema.node(), fill), schema, &what);
            assert_eq!(normal(&once, schema, &what), once, "{what}: not idempotent");

            let text = json::encode(&once);
            let back = json::decode(&text, &Limits::default()).unwrap();
            assert_eq!((back.value, back.duplicates.len()), (once.clone(), 0), "{what}: JSON");

            // One fill is enough to see every scalar; the reader is slow in a debug build.
            if fill == Fill::Sparse {
                let text = yaml::encode(&once);
                let back = yaml::decode(text.as_bytes(), &Limits::default()).unwrap();
                assert_eq!((back.value, back.duplicates.len()), (once.clone(), 0), "{what}: YAML");
            }

            if !has_protobuf(gvk) {
                continue;
            }
            let bytes = protobuf::encode(&once, schema).unwrap_or_else(|error| panic!("{what}: {error}"));
            let (_, back) = protobuf::decode_as(&bytes, schema).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(normal(&back, schema, &what), once, "{what}: protobuf");
            let again = protobuf::encode(&normal(&back, schema, &what), schema).unwrap();
            assert_eq!(again, bytes, "{what}: bytes");
        }
    });
}

#[test]
fn a_full_object_loses_nothing() {
    every_kind(|gvk, schema| {
        let full = object(gvk, schema.node(), Fill::Full);
        assert_eq!(normal(&full, schema, &gvk.to_string()), full, "{gvk}");
    });
}

#[test]
fn explicit_zeros_and_nulls_are_as_if_absent() {
    every_kind(|gvk, schema| {
        let what = gvk.to_string();
        let mut empty = object(gvk, schema.node(), Fill::Nulls);
        empty
            .as_object_mut()
            .unwrap()
            .retain(|name, _| name == "kind" || name == "apiVersion");
        let expect = normal(&empty, schema, &what);
        for fill in [Fill::Nulls, Fill::Zeros] {
            let got = normal(&object(gvk, schema.node(), fill), schema, &what);
            assert_eq!(got, expect, "{what} {fill:?}");
        }
    });
}

#[test]
fn an_unknown_field_is_told_wherever_it_stands() {
    every_kind(|gvk, schema| {
        let full = object(gvk, schema.node(), Fill::Full);
        let mut spoiled = full.clone();
        let mut expect = Vec::new();
        spoil(&mut spoiled, schema.node(), "", &mut expect);
        let unknown = normalize(&mut spoiled, schema, UnknownFields::Report).unwrap();
        let mut told: Vec<String> = unknown.into_iter().map(|field| field.path).collect();
        told.sort();
        expect.sort();
        assert_eq!(told, expect, "{gvk}");
        assert_eq!(spoiled, full, "{gvk}");
    });
}

/// Adds an unknown field to every object that the schema knows.
fn spoil(value: &mut Value, node: api::schema::Node<'_>, path: &str, expect: &mut Vec<String>) {
    use api::schema::Shape;
    let join = |name: &str| {
        if path.is_empty() {
            name.to_string()
        } else {
            format!("{path}.{name}")
        }
    };
    match (node.shape(), value) {
        (Shape::Object(fields), Value::Object(map)) => {
            for field in fields.iter() {
                if let Some(value) = map.get_mut(field.name()) {
                    spoil(value, field.schema(), &join(field.name()), expect);
                }
            }
            map.insert("Name".into(), Value::Null);
            expect.push(join("Name"));
        }
        (Shape::Map { value: of }, Value::Object(map)) => {
            for (key, value) in map {
                spoil(value, of, &join(key), expect);
            }
        }
        (Shape::List { item, .. }, Value::Array(items)) => {
            for (index, value) in items.iter_mut().enumerate() {
                spoil(value, item, &format!("{path}[{index}]"), expect);
            }
        }
        _ => {}
    }
}
