//! `/metrics/resource` and `/metrics/cadvisor`: what containers, pods and the node use, for metrics-server and dashboards.
//!
//! Source: `pkg/kubelet/metrics/collectors/resource_metrics.go` and cAdvisor's names for what CRI counts.

use std::fmt::Write as _;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::Pod;
use rpc::cri::{ContainerStats, UInt64Value};

use crate::cri::{LABEL_CONTAINER_NAME, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};

const NANOSECONDS: f64 = 1e9;

/// A family of lines.
struct Family {
    text: String,
    name: &'static str,
}

// === impl Family ===

impl Family {
    fn new(name: &'static str, kind: &str, help: &str) -> Family {
        let text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { text, name }
    }

    fn line(&mut self, labels: &str, value: f64, at_ms: i64) {
        // Writing to a text does not fail.
        let _ = match at_ms {
            0 => writeln!(self.text, "{}{labels} {value}", self.name),
            at_ms => writeln!(self.text, "{}{labels} {value} {at_ms}", self.name),
        };
    }
}

/// A container as its labels name it.
fn names(stat: &ContainerStats) -> Option<[&str; 4]> {
    let labels = &stat.attributes.as_ref()?.labels;
    let of = |name: &str| labels.get(name).map(String::as_str);
    Some([
        of(LABEL_CONTAINER_NAME)?,
        of(LABEL_POD_NAMESPACE)?,
        of(LABEL_POD_NAME)?,
        of(LABEL_POD_UID)?,
    ])
}

fn number(value: &Option<UInt64Value>) -> Option<f64> {
    value.as_ref().map(|value| value.value as f64)
}

fn cpu_seconds(stat: &ContainerStats) -> Option<(f64, i64)> {
    let cpu = stat.cpu.as_ref()?;
    Some((
        number(&cpu.usage_core_nano_seconds)? / NANOSECONDS,
        cpu.timestamp / 1_000_000,
    ))
}

fn working_set(stat: &ContainerStats) -> Option<(f64, i64)> {
    let memory = stat.memory.as_ref()?;
    Some((number(&memory.working_set_bytes)?, memory.timestamp / 1_000_000))
}

type Read = fn(&ContainerStats) -> Option<(f64, i64)>;

