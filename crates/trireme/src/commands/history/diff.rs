//! What changed between two states of an object, and who says so. Pure.

use serde_json::{Map, Value};

/// Fields that change with every write and tell nothing.
const SILENT: [&str; 3] = [
    "metadata.managedFields",
    "metadata.resourceVersion",
    "metadata.generation",
];
/// Longer values are cut: a line stays a line.
const VALUE_CHARACTERS_MAX: usize = 120;

/// One line for each changed field: `+` added, `-` removed, `~` changed.
pub fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare(String::new(), Some(before), Some(after), &mut lines);
    lines
}

fn compare(path: String, before: Option<&Value>, after: Option<&Value>, lines: &mut Vec<String>) {
    if before == after || SILENT.contains(&&*path) {
        return;
    }
    let child = |name: &str| match path.is_empty() {
        true => name.to_owned(),
        // A name with dots of its own (a label's, an annotation's) is told apart from a path.
        false if name.contains('.') => format!("{path}[{name}]"),
        false => format!("{path}.{name}"),
    };
    match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let empty = Map::new();
            for name in names(before, after).chain(names(&empty, after).filter(|name| !before.contains_key(*name))) {
                compare(child(name), before.get(name), after.get(name), lines);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => compare_lists(&path, before, after, lines),
        (None, Some(after)) => lines.push(format!("+ {path}: {}", short(after))),
        (Some(before), None) => lines.push(format!("- {path}: {}", short(before))),
        (Some(before), Some(after)) => lines.push(format!("~ {path}: {} -> {}", short(before), short(after))),
        (None, None) => {}
    }
}

fn names<'a>(first: &'a Map<String, Value>, second: &'a Map<String, Value>) -> impl Iterator<Item = &'a str> {
    let of = if first.is_empty() { second } else { first };
    of.keys().map(String::as_str)
}

/// Items with a name (containers, conditions by type, ports) are matched by it, others by their place.
fn compare_lists(path: &str, before: &[Value], after: &[Value], lines: &mut Vec<String>) {
    let key = ["name", "type", "key", "ip", "uid"].into_iter().find(|key| {
        let has = |item: &Value| item[*key].is_string();
        before.iter().chain(after).all(has)
    });
    let Some(key) = key else {
        for index in 0..before.len().max(after.len()) {
            compare(format!("{path}[{index}]"), before.get(index), after.get(index), lines);
        }
        return;
    };
    let find = |list: &[Value], name: &Value| list.iter().find(|item| item[key] == *name).cloned();
    let added = after.iter().filter(|item| find(before, &item[key]).is_none());
    for item in before.iter().chain(added) {
        let name = &item[key];
        let (before, after) = (find(before, name), find(after, name));
        let path = format!("{path}[{}]", name.as_str().unwrap_or_default());
        compare(path, before.as_ref(), after.as_ref(), lines);
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARACTERS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// Who wrote the newer state: the managers that are new, whose time moved, or who gained a field. A manager that only lost
/// a field to another did nothing. At first, all of them.
pub fn writers(before: &Value, after: &Value) -> Option<String> {
    let entries = |object: &Value| {
        let entries = object["metadata"]["managedFields"].as_array();
        entries.cloned().unwrap_or_default()
    };
    let known = entries(before);
    let wrote = |entry: &&Value| {
        let same = |known: &&Value| {
            ["manager", "operation", "subresource"]
                .iter()
                .all(|part| known[part] == entry[part])
        };
        known
            .iter()
            .find(same)
            .is_none_or(|known| known["time"] != entry["time"] || gained(&known["fieldsV1"], &entry["fieldsV1"]))
    };
    let mut names: Vec<String> = Vec::new();
    for entry in entries(after).iter().filter(wrote) {
        let part = |name: &str| entry[name].as_str().unwrap_or_default();
        let subresource = match part("subresource") {
            "" => String::new(),
            name => format!(", {name}"),
        };
        let name = format!("{} ({}{subresource})", part("manager"), part("operation"));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| names.join(", "))
}

/// Whether the later set of fields has one that the earlier has not.
fn gained(before: &Value, after: &Value) -> bool {
    let fields = after.as_object();
    fields.is_some_and(|fields| {
        fields
            .iter()
            .any(|(name, below)| before.get(name).is_none_or(|before| gained(before, below)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_told_by_field() {
        let before = json!({"metadata": {"resourceVersion": "1", "labels": {"a.b/c": "1"}}, "spec": {"replicas": 1,
            "containers": [{"name": "a", "image": "x"}, {"name": "b"}], "args": ["1", "2"]}});
        let after = json!({"metadata": {"resourceVersion": "2", "labels": {"a.b/c": "2", "d": "e"}}, "spec": {
            "containers": [{"name": "b"}, {"name": "a", "image": "y"}, {"name": "c"}], "args": ["1"]}});
        let expect = [
            r#"~ metadata.labels[a.b/c]: "1" -> "2""#,
            r#"+ metadata.labels.d: "e""#,
            r#"- spec.args[1]: "2""#,
            r#"~ spec.containers[a].image: "x" -> "y""#,
            r#"+ spec.containers[c]: {"name":"c"}"#,
            "- spec.replicas: 1",
        ];
        assert_eq!(differences(&before, &after), expect);
        assert_eq!(differences(&after, &after), [""; 0]);
        let long = differences(&json!({"a": ""}), &json!({"a": "\u{e4}".repeat(500)}));
        assert!(long[0].ends_with("...") && long[0].chars().count() < 150);
    }

    #[test]
    fn writers_are_those_whose_entries_moved() {
        let entry = |manager: &str, time: &str| json!({"manager": manager, "operation": "Apply", "time": time});
        let object = |entries: Vec<Value>| json!({"metadata": {"managedFields": entries}});
        let before = object(vec![entry("one", "t1"), entry("two", "t1")]);
        let mut status = entry("two", "t2");
        status["subresource"] = json!("status");
        let after = object(vec![entry("one", "t1"), status]);
        assert_eq!(writers(&before, &after).as_deref(), Some("two (Apply, status)"));
        assert_eq!(
            writers(&Value::Null, &before).as_deref(),
            Some("one (Apply), two (Apply)")
        );
        assert_eq!(writers(&before, &before), None);
        let fields = |fields: Value| {
            let mut entry = entry("one", "t1");
            entry["fieldsV1"] = fields;
            object(vec![entry])
        };
        let (few, more) = (fields(json!({"f:a": {}})), fields(json!({"f:a": {}, "f:b": {}})));
        assert_eq!(writers(&few, &more).as_deref(), Some("one (Apply)"));
        assert_eq!(writers(&more, &few), None);
    }
}
