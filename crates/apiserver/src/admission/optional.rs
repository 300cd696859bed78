//! Small plug-ins that are off unless a flag turns them on: AlwaysPullImages, DenyServiceExternalIPs,
//! ExtendedResourceToleration, LimitPodHardAntiAffinityTopology, NamespaceExists, and the three that decide nothing or
//! everything.
//!
//! Source: the packages of these names below `plugin/pkg/admission`.

use std::collections::BTreeSet;

use api::field::{Error, Path};
use api::{GroupResource, Status, Value};
use futures::future::BoxFuture;
use serde_json::json;

use super::tolerations;
use crate::pipeline::{Operation, Plugin, Review};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const HOSTNAME: &str = "kubernetes.io/hostname";

/// A plug-in that is a plain function.
pub struct Optional {
    name: &'static str,
    operations: &'static [Operation],
    admit: Option<fn(&Review, &mut Value)>,
    validate: Option<Validate>,
}

type Validate = fn(&Review, Option<&Value>, Option<&Value>) -> Result<(), Status>;

const WRITES: &[Operation] = &[Operation::Create, Operation::Update];
const ALL: &[Operation] = &[
    Operation::Create,
    Operation::Update,
    Operation::Delete,
    Operation::Connect,
];

// === impl Optional ===

impl Optional {
    /// Nothing is run from an image that was not asked for with the pod's own credentials.
    pub const ALWAYS_PULL_IMAGES: Optional = Optional {
        name: "AlwaysPullImages",
        operations: WRITES,
        admit: Some(always_pull),
        validate: Some(must_always_pull),
    };
    /// No Service takes an address of its own choice.
    pub const DENY_SERVICE_EXTERNAL_IPS: Optional = Optional {
        name: "DenyServiceExternalIPs",
        operations: WRITES,
        admit: None,
        validate: Some(no_external_ips),
    };
    /// Pods that ask for a device tolerate the taint of nodes that are kept for it.
    pub const EXTENDED_RESOURCE_TOLERATION: Optional = Optional {
        name: "ExtendedResourceToleration",
        operations: WRITES,
        admit: Some(tolerate_extended_resources),
        validate: None,
    };
    /// A pod keeps others from its host, and not from its zone.
    pub const LIMIT_POD_HARD_ANTI_AFFINITY_TOPOLOGY: Optional = Optional {
        name: "LimitPodHardAntiAffinityTopology",
        operations: WRITES,
        admit: None,
        validate: Some(anti_affinity_by_host),
    };
    /// Nothing is written in a namespace that is not there.
    pub const NAMESPACE_EXISTS: Optional = Optional {
        name: "NamespaceExists",
        operations: &[Operation::Create, Operation::Update, Operation::Delete],
        admit: None,
        validate: Some(namespace_exists),
    };
    /// Decides nothing; deprecated upstream.
    pub const ALWAYS_ADMIT: Optional = Optional {
        name: "AlwaysAdmit",
        operations: ALL,
        admit: None,
        validate: None,
    };
    /// Refuses everything; deprecated upstream.
    pub const ALWAYS_DENY: Optional = Optional {
        name: "AlwaysDeny",
        operations: ALL,
        admit: None,
        validate: Some(|review, _, _| Err(review.forbidden("admission control is denying all modifications"))),
    };
}

impl Plugin for Optional {
    fn name(&self) -> &'static str {
        self.name
    }

    fn handles(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let (Some(admit), Some(object)) = (self.admit, object.as_mut()) {
            admit(review, object);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let verdict = self.validate.map_or(Ok(()), |validate| validate(review, object, old));
        Box::pin(std::future::ready(verdict))
    }
}

fn always_pull(review: &Review, pod: &mut Value) {
    if !review.is_about("", "pods", "") {
        return;
    }
    for field in CONTAINERS {
        for container in pod["spec"]
            .get_mut(field)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            container["imagePullPolicy"] = "Always".into();
        }
    }
}

fn must_always_pull(review: &Review, pod: Option<&Value>, _: Option<&Value>) -> Result<(), Status> {
    let Some(pod) = pod.filter(|_| review.is_about("", "pods", "")) else {
        return Ok(());
    };
    for field in CONTAINERS {
        let list = Path::new("spec").child(field);
        for (index, container) in pod["spec"][field].as_array().into_iter().flatten().enumerate() {
            let policy = container["imagePullPolicy"].as_str().unwrap_or("");
            if policy != "Always" {
                let path = list.index(index).child("imagePullPolicy");
                return Err(review.forbidden(&Error::not_supported(&path, policy, &["Always"]).to_string()));
            }
        }
    }
    Ok(())
}

fn no_external_ips(review: &Review, service: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let Some(service) = service.filter(|_| review.is_about("", "services", "")) else {
        return Ok(());
    };
    let addresses =
        |service: &Value| -> Vec<Value> { service["spec"]["externalIPs"].as_array().cloned().unwrap_or_default() };
    let before = old.map(addresses).unwrap_or_default();
    match addresses(service).iter().all(|address| before.contains(address)) {
        true => Ok(()),
        false => Err(review.forbidden("Use of external IPs is denied by admission control")),
    }
}

