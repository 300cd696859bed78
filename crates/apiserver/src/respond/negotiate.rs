//! What the client wants to read: `Accept` and `pretty`, as upstream negotiates them.
//!
//! JSON comes first where a client takes anything. A Table has no protobuf, a custom resource only its metadata, a watch no
//! YAML; CBOR, which upstream has behind a gate that is off, is nobody's. Source:
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

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Media {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// In upstream's order.
const ALL: [Media; 3] = [Media::Json, Media::Yaml, Media::Protobuf];

impl Media {
    /// The media type.
    pub fn as_str(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The media type of a watch.
    pub fn stream_str(self) -> &'static str {
        match self {
            Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            other => other.as_str(),
        }
    }

    /// What a clause of an `Accept` header can be answered in.
    pub fn of(clause: &Clause) -> Option<Media> {
        match (clause.kind, clause.subkind) {
            ("application", "json" | "*") | ("*", "*") => Some(Media::Json),
            ("application", "yaml") => Some(Media::Yaml),
            ("application", "vnd.kubernetes.protobuf") => Some(Media::Protobuf),
            _ => None,
        }
    }
}

/// The outcome of the negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The shape.
    pub form: Form,
    /// The media type.
    pub media: Media,
    /// Indented for people.
    pub pretty: bool,
}

/// What a path can answer with.
#[derive(Clone, Copy, Debug)]
pub struct Offers {
    /// Whether Table and PartialObjectMetadata are there.
    pub transforms: bool,
    /// Whether the objects themselves have a protobuf message: those of built-in kinds do.
    pub messages: bool,
    /// Whether the answer is a stream of frames.
    pub watch: bool,
}

impl Offers {
    /// What is neither stored nor streamed: reviews, discovery.
    pub const PLAIN: Offers = Offers {
        transforms: false,
        messages: true,
        watch: false,
    };

    fn has(self, form: Form, media: Media) -> bool {
        match (form, media) {
            (_, Media::Yaml) => !self.watch,
            (Form::Table(_), Media::Protobuf) => false,
            (Form::Plain, Media::Protobuf) => self.messages,
            _ => true,
        }
    }

    /// 406, with what could be had.
    fn refusal(self) -> Status {
        let all = ALL.into_iter().filter(|media| self.has(Form::Plain, *media));
        let accepted: Vec<String> = match self.watch {
            true => all.map(|media| format!("{};stream=watch", media.as_str())).collect(),
            false => all.map(|media| media.as_str().to_owned()).collect(),
        };
        let accepted = accepted.join(", ");
        Status::failure(
            Reason::NotAcceptable,
            format!("only the following media types are accepted: {accepted}"),
        )
    }
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

/// The clauses of an `Accept` header, best first, in upstream's order (`munnerz/goautoneg`): its comparison puts what has a
/// wildcard behind what has none even if its quality is higher, so that the outcome is that of sorting by insertion.
pub fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause> = Vec::new();
    for clause in accept.split(',').filter_map(clause).take(CLAUSES_MAX) {
        let place = clauses.iter().rposition(|before| !is_better(&clause, before));
        clauses.insert(place.map_or(0, |place| place + 1), clause);
    }
    clauses
}

/// As many alternatives as are looked at; clients name four at most, and each is compared with those before it.
const CLAUSES_MAX: usize = 64;

fn is_better(one: &Clause, other: &Clause) -> bool {
    one.quality > other.quality
        || (one.kind != "*" && other.kind == "*")
        || (one.subkind != "*" && other.subkind == "*")
}

