//! `/stats/summary` and `/metrics`: what the pods of this node use, as the runtime counts it.
//!
//! Source of the shapes: `k8s.io/kubelet/pkg/apis/stats/v1alpha1`.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Body;
use client::k8s_openapi::api::core::v1::Pod;
use http::{Response, StatusCode, header};
use jiff::Timestamp;
use rpc::cri::{ContainerStats, UInt64Value};
use serde_json::{Map, Value, json};

use super::route::{json as json_response, text};
use super::{Server, resource_metrics};
use crate::cri::{CriError, LABEL_CONTAINER_NAME, LABEL_POD_UID};

pub(super) async fn summary(server: &Server) -> Response<Body> {
    match server.inner.runtime.container_stats().await {
        Ok(stats) => {
            let memory = tokio::fs::read_to_string("/proc/meminfo").await.unwrap_or_default();
            let now = server.inner.clock.now();
            let node = server.inner.pods.node_name();
            json_response(&summarize(&node, &server.inner.pods.pods(), &stats, &memory, now))
        }
        Err(error) => unknown(&error),
    }
}

pub(super) async fn metrics(server: &Server) -> Response<Body> {
    let stats = server.inner.runtime.container_stats().await.unwrap_or_default();
    let mut body = count(&server.inner.pods.pods(), stats.len());
    body.push_str(&server.inner.pods.metrics());
    prometheus(body)
}

pub(super) async fn resource_metrics(server: &Server) -> Response<Body> {
    match server.inner.runtime.container_stats().await {
        Ok(stats) => prometheus(resource_metrics::resource(&server.inner.pods.pods(), &stats)),
        Err(error) => unknown(&error),
    }
}

pub(super) async fn cadvisor_metrics(server: &Server) -> Response<Body> {
    match server.inner.runtime.container_stats().await {
        Ok(stats) => prometheus(resource_metrics::cadvisor(&stats)),
        Err(error) => unknown(&error),
    }
}

pub(super) fn probe_metrics(server: &Server) -> Response<Body> {
    prometheus(server.inner.pods.probe_metrics())
}

fn unknown(error: &CriError) -> Response<Body> {
    let why = format!("failed to list container stats: {error}");
    text(StatusCode::INTERNAL_SERVER_ERROR, why)
}

fn prometheus(body: String) -> Response<Body> {
    let mut response = Response::new(client::body_of(body));
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn count(pods: &[Arc<Pod>], containers: usize) -> String {
    let running = pods.iter().filter(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        phase == Some("Running")
    });
    format!(
        "# HELP kubelet_running_pods [STABLE] Number of pods that have a running pod sandbox\n\
         # TYPE kubelet_running_pods gauge\n\
         kubelet_running_pods {}\n\
         # HELP kubelet_running_containers [STABLE] Number of containers currently running\n\
         # TYPE kubelet_running_containers gauge\n\
         kubelet_running_containers{{container_state=\"running\"}} {containers}\n",
        running.count()
    )
}

fn summarize(node: &str, pods: &[Arc<Pod>], stats: &[ContainerStats], meminfo: &str, now: Timestamp) -> Value {
    let mut by_uid: BTreeMap<&str, Vec<&ContainerStats>> = BTreeMap::new();
    for stat in stats {
        if let Some(uid) = stat
            .attributes
            .as_ref()
            .and_then(|attributes| attributes.labels.get(LABEL_POD_UID))
        {
            by_uid.entry(uid).or_default().push(stat);
        }
    }
    let pods: Vec<Value> = pods
        .iter()
        .filter_map(|pod| {
            let stats = by_uid.get(pod.metadata.uid.as_deref()?)?;
            Some(pod_stats(pod, stats, now))
        })
        .collect();
    let memory = |name: &str| -> Option<u64> {
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    let (total, available) = (memory("MemTotal"), memory("MemAvailable"));
    let cpu: u64 = stats
        .iter()
        .filter_map(|stat| value(&stat.cpu.as_ref()?.usage_nano_cores))
        .sum();
    json!({
        "node": {
            "nodeName": node,
            "cpu": {"time": now.to_string(), "usageNanoCores": cpu},
            "memory": {
                "time": now.to_string(),
                "availableBytes": available.unwrap_or(0),
                "usageBytes": total.unwrap_or(0).saturating_sub(memory("MemFree").unwrap_or(0)),
                "workingSetBytes": total.unwrap_or(0).saturating_sub(available.unwrap_or(0)),
            },
        },
        "pods": pods,
    })
}

fn pod_stats(pod: &Pod, stats: &[&ContainerStats], now: Timestamp) -> Value {
    let containers: Vec<Value> = stats.iter().map(|stat| container_stats(stat, now)).collect();
    let sum = |field: fn(&ContainerStats) -> Option<u64>| stats.iter().filter_map(|stat| field(stat)).sum::<u64>();
    let started = pod
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref())
        .map(|time| time.0.to_string());
    json!({
        "podRef": {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid},
        "startTime": started,
        "containers": containers,
        "cpu": {
            "time": now.to_string(),
            "usageNanoCores": sum(|stat| value(&stat.cpu.as_ref()?.usage_nano_cores)),
            "usageCoreNanoSeconds": sum(|stat| value(&stat.cpu.as_ref()?.usage_core_nano_seconds)),
        },
        "memory": {
            "time": now.to_string(),
            "usageBytes": sum(|stat| value(&stat.memory.as_ref()?.usage_bytes)),
            "workingSetBytes": sum(|stat| value(&stat.memory.as_ref()?.working_set_bytes)),
            "rssBytes": sum(|stat| value(&stat.memory.as_ref()?.rss_bytes)),
        },
    })
}

