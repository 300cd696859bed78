//! The tokens controller: a Secret of the type `kubernetes.io/service-account-token` gets a token of the account that it
//! names, and goes with the account.
//!
//! Source: `pkg/controller/serviceaccount/tokens_controller.go`. Different from upstream: the token is one of TokenRequest,
//! bound to the Secret, in place of one without claims on time and audience. It ends with the Secret or the account, as
//! upstream's does.

use std::sync::Arc;

use client::informer::{Delta, Informer, Selection};
use client::k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{DeleteParams, Error, Meta, Preconditions, resources};
use serde_json::{Value, json};

use crate::context::{Context, Name, name_of, synced};

const WORKERS: usize = 4;
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The longest life that TokenRequest gives, in seconds: as good as none.
const LIFE_SECONDS: i64 = 1 << 32;
/// The index of secrets by `namespace/account`.
const ACCOUNT_INDEX: &str = "account";

/// What to do about a secret.
#[derive(Debug, PartialEq)]
enum Verdict {
    Leave,
    /// Its account is not there, or is another one of that name.
    Delete,
    /// These entries are missing or out of date; with a token, when that is one of them.
    Fill {
        token: bool,
    },
}

fn judge(secret: &Secret, account: Option<&ServiceAccount>, root_ca_pem: &str) -> Verdict {
    if secret.metadata.is_deleting() {
        return Verdict::Leave;
    }
    let annotation = |key: &str| secret.metadata.annotations.as_ref().and_then(|all| all.get(key));
    let uid = annotation(ACCOUNT_UID).map(String::as_str).unwrap_or("");
    let Some(account) = account.filter(|account| uid.is_empty() || account.metadata.uid() == uid) else {
        return Verdict::Delete;
    };
    let entry = |key: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        data.map(|value| value.0.as_slice()).unwrap_or_default()
    };
    let token = entry("token").is_empty();
    let rest = uid == account.metadata.uid()
        && entry("namespace") == secret.metadata.namespace().as_bytes()
        && entry("ca.crt") == root_ca_pem.as_bytes();
    if rest && !token {
        return Verdict::Leave;
    }
    Verdict::Fill { token }
}

/// The account that the secret names.
fn account_of(secret: &Secret) -> Option<&str> {
    let named = secret.metadata.annotations.as_ref()?.get(ACCOUNT_NAME)?;
    (secret.type_.as_deref() == Some(TYPE) && !named.is_empty()).then_some(named)
}

