//! Which plug-ins run: upstream's list of those that are on, what flags add and take away, and their configuration.
//!
//! Source: `pkg/kubeapiserver/options/plugins.go`, `k8s.io/apiserver/pkg/server/options/admission.go` and
//! `pkg/admission/config.go`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::Value;
use api::codec::{Limits, yaml};
use bytes::Bytes;

use super::{
    EventRateLimit, ImagePolicyConfig, PodNodeSelector, PodSecurity, PodTolerationRestriction, ResourceQuota,
    WebhookConfig,
};
use crate::hook::ReadFile;

/// Upstream's plug-ins in their order, with whether each is on when nobody says. Upstream has NodeRestriction off; a cluster
/// whose nodes may change each other is none of ours.
const PLUGINS: [(&str, State); 41] = [
    ("AlwaysAdmit", State::Off),
    ("NamespaceAutoProvision", State::Off),
    ("NamespaceLifecycle", State::On),
    ("NamespaceExists", State::Off),
    ("LimitPodHardAntiAffinityTopology", State::Off),
    ("LimitRanger", State::On),
    ("ServiceAccount", State::On),
    ("NodeRestriction", State::On),
    ("TaintNodesByCondition", State::On),
    ("AlwaysPullImages", State::Off),
    ("ImagePolicyWebhook", State::Off),
    ("PodSecurity", State::On),
    ("PodNodeSelector", State::Off),
    ("Priority", State::On),
    ("DefaultTolerationSeconds", State::On),
    ("PodTolerationRestriction", State::Off),
    ("EventRateLimit", State::Off),
    ("ExtendedResourceToleration", State::Off),
    ("DefaultStorageClass", State::On),
    ("StorageObjectInUseProtection", State::On),
    ("PodGroupProtection", State::Idle),
    ("OwnerReferencesPermissionEnforcement", State::Off),
    ("PersistentVolumeClaimResize", State::On),
    ("RuntimeClass", State::On),
    ("CertificateApproval", State::On),
    ("CertificateSigning", State::On),
    ("ClusterTrustBundleAttest", State::Idle),
    ("CertificateSubjectRestriction", State::On),
    ("DefaultIngressClass", State::On),
    ("DenyServiceExternalIPs", State::Off),
    ("PodTopologyLabels", State::On),
    ("PodGroupWorkloadExists", State::Idle),
    ("NodeDeclaredFeatureValidator", State::On),
    ("JobValidation", State::Idle),
    ("PodResizeValidator", State::On),
    ("MutatingAdmissionPolicy", State::On),
    ("MutatingAdmissionWebhook", State::On),
    ("ValidatingAdmissionPolicy", State::On),
    ("ValidatingAdmissionWebhook", State::On),
    ("ResourceQuota", State::On),
    ("AlwaysDeny", State::Off),
];

/// The plug-ins that take a configuration here.
const CONFIGURABLE: [&str; 8] = [
    "EventRateLimit",
    "ImagePolicyWebhook",
    MUTATING_WEBHOOKS,
    "PodNodeSelector",
    "PodSecurity",
    "PodTolerationRestriction",
    "ResourceQuota",
    VALIDATING_WEBHOOKS,
];

const MUTATING_WEBHOOKS: &str = "MutatingAdmissionWebhook";
const VALIDATING_WEBHOOKS: &str = "ValidatingAdmissionWebhook";

/// What is with a plug-in when no flag names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    On,
    Off,
    /// May be enabled and disabled, and has nothing to do: what it would look at is not served, here or by upstream's defaults.
    Idle,
}

/// The plug-ins of a server.
#[derive(Clone, Debug)]
pub struct Selection {
    enabled: Vec<&'static str>,
    configurations: BTreeMap<String, Value>,
    image_policy: Option<ImagePolicyConfig>,
    mutating_webhooks: WebhookConfig,
    validating_webhooks: WebhookConfig,
}

impl Default for Selection {
    fn default() -> Selection {
        let on = PLUGINS.iter().filter(|(_, state)| *state == State::On);
        Selection {
            enabled: on.map(|(name, _)| *name).collect(),
            configurations: BTreeMap::new(),
            image_policy: None,
            mutating_webhooks: WebhookConfig::default(),
            validating_webhooks: WebhookConfig::default(),
        }
    }
}

// === impl Selection ===

