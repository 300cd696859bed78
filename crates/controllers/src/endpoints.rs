//! The endpoints controller: the older form of endpoint slices, one object a service, which people and old programs still
//! read. Source: `pkg/controller/endpoint/endpoints_controller.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Value;
use client::informer::Informer;
use client::k8s_openapi::api::core::v1::Endpoints;
use client::queue::WorkQueue;
use client::worker::Next;
use client::{DeleteParams, Error, Meta, Patch, resources};
use serde_json::{Map, json};

use crate::backends::{self, Service, counts, hostname, target_port};
use crate::context::{Context, Name, Pace, name_of, synced};
use crate::pods::is_ready;
use crate::views::Pod;

const WORKERS: usize = 8;
/// Addresses of one object; more are left out, and an annotation says so. Source: `maxCapacity`.
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The subsets: addresses grouped by the ports they have, ready and not ready ones apart. The second value says that
/// there were too many.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<Value>, bool) {
    let family = service.families()[0];
    let mut groups: BTreeMap<String, (Value, Vec<Value>, Vec<Value>)> = BTreeMap::new();
    let mut candidates: Vec<(&str, &Arc<Pod>)> = pods
        .iter()
        .filter(|pod| counts(pod, service.spec.publish_not_ready_addresses))
        .filter_map(|pod| Some((family.address(pod)?, pod)))
        .collect();
    candidates.sort_by_key(|(address, pod)| {
        let ready = service.spec.publish_not_ready_addresses || is_ready(pod);
        (!ready, *address, pod.metadata.name().to_string())
    });
    let too_many = candidates.len() > ADDRESSES_MAX;
    candidates.truncate(ADDRESSES_MAX);
    for (address, pod) in candidates {
        let ports: Vec<Value> = service
            .spec
            .ports
            .iter()
            .filter_map(|port| {
                let protocol = if port.protocol.is_empty() {
                    "TCP"
                } else {
                    &port.protocol
                };
                let mut value = json!({"port": target_port(pod, port)?, "protocol": protocol});
                if !port.name.is_empty() {
                    value["name"] = port.name.as_str().into();
                }
                if let Some(app_protocol) = &port.app_protocol {
                    value["appProtocol"] = app_protocol.as_str().into();
                }
                Some(value)
            })
            .collect();
        // A service with ports leaves out pods that have none of them; one without ports has addresses only.
        if ports.is_empty() && !service.spec.ports.is_empty() {
            continue;
        }
        let mut entry = json!({"ip": address, "targetRef": {
            "kind": "Pod", "namespace": pod.metadata.namespace(), "name": pod.metadata.name(), "uid": pod.metadata.uid(),
        }});
        if !pod.spec.node_name.is_empty() {
            entry["nodeName"] = pod.spec.node_name.as_str().into();
        }
        if let Some(hostname) = hostname(service, pod) {
            entry["hostname"] = hostname.into();
        }
        let ports = Value::Array(ports);
        let group = groups
            .entry(ports.to_string())
            .or_insert_with(|| (ports, Vec::new(), Vec::new()));
        let ready = service.spec.publish_not_ready_addresses || is_ready(pod);
        if ready {
            group.1.push(entry)
        } else {
            group.2.push(entry)
        }
    }
    let subsets = groups.into_values().map(|(ports, ready, not_ready)| {
        let mut subset = json!({});
        for (key, values) in [
            ("addresses", Value::Array(ready)),
            ("notReadyAddresses", Value::Array(not_ready)),
            ("ports", ports),
        ] {
            if values.as_array().is_some_and(|values| !values.is_empty()) {
                subset[key] = values;
            }
        }
        subset
    });
    (subsets.collect(), too_many)
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if service.is_headless() {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

#[derive(Debug, PartialEq)]
enum Action {
    Nothing,
    Create(Value),
    Edit(Value),
}

fn decide(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Action {
    let (subsets, too_many) = subsets(service, pods);
    let labels = labels(service);
    let Some(current) = current else {
        let mut body = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": service.metadata.name(), "namespace": service.metadata.namespace(), "labels": labels},
            "subsets": subsets,
        });
        if too_many {
            body["metadata"]["annotations"][OVER_CAPACITY] = "truncated".into();
        }
        return Action::Create(body);
    };
    let mut edit = json!({});
    let have =
        serde_json::to_value(current.subsets.clone().unwrap_or_default()).expect("invariant: subsets are a tree");
    if have != Value::Array(subsets.clone()) {
        edit["subsets"] = subsets.into();
    }
    let old = current.metadata.labels.clone().unwrap_or_default();
    let keys: BTreeSet<&String> = old.keys().chain(labels.keys()).collect();
    let changed: Map<String, Value> = keys
        .into_iter()
        .filter(|key| old.get(*key) != labels.get(*key))
        .map(|key| {
            (
                key.clone(),
                labels.get(key).map_or(Value::Null, |value| value.as_str().into()),
            )
        })
        .collect();
    if !changed.is_empty() {
        edit["metadata"]["labels"] = Value::Object(changed);
    }
    let marked = current
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(OVER_CAPACITY));
    if marked != too_many {
        edit["metadata"]["annotations"][OVER_CAPACITY] = if too_many { "truncated".into() } else { Value::Null };
    }
    if edit == json!({}) {
        return Action::Nothing;
    }
    edit["metadata"]["resourceVersion"] = current.metadata.resource_version().into();
    Action::Edit(edit)
}

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let services = context.informers.informer::<Service>();
    let pods = context.informers.informer::<Pod>();
    let endpoints = context.informers.informer::<Endpoints>();
    let queue = WorkQueue::<Name>::new().named("endpoint");
    backends::watch(&context, &services, &pods, &queue);
    context.watch(&endpoints, {
        let queue = queue.clone();
        move |delta| {
            if let Some(endpoints) = delta.object() {
                queue.add(name_of(&**endpoints));
            }
        }
    });
    let ready = vec![synced(&services), synced(&pods), synced(&endpoints)];
    let controller = Arc::new(Controller {
        context: context.clone(),
        services,
        pods,
        endpoints,
        pace: Pace::default(),
    });
    context.work(queue, ready, WORKERS, move |key| {
        let controller = controller.clone();
        async move { sync(&controller, &key).await }
    });
}