/// Starts the controller.
pub(crate) fn start(context: Context, root_ca_pem: String) {
    let accounts = context.informers.informer::<ServiceAccount>();
    let selection = Selection::fields(format!("type={TYPE}"));
    let secrets = context.informers.selected::<Secret>(selection);
    secrets.add_index(ACCOUNT_INDEX, |secret, add| {
        if let Some(account) = account_of(secret) {
            add(&format!("{}/{account}", secret.metadata.namespace()));
        }
    });
    let queue = WorkQueue::<Name>::new().named("serviceaccount_tokens_secret");
    context.watch(&secrets, {
        let queue = queue.clone();
        move |delta| match delta {
            Delta::Added(secret) | Delta::Updated { new: secret, .. } => queue.add(name_of(&*secret)),
            _ => {}
        }
    });
    context.watch(&accounts, {
        let (queue, secrets) = (queue.clone(), secrets.clone());
        move |delta| {
            let account = match &delta {
                Delta::Added(account) | Delta::Deleted(account) => account,
                _ => return,
            };
            let key = format!("{}/{}", account.metadata.namespace(), account.metadata.name());
            let secrets = secrets.indexed(ACCOUNT_INDEX, &key);
            secrets.iter().for_each(|secret| queue.add(name_of(&**secret)));
        }
    });
    let ready = vec![synced(&accounts), synced(&secrets)];
    let controller = Arc::new(Controller {
        context: context.clone(),
        accounts,
        secrets,
        root_ca_pem,
    });
    context.work(queue, ready, WORKERS, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

struct Controller {
    context: Context,
    accounts: Informer<ServiceAccount>,
    secrets: Informer<Secret>,
    root_ca_pem: String,
}

impl Controller {
    async fn sync(&self, key: &Name) -> Result<Next, Error> {
        let Some(secret) = self.secrets.get(&key.0, &key.1) else {
            return Ok(Next::Wait);
        };
        let Some(name) = account_of(&secret) else {
            return Ok(Next::Wait);
        };
        let mut account = self.accounts.get(&key.0, name);
        if judge(&secret, account.as_deref(), &self.root_ca_pem) == Verdict::Delete {
            // The copy may be behind: only the server's word ends a token.
            account = match self.context.client.get::<ServiceAccount>(&key.0, name).await {
                Ok(live) => Some(Arc::new(live)),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
        }
        let outcome = match (judge(&secret, account.as_deref(), &self.root_ca_pem), account) {
            (Verdict::Delete, _) => self.delete(&secret).await,
            (Verdict::Fill { token }, Some(account)) => self.fill(&secret, &account, token).await,
            _ => Ok(()),
        };
        match outcome {
            Err(error) if error.is_not_found() => Ok(Next::Wait),
            // Changed meanwhile: the news of that is on its way.
            Err(error) if error.is_conflict() => Ok(Next::Wait),
            Err(error) => Err(error),
            Ok(()) => Ok(Next::Wait),
        }
    }

    async fn delete(&self, secret: &Secret) -> Result<(), Error> {
        let params = DeleteParams {
            preconditions: Preconditions {
                uid: Some(secret.metadata.uid().to_owned()),
                resource_version: Some(secret.metadata.resource_version().to_owned()),
            },
            ..DeleteParams::default()
        };
        let (namespace, name) = (secret.metadata.namespace(), secret.metadata.name());
        let client = &self.context.client;
        client
            .delete(&resources::SECRETS, namespace, name, &params)
            .await
            .map(drop)
    }

    async fn fill(&self, secret: &Secret, account: &ServiceAccount, token: bool) -> Result<(), Error> {
        let (namespace, name) = (secret.metadata.namespace(), secret.metadata.name());
        let client = &self.context.client;
        // Its role has no `patch` of secrets, as upstream's has none; read as a tree, nothing is lost.
        let mut whole: Value = client.get_in(&resources::SECRETS, namespace, name).await?;
        if api::meta::resource_version(&whole) != secret.metadata.resource_version() {
            return Ok(());
        }
        whole["metadata"]["annotations"][ACCOUNT_UID] = account.metadata.uid().into();
        whole["stringData"] = json!({"namespace": namespace, "ca.crt": self.root_ca_pem});
        if token {
            let request = json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                "spec": {
                    "audiences": [], "expirationSeconds": LIFE_SECONDS,
                    "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": secret.metadata.uid()},
                },
            });
            let accounts = &resources::SERVICE_ACCOUNTS;
            let answer = client
                .create_subresource(accounts, namespace, account.metadata.name(), "token", &request)
                .await?;
            whole["stringData"]["token"] = answer["status"]["token"].clone();
        }
        let written = client
            .update(&resources::SECRETS, namespace, name, None, &whole)
            .await?;
        self.secrets.seen(api::meta::resource_version(&written)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Bench;

    fn secret(uid: &str, entries: &[&str]) -> Secret {
        let mut data = serde_json::Map::new();
        for entry in entries {
            // "dA==" is "t", "bnM=" is "ns", "UEVN" is "PEM".
            let value = match *entry {
                "namespace" => "bnM=",
                "ca.crt" => "UEVN",
                _ => "dA==",
            };
            data.insert(entry.to_string(), value.into());
        }
        let annotations = match uid {
            "" => json!({ACCOUNT_NAME: "sa"}),
            uid => json!({ACCOUNT_NAME: "sa", ACCOUNT_UID: uid}),
        };
        let metadata = json!({"name": "s", "namespace": "ns", "uid": "s1", "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "type": TYPE, "data": data})).unwrap()
    }

    #[test]
    fn secrets_are_filled_or_go() {
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": "sa", "namespace": "ns", "uid": "u1"}})).unwrap();
        let all = ["token", "namespace", "ca.crt"];
        for (secret, account, expect) in [
            (secret("", &[]), Some(&account), Verdict::Fill { token: true }),
            (secret("u1", &all), Some(&account), Verdict::Leave),
            (secret("", &all), Some(&account), Verdict::Fill { token: false }),
            (secret("u1", &all[..2]), Some(&account), Verdict::Fill { token: false }),
            (secret("u1", &all[1..]), Some(&account), Verdict::Fill { token: true }),
            (secret("u2", &all), Some(&account), Verdict::Delete),
            (secret("u1", &all), None, Verdict::Delete),
        ] {
            assert_eq!(judge(&secret, account, "PEM"), expect, "{secret:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_comes_and_goes_with_its_account() {
        let bench = Bench::new();
        let api = &bench.api;
        start(bench.context("tokens-controller"), "PEM".into());
        api.put(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa", "namespace": "ns"}}));
        for (name, account) in [("of-sa", "sa"), ("of-nobody", "nobody")] {
            api.put(json!({
                "apiVersion": "v1", "kind": "Secret", "type": TYPE,
                "metadata": {"name": name, "namespace": "ns", "annotations": {ACCOUNT_NAME: account}},
            }));
        }
        let get = |name: &str| api.get(&resources::SECRETS, "ns", name);
        bench
            .until(|_| get("of-nobody").is_none() && get("of-sa").unwrap()["stringData"]["token"].is_string())
            .await;
        let filled = get("of-sa").unwrap();
        assert_eq!(
            filled["stringData"],
            json!({"token": "token of sa", "namespace": "ns", "ca.crt": "PEM"})
        );
        api.remove(&resources::SERVICE_ACCOUNTS, "ns", "sa");
        bench.until(|_| get("of-sa").is_none()).await;
        bench.end().await;
    }
}
