//! `/metrics/probes`: how the probes of this node's pods came out.
//!
//! Source: `ProberResults` and `ProberDuration` of `pkg/kubelet/prober/prober_manager.go`, and `worker.go`. What is told of a pod
//! goes with the pod, so that there are never more lines than probes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Kind;

/// Prometheus' own buckets, in seconds.
const SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The pod that probes are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodNames {
    /// Its uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// How an answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Successful,
    Failed,
    Unknown,
}

/// Counts answers. Cheap to clone; clones count together.
#[derive(Clone, Default)]
pub struct ProbeMetrics(Arc<Mutex<BTreeMap<Key, Counts>>>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    pod: PodNames,
    container: String,
    kind: Kind,
}

#[derive(Default)]
struct Counts {
    /// Successful, failed, unknown.
    outcomes: [u64; 3],
    /// One for each of [`SECONDS`], and one for what took longer.
    buckets: [u64; SECONDS.len() + 1],
    seconds: f64,
}

// === impl ProbeMetrics ===

impl ProbeMetrics {
    /// An answer to a probe. Upstream does not tell how long failures took.
    pub(super) fn asked(&self, pod: &PodNames, container: &str, kind: Kind, outcome: Outcome, took: Duration) {
        let key = Key {
            pod: pod.clone(),
            container: container.to_owned(),
            kind,
        };
        let mut all = self.0.lock();
        let counts = all.entry(key).or_default();
        counts.outcomes[outcome as usize] += 1;
        if outcome != Outcome::Failed {
            let seconds = took.as_secs_f64();
            counts.buckets[SECONDS.partition_point(|most| *most < seconds)] += 1;
            counts.seconds += seconds;
        }
    }

    /// Forgets a pod.
    pub(super) fn forget(&self, pod: &PodNames) {
        self.0.lock().retain(|key, _| key.pod != *pod);
    }

    /// The text, in the format of Prometheus.
    pub fn text(&self) -> String {
        let all = self.0.lock();
        let mut out =
            "# HELP prober_probe_total [BETA] Cumulative number of a liveness, readiness or startup probe for a \
                       container by result.\n# TYPE prober_probe_total counter\n"
                .to_owned();
        for (key, counts) in all.iter() {
            let words = ["successful", "failed", "unknown"];
            for (result, count) in words.iter().zip(counts.outcomes).filter(|(_, count)| *count > 0) {
                let Key { pod, container, kind } = key;
                // Writing to a text does not fail. Names of objects have nothing that would have to be escaped.
                let _ = writeln!(
                    out,
                    "prober_probe_total{{container=\"{container}\",namespace=\"{}\",pod=\"{}\",pod_uid=\"{}\",probe_type=\"{}\",result=\"{result}\"}} {count}",
                    pod.namespace,
                    pod.name,
                    pod.uid,
                    kind.word()
                );
            }
        }
        let name = "prober_probe_duration_seconds";
        let _ = writeln!(
            out,
            "# HELP {name} [ALPHA] Duration in seconds for a probe response.\n# TYPE {name} histogram"
        );
        for (Key { pod, container, kind }, counts) in all.iter() {
            let (namespace, pod, kind) = (&pod.namespace, &pod.name, kind.word());
            let labels =
                format!("container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\",probe_type=\"{kind}\"");
            let mut below = 0;
            let bounds = SECONDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(counts.buckets) {
                below += count;
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
            }
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", counts.seconds);
            let _ = writeln!(out, "{name}_count{{{labels}}} {below}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_under_upstreams_names_until_the_pod_goes() {
        let metrics = ProbeMetrics::default();
        let pod = |name: &str| PodNames {
            uid: format!("uid-{name}"),
            namespace: "n".into(),
            name: name.into(),
        };
        let (a, b) = (pod("a"), pod("b"));
        let ms = Duration::from_millis;
        metrics.asked(&a, "c", Kind::Readiness, Outcome::Failed, ms(7));
        metrics.asked(&a, "c", Kind::Readiness, Outcome::Successful, ms(7));
        metrics.asked(&a, "c", Kind::Readiness, Outcome::Unknown, ms(30_000));
        metrics.asked(&b, "c", Kind::Liveness, Outcome::Successful, ms(5));
        let text = metrics.text();
        let of = r#"container="c",namespace="n",pod="a",probe_type="Readiness""#;
        let counted = r#"container="c",namespace="n",pod="a",pod_uid="uid-a",probe_type="Readiness""#;
        for line in [
            format!("prober_probe_total{{{counted},result=\"failed\"}} 1\n"),
            format!("prober_probe_total{{{counted},result=\"successful\"}} 1\n"),
            format!("prober_probe_total{{{counted},result=\"unknown\"}} 1\n"),
            format!("prober_probe_duration_seconds_bucket{{{of},le=\"0.005\"}} 0\n"),
            format!("prober_probe_duration_seconds_bucket{{{of},le=\"0.01\"}} 1\n"),
            format!("prober_probe_duration_seconds_bucket{{{of},le=\"10\"}} 1\n"),
            format!("prober_probe_duration_seconds_bucket{{{of},le=\"+Inf\"}} 2\n"),
            format!("prober_probe_duration_seconds_sum{{{of}}} 30.007\n"),
            format!("prober_probe_duration_seconds_count{{{of}}} 2\n"),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        metrics.forget(&a);
        let text = metrics.text();
        assert!(!text.contains("pod=\"a\"") && text.contains("pod=\"b\""), "{text}");
    }
}
