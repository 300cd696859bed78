//! Upstream's own round-trip data: the same object as JSON and as protobuf, written by upstream's code.
//!
//! The data is not part of the project; it is read from `TRIREME_ROUNDTRIP_DIR` or from the shared reference beside
//! the checkout. Where it is absent, the generated objects of [`crate::kinds`] are the test.

use std::path::PathBuf;

use api::codec::{Limits, json, protobuf};
use api::normalize::{UnknownFields, normalize};
use api::schema::SchemaRef;

fn directory() -> Option<PathBuf> {
    let directory = match std::env::var_os("TRIREME_ROUNDTRIP_DIR") {
        Some(given) => PathBuf::from(given),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/roundtrip-v1.36"),
    };
    directory.is_dir().then_some(directory)
}

/// The type of a file: `apps.v1.Deployment`, `core.v1.DeleteOptions`.
fn schema_of(stem: &str) -> Option<SchemaRef> {
    let kind = stem.rsplit('.').next()?;
    SchemaRef::builtin_type(&format!("api.{stem}"))
        .or_else(|| SchemaRef::builtin_type(&format!("apimachinery.pkg.apis.meta.v1.{kind}")))
}

#[test]
fn upstream_s_objects_survive_bit_by_bit() {
    let Some(directory) = directory() else {
        println!("no round-trip data here (set TRIREME_ROUNDTRIP_DIR); generated objects stand in for it");
        return;
    };
    let mut failures = Vec::new();
    let mut files = 0;
    let mut entries: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries
        .iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
    {
        files += 1;
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if let Err(failure) = check(stem, path) {
            failures.push(format!("{stem}: {failure}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(files > 40, "{files}");
}

fn check(stem: &str, path: &std::path::Path) -> Result<(), String> {
    let schema = schema_of(stem).ok_or("no type")?;
    let text = std::fs::read(path).unwrap();
    let bytes = std::fs::read(path.with_extension("pb")).unwrap();
    let original = json::decode(&text, &Limits::default())
        .map_err(|error| error.to_string())?
        .value;

    let mut from_json = original.clone();
    let unknown = normalize(&mut from_json, &schema, UnknownFields::Report).map_err(|error| error.to_string())?;
    if !unknown.is_empty() {
        return Err(format!("unknown {unknown:?}"));
    }
    differ("JSON and its normal form", &original, &from_json)?;

    let (_, mut from_protobuf) = protobuf::decode_as(&bytes, &schema).map_err(|error| error.to_string())?;
    normalize(&mut from_protobuf, &schema, UnknownFields::Ignore).map_err(|error| error.to_string())?;
    differ("JSON and protobuf", &from_json, &from_protobuf)?;

    let encoded = protobuf::encode(&from_json, &schema).map_err(|error| error.to_string())?;
    if encoded != bytes {
        let at = encoded
            .iter()
            .zip(&bytes)
            .position(|(a, b)| a != b)
            .unwrap_or(encoded.len().min(bytes.len()));
        let around = |bytes: &[u8]| {
            format!(
                "{:?}",
                String::from_utf8_lossy(&bytes[at.saturating_sub(20)..bytes.len().min(at + 20)])
            )
        };
        return Err(format!(
            "bytes differ at {at}: ours {} theirs {}",
            around(&encoded),
            around(&bytes)
        ));
    }
    Ok(())
}

fn differ(what: &str, left: &api::Value, right: &api::Value) -> Result<(), String> {
    let mut found = Vec::new();
    collect("", left, right, &mut found);
    if found.is_empty() {
        Ok(())
    } else {
        Err(format!("{what} differ: {}", found.join("; ")))
    }
}

fn collect(path: &str, left: &api::Value, right: &api::Value, found: &mut Vec<String>) {
    match (left, right) {
        (api::Value::Object(a), api::Value::Object(b)) => {
            for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                let path = format!("{path}.{name}");
                match (a.get(name), b.get(name)) {
                    (Some(a), Some(b)) => collect(&path, a, b, found),
                    (a, b) => found.push(format!("{path}: {a:?} {b:?}")),
                }
            }
        }
        (api::Value::Array(a), api::Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                collect(&format!("{path}[{index}]"), a, b, found);
            }
        }
        _ if left == right => {}
        _ => found.push(format!("{path}: {left} {right}")),
    }
}