struct Controller {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    pace: Pace,
}

async fn sync(controller: &Controller, key: &Name) -> Result<Next, Error> {
    let Controller {
        context,
        services,
        pods,
        endpoints,
        pace,
    } = controller;
    let client = &context.client;
    let current = endpoints.get(&key.0, &key.1);
    let Some(service) = services.get(&key.0, &key.1) else {
        pace.forget(key);
        // Endpoints have no owner reference upstream; those of this controller go when their service does.
        let Some(current) = current.filter(|one| one.metadata.label(MANAGED_BY) == Some(MANAGER)) else {
            return Ok(Next::Wait);
        };
        let params = DeleteParams::uid(current.metadata.uid());
        return match client.delete(&resources::ENDPOINTS, &key.0, &key.1, &params).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Next::Wait),
        };
    };
    if !service.is_managed() || service.metadata.is_deleting() {
        return Ok(Next::Wait);
    }
    let pods = backends::selected(&service, pods);
    let action = decide(&service, &pods, current.as_deref());
    if action != Action::Nothing
        && let Some(wait) = pace.wait(key, pods.len())
    {
        return Ok(Next::After(wait));
    }
    let outcome = match action {
        Action::Nothing => return Ok(Next::Wait),
        Action::Create(body) => client.create_in(&resources::ENDPOINTS, &key.0, &body).await,
        Action::Edit(edit) => {
            client
                .patch(&resources::ENDPOINTS, &key.0, &key.1, None, &Patch::Merge, &edit)
                .await
        }
    };
    match outcome {
        Ok(written) => {
            endpoints.seen(api::meta::resource_version(&written)).await;
            Ok(Next::Wait)
        }
        Err(error) if error.is_namespace_terminating() => Ok(Next::Wait),
        Err(error) if error.is_conflict() || error.is_not_found() || error.is_already_exists() => Ok(Next::Retry),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Bench;

    fn service() -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}})
    }

    fn pod(name: &str, number: i32) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
            "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "web", "containerPort": number}]}]}})
    }

    #[tokio::test(start_paused = true)]
    async fn follows_pods_and_goes_with_the_service() {
        let bench = Bench::new();
        start(bench.context("endpoint-controller"));
        bench.api.put(service());
        bench.idle().await;
        let subsets =
            |bench: &Bench| bench.api.get(&resources::ENDPOINTS, "default", "web").unwrap()["subsets"].clone();
        assert_eq!(subsets(&bench), json!([]));
        for (name, number) in [("a", 80), ("b", 80), ("c", 8080)] {
            bench.api.put(pod(name, number));
        }
        bench.run_pod("default", "a", "10.0.0.1");
        bench.run_pod("default", "c", "10.0.0.3");
        bench.set_status(
            &resources::PODS,
            "default",
            "b",
            json!({"podIP": "10.0.0.2", "phase": "Running"}),
        );
        bench.idle().await;
        let lines: Vec<String> = subsets(&bench)
            .as_array()
            .unwrap()
            .iter()
            .map(|subset| {
                let ips = |key: &str| -> Vec<String> {
                    let all = subset[key].as_array().cloned().unwrap_or_default();
                    all.iter().map(|one| one["ip"].as_str().unwrap().to_string()).collect()
                };
                format!(
                    "{} {:?} {:?}",
                    subset["ports"][0]["port"],
                    ips("addresses"),
                    ips("notReadyAddresses")
                )
            })
            .collect();
        assert_eq!(lines, [r#"80 ["10.0.0.1"] ["10.0.0.2"]"#, r#"8080 ["10.0.0.3"] []"#]);
        bench.api.take_requests();
        bench.idle().await;
        assert_eq!(bench.api.take_writes(), Vec::<String>::new());
        bench.api.remove(&resources::SERVICES, "default", "web");
        bench.idle().await;
        assert!(bench.api.get(&resources::ENDPOINTS, "default", "web").is_none());
        bench.end().await;
    }
}