fn container_stats(stat: &ContainerStats, now: Timestamp) -> Value {
    let name = stat
        .attributes
        .as_ref()
        .and_then(|attributes| attributes.labels.get(LABEL_CONTAINER_NAME));
    let mut out = json!({"name": name});
    if let Some(cpu) = &stat.cpu {
        out["cpu"] = section(
            cpu.timestamp,
            now,
            &[
                ("usageNanoCores", &cpu.usage_nano_cores),
                ("usageCoreNanoSeconds", &cpu.usage_core_nano_seconds),
            ],
        );
    }
    if let Some(memory) = &stat.memory {
        out["memory"] = section(
            memory.timestamp,
            now,
            &[
                ("availableBytes", &memory.available_bytes),
                ("usageBytes", &memory.usage_bytes),
                ("workingSetBytes", &memory.working_set_bytes),
                ("rssBytes", &memory.rss_bytes),
                ("pageFaults", &memory.page_faults),
                ("majorPageFaults", &memory.major_page_faults),
            ],
        );
    }
    if let Some(layer) = &stat.writable_layer {
        let fields = [("usedBytes", &layer.used_bytes), ("inodesUsed", &layer.inodes_used)];
        out["rootfs"] = section(layer.timestamp, now, &fields);
    }
    out
}

fn section(nanoseconds: i64, now: Timestamp, fields: &[(&str, &Option<UInt64Value>)]) -> Value {
    let time = Timestamp::from_nanosecond(nanoseconds.into())
        .ok()
        .filter(|_| nanoseconds > 0)
        .unwrap_or(now);
    let mut out = Map::new();
    out.insert("time".into(), time.to_string().into());
    for (name, number) in fields {
        if let Some(number) = value(number) {
            out.insert((*name).into(), number.into());
        }
    }
    Value::Object(out)
}

fn value(number: &Option<UInt64Value>) -> Option<u64> {
    number.as_ref().map(|number| number.value)
}

#[cfg(test)]
mod tests {
    use rpc::cri::{ContainerAttributes, CpuUsage, MemoryUsage};

    use super::*;

    #[test]
    fn a_summary() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": []},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"},
        }))
        .unwrap();
        let some = |value| Some(UInt64Value { value });
        let stat = |name: &str, uid: &str| ContainerStats {
            attributes: Some(ContainerAttributes {
                labels: [
                    (LABEL_POD_UID.into(), uid.into()),
                    (LABEL_CONTAINER_NAME.into(), name.into()),
                ]
                .into(),
                ..Default::default()
            }),
            cpu: Some(CpuUsage {
                timestamp: 1,
                usage_nano_cores: some(5),
                ..Default::default()
            }),
            memory: Some(MemoryUsage {
                timestamp: 1,
                working_set_bytes: some(7),
                ..Default::default()
            }),
            ..Default::default()
        };
        let pods = [Arc::new(pod)];
        let meminfo = "MemTotal:  100 kB\nMemFree: 20 kB\nMemAvailable:   40 kB\n";
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let summary = summarize(
            "node",
            &pods,
            &[stat("a", "u"), stat("b", "u"), stat("c", "other")],
            meminfo,
            now,
        );
        assert_eq!(summary["node"]["memory"]["workingSetBytes"], 60 * 1024);
        assert_eq!(summary["node"]["cpu"]["usageNanoCores"], 15);
        assert_eq!(summary["pods"].as_array().map(Vec::len), Some(1));
        let pod = &summary["pods"][0];
        assert_eq!(
            (
                pod["cpu"]["usageNanoCores"].clone(),
                pod["memory"]["workingSetBytes"].clone()
            ),
            (10.into(), 14.into())
        );
        assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "n", "uid": "u"}));
        assert_eq!(pod["containers"][1]["name"], "b");
        assert_eq!(
            pod["containers"][0]["cpu"],
            json!({"time": "1970-01-01T00:00:00.000000001Z", "usageNanoCores": 5})
        );
        assert!(count(&pods, 2).contains("kubelet_running_pods 1\n"));
    }
}
