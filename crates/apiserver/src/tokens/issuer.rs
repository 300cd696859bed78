//! `serviceaccounts/token`: a token for an account, bound to an object that is looked up first.
//!
//! Source: `pkg/registry/core/serviceaccount/storage/token.go`; of the field rules
//! `pkg/apis/authentication/validation/validation.go`.

use std::sync::Arc;
use std::time::Duration;

use api::field::{Error, Path};
use api::{GroupKind, GroupResource, Status, Value};
use base::clock::Clock;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::json;

use super::{
    BoundObjects, DEFAULT_EXPIRATION_SECONDS, MAX_EXPIRATION_SECONDS, MIN_EXPIRATION_SECONDS, Reference, Signer,
    TokenBinding, TokenRequest, issued,
};
use crate::cluster::{Cluster, Object};
use crate::pipeline::TokenIssuer;
use crate::request::UserInfo;

/// Issues tokens with one signer.
pub struct Issuer {
    signer: Arc<Signer>,
    cluster: Arc<dyn Cluster>,
    clock: Clock,
    /// Where others find the key set, if they can find it.
    jwks_uri: Option<String>,
}

// === impl Issuer ===

impl Issuer {
    /// An issuer that looks bound objects up in that state.
    pub fn new(signer: Arc<Signer>, cluster: Arc<dyn Cluster>, clock: Clock) -> Issuer {
        let jwks_uri = signer.settings().discovery();
        let jwks_uri = jwks_uri.map_err(|why| {
            tracing::error!(
                error = why,
                "Could not construct pre-rendered responses for ServiceAccountIssuerDiscovery endpoints. Endpoints will not be \
                 enabled."
            );
        });
        Issuer {
            signer,
            cluster,
            clock,
            jwks_uri: jwks_uri.ok(),
        }
    }

    async fn fill(&self, account: &Object, mut request: Value) -> Result<Value, Status> {
        let spec = &request["spec"];
        let seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_EXPIRATION_SECONDS);
        check_seconds(account.name(), seconds)?;
        let bound_to = self.bind(account, &spec["boundObjectRef"])?;
        let audiences = spec["audiences"].as_array().into_iter().flatten();
        let audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_owned).collect();
        let settings = self.signer.settings();
        let seconds = settings.shortened(seconds);
        let audiences = match audiences.is_empty() {
            true => settings.audiences.clone(),
            false => audiences,
        };
        let shown = audiences.clone();
        let wanted = TokenRequest {
            namespace: account.namespace(),
            account: Reference {
                name: account.name().into(),
                uid: account.uid().into(),
            },
            bound_to,
            audiences,
            expiration_seconds: seconds,
        };
        let issued = issued(&self.signer, wanted, self.clock.now()).await;
        let issued = issued.map_err(|error| Status::internal(format_args!("failed to generate token: {error}")))?;
        let expires = issued.expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        request["metadata"] = json!({
            "name": account.name(), "namespace": account.namespace(), "uid": account.uid(),
            "creationTimestamp": self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        request["spec"]["audiences"] = json!(shown);
        request["spec"]["expirationSeconds"] = json!(seconds);
        request["status"] = json!({"token": issued.token, "expirationTimestamp": expires});
        Ok(request)
    }

    fn bind(&self, account: &Object, bound: &Value) -> Result<TokenBinding, Status> {
        let mut binding = TokenBinding::default();
        if !bound.is_object() {
            return Ok(binding);
        }
        let text = |field: &str| bound[field].as_str().unwrap_or("");
        let (resource, namespace) = match (text("apiVersion"), text("kind")) {
            ("v1", "Pod") => ("pods", account.namespace()),
            ("v1", "Secret") => ("secrets", account.namespace()),
            ("v1", "Node") => ("nodes", ""),
            (version, kind) => {
                let group = version.split_once('/').map_or("", |(group, _)| group);
                let kind = GroupKind {
                    group: group.into(),
                    kind: kind.into(),
                };
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {kind}"
                )));
            }
        };
        let found = self.find(resource, namespace, text("name"))?;
        if !text("uid").is_empty() && text("uid") != found.uid() {
            let group_resource = GroupResource {
                group: String::new(),
                resource: resource.into(),
            };
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have \
                 been deleted and then recreated",
                text("uid")
            );
            return Err(Status::conflict(&group_resource, text("name"), &why));
        }
        let reference = Some(Reference {
            name: found.name().into(),
            uid: found.uid().into(),
        });
        match resource {
            "pods" => {
                let pod = found.value();
                if pod["spec"]["serviceAccountName"] != account.name() {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                        api::field::quote(account.name())
                    )));
                }
                binding.pod = reference;
                // Where the pod runs is told along; a node that is gone meanwhile is told by its name alone.
                if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
                    let uid = self
                        .find("nodes", "", node)
                        .map(|node| node.uid().to_owned())
                        .unwrap_or_default();
                    binding.node = Some(Reference { name: node.into(), uid });
                }
            }
            "secrets" => binding.secret = reference,
            _ => binding.node = reference,
        }
        Ok(binding)
    }

    fn find(&self, resource: &str, namespace: &str, name: &str) -> Result<Arc<Object>, Status> {
        let resource = GroupResource {
            group: String::new(),
            resource: resource.into(),
        };
        self.cluster
            .get(&resource, namespace, name)
            .ok_or_else(|| Status::not_found(&resource, name))
    }
}

