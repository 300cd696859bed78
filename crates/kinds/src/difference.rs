//! What differs between two trees, for people who read why an update was refused.
//!
//! Upstream prints a diff of its Go structs here, whose form it calls unstable; this one is made of paths and values.

use std::collections::BTreeSet;
use std::fmt::Write;

use api::Value;
use api::field::Path;

/// How many differences are told; nobody reads more.
const DIFFERENCES_MAX: usize = 20;

/// `path: old -> new`, a line for each difference.
pub fn difference(old: &Value, new: &Value) -> String {
    let mut found = Vec::new();
    walk(old, new, &Path::root(), &mut found);
    let mut text = String::new();
    for (path, old, new) in found.iter().take(DIFFERENCES_MAX) {
        writeln!(text, "  {path}: {old} -> {new}").expect("invariant: writing to a string cannot fail");
    }
    if found.len() > DIFFERENCES_MAX {
        writeln!(text, "  and {} more", found.len() - DIFFERENCES_MAX)
            .expect("invariant: writing to a string cannot fail");
    }
    text
}

fn walk(old: &Value, new: &Value, path: &Path, found: &mut Vec<(String, String, String)>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let (a, b) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                walk(a, b, &path.child(key), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                walk(a, b, &path.index(index), found);
            }
        }
        _ => found.push((path.to_string(), old.to_string(), new.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_difference_has_its_path() {
        let old = json!({"a": 1, "b": [{"c": "x"}, 2], "d": [1]});
        let new = json!({"a": 2, "b": [{"c": "y"}, 2], "d": [1, 2], "e": true});
        assert_eq!(
            difference(&old, &new),
            "  a: 1 -> 2\n  b[0].c: \"x\" -> \"y\"\n  d: [1] -> [1,2]\n  e: null -> true\n"
        );
    }
}
