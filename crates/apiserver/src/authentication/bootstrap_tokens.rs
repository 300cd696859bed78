//! Bootstrap tokens: Secrets of `kube-system` that let machines ask for their first certificate.
//!
//! Source: `plugin/pkg/auth/authenticator/token/bootstrap`, `k8s.io/cluster-bootstrap/util/secrets`.

use std::sync::Arc;

use api::{GroupResource, Value};
use base::Clock;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::future::BoxFuture;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::TokenKind;
use crate::cluster::Cluster;
use crate::pipeline::{Identity, Refusal};
use crate::request::UserInfo;

/// The namespace of the Secrets.
const NAMESPACE: &str = "kube-system";
/// What their names begin with; the token's id follows.
const NAME_PREFIX: &str = "bootstrap-token-";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const USER_PREFIX: &str = "system:bootstrap:";
/// The group of all of them; further ones begin with it and a colon.
const GROUP: &str = "system:bootstrappers";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 16;
/// The longest that may follow the prefix of a group.
const GROUP_BYTES_MAX: usize = 256;

/// Knows the tokens whose Secrets are there.
pub struct BootstrapTokens {
    cluster: Arc<dyn Cluster>,
    clock: Clock,
}

// === impl BootstrapTokens ===

impl BootstrapTokens {
    /// The tokens of that state.
    pub fn new(cluster: Arc<dyn Cluster>, clock: Clock) -> BootstrapTokens {
        BootstrapTokens { cluster, clock }
    }

    fn find(&self, token: &str) -> Option<UserInfo> {
        let (id, secret) = parse(token)?;
        let resource = GroupResource {
            group: String::new(),
            resource: "secrets".into(),
        };
        let name = format!("{NAME_PREFIX}{id}");
        let object = self.cluster.get(&resource, NAMESPACE, &name)?;
        if object.is_deleting() {
            tracing::info!(secret = %name, "a bootstrap token is deleted and awaits removal");
            return None;
        }
        match user(&object.value(), id, secret, self.clock.now()) {
            Ok(user) => Some(user),
            Err(why) => {
                tracing::info!(secret = %name, why, "a bootstrap token is refused");
                None
            }
        }
    }
}

impl TokenKind for BootstrapTokens {
    fn authenticate<'a>(&'a self, token: &'a str, _: &'a [String]) -> BoxFuture<'a, Result<Option<Identity>, Refusal>> {
        let found = self.find(token).map(|user| Identity {
            user: user.into(),
            ..Identity::default()
        });
        Box::pin(std::future::ready(Ok(found)))
    }
}

/// The two parts of `<id>.<secret>`.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_part = |part: &str, length| part.len() == length && part.bytes().all(is_plain);
    (is_part(id, ID_BYTES) && is_part(secret, SECRET_BYTES)).then_some((id, secret))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whom a Secret makes the owner of its token, or why it makes him nobody.