impl TokenIssuer for Issuer {
    fn issue<'a>(
        &'a self,
        service_account: &'a Arc<Object>,
        request: Value,
        _user: &'a UserInfo,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(self.fill(service_account, request))
    }

    fn openid_configuration(&self) -> Option<Value> {
        let jwks_uri = self.jwks_uri.as_ref()?;
        Some(json!({
            "issuer": self.signer.settings().issuer(), "jwks_uri": jwks_uri, "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": self.signer.algorithms(),
        }))
    }

    fn jwks(&self) -> Option<Value> {
        self.jwks_uri.as_ref().map(|_| self.signer.key_set())
    }

    fn max_age(&self) -> Duration {
        self.signer.max_age()
    }
}

fn check_seconds(name: &str, seconds: i64) -> Result<(), Status> {
    let path = Path::new("spec").child("expirationSeconds");
    let why = if seconds < MIN_EXPIRATION_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_EXPIRATION_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let kind = GroupKind {
        group: "authentication.k8s.io".into(),
        kind: "TokenRequest".into(),
    };
    Err(Status::invalid(&kind, name, &[Error::invalid(&path, seconds, why)]))
}

/// The objects that tokens are bound to, in the state in memory.
pub struct ClusterObjects(pub Arc<dyn Cluster>);

impl BoundObjects for ClusterObjects {
    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<(String, Option<i64>)> {
        let resource = GroupResource {
            group: String::new(),
            resource: resource.into(),
        };
        let object = self.0.get(&resource, namespace, name)?;
        let deletion = object.is_deleting().then(|| {
            let value = object.value();
            api::meta::text(&value, "deletionTimestamp")
                .parse::<Timestamp>()
                .map_or(0, |at| at.as_second())
        });
        Some((object.uid().to_owned(), deletion))
    }

    fn read(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let resource = GroupResource {
            group: String::new(),
            resource: resource.into(),
        };
        self.0.get(&resource, namespace, name).map(|object| object.value())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ISSUER;
    use super::*;
    use crate::admission::testing::World;
    use base::random::Random;

    fn fill(spec: Value) -> Result<Value, String> {
        let world = World::new(&[
            (
                "serviceaccounts",
                json!({"metadata": {"name": "sa", "namespace": "ns", "uid": "a1"}}),
            ),
            (
                "pods",
                json!({"metadata": {"name": "web", "namespace": "ns", "uid": "p1"}, "spec": {"serviceAccountName": "sa", "nodeName": "n"}}),
            ),
            (
                "pods",
                json!({"metadata": {"name": "other", "namespace": "ns", "uid": "p2"}, "spec": {"serviceAccountName": "x"}}),
            ),
        ]);
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let signer = Arc::new(Signer::from_pem(&key, Random::seeded(1)).unwrap());
        let account = GroupResource {
            group: String::new(),
            resource: "serviceaccounts".into(),
        };
        let account = world.get(&account, "ns", "sa").unwrap();
        let issuer = Issuer::new(signer, Arc::new(world), Clock::real());
        let filled = issuer.fill(&account, json!({"spec": spec}));
        futures::executor::block_on(filled).map_err(|status| status.message)
    }

    #[test]
    fn tokens_are_issued_for_what_is_there() {
        let bound = |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}});
        for (spec, expect) in [
            (json!({}), ""),
            (bound("Pod", "web", "p1"), ""),
            (bound("Pod", "web", ""), ""),
            (bound("Pod", "web", "p9"), "does not match the UID in record"),
            (bound("Pod", "none", ""), "pods \"none\" not found"),
            (
                bound("Pod", "other", ""),
                "to pod running with different serviceaccount name.",
            ),
            (bound("Service", "x", ""), "cannot bind token to object of type Service"),
            (
                json!({"expirationSeconds": 599}),
                "may not specify a duration less than 10 minutes",
            ),
            (
                json!({"expirationSeconds": 1_i64 << 33}),
                "may not specify a duration larger than 2^32 seconds",
            ),
        ] {
            match fill(spec.clone()) {
                Ok(request) => {
                    assert_eq!(expect, "", "{spec}");
                    assert!(request["status"]["token"].as_str().unwrap().split('.').count() == 3);
                    assert_eq!(request["spec"]["audiences"], json!([ISSUER]));
                }
                Err(message) => assert!(!expect.is_empty() && message.contains(expect), "{spec}: {message}"),
            }
        }
    }
}
