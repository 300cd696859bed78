//! An event as a line of the log. Source: `k8s.io/apiserver/pkg/audit/format.go`.

use api::Value;
use api::field::quote;

/// How the log is written (`--audit-log-format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// An object a line.
    #[default]
    Json,
    /// Upstream's first format: a few fields as text.
    Legacy,
}

/// The line of an event, with its end.
pub fn line(format: Format, event: &Value) -> String {
    match format {
        Format::Json => format!("{event}\n"),
        Format::Legacy => legacy(event),
    }
}

fn legacy(event: &Value) -> String {
    let text = |value: &Value, absent: &str| quote(value.as_str().filter(|text| !text.is_empty()).unwrap_or(absent));
    let groups = |user: &Value, absent: &str| {
        let all = user["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
        let all: Vec<String> = all.iter().filter_map(Value::as_str).map(quote).collect();
        match all.is_empty() {
            true => quote(absent),
            false => quote(&all.join(",")),
        }
    };
    let acting = &event["impersonatedUser"];
    let (acting_name, acting_groups) = match acting.is_object() {
        true => (text(&acting["username"], ""), groups(acting, "<lookup>")),
        false => (quote("<self>"), quote("<lookup>")),
    };
    let code = event["responseStatus"]["code"].as_i64();
    let code = code.map_or("<deferred>".to_owned(), |code| code.to_string());
    format!(
        "{} AUDIT: id={} stage={} ip={} method={} user={} groups={} as={acting_name} asgroups={acting_groups} user-agent={} namespace={} uri={} response=\"{code}\"\n",
        event["requestReceivedTimestamp"].as_str().unwrap_or(""),
        text(&event["auditID"], ""),
        text(&event["stage"], ""),
        text(&event["sourceIPs"][0], "<unknown>"),
        text(&event["verb"], ""),
        text(&event["user"]["username"], "<none>"),
        groups(&event["user"], "<none>"),
        text(&event["userAgent"], ""),
        text(&event["objectRef"]["namespace"], "<none>"),
        text(&event["requestURI"], ""),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_upstreams() {
        let event = json!({
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z", "auditID": "i", "stage": "ResponseComplete",
            "sourceIPs": ["10.0.0.1"], "verb": "get", "user": {"username": "jane", "groups": ["a", "b"]},
            "userAgent": "kubectl", "objectRef": {"namespace": "n"}, "requestURI": "/x?y=\"z\"",
            "responseStatus": {"code": 200},
        });
        let expect = r#"2026-01-01T00:00:00.000000Z AUDIT: id="i" stage="ResponseComplete" ip="10.0.0.1" method="get" user="jane" groups="\"a\",\"b\"" as="<self>" asgroups="<lookup>" user-agent="kubectl" namespace="n" uri="/x?y=\"z\"" response="200""#;
        assert_eq!(line(Format::Legacy, &event), format!("{expect}\n"));
        let bare = line(Format::Legacy, &json!({"impersonatedUser": {"username": "joe"}}));
        assert!(
            bare.contains(r#"user="<none>" groups="<none>" as="joe" asgroups="<lookup>""#),
            "{bare}"
        );
        assert!(
            bare.contains(r#"ip="<unknown>""#) && bare.ends_with("response=\"<deferred>\"\n"),
            "{bare}"
        );
        assert_eq!(line(Format::Json, &json!({"a": 1})), "{\"a\":1}\n");
    }
}
