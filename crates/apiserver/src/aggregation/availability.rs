//! Whether the servers of APIServices are there: the condition Available.
//!
//! An APIService is looked at when it, its Service or that one's endpoints change, and every half a minute while its server
//! answers: a network that fails tells nobody. What is decided without asking is a plain function.
//! Source: `k8s.io/kube-aggregator/pkg/controllers/status/{local,remote}`.

use std::sync::Arc;
use std::time::Duration;

use api::field::quote;
use api::{GroupResource, Value, meta};
use base::Shutdown;
use client::queue::WorkQueue;
use client::worker::{Next, run};
use client::{Client, Error};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;

use super::remote::{Question, Remote, url};
use super::service::{ApiService, Backend, available};
use super::{API_SERVICES, Aggregation, api_services};
use crate::call::rfc3339;
use crate::cluster::{Change, Cluster, Object};
use crate::request::{SYSTEM_MASTERS, UserInfo};
use crate::server::Server;

/// Upstream's workers.
const WORKERS: usize = 5;
/// What fails is looked at again soon, for nobody tells when a network works again.
/// Source: `NewTypedItemExponentialFailureRateLimiter` of the controller.
const RETRY_INITIAL: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often a server that answers is asked again (upstream: the resync of the informer).
const PERIOD: Duration = Duration::from_secs(30);
/// Asked at once; one good answer is enough: each may go to another endpoint.
const ATTEMPTS: usize = 5;
/// How long one of them may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of the answer only the status counts.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Says which Service an EndpointSlice is of.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// As whom the server asks others.
pub(super) fn own_user() -> UserInfo {
    UserInfo {
        name: "system:kube-aggregator".into(),
        groups: vec![SYSTEM_MASTERS.into()],
        ..UserInfo::default()
    }
}

/// A condition's status, reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

struct Controller {
    aggregation: Arc<Aggregation>,
    server: Arc<Server>,
    client: Client,
}

/// Starts the controller.
pub(super) fn start(server: &Arc<Server>, client: &Client, shutdown: &Shutdown) {
    let aggregation = server.aggregation.clone();
    let queue = WorkQueue::<String>::with_retry(RETRY_INITIAL, RETRY_MAX).named("RemoteAvailabilityController");
    aggregation.subscribe(&queue);
    follow(server, shutdown, &queue, services(), |object| {
        Some(object.name().to_owned())
    });
    let of_slice = |object: &Object| object.label(SERVICE_NAME).map(str::to_owned);
    follow(server, shutdown, &queue, endpoint_slices(), of_slice);
    let controller = Arc::new(Controller {
        aggregation,
        server: server.clone(),
        client: client.clone(),
    });
    let stop = shutdown.clone();
    shutdown.spawn(run(queue, WORKERS, stop, move |name| {
        let controller = controller.clone();
        async move { controller.look(&name).await }
    }));
}

fn services() -> GroupResource {
    GroupResource {
        group: String::new(),
        resource: "services".into(),
    }
}

fn endpoint_slices() -> GroupResource {
    GroupResource {
        group: "discovery.k8s.io".into(),
        resource: "endpointslices".into(),
    }
}

/// Queues the APIServices of the Services that change.
fn follow(
    server: &Arc<Server>,
    shutdown: &Shutdown,
    queue: &WorkQueue<String>,
    resource: GroupResource,
    service_of: impl Fn(&Object) -> Option<String> + Send + 'static,
) {
    let mut changes = Cluster::changes(&*server.storage, &resource);
    let (aggregation, queue, stop) = (server.aggregation.clone(), queue.clone(), shutdown.clone());
    shutdown.spawn(async move {
        while let Some(Some(change)) = stop.until(changes.next()).await {
            let table = aggregation.table();
            let tell = |object: &Object| {
                let Some(service) = service_of(object) else { return };
                let names = table.led_to_by(object.namespace(), &service);
                names.for_each(|name| queue.add(name.to_owned()));
            };
            match change {
                Change::Reset(all) => all.iter().for_each(|object| tell(object)),
                Change::Changed { old, new } => [old, new].iter().flatten().for_each(|object| tell(object)),
            }
        }
    });
}

// === impl Controller ===

