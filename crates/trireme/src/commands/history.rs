//! `trireme history KIND NAME`: what happened to an object, from the revisions that the server still has.

mod diff;

use serde_json::Value;

use self::diff::{differences, writers};
use crate::access::Access;
use crate::cli::{Format, History};
use crate::errors::{CliError, Kind, Result};
use crate::layout::Layout;

/// Aggregated discovery: every group with its resources, kinds and short names in one answer.
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Tells the history.
pub async fn run(arguments: History, layout: &Layout) -> Result {
    let access = Access::open(arguments.kubeconfig.as_deref(), layout)?;
    let path = find(&access, &arguments).await?;
    let history = access
        .json(&format!("{path}?trireme-history=true"), "application/json")
        .await?;
    match arguments.output {
        Format::Json => println!("{history:#}"),
        Format::Text => print!("{}", text(&history)),
    }
    Ok(())
}

/// The object's path: the kind is looked up as kubectl does, by plural, singular, short name or kind.
async fn find(access: &Access, arguments: &History) -> Result<String> {
    let wanted = arguments.kind.to_lowercase();
    let (wanted, wanted_group) = match wanted.split_once('.') {
        Some((name, group)) => (name.to_owned(), Some(group.to_owned())),
        None => (wanted, None),
    };
    for root in ["/api", "/apis"] {
        let groups = access.json(root, DISCOVERY).await?;
        for group in array(&groups["items"]) {
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            if wanted_group.as_deref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            for version in array(&group["versions"]) {
                let found = array(&version["resources"])
                    .iter()
                    .find(|resource| is_called(resource, &wanted));
                let Some(resource) = found else { continue };
                let version = version["version"].as_str().unwrap_or_default();
                let group = if name.is_empty() {
                    root.to_owned()
                } else {
                    format!("{root}/{name}")
                };
                let plural = resource["resource"].as_str().unwrap_or_default();
                let scope = match resource["scope"].as_str() {
                    Some("Namespaced") => format!("/namespaces/{}", arguments.namespace),
                    _ => String::new(),
                };
                return Ok(format!("{group}/{version}{scope}/{plural}/{}", arguments.name));
            }
        }
    }
    let what = format!("the server has no kind {:?}", arguments.kind);
    Err(CliError::new(Kind::Usage, "NO_SUCH_KIND", what).hint("see which it has: kubectl api-resources"))
}

fn is_called(resource: &Value, name: &str) -> bool {
    let is = |value: &Value| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(name));
    is(&resource["resource"])
        || is(&resource["singularResource"])
        || is(&resource["responseKind"]["kind"])
        || array(&resource["shortNames"]).iter().any(is)
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The history for people.
fn text(history: &Value) -> String {
    let mut out = String::new();
    let left_out = history["leftOut"].as_u64().unwrap_or(0);
    if left_out > 0 {
        out += &format!("{left_out} older revisions are not shown\n");
    }
    let mut before = Value::Null;
    for item in array(&history["items"]) {
        let object = &item["object"];
        let revision = item["revision"].as_str().unwrap_or_default();
        let time = item["time"].as_str().unwrap_or("before what is held");
        let word = item["type"].as_str().unwrap_or_default();
        let by = match word {
            "DELETED" => String::new(),
            _ => writers(&before, object)
                .map(|by| format!("  by {by}"))
                .unwrap_or_default(),
        };
        out += &format!("revision {revision}  {time}  {}{by}\n", words(word));
        if word == "MODIFIED" {
            for line in differences(&before, object) {
                out += &format!("    {line}\n");
            }
        }
        before = object.clone();
    }
    out
}

fn words(word: &str) -> &str {
    match word {
        "HELD" => "as it was",
        "ADDED" => "created",
        "MODIFIED" => "changed",
        "DELETED" => "deleted",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_history_reads_like_a_diary() {
        let object = |replicas: u32, manager: &str, time: &str| {
            json!({"metadata": {"name": "web", "resourceVersion": time, "managedFields": [
                {"manager": manager, "operation": "Update", "time": time, "fieldsV1": {"f:spec": {}}},
            ]}, "spec": {"replicas": replicas}})
        };
        let history = json!({"leftOut": 2, "items": [
            {"type": "HELD", "revision": "4", "object": object(1, "kubectl", "t1")},
            {"type": "MODIFIED", "revision": "9", "time": "2026-01-01T00:00:00Z", "object": object(3, "hpa", "t2")},
            {"type": "DELETED", "revision": "12", "time": "2026-01-01T00:01:00Z", "object": object(3, "hpa", "t2")},
        ]});
        let expect = "2 older revisions are not shown\n\
            revision 4  before what is held  as it was  by kubectl (Update)\n\
            revision 9  2026-01-01T00:00:00Z  changed  by hpa (Update)\n    \
            ~ spec.replicas: 1 -> 3\n\
            revision 12  2026-01-01T00:01:00Z  deleted\n";
        assert_eq!(text(&history), expect);
    }

    #[test]
    fn kinds_are_found_by_all_their_names() {
        let resource = json!({"resource": "deployments", "singularResource": "deployment", "shortNames": ["deploy"],
            "responseKind": {"kind": "Deployment"}});
        for (name, found) in [
            ("deployments", true),
            ("deployment", true),
            ("deploy", true),
            ("dep", false),
        ] {
            assert_eq!(is_called(&resource, name), found, "{name}");
        }
    }
}
