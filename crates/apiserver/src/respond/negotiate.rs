//! What the client wants to read: `Accept` and `pretty`, as upstream negotiates them.
//!
//! Objects are answered as JSON only (protobuf answers are a later issue; every client falls back). Source:
//! `k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`.

use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};

use api::{Reason, Status};

use crate::request::Query;

/// In which shape an object is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// As it is.
    Plain,
    /// `meta.k8s.io` Table, in version `v1` or `v1beta1`.
    Table(&'static str),
    /// `PartialObjectMetadata`.
    Partial(&'static str),
    /// `PartialObjectMetadataList`.
    PartialList(&'static str),
}

/// The outcome of the negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The shape.
    pub form: Form,
    /// Indented for people.
    pub pretty: bool,
}

/// One alternative of an `Accept` header.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause<'a> {
    /// `application`, or `*`.
    pub kind: &'a str,
    /// `json`, or `*`.
    pub subkind: &'a str,
    /// The parameters.
    pub params: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Clause<'_> {
    /// A parameter's value, or empty.
    pub fn param(&self, name: &str) -> &str {
        self.params
            .iter()
            .find(|(own, _)| *own == name)
            .map_or("", |(_, value)| value)
    }

    /// Whether the clause can be answered in JSON.
    pub fn takes_json(&self) -> bool {
        matches!((self.kind, self.subkind), ("application", "json" | "*") | ("*", "*"))
    }
}

/// The clauses of an `Accept` header, best first (a stable order: quality, then specificity, then position).
pub fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause> = accept.split(',').filter_map(clause).collect();
    let wildness = |c: &Clause| u8::from(c.kind == "*") + u8::from(c.subkind == "*");
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then(wildness(a).cmp(&wildness(b))));
    clauses
}

fn clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next()?;
    let (kind, subkind) = match media {
        "*" => ("*", "*"),
        _ => media.split_once('/')?,
    };
    let mut clause = Clause {
        kind,
        subkind,
        params: Vec::new(),
        quality: 1.0,
    };
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        match name.trim() {
            "q" => clause.quality = value.parse().unwrap_or(1.0),
            name => clause.params.push((name, value)),
        }
    }
    Some(clause)
}

/// The `Accept` header, joined when it was sent more than once.
pub fn accept(headers: &HeaderMap) -> String {
    let all: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    all.join(",")
}

/// Negotiates the answer to a request for objects. `transforms`: whether Table and PartialObjectMetadata are there.
pub fn negotiate(headers: &HeaderMap, query: &Query, transforms: bool) -> Result<Output, Status> {
    let accept = accept(headers);
    let pretty = is_pretty(headers, query);
    if accept.is_empty() {
        return Ok(Output {
            form: Form::Plain,
            pretty,
        });
    }
    for clause in clauses(&accept) {
        if !clause.takes_json() {
            continue;
        }
        let Some(form) = form_of(&clause, transforms) else {
            continue;
        };
        if !matches!(clause.param("stream"), "" | "watch") || !matches!(clause.param("sv"), "" | "v1") {
            continue;
        }
        return Ok(Output {
            form,
            pretty: pretty || clause.param("pretty") == "1",
        });
    }
    Err(not_acceptable())
}

/// 406, with what could be had.
pub fn not_acceptable() -> Status {
    Status::failure(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json",
    )
}

fn form_of(clause: &Clause, transforms: bool) -> Option<Form> {
    let version = match (clause.param("g"), clause.param("v")) {
        ("", "") if clause.param("as").is_empty() => return Some(Form::Plain),
        ("meta.k8s.io", "v1") => "v1",
        ("meta.k8s.io", "v1beta1") => "v1beta1",
        _ => return None,
    };
    match clause.param("as") {
        _ if !transforms => None,
        "Table" => Some(Form::Table(version)),
        "PartialObjectMetadata" => Some(Form::Partial(version)),
        "PartialObjectMetadataList" => Some(Form::PartialList(version)),
        _ => None,
    }
}

/// Whether to indent: asked for, or a known human client.
pub fn is_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(value) = query.get("pretty").filter(|value| !value.is_empty()) {
        return matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"]
        .iter()
        .any(|human| agent.starts_with(human))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_are_negotiated() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, expect) in [
            ("", Some(Form::Plain)),
            ("*/*", Some(Form::Plain)),
            ("application/json", Some(Form::Plain)),
            (table, Some(Form::Table("v1"))),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                Some(Form::Table("v1beta1")),
            ),
            ("application/vnd.kubernetes.protobuf, */*", Some(Form::Plain)),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some(Form::Plain),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
                Some(Form::Partial("v1")),
            ),
            ("application/json;stream=watch", Some(Form::Plain)),
            ("application/vnd.kubernetes.protobuf", None),
            ("text/html", None),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", None),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Some(Form::Plain),
            ),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(ACCEPT, accept.parse().unwrap());
            }
            let got = negotiate(&headers, &Query::default(), true)
                .ok()
                .map(|output| output.form);
            assert_eq!(got, expect, "{accept}");
        }
    }

    #[test]
    fn people_get_indented_answers() {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, "curl/8.0".parse().unwrap());
        assert!(is_pretty(&headers, &Query::default()));
        assert!(!is_pretty(&headers, &Query::parse("pretty=false")));
        assert!(!is_pretty(&HeaderMap::new(), &Query::default()));
        assert!(is_pretty(&HeaderMap::new(), &Query::parse("pretty=1")));
    }
}