fn clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next()?;
    let (kind, subkind) = match media {
        "*" => ("*", "*"),
        _ => media.split_once('/').filter(|(_, subkind)| !subkind.contains('/'))?,
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
            // What is no number is none (upstream goes by what `ParseFloat` leaves).
            "q" => clause.quality = value.parse().unwrap_or(0.0),
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

/// Negotiates the answer to a request for objects.
pub fn negotiate(headers: &HeaderMap, query: &Query, offers: Offers) -> Result<Output, Status> {
    let accept = accept(headers);
    let pretty = is_pretty(headers, query);
    if accept.is_empty() {
        return Ok(Output {
            form: Form::Plain,
            media: Media::Json,
            pretty,
        });
    }
    for clause in clauses(&accept) {
        let Some(media) = Media::of(&clause) else { continue };
        let Some(form) = form_of(&clause, offers.transforms) else {
            continue;
        };
        let stream = matches!(clause.param("stream"), "" | "watch");
        if !offers.has(form, media) || !stream || !matches!(clause.param("sv"), "" | "v1") {
            continue;
        }
        return Ok(Output {
            form,
            media,
            pretty: pretty || clause.param("pretty") == "1",
        });
    }
    Err(offers.refusal())
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
        use Media::{Json, Protobuf, Yaml};
        let proto = "application/vnd.kubernetes.protobuf";
        let partial = "as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let table_of = |media: &str| format!("{media};as=Table;v=v1;g=meta.k8s.io");
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let all = Offers {
            transforms: true,
            messages: true,
            watch: false,
        };
        let custom = Offers { messages: false, ..all };
        let watch = Offers { watch: true, ..all };
        for (offers, accept, expect) in [
            (all, String::new(), Some((Form::Plain, Json))),
            (all, "*/*".into(), Some((Form::Plain, Json))),
            (all, "application/*".into(), Some((Form::Plain, Json))),
            (all, "application/json".into(), Some((Form::Plain, Json))),
            (all, "application/yaml".into(), Some((Form::Plain, Yaml))),
            (watch, "application/yaml".into(), None),
            (all, table.into(), Some((Form::Table("v1"), Json))),
            (all, table_of("application/yaml"), Some((Form::Table("v1"), Yaml))),
            (all, table_of(proto), None),
            (all, table_of(proto) + "," + table, Some((Form::Table("v1"), Json))),
            (all, format!("{proto}, */*"), Some((Form::Plain, Protobuf))),
            (custom, format!("{proto}, */*"), Some((Form::Plain, Json))),
            (custom, proto.into(), None),
            (
                all,
                format!("{proto};q=0.5,application/json"),
                Some((Form::Plain, Json)),
            ),
            (watch, format!("{proto};stream=watch"), Some((Form::Plain, Protobuf))),
            (
                all,
                format!("{proto};{partial},application/json"),
                Some((Form::Partial("v1"), Protobuf)),
            ),
            (
                custom,
                format!("{proto};{partial}"),
                Some((Form::Partial("v1"), Protobuf)),
            ),
            (watch, "application/json;stream=watch".into(), Some((Form::Plain, Json))),
            (all, "application/cbor".into(), None),
            (all, "text/html".into(), None),
            (all, "application/json;as=Table;v=v2;g=meta.k8s.io".into(), None),
            (all, browser.into(), Some((Form::Plain, Json))),
            // Several alternatives, in the order of upstream's sorting.
            (all, "application/yaml;q=0.5, */*".into(), Some((Form::Plain, Json))),
            (all, "*/*, application/yaml;q=0.5".into(), Some((Form::Plain, Yaml))),
            (all, format!("*/*, {proto};q=0.1"), Some((Form::Plain, Protobuf))),
            (
                all,
                format!("application/json;q=0.2, {proto};q=0.8, application/yaml;q=0.3"),
                Some((Form::Plain, Protobuf)),
            ),
            (
                all,
                format!("{proto};q=high, application/yaml"),
                Some((Form::Plain, Yaml)),
            ),
            (
                all,
                "application/cbor, application/json;q=0.9".into(),
                Some((Form::Plain, Json)),
            ),
            (
                all,
                format!("{},application/json", table_of(proto)),
                Some((Form::Plain, Json)),
            ),
            (
                all,
                "application/json/more, application/yaml".into(),
                Some((Form::Plain, Yaml)),
            ),
            (all, "*".into(), Some((Form::Plain, Json))),
            (all, " , ".into(), None),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(ACCEPT, accept.parse().unwrap());
            }
            let got = negotiate(&headers, &Query::default(), offers);
            assert_eq!(got.ok().map(|output| (output.form, output.media)), expect, "{accept}");
        }
        let message = "only the following media types are accepted: ";
        for (offers, types) in [
            (
                all,
                "application/json, application/yaml, application/vnd.kubernetes.protobuf",
            ),
            (custom, "application/json, application/yaml"),
            (
                watch,
                "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
            ),
        ] {
            assert_eq!(offers.refusal().message, format!("{message}{types}"));
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
