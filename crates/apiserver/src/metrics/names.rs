//! What is served under which name: the registry, and the list of all names that the documentation is compared with.

use std::fmt::{self, Debug};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Metric, Registry};

/// A registry that remembers its names.
#[derive(Default)]
pub struct Names {
    registry: Registry,
    all: Vec<Name>,
}

/// One metric as the older text format names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name, with its `_total` or `_info`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it counts.
    pub help: String,
}

impl Names {
    /// Serves a metric. Counters are named without their `_total`.
    pub fn add(&mut self, name: &str, help: &str, metric: impl Metric) {
        let (suffix, kind) = match metric.metric_type() {
            MetricType::Counter => ("_total", "counter"),
            MetricType::Info => ("_info", "gauge"),
            MetricType::Unknown => ("", "counter"),
            MetricType::Gauge => ("", "gauge"),
            MetricType::Histogram => ("", "histogram"),
        };
        self.all.push(Name {
            name: format!("{name}{suffix}"),
            kind,
            help: help.to_owned(),
        });
        self.registry.register(name, help, metric);
    }

    /// Everything that is served, in the order in which it is.
    pub fn all(&self) -> &[Name] {
        &self.all
    }

    /// The text, in OpenMetrics.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("invariant: writing to a string does not fail");
        text
    }
}

impl client::metrics::Names for Names {
    fn add(&mut self, name: &str, help: &str, metric: impl Metric) {
        Names::add(self, name, help, metric);
    }
}

/// Serves a metric that others count with.
pub(super) fn name(names: &mut Names, name: &str, help: &str, metric: &(impl Metric + Clone)) {
    names.add(name, help, metric.clone());
}

/// A counter that upstream has named before there were rules: without `_total`. OpenMetrics has no such counter, so there
/// its type is unknown, as in upstream's answers.
#[derive(Clone, Default)]
pub struct Tally(Counter);

impl Tally {
    /// One more.
    pub fn inc(&self) {
        self.0.inc();
    }
}

impl Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.0.get(), f)
    }
}

impl TypedMetric for Tally {
    const TYPE: MetricType = MetricType::Unknown;
}

impl EncodeMetric for Tally {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        encoder.encode_gauge(&i64::try_from(self.0.get()).unwrap_or(i64::MAX))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// OpenMetrics as the older text format, for whoever does not ask for the newer: there a counter is named with its
/// `_total`, bounds are written as Go writes numbers, and nothing marks the end.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if line.starts_with("# HELP ") {
            // Its metric's type comes in the next line.
            help = Some(line);
            continue;
        }
        if let Some((metric, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "counter"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take().and_then(|line| line["# HELP ".len()..].split_once(' ')) {
                out.push_str(&format!("# HELP {metric}{suffix} {help}\n"));
            }
            out.push_str(&format!("# TYPE {metric}{suffix} {kind}\n"));
            continue;
        }
        if line.starts_with("# ") {
            continue;
        }
        match line
            .split_once(BOUND)
            .and_then(|(head, rest)| Some((head, rest.split_once('"')?)))
        {
            Some((head, (bound, rest))) => {
                out.push_str(head);
                out.push_str(BOUND);
                out.push_str(&bound.parse().map_or(bound.to_owned(), go_number));
                out.push('"');
                out.push_str(rest);
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// Before the bound of a histogram's bucket.
const BOUND: &str = "_bucket{le=\"";

/// A number as Go's `strconv.FormatFloat(number, 'g', -1, 64)` writes it: a bound is a label, compared as text.
fn go_number(number: f64) -> String {
    if number.is_infinite() {
        return "+Inf".to_owned();
    }
    let text = format!("{number:e}");
    match text
        .split_once('e')
        .and_then(|(digits, power)| Some((digits, power.parse::<i32>().ok()?)))
    {
        Some((digits, power)) if !(-4..6).contains(&power) => {
            let sign = if power < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", power.abs())
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_in_full() {
        let text =
            "# HELP a_b Some.\n# TYPE a_b counter\na_b_total{x=\"1\"} 1\n# HELP c C.\n# TYPE c gauge\nc 2\n# EOF\n";
        let expect = "# HELP a_b_total Some.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 1\n# HELP c C.\n# TYPE c gauge\nc 2\n";
        assert_eq!(plain(text), expect);
    }

    #[test]
    fn bounds_are_written_as_go_writes_them() {
        for (number, expect) in [
            (0.0, "0"),
            (0.005, "0.005"),
            (1.0, "1"),
            (1.25, "1.25"),
            (131_072.0, "131072"),
            (1_000_000.0, "1e+06"),
            (1_050_000.0, "1.05e+06"),
            (0.00002, "2e-05"),
            (0.0001, "0.0001"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(go_number(number), expect);
        }
        let line = "a_bucket{le=\"1.0\",x=\"le=\\\"2.0\\\"\"} 3\na_bucket{le=\"+Inf\"} 3\n";
        let expect = "a_bucket{le=\"1\",x=\"le=\\\"2.0\\\"\"} 3\na_bucket{le=\"+Inf\"} 3\n";
        assert_eq!(plain(line), expect);
    }

    #[test]
    fn old_counters_keep_their_names() {
        let mut names = Names::default();
        let tally = Tally::default();
        name(&mut names, "authentication_attempts", "Some", &tally);
        tally.inc();
        let expect =
            "# HELP authentication_attempts Some.\n# TYPE authentication_attempts counter\nauthentication_attempts 1\n";
        assert_eq!(plain(&names.text()), expect);
        let all: Vec<_> = names.all().iter().map(|name| (&*name.name, name.kind)).collect();
        assert_eq!(all, [("authentication_attempts", "counter")]);
    }
}