/// A resource of somebody's own domain. Source: `IsExtendedResourceName` of `pkg/apis/core/helper`.
fn is_extended(resource: &str) -> bool {
    let domain = resource.split_once('/').map(|(domain, _)| domain);
    domain.is_some_and(|domain| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
        && !resource.starts_with("requests.")
}

fn tolerate_extended_resources(review: &Review, pod: &mut Value) {
    if !review.is_about("", "pods", "") {
        return;
    }
    let mut resources = BTreeSet::new();
    for field in ["containers", "initContainers"] {
        for container in pod["spec"][field].as_array().into_iter().flatten() {
            let requests = container["resources"]["requests"].as_object();
            let names = requests.into_iter().flat_map(|requests| requests.keys());
            resources.extend(names.filter(|name| is_extended(name)).cloned());
        }
    }
    let added: Vec<Value> = resources
        .into_iter()
        .map(|resource| json!({"key": resource, "operator": "Exists", "effect": "NoSchedule"}))
        .collect();
    tolerations::add(pod, added);
}

fn anti_affinity_by_host(review: &Review, pod: Option<&Value>, _: Option<&Value>) -> Result<(), Status> {
    let Some(pod) = pod.filter(|_| review.is_about("", "pods", "")) else {
        return Ok(());
    };
    let terms = &pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    for term in terms.as_array().into_iter().flatten() {
        let key = term["topologyKey"].as_str().unwrap_or("");
        if key != HOSTNAME {
            return Err(review.forbidden(&format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is allowed"
            )));
        }
    }
    Ok(())
}

fn namespace_exists(review: &Review, _: Option<&Value>, _: Option<&Value>) -> Result<(), Status> {
    if review.namespace.is_empty() || review.is_about("", "namespaces", &review.subresource) {
        return Ok(());
    }
    let namespaces = GroupResource {
        group: String::new(),
        resource: "namespaces".into(),
    };
    match review.cluster.get(&namespaces, "", &review.namespace) {
        Some(_) => Ok(()),
        None => Err(Status::not_found(&namespaces, &review.namespace)),
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::super::testing::World;
    use super::*;

    /// The object as it is stored, or why it is not.
    fn run(plugin: &Optional, resource: &str, object: Value, old: Option<Value>) -> Result<Value, String> {
        let world = World::new(&[("namespaces", json!({"metadata": {"name": "n"}}))]);
        let namespace = if resource == "configmaps" { "gone" } else { "n" };
        let review = world.review(Operation::Create, "", resource, "", namespace, "a");
        let mut object = Some(object);
        block_on(plugin.admit(&review, &mut object, old.as_ref())).unwrap();
        let verdict = block_on(plugin.validate(&review, object.as_ref(), old.as_ref()));
        verdict.map_err(|status| status.message).map(|()| object.unwrap())
    }

    #[test]
    fn each_does_its_one_thing() {
        let pod = |spec: Value| json!({"spec": spec});
        let ips = |list: Value| json!({"spec": {"externalIPs": list}});
        let anti = |key: &str| {
            let term = json!([{"topologyKey": key}]);
            pod(json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}}))
        };
        let asks = |resource: &str| pod(json!({"containers": [{"resources": {"requests": {resource: "1"}}}]}));
        let mut tolerates = asks("acme.io/gpu");
        tolerates["spec"]["tolerations"] =
            json!([{"key": "acme.io/gpu", "operator": "Exists", "effect": "NoSchedule"}]);
        let denied = "services \"a\" is forbidden: Use of external IPs is denied by admission control";
        let hosts = "pods \"a\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only \
                     key kubernetes.io/hostname is allowed";
        for (plugin, resource, object, old, expect) in [
            (
                &Optional::ALWAYS_PULL_IMAGES,
                "pods",
                pod(json!({"containers": [{"imagePullPolicy": "Never"}]})),
                None,
                Ok(pod(json!({"containers": [{"imagePullPolicy": "Always"}]}))),
            ),
            (
                &Optional::DENY_SERVICE_EXTERNAL_IPS,
                "services",
                ips(json!(["1.2.3.4"])),
                Some(ips(json!(["1.2.3.4", "1.2.3.5"]))),
                Ok(ips(json!(["1.2.3.4"]))),
            ),
            (
                &Optional::DENY_SERVICE_EXTERNAL_IPS,
                "services",
                ips(json!(["1.2.3.4"])),
                None,
                Err(denied),
            ),
            (
                &Optional::EXTENDED_RESOURCE_TOLERATION,
                "pods",
                asks("acme.io/gpu"),
                None,
                Ok(tolerates),
            ),
            (
                &Optional::EXTENDED_RESOURCE_TOLERATION,
                "pods",
                asks("cpu"),
                None,
                Ok(asks("cpu")),
            ),
            (
                &Optional::LIMIT_POD_HARD_ANTI_AFFINITY_TOPOLOGY,
                "pods",
                anti(HOSTNAME),
                None,
                Ok(anti(HOSTNAME)),
            ),
            (
                &Optional::LIMIT_POD_HARD_ANTI_AFFINITY_TOPOLOGY,
                "pods",
                anti("zone"),
                None,
                Err(hosts),
            ),
            (&Optional::NAMESPACE_EXISTS, "pods", json!({}), None, Ok(json!({}))),
            (
                &Optional::NAMESPACE_EXISTS,
                "configmaps",
                json!({}),
                None,
                Err("namespaces \"gone\" not found"),
            ),
            (&Optional::ALWAYS_ADMIT, "pods", json!({}), None, Ok(json!({}))),
            (
                &Optional::ALWAYS_DENY,
                "pods",
                json!({}),
                None,
                Err("pods \"a\" is forbidden: admission control is denying all modifications"),
            ),
        ] {
            let got = run(plugin, resource, object, old);
            assert_eq!(got, expect.map_err(str::to_owned), "{}", plugin.name);
        }
    }
}
