//! Requests and their answers, counted under what upstream counts them under.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, header};
use http_body::Body as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use client::Body;

use super::{duration_histogram, name};
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

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InflightLabels {
    request_kind: &'static str,
}

/// The metrics of requests.
pub struct Requests {
    answered: Family<CodeLabels, Counter>,
    durations: Family<LatencyLabels, Histogram, fn() -> Histogram>,
    /// Without dry runs: what promises about latency are measured by.
    promised_durations: Family<RequestLabels, Histogram, fn() -> Histogram>,
    sizes: Family<RequestLabels, Histogram, fn() -> Histogram>,
    inflight: Family<InflightLabels, Gauge>,
    long_running: Family<RequestLabels, Gauge>,
}

fn size_histogram() -> Histogram {
    // From a kilobyte to a gigabyte, as upstream.
    Histogram::new(exponential_buckets(1000.0, 10.0, 7))
}

impl Default for Requests {
    fn default() -> Requests {
        Requests {
            answered: Family::default(),
            durations: Family::new_with_constructor(duration_histogram),
            promised_durations: Family::new_with_constructor(duration_histogram),
            sizes: Family::new_with_constructor(size_histogram),
            inflight: Family::default(),
            long_running: Family::default(),
        }
    }
}

/// Counts a request as at work until it is dropped.
pub struct InFlight(Gauge);

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
    /// Held by what outlives the answer's head.
    pub long_running: Option<LongRunning>,
}

impl Requests {
    pub(super) fn register(&self, r: &mut Registry) {
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
        let count = |gauge: Gauge| {
            gauge.inc();
            InFlight(gauge)
        };
        let request_kind = match attributes.is_read_only() {
            true => "readOnly",
            false => "mutating",
        };
        let in_flight = || self.inflight.get_or_create(&InflightLabels { request_kind }).clone();
        let long_running = || self.long_running.get_or_create(&labels).clone();
        Asked {
            in_flight: (!long).then(|| count(in_flight())),
            long_running: long.then(|| Arc::new(count(long_running()))),
            dry_run: dry_run(query),
            labels,
        }
    }

    /// Counts the answer.
    pub fn answered(&self, asked: Asked, response: &http::Response<Body>, took: Duration) {
        let code = response.status().as_u16();
        let Asked {
            labels,
            dry_run,
            in_flight,
            ..
        } = asked;
        let with_code = CodeLabels {
            request: labels,
            dry_run,
            code,
        };
        self.answered.get_or_create(&with_code).inc();
        if in_flight.is_none() {
            return;
        }
        let took = took.as_secs_f64();
        let request = with_code.request;
        if dry_run.is_empty() {
            self.promised_durations.get_or_create(&request).observe(took);
        }
        if matches!(request.verb, "GET" | "LIST")
            && let Some(bytes) = response.body().size_hint().exact()
        {
            self.sizes.get_or_create(&request).observe(bytes as f64);
        }
        self.durations
            .get_or_create(&LatencyLabels { request, dry_run })
            .observe(took);
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

/// How much a request is about (`CleanScope`).
fn scope(attributes: &Attributes) -> &'static str {
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
    use prometheus_client::encoding::text::encode;

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
        let asked = requests.asked(method, &headers, &attributes, &query, known);
        let response = http::Response::new(client::body_of("12345"));
        requests.answered(asked, &response, Duration::from_millis(3));
        let mut registry = Registry::default();
        requests.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
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
