//! Objects of every kind with what upstream 1.36 says of them, and what our rules say.
//!
//! `tests/corpus/KIND/*.yaml` holds a valid object (`base`) and changes of it, each with all errors that it earns
//! (none: it stays valid). A change names a place as a JSON pointer and what stands there then; null removes. With
//! `update` the base is what is stored, and the change is written over it. The errors are facts: upstream's rules were
//! asked. Errors of `metadata` but for annotations are the generic server's, and not told here.

use std::path::Path;

use api::normalize::{UnknownFields, normalize};
use api::schema::SchemaRef;
use api::{GroupVersionKind, Value};
use kinds::row::{StorageKind, WriteContext, Writer};
use serde::Deserialize;

/// One file: changes of one object.
#[derive(Deserialize)]
struct Examples {
    base: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    change: std::collections::BTreeMap<String, Value>,
    #[serde(default)]
    update: bool,
    #[serde(default)]
    errors: Vec<String>,
}

#[test]
fn upstream_and_we_agree() {
    let rows = kinds::rows();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut wrong = Vec::new();
    let mut count = 0;
    for folder in sorted(&root) {
        for file in sorted(&folder) {
            let text = std::fs::read_to_string(&file).expect("a file of the corpus");
            let options = serde_saphyr::options! { strict_booleans: true };
            let examples: Examples =
                serde_saphyr::from_str_with_options(&text, options).unwrap_or_else(|error| panic!("{file:?}: {error}"));
            let kind = examples.base["kind"].as_str().expect("a base has a kind").to_string();
            let row = rows
                .iter()
                .find(|row| row.kind == kind)
                .unwrap_or_else(|| panic!("{file:?}: no kind {kind}"));
            for case in &examples.cases {
                count += 1;
                let mut expect = case.errors.clone();
                expect.sort();
                let mut got = verdict(row, &examples.base, case);
                got.sort();
                got.dedup();
                if got != expect {
                    let change = serde_json::to_string(&case.change).expect("data");
                    wrong.push(format!(
                        "{} {change} update={}\n  upstream: {expect:#?}\n  ours: {got:#?}",
                        file.strip_prefix(&root).expect("below it").display(),
                        case.update
                    ));
                }
            }
        }
    }
    assert!(count > 1000, "the corpus is there");
    assert!(
        wrong.is_empty(),
        "{} of {count} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// At least ten invalid objects for each common kind.
#[test]
fn common_kinds_have_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for kind in [
        "Pod",
        "Service",
        "Deployment",
        "DaemonSet",
        "StatefulSet",
        "ReplicaSet",
        "Job",
        "CronJob",
        "Node",
        "Secret",
        "ConfigMap",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Role",
        "RoleBinding",
        "Ingress",
        "NetworkPolicy",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "ResourceQuota",
        "LimitRange",
        "StorageClass",
    ] {
        let mut invalid = 0;
        for file in sorted(&root.join(kind)) {
            let text = std::fs::read_to_string(&file).expect("a file of the corpus");
            let examples: Examples = serde_saphyr::from_str(&text).expect("it was read by the other test");
            invalid += examples.cases.iter().filter(|case| !case.errors.is_empty()).count();
        }
        assert!(invalid >= 10, "{kind} has {invalid} invalid objects");
    }
}

fn sorted(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// What our rules say of a changed object.
fn verdict(row: &StorageKind, base: &Value, case: &Case) -> Vec<String> {
    let mut object = base.clone();
    for (place, value) in &case.change {
        put(&mut object, place, value);
    }
    let version = base["apiVersion"].as_str().expect("a base has a version");
    let (group, bare) = version.split_once('/').unwrap_or(("", version));
    let spoken = match group == row.group {
        true => bare,
        false => version,
    };
    let context = WriteContext {
        now: "2026-01-01T00:00:00Z",
        subresource: "",
        user: Writer::named("tester"),
        version: spoken,
    };
    to_hub(row, &mut object);
    let errors = match case.update {
        false => {
            row.strategy.prepare_for_create(&mut object, &context);
            settle(row, &mut object);
            row.strategy.validate_create(&object, &context)
        }
        true => {
            let mut old = base.clone();
            to_hub(row, &mut old);
            row.strategy.prepare_for_create(&mut old, &context);
            settle(row, &mut old);
            row.strategy.prepare_for_update(&mut object, &old, &context);
            settle(row, &mut object);
            row.strategy.validate_update(&object, &old, &context)
        }
    };
    let told = errors.iter().map(ToString::to_string);
    // Structs are printed as Go spells their fields, and differences as Go's library draws them: only where and what.
    told.map(|error| error.lines().next().unwrap_or("").to_string())
        .filter(|error| !error.starts_with("metadata.") || error.starts_with("metadata.annotations"))
        .collect()
}

/// Decoded as it was sent, and brought into the version that is stored.
fn to_hub(row: &StorageKind, object: &mut Value) {
    let version = object["apiVersion"].as_str().expect("a version").to_string();
    let (group, bare) = version.split_once('/').unwrap_or(("", &version));
    let served = row
        .served
        .iter()
        .find(|served| served.group == group && served.version == bare);
    let served = served.unwrap_or_else(|| panic!("{version} of {}", row.kind));
    normal(object, group, bare, &row.kind);
    if let Some(conversion) = &served.conversion {
        *object = (conversion.to_hub)(object.take()).expect("it converts");
        object["kind"] = row.kind.as_ref().into();
    }
    object["metadata"]["uid"] = "u".into();
    settle(row, object);
}

fn settle(row: &StorageKind, object: &mut Value) {
    normal(object, &row.group, &row.hub, &row.kind);
    row.strategy.default(object);
    normal(object, &row.group, &row.hub, &row.kind);
}

fn normal(object: &mut Value, group: &str, version: &str, kind: &str) {
    let gvk = GroupVersionKind::new(group, version, kind);
    object["apiVersion"] = gvk.group_version().to_string().into();
    let schema = SchemaRef::builtin(&gvk).expect("a kind has a schema");
    normalize(object, &schema, UnknownFields::Ignore).unwrap_or_else(|error| panic!("{gvk}: {error:?}"));
}

/// Puts a value where a JSON pointer leads, or removes what is there.
fn put(object: &mut Value, place: &str, value: &Value) {
    let (parent, name) = place.rsplit_once('/').expect("a pointer");
    let name = name.replace("~1", "/").replace("~0", "~");
    let parent = object
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("nothing at {place}"));
    match parent {
        Value::Array(list) => {
            let index: usize = name.parse().expect("an index");
            match value {
                Value::Null => drop(list.remove(index)),
                value => list[index] = value.clone(),
            }
        }
        Value::Object(map) => match value {
            Value::Null => drop(map.remove(&name)),
            value => drop(map.insert(name, value.clone())),
        },
        _ => panic!("nothing can stand at {place}"),
    }
}
