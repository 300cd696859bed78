//! The endpoint slice mirroring controller: Endpoints that somebody wrote for a service without a selector, as endpoint
//! slices, which is what service proxies read.
//!
//! Source: `pkg/controller/endpointslicemirroring`. A mirrored slice belongs to this controller alone and is written whole.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::Value;
use client::events::ObjectReference;
use client::informer::{Delta, Informer};
use client::k8s_openapi::api::core::v1::{EndpointAddress, Endpoints};
use client::k8s_openapi::api::discovery::v1::EndpointSlice;
use client::queue::WorkQueue;
use client::worker::Next;
use client::{DeleteParams, Error, Meta, resources};
use serde_json::json;

use crate::backends::{self, LAST_CHANGE, MANAGED_BY, SERVICE_NAME, Service, service_of};
use crate::context::{Context, Name, name_of, synced};
use crate::parallel;

const WORKERS: usize = 4;
/// Addresses of a subset that are mirrored. Source: `--mirroring-max-endpoints-per-subset`.
const ADDRESSES_MAX: usize = 1000;
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Old leader election over Endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are not taken over.
const NOT_COPIED: [&str; 2] = [LAST_CHANGE, "kubectl.kubernetes.io/last-applied-configuration"];
/// The index of mirrored slices by `namespace/service`.
const MIRROR_INDEX: &str = "mirrored";

#[derive(Debug, PartialEq)]
enum Action {
    Create(Value),
    Replace { name: String, body: Value },
    Delete { name: String, uid: String },
}

/// What could not be mirrored: addresses that are none, and addresses too many.
#[derive(Debug, Default, PartialEq)]
struct Skipped {
    invalid: usize,
    surplus: usize,
}

fn is_mirrored(service: Option<&Service>, endpoints: &Endpoints) -> bool {
    let leads = endpoints
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(LEADER));
    let skipped = endpoints.metadata.label(SKIP) == Some("true");
    !leads && !skipped && service.is_some_and(|service| service.spec.selector.is_none())
}

fn decide(
    service: Option<&Service>,
    endpoints: Option<&Endpoints>,
    slices: &[Arc<EndpointSlice>],
) -> (Vec<Action>, Skipped) {
    let delete = |slice: &Arc<EndpointSlice>| Action::Delete {
        name: slice.metadata.name().into(),
        uid: slice.metadata.uid().into(),
    };
    let Some(endpoints) = endpoints.filter(|one| is_mirrored(service, one)) else {
        return (slices.iter().map(delete).collect(), Skipped::default());
    };
    let (wanted, skipped) = wanted(endpoints);
    let mut spare: Vec<&Arc<EndpointSlice>> = slices.iter().collect();
    let mut actions = Vec::new();
    let mut missing = Vec::new();
    for ((address_type, _), (ports, addresses)) in wanted {
        let body = body(endpoints, address_type, &ports, &addresses);
        let fits =
            |slice: &&Arc<EndpointSlice>| slice.address_type == address_type && value_of(slice)["ports"] == ports;
        match spare.iter().position(fits) {
            Some(at) => actions.extend(replace(spare.remove(at), body)),
            None => missing.push((address_type, body)),
        }
    }
    for (address_type, body) in missing {
        // A slice that is of no other use becomes another one; its type of addresses cannot change.
        match spare.iter().position(|slice| slice.address_type == address_type) {
            Some(at) => actions.extend(replace(spare.remove(at), body)),
            None => actions.push(Action::Create(body)),
        }
    }
    actions.extend(spare.into_iter().map(delete));
    (actions, skipped)
}

type Wanted = BTreeMap<(&'static str, String), (Value, Vec<Value>)>;

/// The addresses by their type and ports.
fn wanted(endpoints: &Endpoints) -> (Wanted, Skipped) {
    let (mut wanted, mut skipped) = (Wanted::new(), Skipped::default());
    for subset in endpoints.subsets.iter().flatten() {
        let ports = subset.ports.iter().flatten().map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let mut value =
                json!({"name": port.name.as_deref().unwrap_or(""), "port": port.port, "protocol": protocol});
            if let Some(app_protocol) = &port.app_protocol {
                value["appProtocol"] = app_protocol.as_str().into();
            }
            value
        });
        let ports: Value = ports.collect::<Vec<_>>().into();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset
            .not_ready_addresses
            .iter()
            .flatten()
            .map(|address| (address, false));
        let mut added = 0;
        for (address, ready) in ready.chain(not_ready) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                skipped.invalid += 1;
                continue;
            };
            if added >= ADDRESSES_MAX {
                skipped.surplus += 1;
                continue;
            }
            added += 1;
            let key = (if ip.is_ipv4() { "IPv4" } else { "IPv6" }, ports.to_string());
            wanted
                .entry(key)
                .or_insert_with(|| (ports.clone(), Vec::new()))
                .1
                .push(endpoint(address, ip, ready));
        }
    }
    (wanted, skipped)
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Value {
    let mut value = json!({"addresses": [ip.to_string()], "conditions": {"ready": ready}});
    if let Some(target) = &address.target_ref {
        value["targetRef"] = serde_json::to_value(target).expect("invariant: a reference is a tree");
    }
    for (key, text) in [("nodeName", &address.node_name), ("hostname", &address.hostname)] {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            value[key] = text.as_str().into();
        }
    }
    value
}

