//! Keeps the ServiceCIDR `kubernetes`: the range that the server was started with, as everybody sees it.
//!
//! It is made when it is absent and never changed: another range in it is another administrator's word, and is told.
//!
//! Source: `pkg/controlplane/controller/defaultservicecidr`.

use std::sync::Arc;

use api::{GroupResource, Value, meta};
use base::{Clock, Shutdown};
use client::events::{ObjectReference, Recorder};
use client::queue::WorkQueue;
use client::worker::{Next, run};
use client::{Client, Error, Metadata, Patch, Resource, resources};
use ipnet::Ipv4Net;
use serde::Deserialize as _;
use serde_json::json;

use super::ranges::{DEFAULT, service_cidrs};
use crate::call::rfc3339;
use crate::cluster::{Change, Cluster};
use crate::server::Server;

const COMPONENT: &str = "kubernetes-service-cidr-controller";
const RESOURCE: Resource = resources::SERVICE_CIDRS;

/// The ServiceCIDR of a range.
pub fn default_service_cidr(range: Ipv4Net) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": DEFAULT},
        "spec": {"cidrs": [range.to_string()]},
    })
}

/// What is to be done about the default ServiceCIDR.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Create,
    /// It gets its condition.
    SetReady,
    /// A reason and a message, once in this server's life for each reason.
    Warn(String, String),
}

/// How upstream's messages write a list.
fn listed(ranges: &[&str]) -> String {
    format!("[{}]", ranges.join(" "))
}

fn decide(live: Option<&Value>, range: Ipv4Net) -> Step {
    let Some(live) = live else { return Step::Create };
    // What is being deleted is the controller manager's.
    if meta::is_deleting(live) {
        return Step::Nothing;
    }
    let own = range.to_string();
    let ranges = live["spec"]["cidrs"].as_array().into_iter().flatten();
    let ranges: Vec<&str> = ranges.filter_map(Value::as_str).collect();
    if ranges != [own.as_str()] {
        let message = format!(
            "The default ServiceCIDR {} does not match the controller flag configurations {}",
            listed(&ranges),
            listed(&[&own])
        );
        return Step::Warn("KubernetesDefaultServiceCIDRInconsistent".into(), message);
    }
    let mut conditions = live["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or("").to_owned();
    match ready.map(|condition| (condition, text(condition, "status"))) {
        Some((condition, status)) if status == "False" => {
            let message = format!("Configuration matches, but {}", text(condition, "message"));
            Step::Warn(text(condition, "reason"), message)
        }
        Some((_, status)) if status == "True" => Step::Nothing,
        _ => Step::SetReady,
    }
}

struct Keeper {
    cluster: Arc<dyn Cluster>,
    client: Client,
    clock: Clock,
    range: Ipv4Net,
    recorder: Recorder,
    warned: parking_lot::Mutex<Vec<String>>,
}

impl Keeper {
    async fn sync(&self) -> Result<Next, Error> {
        let live = self.cluster.get(&service_cidrs(), "", DEFAULT).map(|live| live.value());
        let about = || {
            let metadata = live
                .as_ref()
                .map(|live| Metadata::deserialize(&live["metadata"]).unwrap_or_default());
            ObjectReference::to(&RESOURCE, &metadata.unwrap_or_default())
        };
        let failed = match decide(live.as_ref(), self.range) {
            Step::Nothing => return Ok(Next::Wait),
            Step::Warn(reason, message) => {
                let mut warned = self.warned.lock();
                if !warned.contains(&reason) {
                    tracing::warn!(message, "the default ServiceCIDR");
                    self.recorder.warning(about(), &reason, message);
                    warned.push(reason);
                }
                return Ok(Next::Wait);
            }
            Step::Create => {
                let made = self
                    .client
                    .create_in(&RESOURCE, "", &default_service_cidr(self.range))
                    .await;
                match made {
                    // Its condition follows: it is news.
                    Ok(_) => return Ok(Next::Wait),
                    Err(error) if error.is_already_exists() => return Ok(Next::Wait),
                    Err(error) => (error, "The default ServiceCIDR can not be created"),
                }
            }
            Step::SetReady => {
                let condition = json!({
                    "type": "Ready", "status": "True", "message": "Kubernetes default Service CIDR is ready", "reason": "",
                    "lastTransitionTime": rfc3339(self.clock.now()),
                });
                let body = json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": DEFAULT},
                    "status": {"conditions": [condition]},
                });
                let how = Patch::apply(COMPONENT);
                match self
                    .client
                    .patch(&RESOURCE, "", DEFAULT, Some("status"), &how, &body)
                    .await
                {
                    Ok(_) => return Ok(Next::Wait),
                    Err(error) => (error, "The default ServiceCIDR Status can not be set to Ready=True"),
                }
            }
        };
        let (error, message) = failed;
        self.recorder
            .warning(about(), "KubernetesDefaultServiceCIDRError", message);
        Err(error)
    }
}

/// Starts to keep it. Upstream looks every ten seconds; here every change of it is heard.
pub(super) fn start(server: &Arc<Server>, client: &Client, shutdown: &Shutdown) {
    let resource: GroupResource = service_cidrs();
    if server.registry.load().kind(&resource).is_none() {
        return;
    }
    let queue = WorkQueue::<()>::new().named("default_service_cidr");
    let mut changes = server.storage.changes(&resource);
    let (stop, news) = (shutdown.clone(), queue.clone());
    shutdown.spawn(async move {
        while let Some(Some(change)) = stop.until(changes.next()).await {
            let ours = match &change {
                Change::Reset(_) => true,
                Change::Changed { old, new } => new.as_ref().or(old.as_ref()).is_some_and(|one| one.name() == DEFAULT),
            };
            if ours {
                news.add(());
            }
        }
    });
    let keeper = Arc::new(Keeper {
        cluster: server.storage.clone(),
        client: client.clone(),
        clock: server.clock.clone(),
        range: server.allocator.default_range(),
        recorder: Recorder::start(client.clone(), COMPONENT, "", server.clock.clone(), shutdown),
        warned: Default::default(),
    });
    let stop = shutdown.clone();
    shutdown.spawn(run(queue, 1, stop, move |()| {
        let keeper = keeper.clone();
        async move { keeper.sync().await }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_and_told_of_but_never_changed() {
        let range = "10.96.0.0/12".parse().unwrap();
        let made = default_service_cidr(range);
        let with = |status: &str| {
            let mut object = made.clone();
            object["status"]["conditions"] =
                json!([{"type": "Ready", "status": status, "reason": "Broken", "message": "it is broken"}]);
            object
        };
        let mut other = with("True");
        other["spec"]["cidrs"] = json!(["10.0.0.0/16", "fd00::/112"]);
        let mut going = made.clone();
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let warn = |reason: &str, message: &str| Step::Warn(reason.into(), message.into());
        for (live, expect) in [
            (None, Step::Create),
            (Some(&made), Step::SetReady),
            (Some(&with("Unknown")), Step::SetReady),
            (Some(&with("True")), Step::Nothing),
            (
                Some(&with("False")),
                warn("Broken", "Configuration matches, but it is broken"),
            ),
            (Some(&going), Step::Nothing),
            (
                Some(&other),
                warn(
                    "KubernetesDefaultServiceCIDRInconsistent",
                    "The default ServiceCIDR [10.0.0.0/16 fd00::/112] does not match the controller flag configurations \
                     [10.96.0.0/12]",
                ),
            ),
        ] {
            assert_eq!(decide(live, range), expect, "{live:?}");
        }
    }
}