impl Selection {
    /// Those that are on by default and those that are enabled, without those that are disabled; with what
    /// `AdmissionConfiguration` of `apiserver.config.k8s.io/v1` says.
    ///
    /// # Errors
    /// The flags or the file cannot be used, as upstream words it.
    pub fn new(
        enable: &[String],
        disable: &[String],
        file: Option<&Path>,
        read: &ReadFile,
    ) -> Result<Selection, Vec<String>> {
        let mut errors = Vec::new();
        let state = |name: &str| PLUGINS.iter().find(|(own, _)| *own == name).map(|(_, state)| *state);
        for (flag, names) in [("enable", enable), ("disable", disable)] {
            for name in names {
                if state(name).is_none() {
                    errors.push(format!("{flag}-admission-plugins plugin {name:?} is unknown"));
                }
            }
        }
        let both: Vec<&str> = enable
            .iter()
            .filter(|name| disable.contains(name))
            .map(String::as_str)
            .collect();
        if !both.is_empty() {
            let both = both.join(" ");
            errors.push(format!(
                "[{both}] in enable-admission-plugins and disable-admission-plugins overlapped"
            ));
        }
        let configurations = file.map_or(Ok(BTreeMap::new()), |file| configurations(file, read));
        let configurations = configurations.unwrap_or_else(|why| {
            errors.push(why);
            BTreeMap::new()
        });
        let runs = |name: &str, state: State| match state {
            State::On => !disable.iter().any(|other| other == name),
            State::Off => enable.iter().any(|other| other == name),
            State::Idle => false,
        };
        let enabled = PLUGINS
            .iter()
            .filter(|(name, state)| runs(name, *state))
            .map(|(name, _)| *name);
        let mut selection = Selection {
            enabled: enabled.collect(),
            configurations,
            image_policy: None,
            mutating_webhooks: WebhookConfig::default(),
            validating_webhooks: WebhookConfig::default(),
        };
        for name in [MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS] {
            match WebhookConfig::read(selection.configuration(name), read) {
                Ok(config) if name == MUTATING_WEBHOOKS => selection.mutating_webhooks = config,
                Ok(config) => selection.validating_webhooks = config,
                Err(why) => errors.push(failed(name, &why)),
            }
        }
        if selection.has("ImagePolicyWebhook") {
            match ImagePolicyConfig::read(selection.configuration("ImagePolicyWebhook"), read) {
                Ok(config) => selection.image_policy = Some(config),
                Err(why) => errors.push(failed("ImagePolicyWebhook", &why)),
            }
        }
        for (name, outcome) in [
            ("EventRateLimit", selection.event_rate_limit().map(drop)),
            (
                "PodTolerationRestriction",
                selection.pod_toleration_restriction().map(drop),
            ),
            ("PodSecurity", selection.pod_security().map(drop)),
            ("PodNodeSelector", selection.pod_node_selector().map(drop)),
            ("ResourceQuota", selection.resource_quota().map(drop)),
        ] {
            if let Err(why) = outcome {
                errors.push(failed(name, &why));
            }
        }
        if errors.is_empty() { Ok(selection) } else { Err(errors) }
    }

    /// Those that run, in their order.
    pub fn names(&self) -> &[&'static str] {
        &self.enabled
    }

    /// Whether a plug-in runs.
    pub(super) fn has(&self, name: &str) -> bool {
        self.enabled.contains(&name)
    }

    /// A plug-in's configuration; null without one.
    fn configuration(&self, name: &str) -> &Value {
        self.configurations.get(name).unwrap_or(&Value::Null)
    }

    /// What ImagePolicyWebhook is told, if it runs.
    pub(super) fn image_policy(&self) -> Option<&ImagePolicyConfig> {
        self.image_policy.as_ref()
    }

    /// How MutatingAdmissionWebhook reaches its webhooks.
    pub(super) fn mutating_webhooks(&self) -> WebhookConfig {
        self.mutating_webhooks.clone()
    }

    /// How ValidatingAdmissionWebhook does.
    pub(super) fn validating_webhooks(&self) -> WebhookConfig {
        self.validating_webhooks.clone()
    }

    /// PodSecurity, whether it runs or not.
    pub(super) fn pod_security(&self) -> Result<PodSecurity, String> {
        match self.configurations.get("PodSecurity") {
            Some(config) => PodSecurity::from_config(config),
            None => Ok(PodSecurity::default()),
        }
    }

    /// ResourceQuota, whether it runs or not.
    pub(super) fn resource_quota(&self) -> Result<ResourceQuota, String> {
        match self.configurations.get("ResourceQuota") {
            Some(config) => ResourceQuota::from_config(config),
            None => Ok(ResourceQuota::default()),
        }
    }

    /// PodNodeSelector, if it runs.
    pub(super) fn pod_node_selector(&self) -> Result<Option<PodNodeSelector>, String> {
        let wanted = self.has("PodNodeSelector");
        let made = wanted.then(|| PodNodeSelector::from_config(self.configuration("PodNodeSelector")));
        made.transpose()
    }

    /// EventRateLimit, if it runs: without a configuration it cannot.
    pub(super) fn event_rate_limit(&self) -> Result<Option<EventRateLimit>, String> {
        let config = self.configuration("EventRateLimit");
        let wanted = self.has("EventRateLimit");
        wanted.then(|| EventRateLimit::from_config(config)).transpose()
    }