impl Controller {
    async fn look(&self, name: &str) -> Result<Next, Error> {
        let object = Cluster::get(&*self.server.storage, &api_services(), "", name);
        let Some(object) = object.map(|object| object.value()) else {
            self.aggregation.metrics().forget(name);
            return Ok(Next::Wait);
        };
        let service = ApiService::of(&object);
        let Some(backend) = &service.backend else {
            return self.tell(&object, &local(), Next::Wait).await;
        };
        let cluster = &*self.server.storage;
        let reference = &backend.service;
        let found = Cluster::get(cluster, &services(), &reference.namespace, &reference.name);
        let slices = Cluster::list(cluster, &endpoint_slices(), Some(&reference.namespace));
        let mine = slices
            .iter()
            .filter(|slice| slice.label(SERVICE_NAME) == Some(&*reference.name));
        let slices: Vec<Value> = mine.map(|slice| slice.value()).collect();
        let found = found.map(|service| service.value());
        if let Some(verdict) = judge(backend, found.as_ref(), &slices) {
            // What is missing tells when it comes.
            return self.tell(&object, &verdict, Next::Wait).await;
        }
        // The table follows the store: connections for an APIService that it does not know yet are made for once.
        let known = self
            .aggregation
            .table()
            .get(name)
            .and_then(|entry| entry.remote.clone());
        let known = known.filter(|remote| remote.backend() == backend);
        let remote = known.unwrap_or_else(|| {
            let certificate = self.aggregation.certificate();
            Arc::new(Remote::new(backend, certificate, &self.aggregation.ways))
        });
        match check(&remote, &service).await {
            Ok(()) => self.tell(&object, &passed(), Next::After(PERIOD)).await,
            Err(why) => self.tell(&object, &failed(why), Next::Retry).await,
        }
    }

    /// Writes what was found, unless it stands there already.
    async fn tell(&self, object: &Value, verdict: &Verdict, next: Next) -> Result<Next, Error> {
        let name = meta::name(object);
        let is_available = verdict.status == "True";
        let metrics = self.aggregation.metrics();
        metrics.is_available(name, is_available);
        let now = rfc3339(self.server.clock.now());
        let Some(conditions) = with(object, verdict, &now) else {
            return Ok(next);
        };
        let was_available = available(object).is_some_and(|condition| condition["status"] == "True");
        let mut object = object.clone();
        object["status"]["conditions"] = conditions;
        let written = self
            .client
            .update(&API_SERVICES, "", name, Some("status"), &object)
            .await;
        match written {
            Ok(_) => {
                tracing::info!(name, status = verdict.status, reason = verdict.reason, why = %verdict.message,
                    "the availability of an APIService changed");
                if was_available && !is_available {
                    metrics.became_unavailable(name, verdict.reason);
                }
                Ok(next)
            }
            // Whatever changed it tells of itself.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(Next::Wait),
            Err(error) => Err(error),
        }
    }
}

fn local() -> Verdict {
    Verdict {
        status: "True",
        reason: "Local",
        message: "Local APIServices are always available".into(),
    }
}

fn passed() -> Verdict {
    Verdict {
        status: "True",
        reason: "Passed",
        message: "all checks passed".into(),
    }
}

fn failed(message: String) -> Verdict {
    Verdict {
        status: "False",
        reason: "FailedDiscoveryCheck",
        message,
    }
}

/// What can be told without asking; `None`: the server has to be asked.
fn judge(backend: &Backend, service: Option<&Value>, slices: &[Value]) -> Option<Verdict> {
    let reference = &backend.service;
    let (name, namespace, port) = (&reference.name, quote(&reference.namespace), reference.port);
    let no = |reason, message| {
        Some(Verdict {
            status: "False",
            reason,
            message,
        })
    };
    let Some(service) = service else {
        return no(
            "ServiceNotFound",
            format!("service/{name} in {namespace} is not present"),
        );
    };
    // Others are reached in ways of their own.
    if service["spec"]["type"] != "ClusterIP" {
        return None;
    }
    let ports = service["spec"]["ports"].as_array();
    let mut ports = ports.into_iter().flatten();
    let Some(found) = ports.find(|own| own["port"].as_u64() == Some(u64::from(port))) else {
        let message = format!("service/{name} in {namespace} is not listening on port {port}");
        return no("ServicePortError", message);
    };
    let port_name = found["name"].as_str().unwrap_or("");
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace}");
        return no("EndpointsNotFound", message);
    }
    if !slices.iter().any(|slice| has_endpoint(slice, port_name)) {
        let port_name = quote(port_name);
        let message =
            format!("endpointslices for service/{name} in {namespace} have no addresses with port name {port_name}");
        return no("MissingEndpoints", message);
    }
    None
}

fn has_endpoint(slice: &Value, port_name: &str) -> bool {
    let list = |field: &str| slice[field].as_array().into_iter().flatten();
    let mut endpoints = list("endpoints");
    let mut ports = list("ports");
    endpoints.any(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap_or(true))
        && ports.any(|port| port["name"].as_str().unwrap_or("") == port_name && port["port"].is_u64())
}

