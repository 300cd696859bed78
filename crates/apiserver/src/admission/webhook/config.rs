//! What `WebhookAdmissionConfiguration` says: who we are to webhooks.
//!
//! Source: `webhook/config/kubeconfig.go` of `k8s.io/apiserver/pkg/admission/plugin`.

use std::fmt;
use std::path::Path;

use api::Value;

use crate::hook::{ReadFile, Users};

/// How the webhooks of one plug-in are reached.
#[derive(Clone, Default)]
pub struct WebhookConfig {
    /// Who we are to them.
    pub(super) users: Users,
    /// Reads the machine's roots, for those that name no authority.
    pub(super) read: Option<ReadFile>,
}

impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookConfig")
            .field("users", &self.users)
            .finish_non_exhaustive()
    }
}

// === impl WebhookConfig ===

impl WebhookConfig {
    /// What a configuration says; null: nothing.
    ///
    /// # Errors
    /// It is none, or names a file that cannot be used.
    pub fn read(config: &Value, read: &ReadFile) -> Result<WebhookConfig, String> {
        let mut own = WebhookConfig {
            users: Users::default(),
            read: Some(read.clone()),
        };
        let Some(fields) = config.as_object() else {
            return Ok(own);
        };
        let kind = (config["apiVersion"].as_str(), config["kind"].as_str());
        if kind
            != (
                Some("apiserver.config.k8s.io/v1"),
                Some("WebhookAdmissionConfiguration"),
            )
        {
            return Err("it must be WebhookAdmissionConfiguration of apiserver.config.k8s.io/v1".into());
        }
        for field in fields.keys() {
            match &**field {
                "apiVersion" | "kind" | "kubeConfigFile" => {}
                "staticManifestsDir" => {
                    return Err("staticManifestsDir: webhooks are not read from files in this server".into());
                }
                unknown => return Err(format!("strict decoding error: unknown field {unknown:?}")),
            }
        }
        let file = config["kubeConfigFile"].as_str().unwrap_or("");
        if file.is_empty() {
            return Ok(own);
        }
        if !file.starts_with('/') {
            return Err(format!(
                "kubeConfigFile: Invalid value: {file:?}: must be an absolute file path"
            ));
        }
        own.users = Users::from_kubeconfig(Path::new(file), read)?;
        Ok(own)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn configurations_name_a_file() {
        let read: ReadFile = Arc::new(|path| match path.to_str() {
            Some("/users") => Ok(b"users: [{name: '*', user: {token: t}}]".to_vec()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        });
        for (fields, expect) in [
            (json!({}), None),
            (json!({"kubeConfigFile": "/users"}), None),
            (
                json!({"kubeConfigFile": "users"}),
                Some("kubeConfigFile: Invalid value: \"users\": must be an absolute file path"),
            ),
            (
                json!({"kind": "X"}),
                Some("it must be WebhookAdmissionConfiguration of apiserver.config.k8s.io/v1"),
            ),
            (
                json!({"more": 1}),
                Some("strict decoding error: unknown field \"more\""),
            ),
            (
                json!({"staticManifestsDir": "/d"}),
                Some("staticManifestsDir: webhooks are not read from files in this server"),
            ),
        ] {
            let mut config =
                json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration"});
            config
                .as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            let got = WebhookConfig::read(&config, &read).map(drop);
            assert_eq!(got.err().as_deref(), expect, "{fields}");
        }
        assert!(WebhookConfig::read(&Value::Null, &read).is_ok());
        let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": "/users"});
        let own = WebhookConfig::read(&config, &read).unwrap();
        assert!(own.users.for_host("a.b.svc:443").is_some());
    }
}
