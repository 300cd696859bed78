//! Requests and their answers, counted under what upstream counts them under.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, header};
use http_body::Body as _;
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};

use client::Body;

use super::names::{Names, name};
use super::{DURATION_BUCKETS, duration_histogram};
use crate::call::is_long_running;
use crate::request::{Attributes, Query};

/// What a request is counted under: a bounded set, whatever a client asks for.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LatencyLabels {
    #[prometheus(flatten)]
    request: RequestLabels,
    dry_run: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabels {
    #[prometheus(flatten)]
    request: RequestLabels,
    dry_run: &'static str,
    code: u16,
}

/// Upstream's buckets of `apiserver_request_sli_duration_seconds`: those of all requests without the two shortest.
const SLI_BUCKETS: &[f64] = DURATION_BUCKETS.split_at(2).1;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TerminatedLabels {
    #[prometheus(flatten)]
    request: RequestLabels,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BodyLabels {
    group: String,
    resource: String,
    /// `create`, `update`, `patch`, `delete` or `delete_collection`.
    verb: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FieldValidationLabels {
    field_validation: &'static str,
}

/// A version of an API that will be gone.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DeprecatedLabels {
    group: String,
    version: String,
    resource: String,
    subresource: String,
    removed_release: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InflightLabels {
    request_kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OwnLabels {
    verb: &'static str,
    group: String,
    resource: String,
    subresource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AbortLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

/// On an answer: the server says so in place of another one that it does not reach.
#[derive(Clone, Copy, Debug)]
pub struct OfAggregator;

/// On an answer: it is another server's, and may break off even where its length is known.
#[derive(Clone, Copy, Debug)]
pub struct HandedThrough;

/// The metrics of requests.
pub struct Requests {
    answered: Family<CodeLabels, Counter>,
    durations: Family<LatencyLabels, Histogram, fn() -> Histogram>,
    /// Without dry runs: what promises about latency are measured by.
    promised_durations: Family<RequestLabels, Histogram, fn() -> Histogram>,
    sizes: Family<RequestLabels, Histogram, fn() -> Histogram>,
    body_sizes: Family<BodyLabels, Histogram, fn() -> Histogram>,
    field_validation: Family<FieldValidationLabels, Histogram, fn() -> Histogram>,
    terminated: Family<TerminatedLabels, Counter>,
    deprecated: Family<DeprecatedLabels, Gauge>,
    /// Of the server itself.
    own: Family<OwnLabels, Counter>,
    aborted: Family<AbortLabels, Counter>,
    inflight: Family<InflightLabels, Gauge>,
    long_running: Family<RequestLabels, Gauge>,
    /// Those of requests at work that read, and of those that write.
    at_work: [Gauge; 2],
    /// What was found in the families above for answers so far: one look instead of four. As bounded as its labels.
    series: RwLock<HashMap<CodeLabels, Arc<Series>>>,
}

/// What answers of the same labels count under.
struct Series {
    answered: Counter,
    /// Made by the first answer that is neither a watch nor a stream.
    latency: OnceLock<Latency>,
}

struct Latency {
    durations: Histogram,
    /// `None` for dry runs.
    promised: Option<Histogram>,
    /// Of reads only.
    sizes: Option<Histogram>,
}

fn sli_histogram() -> Histogram {
    Histogram::new(SLI_BUCKETS.iter().copied())
}

fn body_histogram() -> Histogram {
    // Up to the largest body, as upstream.
    Histogram::new(linear_buckets(50_000.0, 100_000.0, 31))
}

fn size_histogram() -> Histogram {
    // From a kilobyte to a gigabyte, as upstream.
    Histogram::new(exponential_buckets(1000.0, 10.0, 7))
}

impl Default for Requests {
    fn default() -> Requests {
        let inflight: Family<InflightLabels, Gauge> = Family::default();
        let at_work = ["readOnly", "mutating"]
            .map(|request_kind| inflight.get_or_create(&InflightLabels { request_kind }).clone());
        Requests {
            answered: Family::default(),
            durations: Family::new_with_constructor(duration_histogram),
            promised_durations: Family::new_with_constructor(sli_histogram),
            sizes: Family::new_with_constructor(size_histogram),
            body_sizes: Family::new_with_constructor(body_histogram),
            field_validation: Family::new_with_constructor(sli_histogram),
            terminated: Family::default(),
            deprecated: Family::default(),
            own: Family::default(),
            aborted: Family::default(),
            inflight,
            long_running: Family::default(),
            at_work,
            series: RwLock::default(),
        }
    }
}

/// Counts a request as at work until it is dropped.
pub struct InFlight(Gauge);

impl InFlight {
    /// One more until it is dropped.
    pub fn on(gauge: Gauge) -> InFlight {
        gauge.inc();
        InFlight(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts a watch or a stream as open until the last clone is dropped.
pub type LongRunning = Arc<InFlight>;

/// A request before its answer.
pub struct Asked {
    labels: RequestLabels,
    dry_run: &'static str,
    in_flight: Option<InFlight>,
    /// What its body says it has, and how the verb is called.
    body: Option<(u64, &'static str)>,
    field_validation: Option<&'static str>,
    /// Whether the server asks itself.
    pub own: bool,
    /// Held by what outlives the answer's head.
    pub long_running: Option<LongRunning>,
}

impl Asked {
    /// What the answer counts under.
    pub fn labels(&self) -> &RequestLabels {
        &self.labels
    }
}

impl Requests {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "Requests, by verb, resource and code";
        name(r, "apiserver_request", help, &self.answered);
        let help = "Latency of requests that are neither watches nor streams, in seconds";
        name(r, "apiserver_request_duration_seconds", help, &self.durations);
        let help = "The same without dry runs";
        name(
            r,
            "apiserver_request_sli_duration_seconds",
            help,
            &self.promised_durations,
        );
        let help = "Size of answers to reads, in bytes";
        name(r, "apiserver_response_sizes", help, &self.sizes);
        let help = "Size of requests' bodies, in bytes";
        name(r, "apiserver_request_body_size_bytes", help, &self.body_sizes);
        let help = "Latency of requests that say how unknown fields are dealt with, in seconds";
        name(
            r,
            "field_validation_request_duration_seconds",
            help,
            &self.field_validation,
        );
        let help = "Requests that were ended or turned away so that the server stays well";
        name(r, "apiserver_request_terminations", help, &self.terminated);
        let help = "Deprecated APIs that somebody has asked for";
        name(r, "apiserver_requested_deprecated_apis", help, &self.deprecated);
        let help = "Requests that the server made to itself";
        name(r, "apiserver_selfrequest", help, &self.own);
        let help = "Answers that broke off after they had begun";
        name(r, "apiserver_request_aborts", help, &self.aborted);
        let help = "Requests at work, by kind";
        name(r, "apiserver_current_inflight_requests", help, &self.inflight);
        let help = "Open watches and streams";
        name(r, "apiserver_longrunning_requests", help, &self.long_running);
    }

    /// Counts a request as at work. `known` tells whether its resource is served: only then its names are labels, so
    /// that a client cannot make labels up.
    pub fn asked(
        &self,
        method: &Method,
        headers: &http::HeaderMap,
        attributes: &Attributes,
        query: &Query,
        known: bool,
    ) -> Asked {
        let long = is_long_running(attributes, query);
        let label = |text: &str| if known { text.to_owned() } else { String::new() };
        let labels = RequestLabels {
            verb: verb(method, headers, attributes),
            group: label(&attributes.group),
            version: label(&attributes.version),
            resource: label(&attributes.resource),
            subresource: label(&attributes.subresource),
            scope: scope(attributes),
            component: "apiserver",
        };
        if known && labels.group.is_empty() && DEPRECATED.contains(&&*labels.resource) {
            self.deprecated(&labels);
        }
        let body = body_verb(attributes).and_then(|verb| {
            let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
            Some((length.parse().ok()?, verb))
        });
        let in_flight = || self.at_work[usize::from(!attributes.is_read_only())].clone();
        let long_running = || self.long_running.get_or_create(&labels).clone();
        Asked {
            in_flight: (!long).then(|| InFlight::on(in_flight())),
            long_running: long.then(|| Arc::new(InFlight::on(long_running()))),
            dry_run: dry_run(query),
            body: body.filter(|_| known),
            field_validation: field_validation(query),
            own: false,
            labels,
        }
    }

    fn deprecated(&self, labels: &RequestLabels) {
        let labels = DeprecatedLabels {
            group: labels.group.clone(),
            version: labels.version.clone(),
            resource: labels.resource.clone(),
            subresource: labels.subresource.clone(),
            removed_release: "",
        };
        self.deprecated.get_or_create(&labels).set(1);
    }

    /// Counts the answer.
    pub fn answered(&self, asked: Asked, response: &http::Response<Body>, took: Duration) {
        let code = response.status().as_u16();
        let Asked {
            labels,
            dry_run,
            in_flight,
            body,
            field_validation,
            own,
            ..
        } = asked;
        let by = match response.extensions().get::<OfAggregator>() {
            Some(OfAggregator) => Some("aggregator"),
            None => matches!(code, 429 | 504).then_some(labels.component),
        };
        if let Some(component) = by {
            let request = RequestLabels {
                component,
                ..labels.clone()
            };
            self.terminated.get_or_create(&TerminatedLabels { request, code }).inc();
        }
        if own {
            let labels = OwnLabels {
                verb: labels.verb,
                group: labels.group.clone(),
                resource: labels.resource.clone(),
                subresource: labels.subresource.clone(),
            };
            self.own.get_or_create(&labels).inc();
        }
        if let Some((bytes, verb)) = body {
            let labels = BodyLabels {
                group: labels.group.clone(),
                resource: labels.resource.clone(),
                verb,
            };
            self.body_sizes.get_or_create(&labels).observe(bytes as f64);
        }
        let labels = CodeLabels {
            request: labels,
            dry_run,
            code,
        };
        let series = self.series(&labels);
        series.answered.inc();
        if in_flight.is_none() {
            return;
        }
        let latency = series.latency.get_or_init(|| self.latency(labels));
        let took = took.as_secs_f64();
        if let Some(field_validation) = field_validation {
            let labels = FieldValidationLabels { field_validation };
            self.field_validation.get_or_create(&labels).observe(took);
        }
        latency.durations.observe(took);
        if let Some(promised) = &latency.promised {
            promised.observe(took);
        }
        if let Some(sizes) = &latency.sizes
            && let Some(bytes) = response.body().size_hint().exact()
        {
            sizes.observe(bytes as f64);
        }
    }

    /// Counts an answer that broke off.
    pub fn aborted(&self, labels: RequestLabels) {
        let labels = AbortLabels {
            verb: labels.verb,
            group: labels.group,
            version: labels.version,
            resource: labels.resource,
            subresource: labels.subresource,
            scope: labels.scope,
        };
        self.aborted.get_or_create(&labels).inc();
    }

    fn series(&self, labels: &CodeLabels) -> Arc<Series> {
        if let Some(known) = self.series.read().get(labels) {
            return known.clone();
        }
        let new = || Series {
            answered: self.answered.get_or_create(labels).clone(),
            latency: OnceLock::new(),
        };
        let mut series = self.series.write();
        series.entry(labels.clone()).or_insert_with(|| Arc::new(new())).clone()
    }

    fn latency(&self, labels: CodeLabels) -> Latency {
        let CodeLabels { request, dry_run, .. } = labels;
        let reads = matches!(request.verb, "GET" | "LIST");
        let promised = dry_run.is_empty();
        Latency {
            promised: promised.then(|| self.promised_durations.get_or_create(&request).clone()),
            sizes: reads.then(|| self.sizes.get_or_create(&request).clone()),
            durations: self
                .durations
                .get_or_create(&LatencyLabels { request, dry_run })
                .clone(),
        }
    }
}

/// The verb as upstream reports it: the method, with lists, watches, applies and connections told apart
/// (`CanonicalVerb`, `CleanVerb`).
fn verb(method: &Method, headers: &http::HeaderMap, attributes: &Attributes) -> &'static str {
    let connects = ["log", "exec", "portforward", "attach", "proxy"];
    if attributes.is_resource && connects.contains(&&*attributes.subresource) {
        return "CONNECT";
    }
    let is_apply = || {
        let media = headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok());
        media.is_some_and(|media| media.starts_with("application/apply-patch"))
    };
    match (method.as_str(), &*attributes.verb) {
        ("GET", "watch") => "WATCH",
        ("GET", "list") => "LIST",
        ("GET" | "HEAD", _) => "GET",
        ("POST", _) => "POST",
        ("PUT", _) => "PUT",
        ("PATCH", _) if is_apply() => "APPLY",
        ("PATCH", _) => "PATCH",
        ("DELETE", "deletecollection") => "DELETECOLLECTION",
        ("DELETE", _) => "DELETE",
        _ => "other",
    }
}

/// Resources of the core group whose users are told to use something else; nothing says when they go. Their warnings stand
/// where they are served.
const DEPRECATED: [&str; 2] = ["endpoints", "componentstatuses"];

/// The verb of a request with a body, as upstream has it in `RequestBodyVerb`.
fn body_verb(attributes: &Attributes) -> Option<&'static str> {
    Some(match &*attributes.verb {
        "create" => "create",
        "update" => "update",
        "patch" => "patch",
        "delete" => "delete",
        "deletecollection" => "delete_collection",
        _ => return None,
    })
}

/// What a request says about unknown fields, if it does (`cleanFieldValidation`).
fn field_validation(query: &Query) -> Option<&'static str> {
    let mut values = query.all("fieldValidation");
    Some(match (values.next()?, values.next()) {
        ("Ignore", None) => "Ignore",
        ("Warn", None) => "Warn",
        ("Strict", None) => "Strict",
        _ => "invalid",
    })
}

/// How much a request is about (`CleanScope`).
pub fn scope(attributes: &Attributes) -> &'static str {
    match attributes {
        a if !a.name.is_empty() || a.verb == "create" => "resource",
        a if !a.namespace.is_empty() => "namespace",
        a if a.is_resource => "cluster",
        _ => "",
    }
}

/// The one value that `dryRun` may have, or that it has another (`cleanDryRun`).
fn dry_run(query: &Query) -> &'static str {
    let mut values = query.all("dryRun");
    match values.next() {
        None => "",
        Some("All") if values.all(|value| value == "All") => "All",
        Some(_) => "invalid",
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::request::parse;

    /// What a request and its answer count.
    fn lines(method: &Method, target: &str, content_type: &str, known: bool) -> String {
        let requests = Requests::default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query);
        let attributes = parse(method, path, &query).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        headers.insert(header::CONTENT_LENGTH, "60000".parse().unwrap());
        let asked = requests.asked(method, &headers, &attributes, &query, known);
        let response = http::Response::new(client::body_of("12345"));
        requests.answered(asked, &response, Duration::from_millis(3));
        let mut names = Names::default();
        requests.register(&mut names);
        names.text()
    }

    #[test]
    fn requests_are_counted_under_upstreams_labels() {
        for (method, target, media, expect) in [
            (
                Method::GET,
                "/api/v1/namespaces/a/pods/b",
                "",
                r#"verb="GET",group="",version="v1",resource="pods",subresource="",scope="resource",component="apiserver",dry_run="",code="200"} 1"#,
            ),
            (
                Method::GET,
                "/api/v1/pods",
                "",
                r#"verb="LIST",group="",version="v1",resource="pods",subresource="",scope="cluster""#,
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods?watch=1",
                "",
                r#"verb="WATCH",group="",version="v1",resource="pods",subresource="",scope="namespace""#,
            ),
            (
                Method::POST,
                "/apis/apps/v1/namespaces/a/deployments?dryRun=All",
                "",
                r#"verb="POST",group="apps",version="v1",resource="deployments",subresource="",scope="resource",component="apiserver",dry_run="All""#,
            ),
            (
                Method::PATCH,
                "/api/v1/namespaces/a/pods/b",
                "application/apply-patch+yaml",
                r#"verb="APPLY""#,
            ),
            (
                Method::PATCH,
                "/api/v1/namespaces/a/pods/b/status",
                "application/merge-patch+json",
                r#"verb="PATCH",group="",version="v1",resource="pods",subresource="status""#,
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/a/pods",
                "",
                r#"verb="DELETECOLLECTION""#,
            ),
            (Method::GET, "/api/v1/namespaces/a/pods/b/log", "", r#"verb="CONNECT""#),
            (
                Method::GET,
                "/version",
                "",
                r#"verb="GET",group="",version="",resource="",subresource="",scope="",component"#,
            ),
        ] {
            let text = lines(&method, target, media, true);
            assert!(
                text.contains(&format!("apiserver_request_total{{{expect}")),
                "{target}\n{text}"
            );
        }
    }

    #[test]
    fn bodies_and_deprecated_resources_are_counted() {
        let json = "application/json";
        let text = lines(
            &Method::POST,
            "/apis/apps/v1/namespaces/a/deployments?fieldValidation=Strict",
            json,
            true,
        );
        for line in [
            r#"apiserver_request_body_size_bytes_bucket{le="50000.0",group="apps",resource="deployments",verb="create"} 0"#,
            r#"apiserver_request_body_size_bytes_bucket{le="150000.0",group="apps",resource="deployments",verb="create"} 1"#,
            r#"field_validation_request_duration_seconds_bucket{le="0.05",field_validation="Strict"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let text = lines(&Method::GET, "/api/v1/endpoints", "", true);
        let line = r#"apiserver_requested_deprecated_apis{group="",version="v1",resource="endpoints",subresource="",removed_release=""} 1"#;
        assert!(text.contains(line) && !text.contains("body_size_bytes_count"), "{text}");
    }

    #[test]
    fn what_the_server_does_to_itself_and_what_breaks_off_is_told_apart() {
        let requests = Requests::default();
        let query = Query::parse("");
        let attributes = parse(&Method::GET, "/apis/apps/v1/deployments", &query).unwrap();
        let ask = || requests.asked(&Method::GET, &HeaderMap::new(), &attributes, &query, true);
        let mut own = ask();
        own.own = true;
        let mut response = http::Response::new(client::body_of(""));
        requests.answered(own, &response, Duration::ZERO);
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        requests.answered(ask(), &response, Duration::ZERO);
        response.extensions_mut().insert(OfAggregator);
        requests.answered(ask(), &response, Duration::ZERO);
        requests.aborted(ask().labels().clone());
        let mut names = Names::default();
        requests.register(&mut names);
        let text = names.text();
        let of = r#"group="apps",version="v1",resource="deployments",subresource="",scope="cluster""#;
        for line in [
            r#"apiserver_selfrequest_total{verb="LIST",group="apps",resource="deployments",subresource=""} 1"#
                .to_owned(),
            format!(r#"apiserver_request_aborts_total{{verb="LIST",{of}}} 1"#),
            format!(r#"apiserver_request_terminations_total{{verb="LIST",{of},component="aggregator",code="503"}} 1"#),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(!text.contains(r#"apiserver_request_terminations_total{verb="LIST",group="apps",version="v1",resource="deployments",subresource="",scope="cluster",component="apiserver""#));
    }

    #[test]
    fn what_is_not_served_makes_no_labels() {
        let text = lines(&Method::GET, "/apis/made.up/v9/namespaces/a/things/b", "", false);
        assert!(
            text.contains(r#"group="",version="",resource="""#) && !text.contains("made.up"),
            "{text}"
        );
    }

    #[test]
    fn watches_and_streams_are_open_as_long_as_they_are_held() {
        let text = lines(&Method::GET, "/api/v1/pods?watch=1", "", true);
        assert!(text.contains(r#"scope="cluster",component="apiserver"} 0"#), "{text}");
        assert!(!text.contains("apiserver_request_duration_seconds_count"), "{text}");
        let text = lines(&Method::GET, "/api/v1/pods", "", true);
        assert!(
            text.contains(r#"apiserver_current_inflight_requests{request_kind="readOnly"} 0"#),
            "{text}"
        );
        for metric in [
            "apiserver_request_duration_seconds",
            "apiserver_request_sli_duration_seconds",
            "apiserver_response_sizes",
        ] {
            assert!(text.contains(&format!("{metric}_count")), "{metric}");
        }
    }
}