/// The conditions with the verdict among them; `None`: they say it already.
fn with(object: &Value, verdict: &Verdict, now: &str) -> Option<Value> {
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let position = conditions.iter().position(|condition| condition["type"] == "Available");
    let old = position.map_or(&Value::Null, |position| &conditions[position]);
    let same = old["status"] == verdict.status;
    if same && old["reason"] == verdict.reason && old["message"] == verdict.message {
        return None;
    }
    let since = match same {
        true => old["lastTransitionTime"].clone(),
        false => now.into(),
    };
    let condition = json!({
        "type": "Available", "status": verdict.status, "lastTransitionTime": since,
        "reason": verdict.reason, "message": verdict.message,
    });
    match position {
        Some(position) => conditions[position] = condition,
        None => conditions.push(condition),
    }
    Some(conditions.into())
}

/// Asks for the discovery of the group version, several times at once.
async fn check(remote: &Remote, service: &ApiService) -> Result<(), String> {
    let path = match &*service.group {
        "" => format!("/api/{}", service.version),
        group => format!("/apis/{group}/{}", service.version),
    };
    let mut attempts: FuturesUnordered<_> = (0..ATTEMPTS).map(|_| attempt(remote, &path)).collect();
    let mut last = Ok(());
    while let Some(outcome) = attempts.next().await {
        if outcome.is_ok() {
            return outcome;
        }
        last = outcome;
    }
    last
}

/// One question. The answer is taken from anybody: what is told of it is no secret, and requests are sent to nobody else than
/// the APIService says.
async fn attempt(remote: &Remote, path: &str) -> Result<(), String> {
    let endpoint = remote.endpoint()?;
    let url = url(&endpoint, path)?;
    let question = Question {
        path,
        accept: "",
        etag: "",
        user: own_user(),
        bytes_max: ANSWER_BYTES_MAX,
    };
    let failing = |why: String| format!("failing or missing response from {url}: {why}");
    let asked = remote.ask_anybody(&endpoint, &question);
    let (head, _) = match tokio::time::timeout(ATTEMPT_TIMEOUT, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => return Err(failing(format!("Get {}: {why}", quote(&url.to_string())))),
        Err(_) => {
            let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            return Err(failing(format!("Get {}: {why}", quote(&url.to_string()))));
        }
    };
    match head.status.is_success() {
        true => Ok(()),
        false => Err(failing(format!("bad status from {url}: {}", head.status.as_u16()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregation::service::ServiceReference;

    fn backend() -> Backend {
        Backend {
            service: ServiceReference {
                namespace: "n".into(),
                name: "s".into(),
                port: 443,
            },
            ca_bundle: String::new(),
            takes_any_certificate: true,
        }
    }

    #[test]
    fn what_is_missing_is_told_in_upstreams_words() {
        let service =
            |kind: &str, port: u16| json!({"spec": {"type": kind, "ports": [{"name": "https", "port": port}]}});
        let slice = |ready: bool, name: &str| json!({"ports": [{"name": name, "port": 8443}], "endpoints": [{"conditions": {"ready": ready}}]});
        for (service, slices, expect) in [
            (
                None,
                vec![],
                Some(("ServiceNotFound", "service/s in \"n\" is not present")),
            ),
            (
                Some(service("ClusterIP", 444)),
                vec![slice(true, "https")],
                Some(("ServicePortError", "service/s in \"n\" is not listening on port 443")),
            ),
            (
                Some(service("ClusterIP", 443)),
                vec![],
                Some(("EndpointsNotFound", "cannot find endpointslices for service/s in \"n\"")),
            ),
            (
                Some(service("ClusterIP", 443)),
                vec![slice(false, "https"), slice(true, "http")],
                Some((
                    "MissingEndpoints",
                    "endpointslices for service/s in \"n\" have no addresses with port name \"https\"",
                )),
            ),
            (
                Some(service("ClusterIP", 443)),
                vec![slice(false, "https"), slice(true, "https")],
                None,
            ),
            (Some(service("ExternalName", 444)), vec![], None),
        ] {
            let found = judge(&backend(), service.as_ref(), &slices);
            let found = found.as_ref().map(|verdict| (verdict.reason, &*verdict.message));
            assert_eq!(found, expect);
        }
    }

    #[test]
    fn conditions_change_only_when_they_say_something_else() {
        let condition = |status: &str, reason: &str, since: &str| {
            json!({"type": "Available", "status": status, "reason": reason, "message": "all checks passed",
                "lastTransitionTime": since})
        };
        let object = |conditions: Value| json!({"status": {"conditions": conditions}});
        let other = json!({"type": "Other", "status": "True"});
        let passed = passed();
        for (before, expect) in [
            (object(json!([condition("True", "Passed", "then")])), None),
            (
                object(json!([other, condition("True", "Local", "then")])),
                Some(json!([other, condition("True", "Passed", "then")])),
            ),
            (
                object(json!([condition("False", "MissingEndpoints", "then")])),
                Some(json!([condition("True", "Passed", "now")])),
            ),
            (json!({}), Some(json!([condition("True", "Passed", "now")]))),
        ] {
            assert_eq!(with(&before, &passed, "now"), expect, "{before}");
        }
    }
}
