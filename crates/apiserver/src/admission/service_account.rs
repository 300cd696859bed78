//! ServiceAccount: every pod runs as an account, and finds its token where client libraries look for it.
//!
//! Source: `plugin/pkg/admission/serviceaccount/admission.go`.

use std::sync::Arc;

use api::{GroupResource, Status, Value, meta};
use base::random::Random;
use futures::future::BoxFuture;
use serde_json::json;

use crate::cluster::Object;
use crate::pipeline::{Operation, Plugin, Review};

/// Where client libraries look for the token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The name of the volume, before its random end.
const VOLUME_PREFIX: &str = "kube-api-access-";
/// The length of that random end, as for every generated name.
const SUFFIX_LENGTH: usize = 5;
const DEFAULT_ACCOUNT: &str = "default";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
/// Files of the volume are readable by all: 0644.
const DEFAULT_MODE: i32 = 0o644;

/// The plug-in.
pub struct ServiceAccount {
    random: Random,
}

impl ServiceAccount {
    /// A plug-in that names volumes with that randomness.
    pub fn new(random: Random) -> ServiceAccount {
        ServiceAccount { random }
    }
}

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let result = match object.as_mut().filter(|_| review.is_about("", "pods", "")) {
            Some(pod) => self.set(review, pod),
            None => Ok(()),
        };
        Box::pin(std::future::ready(result))
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let result = match object.filter(|_| review.is_about("", "pods", "")) {
            Some(pod) => check(review, pod),
            None => Ok(()),
        };
        Box::pin(std::future::ready(result))
    }
}

impl ServiceAccount {
    fn set(&self, review: &Review, pod: &mut Value) -> Result<(), Status> {
        if meta::annotation(pod, MIRROR).is_some() {
            return Ok(());
        }
        if !pod["spec"].is_object() {
            return Ok(()); // Validation will say so.
        }
        let name = match pod["spec"]["serviceAccountName"]
            .as_str()
            .filter(|name| !name.is_empty())
        {
            Some(name) => name.to_owned(),
            None => DEFAULT_ACCOUNT.to_owned(),
        };
        pod["spec"]["serviceAccountName"] = json!(name);
        pod["spec"]["serviceAccount"] = json!(name);
        let account = account(review, &name)?.value();
        let automount = pod["spec"]["automountServiceAccountToken"].as_bool();
        if automount
            .or(account["automountServiceAccountToken"].as_bool())
            .unwrap_or(true)
        {
            self.mount(pod);
        }
        let secrets = account["imagePullSecrets"]
            .as_array()
            .filter(|secrets| !secrets.is_empty());
        if let Some(secrets) = secrets
            && pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
        {
            pod["spec"]["imagePullSecrets"] = json!(secrets);
        }
        Ok(())
    }

    /// Mounts the token into every container that mounts nothing there itself.
    fn mount(&self, pod: &mut Value) {
        tracing::trace!(target: "walk", pod = meta::name(pod), "a token is mounted");
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let mut names = volumes.filter_map(|volume| volume["name"].as_str());
        let present = names.find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
        let volume = present
            .clone()
            .unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", self.random.suffix(SUFFIX_LENGTH)));
        let mut used = false;
        for field in ["initContainers", "containers"] {
            for container in pod["spec"][field].as_array_mut().into_iter().flatten() {
                let mounts = container["volumeMounts"].as_array().into_iter().flatten();
                if mounts.clone().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                    continue;
                }
                let mut mounts: Vec<Value> = mounts.cloned().collect();
                mounts.push(json!({"mountPath": MOUNT_PATH, "name": volume, "readOnly": true}));
                container["volumeMounts"] = Value::Array(mounts);
                used = true;
            }
        }
        if used && present.is_none() {
            let mut volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
            volumes.push(token_volume(&volume));
            pod["spec"]["volumes"] = Value::Array(volumes);
        }
    }
}