/// `/metrics/resource`.
pub(super) fn resource(pods: &[Arc<Pod>], stats: &[ContainerStats]) -> String {
    let cpu_help = "[STABLE] Cumulative cpu time consumed by the";
    let memory_help = "[STABLE] Current working set of the";
    let seconds = "in core-seconds";
    let bytes = "in bytes";
    let mut out = String::new();
    let readers: [(Read, [&'static str; 3], &str, &str, &str); 2] = [
        (
            cpu_seconds,
            [
                "container_cpu_usage_seconds_total",
                "node_cpu_usage_seconds_total",
                "pod_cpu_usage_seconds_total",
            ],
            "counter",
            cpu_help,
            seconds,
        ),
        (
            working_set,
            [
                "container_memory_working_set_bytes",
                "node_memory_working_set_bytes",
                "pod_memory_working_set_bytes",
            ],
            "gauge",
            memory_help,
            bytes,
        ),
    ];
    for (read, [container, node, pod], kind, help, unit) in readers {
        let mut family = Family::new(container, kind, &format!("{help} container {unit}"));
        let mut sum = 0.0;
        for stat in stats {
            let (Some([name, namespace, pod, _]), Some((value, at))) = (names(stat), read(stat)) else {
                continue;
            };
            sum += value;
            family.line(
                &format!("{{container=\"{name}\",namespace=\"{namespace}\",pod=\"{pod}\"}}"),
                value,
                at,
            );
        }
        out.push_str(&family.text);
        let mut family = Family::new(node, kind, &format!("{help} node {unit}"));
        family.line("", sum, 0);
        out.push_str(&family.text);
        let mut family = Family::new(pod, kind, &format!("{help} pod {unit}"));
        for own in pods {
            let uid = own.metadata.uid.as_deref().unwrap_or("");
            let of_pod = stats
                .iter()
                .filter(|stat| names(stat).is_some_and(|[.., of]| of == uid));
            let values: Vec<(f64, i64)> = of_pod.filter_map(read).collect();
            let Some(at) = values.iter().map(|(_, at)| *at).max() else {
                continue;
            };
            let (namespace, name) = (own.metadata.namespace.as_deref(), own.metadata.name.as_deref());
            family.line(
                &format!(
                    "{{namespace=\"{}\",pod=\"{}\"}}",
                    namespace.unwrap_or(""),
                    name.unwrap_or("")
                ),
                values.iter().map(|(value, _)| value).sum(),
                at,
            );
        }
        out.push_str(&family.text);
    }
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    let mut family = Family::new("resource_scrape_error", "gauge", help);
    family.line("", 0.0, 0);
    out.push_str(&family.text);
    out
}

/// `/metrics/cadvisor`.
pub(super) fn cadvisor(stats: &[ContainerStats]) -> String {
    let mut families: [(Family, Read); 5] = [
        (
            Family::new(
                "container_cpu_usage_seconds_total",
                "counter",
                "Cumulative cpu time consumed in seconds.",
            ),
            cpu_seconds,
        ),
        (
            Family::new(
                "container_memory_working_set_bytes",
                "gauge",
                "Current working set in bytes.",
            ),
            working_set,
        ),
        (
            Family::new(
                "container_memory_usage_bytes",
                "gauge",
                "Current memory usage in bytes, including all memory regardless of when it was accessed",
            ),
            |stat| {
                Some((
                    number(&stat.memory.as_ref()?.usage_bytes)?,
                    stat.memory.as_ref()?.timestamp / 1_000_000,
                ))
            },
        ),
        (
            Family::new("container_memory_rss", "gauge", "Size of RSS in bytes."),
            |stat| {
                Some((
                    number(&stat.memory.as_ref()?.rss_bytes)?,
                    stat.memory.as_ref()?.timestamp / 1_000_000,
                ))
            },
        ),
        (
            Family::new(
                "container_fs_usage_bytes",
                "gauge",
                "Number of bytes that are consumed by the container on this filesystem.",
            ),
            |stat| {
                let layer = stat.writable_layer.as_ref()?;
                Some((number(&layer.used_bytes)?, layer.timestamp / 1_000_000))
            },
        ),
    ];
    let mut out = String::new();
    for (family, read) in &mut families {
        for stat in stats {
            let (Some([name, namespace, pod, _]), Some((value, at))) = (names(stat), read(stat)) else {
                continue;
            };
            let id = stat.attributes.as_ref().map_or("", |own| own.id.as_str());
            family.line(
                &format!("{{container=\"{name}\",id=\"{id}\",namespace=\"{namespace}\",pod=\"{pod}\"}}"),
                value,
                at,
            );
        }
        out.push_str(&family.text);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc::cri::{ContainerAttributes, CpuUsage};
    use serde_json::json;

    #[test]
    fn lines_name_what_they_count() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}})).unwrap();
        let labels = [
            (LABEL_CONTAINER_NAME, "c"),
            (LABEL_POD_NAMESPACE, "n"),
            (LABEL_POD_NAME, "p"),
            (LABEL_POD_UID, "u"),
        ];
        let stat = ContainerStats {
            attributes: Some(ContainerAttributes {
                id: "i".into(),
                labels: labels.map(|(key, value)| (key.into(), value.into())).into(),
                ..Default::default()
            }),
            cpu: Some(CpuUsage {
                timestamp: 5_000_000,
                usage_core_nano_seconds: Some(UInt64Value { value: 1_500_000_000 }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let text = resource(&[Arc::new(pod)], std::slice::from_ref(&stat));
        for line in [
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 5\n",
            "node_cpu_usage_seconds_total 1.5\n",
            "pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 1.5 5\n",
            "resource_scrape_error 0\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("container_memory_working_set_bytes{"), "{text}");
        let line = "container_cpu_usage_seconds_total{container=\"c\",id=\"i\",namespace=\"n\",pod=\"p\"} 1.5 5\n";
        assert!(cadvisor(&[stat]).contains(line));
    }
}