fn body(endpoints: &Endpoints, address_type: &str, ports: &Value, addresses: &[Value]) -> Value {
    let name = endpoints.metadata.name();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    let mut body = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{name}-"), "namespace": endpoints.metadata.namespace(), "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Endpoints", "name": name, "uid": endpoints.metadata.uid(),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": address_type, "endpoints": addresses, "ports": ports,
    });
    if !annotations.is_empty() {
        body["metadata"]["annotations"] = json!(annotations);
    }
    body
}

/// What of a slice this controller decides, in the form it is made in here.
fn value_of(slice: &EndpointSlice) -> Value {
    let value = serde_json::to_value(slice).expect("invariant: a slice is a tree");
    let list = |key: &str| {
        value
            .get(key)
            .filter(|list| list.is_array())
            .cloned()
            .unwrap_or(json!([]))
    };
    let mut ports = list("ports");
    for port in ports.as_array_mut().into_iter().flatten() {
        for (key, default) in [("name", ""), ("protocol", "TCP")] {
            if port.get(key).is_none() {
                port[key] = default.into();
            }
        }
    }
    json!({
        "endpoints": list("endpoints"), "ports": ports, "labels": value["metadata"]["labels"],
        "annotations": value["metadata"]["annotations"],
    })
}

fn replace(slice: &EndpointSlice, mut body: Value) -> Option<Action> {
    let now = value_of(slice);
    let same = ["endpoints", "ports"].iter().all(|key| now[key] == body[key])
        && ["labels", "annotations"]
            .iter()
            .all(|key| now[key] == body["metadata"][key]);
    if same {
        return None;
    }
    let name = slice.metadata.name();
    api::meta::set_text(&mut body, "name", name);
    api::meta::set_text(&mut body, "resourceVersion", slice.metadata.resource_version());
    Some(Action::Replace {
        name: name.into(),
        body,
    })
}

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let services = context.informers.informer::<Service>();
    let endpoints = context.informers.informer::<Endpoints>();
    let slices = context.informers.informer::<EndpointSlice>();
    slices.add_index(MIRROR_INDEX, |slice, add| {
        if let Some(service) = service_of(slice, MANAGER) {
            add(&format!("{}/{service}", slice.metadata.namespace()));
        }
    });
    let queue = WorkQueue::<Name>::new().named("endpoint_slice_mirroring");
    context.watch(&services, {
        let queue = queue.clone();
        move |delta| match &delta {
            Delta::Updated { old, new } if old.spec.selector.is_none() == new.spec.selector.is_none() => {}
            _ => delta
                .object()
                .into_iter()
                .for_each(|service| queue.add(name_of(&**service))),
        }
    });
    context.watch(&endpoints, {
        let queue = queue.clone();
        move |delta| {
            delta
                .object()
                .into_iter()
                .for_each(|endpoints| queue.add(name_of(&**endpoints)))
        }
    });
    backends::watch_slices(&context, &slices, MANAGER, &queue);
    let ready = vec![synced(&services), synced(&endpoints), synced(&slices)];
    let controller = Arc::new(Controller {
        context: context.clone(),
        services,
        endpoints,
        slices,
    });
    context.work(queue, ready, WORKERS, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

struct Controller {
    context: Context,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
}

impl Controller {
    async fn sync(&self, key: &Name) -> Result<Next, Error> {
        let service = self.services.get(&key.0, &key.1);
        let endpoints = self.endpoints.get(&key.0, &key.1);
        let slices = self.slices.indexed(MIRROR_INDEX, &format!("{}/{}", key.0, key.1));
        let (actions, skipped) = decide(service.as_deref(), endpoints.as_deref(), &slices);
        if let Some(endpoints) = endpoints.filter(|_| !actions.is_empty()) {
            let about = || ObjectReference::to(&resources::ENDPOINTS, &endpoints.metadata);
            let Skipped { invalid, surplus } = skipped;
            if invalid > 0 {
                let text = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
                self.context.recorder.warning(about(), "InvalidIPAddress", text);
            }
            if surplus > 0 {
                let text = format!(
                    "A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. \
                     {surplus} addresses were skipped"
                );
                self.context.recorder.warning(about(), "TooManyAddressesToMirror", text);
            }
        }
        let (_, error) = parallel::all(actions, |action| self.perform(&key.0, action)).await;
        match error {
            None => Ok(Next::Wait),
            Some(error) if error.is_namespace_terminating() => Ok(Next::Wait),
            Some(error) if error.is_conflict() || error.is_not_found() => Ok(Next::Retry),
            Some(error) => Err(error),
        }
    }

    async fn perform(&self, namespace: &str, action: Action) -> Result<(), Error> {
        let client = &self.context.client;
        let written = match action {
            Action::Create(body) => client.create_in(&resources::ENDPOINT_SLICES, namespace, &body).await?,
            Action::Replace { name, body } => {
                client
                    .update(&resources::ENDPOINT_SLICES, namespace, &name, None, &body)
                    .await?
            }
            Action::Delete { name, uid } => {
                let params = DeleteParams::uid(uid.clone());
                match client
                    .delete(&resources::ENDPOINT_SLICES, namespace, &name, &params)
                    .await
                {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
                let gone = |slice: Option<&EndpointSlice>| slice.is_none_or(|slice| slice.metadata.uid() != uid);
                self.slices.until(namespace, &name, gone).await;
                return Ok(());
            }
        };
        self.slices.seen(api::meta::resource_version(&written)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Bench;

    fn endpoints(subsets: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Endpoints", "subsets": subsets,
            "metadata": {"name": "ext", "namespace": "default", "labels": {"a": "b"}, "annotations": {"note": "x"}}})
    }

    fn slices(bench: &Bench) -> Vec<String> {
        let mut lines: Vec<String> = bench
            .api
            .list(&resources::ENDPOINT_SLICES)
            .iter()
            .map(|slice| {
                let all = slice["endpoints"].as_array().cloned().unwrap_or_default();
                let all: Vec<String> = all
                    .iter()
                    .map(|one| {
                        format!(
                            "{}{}",
                            one["addresses"][0].as_str().unwrap(),
                            if one["conditions"]["ready"] == true { "" } else { "!" }
                        )
                    })
                    .collect();
                format!(
                    "{} {} {}",
                    slice["addressType"].as_str().unwrap(),
                    slice["ports"][0]["port"],
                    all.join(",")
                )
            })
            .collect();
        lines.sort();
        lines
    }

    #[tokio::test(start_paused = true)]
    async fn mirrored_changed_and_removed() {
        let bench = Bench::new();
        start(bench.context("endpointslicemirroring-controller"));
        let service = |selector: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext", "namespace": "default"}, "spec": {"selector": selector}});
        bench.api.put(service(Value::Null));
        bench.api.put(endpoints(json!([
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "nonsense"}], "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"port": 80, "protocol": "TCP"}]},
            {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "other", "port": 90, "protocol": "TCP"}]},
        ])));
        bench.idle().await;
        assert_eq!(
            slices(&bench),
            ["IPv4 80 10.0.0.1,10.0.0.2!", "IPv4 90 10.0.0.3", "IPv6 80 fd00::1"]
        );
        let one = &bench.api.list(&resources::ENDPOINT_SLICES)[0];
        assert_eq!(
            one["metadata"]["labels"],
            json!({"a": "b", SERVICE_NAME: "ext", MANAGED_BY: MANAGER})
        );
        assert_eq!(one["metadata"]["annotations"], json!({"note": "x"}));
        assert!(
            bench
                .events()
                .iter()
                .any(|event| event.contains("Skipped 1 invalid IP addresses"))
        );
        bench.api.take_requests();
        bench.idle().await;
        assert_eq!(bench.api.take_writes(), Vec::<String>::new(), "idle means idle");
        bench.api.edit(&resources::ENDPOINTS, "default", "ext", |one| {
            one["subsets"] = json!([{"addresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 80, "protocol": "TCP"}]}]);
        });
        bench.idle().await;
        assert_eq!(slices(&bench), ["IPv4 80 10.0.0.9"]);
        bench.api.edit(&resources::SERVICES, "default", "ext", |one| {
            one["spec"]["selector"] = json!({"app": "x"})
        });
        bench.idle().await;
        assert!(
            slices(&bench).is_empty(),
            "a service with a selector has slices of its own"
        );
        bench.api.edit(&resources::SERVICES, "default", "ext", |one| {
            one["spec"]["selector"] = Value::Null
        });
        bench.idle().await;
        assert_eq!(slices(&bench).len(), 1);
        bench.api.edit(&resources::ENDPOINTS, "default", "ext", |one| {
            one["metadata"]["labels"] = json!({SKIP: "true"})
        });
        bench.idle().await;
        assert!(slices(&bench).is_empty());
        bench.end().await;
    }
}