fn token_volume(name: &str) -> Value {
    let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({"name": name, "projected": {"defaultMode": DEFAULT_MODE, "sources": [
        {"serviceAccountToken": {"expirationSeconds": crate::tokens::WARN_ONLY_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
    ]}})
}

fn account(review: &Review, name: &str) -> Result<Arc<Object>, Status> {
    let resource = GroupResource {
        group: String::new(),
        resource: "serviceaccounts".into(),
    };
    let missing = || {
        let (namespace, quoted) = (&review.namespace, api::field::quote(name));
        review.forbidden(&format!(
            "error looking up service account {namespace}/{name}: serviceaccount {quoted} not found"
        ))
    };
    review
        .cluster
        .get(&resource, &review.namespace, name)
        .ok_or_else(missing)
}

fn check(review: &Review, pod: &Value) -> Result<(), Status> {
    let name = pod["spec"]["serviceAccountName"].as_str().unwrap_or("");
    if meta::annotation(pod, MIRROR).is_some() {
        if !name.is_empty() {
            return Err(review.forbidden("a mirror pod may not reference service accounts"));
        }
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let token = |volume: &Value| {
            let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
            sources.clone().any(|source| source["serviceAccountToken"].is_object())
        };
        if uses_secrets(pod).next().is_some() {
            return Err(review.forbidden("a mirror pod may not reference secrets"));
        }
        if volumes.clone().any(token) {
            return Err(review.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
        }
        return Ok(());
    }
    let account = account(review, name)?.value();
    let enforced = meta::annotation(&account, ENFORCE_MOUNTABLE).is_some_and(|value| value == "true" || value == "1");
    if !enforced {
        return Ok(());
    }
    let allowed = |field: &str, secret: &str| {
        let list = account[field].as_array().into_iter().flatten();
        list.clone().any(|reference| reference["name"] == secret)
    };
    for secret in uses_secrets(pod) {
        if !allowed("secrets", secret) {
            let (secret, name) = (api::field::quote(secret), api::field::quote(name));
            return Err(review.forbidden(&format!(
                "volume with secret.secretName={secret} is not allowed because service account {name} does not \
                 reference that secret"
            )));
        }
    }
    for secret in pod["spec"]["imagePullSecrets"].as_array().into_iter().flatten() {
        let secret = secret["name"].as_str().unwrap_or("");
        if !allowed("imagePullSecrets", secret) {
            let (secret, name) = (api::field::quote(secret), api::field::quote(name));
            return Err(review.forbidden(&format!(
                "imagePullSecrets[].name={secret} is not allowed because service account {name} does not reference \
                 that imagePullSecret"
            )));
        }
    }
    Ok(())
}

/// The secrets that containers (of all three sorts) and volumes name.
fn uses_secrets(pod: &Value) -> impl Iterator<Item = &str> {
    fn list(value: &Value) -> impl Iterator<Item = &Value> {
        value.as_array().into_iter().flatten()
    }
    let spec = &pod["spec"];
    let volumes = list(&spec["volumes"]).flat_map(|volume| {
        let projected = list(&volume["projected"]["sources"]).map(|source| &source["secret"]["name"]);
        std::iter::once(&volume["secret"]["secretName"]).chain(projected)
    });
    let containers = ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|f| list(&spec[f]));
    let containers = containers.flat_map(|container| {
        let keys = list(&container["env"]).map(|variable| &variable["valueFrom"]["secretKeyRef"]["name"]);
        keys.chain(list(&container["envFrom"]).map(|source| &source["secretRef"]["name"]))
    });
    volumes.chain(containers).filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;

    fn world(account: Value) -> World {
        let mut object = account;
        object["metadata"]["namespace"] = json!("ns");
        World::new(&[("serviceaccounts", object)])
    }

    fn admit(world: &World, pod: Value) -> Result<Value, String> {
        let plugin = ServiceAccount::new(Random::seeded(1));
        let review = world.review(Operation::Create, "", "pods", "", "ns", "x");
        let mut pod = pod;
        plugin
            .set(&review, &mut pod)
            .and_then(|()| check(&review, &pod))
            .map_err(|status| status.message)?;
        Ok(pod)
    }

    #[test]
    fn a_pod_gets_its_account_and_token() {
        let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "registry"}]});
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"mountPath": MOUNT_PATH, "name": "own"}]}]}});
        let pod = admit(&world(account), pod).unwrap();
        let spec = &pod["spec"];
        assert_eq!(spec["serviceAccountName"], "default");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "registry"}]));
        let volume = spec["volumes"][0]["name"].as_str().unwrap();
        assert!(
            volume.starts_with(VOLUME_PREFIX) && volume.len() == VOLUME_PREFIX.len() + 5,
            "{volume}"
        );
        let mount = json!({"mountPath": MOUNT_PATH, "name": volume, "readOnly": true});
        assert_eq!(spec["containers"][0]["volumeMounts"], json!([mount]));
        assert_eq!(spec["containers"][1]["volumeMounts"][0]["name"], "own");
        // A second pass (after another plug-in changed something) adds nothing.
        assert_eq!(
            admit(&world(json!({"metadata": {"name": "default"}})), pod.clone()).unwrap(),
            pod
        );
    }

    #[test]
    fn the_pod_has_the_last_word_about_its_token() {
        for (account, pod, mounted) in [
            (json!(null), json!(null), true),
            (json!(false), json!(null), false),
            (json!(false), json!(true), true),
            (json!(true), json!(false), false),
        ] {
            let world = world(json!({"metadata": {"name": "default"}, "automountServiceAccountToken": account}));
            let spec = json!({"containers": [{"name": "a"}], "automountServiceAccountToken": pod});
            let got = admit(&world, json!({"spec": spec})).unwrap();
            assert_eq!(got["spec"]["volumes"].is_array(), mounted, "{account} {pod}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_upstreams_words() {
        let plain = world(json!({"metadata": {"name": "default"}}));
        let strict = world(
            json!({"metadata": {"name": "default", "annotations": {ENFORCE_MOUNTABLE: "true"}}, "secrets": [{"name": "ok"}]}),
        );
        let volume =
            |secret: &str| json!({"spec": {"containers": [], "volumes": [{"secret": {"secretName": secret}}]}});
        for (world, pod, expect) in [
            (
                &plain,
                json!({"spec": {"serviceAccountName": "none"}}),
                "pods \"x\" is forbidden: error looking up service account ns/none: serviceaccount \"none\" not found",
            ),
            (
                &strict,
                volume("other"),
                "pods \"x\" is forbidden: volume with secret.secretName=\"other\" is not allowed because service account \
                 \"default\" does not reference that secret",
            ),
            (
                &plain,
                json!({"metadata": {"annotations": {MIRROR: "1"}}, "spec": {"serviceAccountName": "a"}}),
                "pods \"x\" is forbidden: a mirror pod may not reference service accounts",
            ),
        ] {
            assert_eq!(admit(world, pod).unwrap_err(), expect);
        }
        assert!(admit(&strict, volume("ok")).is_ok());
    }
}