fn user(secret: &Value, id: &str, token_secret: &str, now: Timestamp) -> Result<UserInfo, &'static str> {
    let data = |key: &str| {
        let encoded = secret["data"][key].as_str().unwrap_or("");
        let bytes = BASE64.decode(encoded).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    if secret["type"] != TYPE {
        return Err("it has another type");
    }
    // Digests are compared: how long that takes tells nothing of the secret.
    if Sha256::digest(data("token-secret")) != Sha256::digest(token_secret) {
        return Err("token-secret is another one");
    }
    if data("token-id") != id {
        return Err("token-id is another one");
    }
    let expiration = data("expiration");
    // What cannot be read has expired.
    if !expiration.is_empty() && expiration.parse::<Timestamp>().map_or(true, |end| end <= now) {
        return Err("it has expired");
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("usage-bootstrap-authentication is not true");
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra = data("auth-extra-groups");
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !is_group(group) {
            return Err("auth-extra-groups has a group that does not begin with system:bootstrappers:");
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Ok(UserInfo::new(format!("{USER_PREFIX}{id}"), groups))
}

/// `\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else {
        return false;
    };
    let all = rest.bytes().all(|byte| is_plain(byte) || matches!(byte, b':' | b'-'));
    all && rest.len() <= GROUP_BYTES_MAX && rest.bytes().last().is_some_and(is_plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::World;

    const TOKEN: &str = "abcdef.0123456789abcdef";

    fn secret(change: &[(&str, &str)]) -> Value {
        let mut data = json!({
            "token-id": BASE64.encode("abcdef"), "token-secret": BASE64.encode("0123456789abcdef"),
            "usage-bootstrap-authentication": BASE64.encode("true"),
        });
        for (key, value) in change {
            data[*key] = BASE64.encode(value).into();
        }
        json!({"metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}, "type": TYPE, "data": data})
    }

    async fn ask(secret: &Value, token: &str) -> Option<Arc<UserInfo>> {
        let world = World::new(&[("secrets", secret.clone())]);
        let clock = Clock::simulated("2030-01-01T00:00:00Z".parse().unwrap());
        let tokens = BootstrapTokens::new(Arc::new(world), clock);
        let found = tokens.authenticate(token, &[]).await.unwrap();
        found.map(|identity| identity.user)
    }

    #[tokio::test]
    async fn the_secret_says_who_it_is() {
        let user = ask(&secret(&[]), TOKEN).await.unwrap();
        assert_eq!(&*user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:authenticated"]);
        let groups = "system:bootstrappers:worker,system:bootstrappers:a:b-c,system:bootstrappers:worker";
        let more = secret(&[("auth-extra-groups", groups), ("expiration", "2030-01-01T00:00:01Z")]);
        let user = ask(&more, TOKEN).await.unwrap();
        let expect = [
            "system:bootstrappers",
            "system:bootstrappers:a:b-c",
            "system:bootstrappers:worker",
            "system:authenticated",
        ];
        assert_eq!(user.groups, expect);
    }

    #[tokio::test]
    async fn what_is_not_right_is_nobody() {
        for change in [
            ("token-id", "abcdeg"),
            ("token-secret", "0123456789abcdee"),
            ("token-secret", ""),
            ("usage-bootstrap-authentication", "false"),
            ("usage-bootstrap-authentication", "True"),
            ("expiration", "2030-01-01T00:00:00Z"),
            ("expiration", "2029-12-31T23:59:59Z"),
            ("expiration", "tomorrow"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:a,system:masters"),
            ("auth-extra-groups", "system:bootstrappers"),
            ("auth-extra-groups", "system:bootstrappers:"),
            ("auth-extra-groups", "system:bootstrappers:a-"),
            ("auth-extra-groups", "system:bootstrappers:A"),
            ("auth-extra-groups", "system:bootstrappers:a,"),
        ] {
            assert_eq!(ask(&secret(&[change]), TOKEN).await, None, "{change:?}");
        }
        let mut other = secret(&[]);
        other["type"] = "Opaque".into();
        assert_eq!(ask(&other, TOKEN).await, None);
        let mut deleted = secret(&[]);
        deleted["metadata"]["deletionTimestamp"] = "2029-12-31T00:00:00Z".into();
        assert_eq!(ask(&deleted, TOKEN).await, None);
        let mut elsewhere = secret(&[]);
        elsewhere["metadata"]["namespace"] = "default".into();
        assert_eq!(ask(&elsewhere, TOKEN).await, None);
        for token in [
            "",
            "abcdef",
            "abcdef.",
            "abcdef.0123456789abcde",
            "abcdef.0123456789ABCDEF",
            "abcdeg.0123456789abcdef",
            "abcdef.0123456789abcdef.x",
            "../abc.0123456789abcdef",
        ] {
            assert_eq!(ask(&secret(&[]), token).await, None, "{token}");
        }
    }
}
