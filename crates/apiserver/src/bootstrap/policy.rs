//! Reads `policy.txt` into the RBAC objects that every cluster starts with.
//!
//! Facts of upstream's `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`: the names, rules, labels and annotations that
//! users bind to and that charts aggregate into.

use api::Value;
use serde_json::json;

const GROUP: &str = "rbac.authorization.k8s.io";
const POLICY: &str = include_str!("policy.txt");

/// All bootstrap objects, roles before the bindings that name them within each kind.
///
/// # Errors
/// The line that could not be read; a test reads the whole file.
pub fn objects() -> Result<Vec<Value>, String> {
    parse(POLICY)
}

fn parse(policy: &str) -> Result<Vec<Value>, String> {
    let mut objects: Vec<Value> = Vec::new();
    let mut bindings: Vec<Value> = Vec::new();
    for line in policy.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bad = || format!("bootstrap policy: cannot read {line:?}");
        match &words[..] {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            _ if line.starts_with("  ") => {
                let rule = rule(&words).ok_or_else(bad)?;
                let role = objects.last_mut().ok_or_else(bad)?;
                role["rules"].as_array_mut().ok_or_else(bad)?.push(rule);
            }
            ["clusterrole", name, options @ ..] => objects.push(cluster_role(name, options).ok_or_else(bad)?),
            ["controller", name] => {
                let role = format!("system:controller:{name}");
                objects.push(cluster_role(&role, &[]).ok_or_else(bad)?);
                bindings.push(binding(None, &role, &role, &[&format!("sa:kube-system:{name}")]).ok_or_else(bad)?);
            }
            ["role", namespace, name] => objects.push(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                "metadata": metadata(name, Some(namespace), &[]), "rules": [],
            })),
            ["clusterbinding", role, subjects @ ..] => {
                bindings.push(binding(None, role, role, subjects).ok_or_else(bad)?)
            }
            ["binding", namespace, name, role, subjects @ ..] => {
                bindings.push(binding(Some(namespace), name, role, subjects).ok_or_else(bad)?);
            }
            _ => return Err(bad()),
        }
    }
    objects.append(&mut bindings);
    Ok(objects)
}

fn metadata(name: &str, namespace: Option<&str>, labels: &[String]) -> Value {
    let mut metadata = json!({
        "name": name,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
    });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    for label in labels {
        metadata["labels"][label] = json!("true");
    }
    metadata
}

fn cluster_role(name: &str, options: &[&str]) -> Option<Value> {
    let aggregate = |suffix: &str| format!("{GROUP}/aggregate-to-{suffix}");
    let mut labels = Vec::new();
    let mut selector = None;
    for option in options {
        match option.split_once('=')? {
            ("label", suffix) => labels.push(aggregate(suffix)),
            ("aggregates", suffix) => selector = Some(aggregate(suffix)),
            _ => return None,
        }
    }
    let mut role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": metadata(name, None, &labels), "rules": [],
    });
    if let Some(label) = selector {
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    }
    Some(role)
}

fn binding(namespace: Option<&str>, name: &str, role: &str, subjects: &[&str]) -> Option<Value> {
    let mut list = Vec::new();
    for subject in subjects {
        let (kind, subject_name) = subject.split_once(':')?;
        list.push(match kind {
            "group" => json!({"apiGroup": GROUP, "kind": "Group", "name": subject_name}),
            "user" => json!({"apiGroup": GROUP, "kind": "User", "name": subject_name}),
            "sa" => {
                let (namespace, account) = subject_name.split_once(':')?;
                json!({"kind": "ServiceAccount", "name": account, "namespace": namespace})
            }
            _ => return None,
        });
    }
    let (kind, role_kind) = match namespace {
        Some(_) => ("RoleBinding", "Role"),
        None => ("ClusterRoleBinding", "ClusterRole"),
    };
    let mut object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": metadata(name, namespace, &[]),
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
    });
    if !list.is_empty() {
        object["subjects"] = Value::Array(list);
    }
    Some(object)
}

fn rule(words: &[&str]) -> Option<Value> {
    let list = |text: &str| -> Vec<String> { text.split(',').map(str::to_string).collect() };
    match words {
        ["events"] => Some(json!({
            "verbs": ["create", "patch", "update"], "apiGroups": ["", "events.k8s.io"], "resources": ["events"],
        })),
        [verbs, "url", paths] => Some(json!({"verbs": verbs_of(verbs), "nonResourceURLs": list(paths)})),
        [verbs, groups, resources, rest @ ..] => {
            let groups: Vec<String> = groups
                .split(',')
                .map(|g| if g == "core" { "" } else { g }.to_string())
                .collect();
            let mut rule = json!({"verbs": verbs_of(verbs), "apiGroups": groups, "resources": list(resources)});
            match rest {
                [] => {}
                [names] => rule["resourceNames"] = json!(list(names.strip_prefix("names=")?)),
                _ => return None,
            }
            Some(rule)
        }
        _ => None,
    }
}

fn verbs_of(text: &str) -> Vec<&str> {
    const READ: [&str; 3] = ["get", "list", "watch"];
    const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
    let mut verbs = Vec::new();
    for word in text.split(',') {
        match word {
            "read" => verbs.extend(READ),
            "write" => verbs.extend(WRITE),
            "readwrite" => verbs.extend(READ.iter().chain(&WRITE)),
            "readupdate" => verbs.extend(READ.iter().chain(&["update", "patch"])),
            other => verbs.push(other),
        }
    }
    verbs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_policy_is_read() {
        let objects = objects().unwrap();
        let find = |kind: &str, name: &str| {
            objects
                .iter()
                .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
                .unwrap_or_else(|| panic!("{kind} {name}"))
        };
        assert_eq!(
            find("ClusterRole", "cluster-admin")["rules"].as_array().unwrap().len(),
            2
        );
        assert_eq!(
            find("ClusterRole", "edit")["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"]["rbac.authorization.k8s.io/aggregate-to-edit"],
            "true"
        );
        assert_eq!(
            find("ClusterRoleBinding", "system:controller:node-controller")["subjects"][0]["name"],
            "node-controller"
        );
        assert_eq!(
            find("Role", "extension-apiserver-authentication-reader")["metadata"]["namespace"],
            "kube-system"
        );
        let mut seen = std::collections::BTreeSet::new();
        for object in &objects {
            let metadata = &object["metadata"];
            assert!(
                seen.insert(format!(
                    "{} {} {}",
                    object["kind"], metadata["namespace"], metadata["name"]
                )),
                "twice: {metadata}"
            );
        }
    }

    #[test]
    fn every_binding_names_a_role_that_is_there() {
        let objects = objects().unwrap();
        for binding in objects.iter().filter(|o| o["roleRef"].is_object()) {
            let reference = &binding["roleRef"];
            assert!(
                objects.iter().any(|o| o["kind"] == reference["kind"]
                    && o["metadata"]["name"] == reference["name"]
                    && o["metadata"]["namespace"] == binding["metadata"]["namespace"]),
                "{binding}"
            );
        }
    }

    #[test]
    fn bad_lines_are_refused() {
        for line in [
            "nonsense x",
            "  get core",
            "clusterrole a what=b",
            "clusterbinding r who:x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