    /// PodTolerationRestriction, if it runs.
    pub(super) fn pod_toleration_restriction(&self) -> Result<Option<PodTolerationRestriction>, String> {
        let wanted = self.has("PodTolerationRestriction");
        let made = wanted.then(|| match self.configurations.get("PodTolerationRestriction") {
            Some(config) => PodTolerationRestriction::from_config(config),
            None => Ok(PodTolerationRestriction::default()),
        });
        made.transpose()
    }
}

fn failed(name: &str, why: &str) -> String {
    format!("couldn't init admission plugin {name:?}: {why}")
}

/// Each plug-in's configuration: in the file itself, or in one that it names.
fn configurations(file: &Path, read: &ReadFile) -> Result<BTreeMap<String, Value>, String> {
    let cannot = |why: String| {
        format!(
            "unable to read admission control configuration from {:?} [{why}]",
            file.display()
        )
    };
    let parse = |path: &Path| -> Result<Value, String> {
        let bytes = read(path).map_err(|error| error.to_string())?;
        let decoded = yaml::decode(&Bytes::from(bytes), &Limits::default());
        Ok(decoded.map_err(|error| error.to_string())?.value)
    };
    let config = parse(file).map_err(cannot)?;
    let kind = (config["apiVersion"].as_str(), config["kind"].as_str());
    if kind != (Some("apiserver.config.k8s.io/v1"), Some("AdmissionConfiguration")) {
        return Err(cannot(
            "it must be AdmissionConfiguration of apiserver.config.k8s.io/v1".into(),
        ));
    }
    let mut all = BTreeMap::new();
    for plugin in config["plugins"].as_array().into_iter().flatten() {
        let name = plugin["name"].as_str().unwrap_or("");
        if !CONFIGURABLE.contains(&name) {
            return Err(cannot(format!("plugin {name:?} takes no configuration in this server")));
        }
        let value = match plugin["path"].as_str().filter(|path| !path.is_empty()) {
            Some(path) => {
                let path: PathBuf = file.parent().unwrap_or(Path::new("/")).join(path);
                parse(&path).map_err(cannot)?
            }
            None => plugin["configuration"].clone(),
        };
        all.insert(name.to_owned(), value);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    fn select(enable: &[&str], disable: &[&str], file: Option<&str>) -> Result<Selection, Vec<String>> {
        let content = file.unwrap_or("").to_owned();
        let read: ReadFile = Arc::new(move |path| match path.to_str() {
            Some("/admission") => Ok(content.clone().into_bytes()),
            Some("/limits") => Ok(LIMITS.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let path = file.map(|_| Path::new("/admission"));
        Selection::new(&owned(enable), &owned(disable), path, &read)
    }

    const LIMITS: &str = "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\n\
                          limits: [{type: Server, qps: 1, burst: 1}]";
    const KIND: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n";

    #[test]
    fn flags_add_and_take_away() {
        let usual = Selection::default();
        assert_eq!(select(&[], &[], None).unwrap().names(), usual.names());
        assert!(usual.has("PodSecurity") && usual.has("NodeRestriction") && !usual.has("AlwaysPullImages"));
        let changed = select(&["AlwaysPullImages", "PodSecurity"], &["LimitRanger"], None).unwrap();
        assert!(changed.has("AlwaysPullImages") && changed.has("PodSecurity") && !changed.has("LimitRanger"));
        // They are known, and have nothing to do.
        assert_eq!(
            select(&["ClusterTrustBundleAttest"], &["JobValidation"], None)
                .unwrap()
                .names(),
            usual.names()
        );
        let file = format!("{KIND}plugins: [{{name: EventRateLimit, path: limits}}]");
        assert!(
            select(&["EventRateLimit"], &[], Some(&file))
                .unwrap()
                .event_rate_limit()
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn what_cannot_be_is_told() {
        let file = format!("{KIND}plugins: [{{name: Priority}}]");
        for (enable, disable, file, expect) in [
            (
                &["X"][..],
                &["Y"][..],
                None,
                vec![
                    "enable-admission-plugins plugin \"X\" is unknown",
                    "disable-admission-plugins plugin \"Y\" is unknown",
                ],
            ),
            (
                &["Priority"],
                &["Priority"],
                None,
                vec!["[Priority] in enable-admission-plugins and disable-admission-plugins overlapped"],
            ),
            (
                &["EventRateLimit"],
                &[],
                None,
                vec![
                    "couldn't init admission plugin \"EventRateLimit\": it must be Configuration of \
                 eventratelimit.admission.k8s.io/v1alpha1",
                ],
            ),
            (
                &[],
                &[],
                Some(&*file),
                vec![
                    "unable to read admission control configuration from \"/admission\" [plugin \"Priority\" takes no \
                 configuration in this server]",
                ],
            ),
        ] {
            assert_eq!(select(enable, disable, file).unwrap_err(), expect);
        }
    }
}
