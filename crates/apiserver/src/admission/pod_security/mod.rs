//! PodSecurity: a namespace's labels say which pods it takes (the Pod Security Standards), and in which words others are
//! refused, warned about or noted.
//!
//! Without labels everything is taken. Only pods are refused; whoever makes a Deployment that will make refused pods is
//! warned. Source: `k8s.io/pod-security-admission` (`admission/admission.go`, `api/helpers.go`).

mod checks;
mod config;
mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{GroupKind, GroupResource, Status, Value, meta};
use futures::future::BoxFuture;

use crate::cluster::Object;
use crate::pipeline::{Operation, Plugin, Review, Step};
use checks::{Violation, violations};
use config::Exemptions;
use policy::{Level, Policy, Rule};

/// How many pods are looked at when a namespace becomes stricter (upstream: `defaultNamespaceMaxPodsToCheck`).
const NAMESPACE_PODS_MAX: usize = 3000;

/// What the audit annotations begin with.
const AUDIT_PREFIX: &str = "pod-security.kubernetes.io/";

/// What never touches what a pod may do.
const IGNORED_SUBRESOURCES: [&str; 8] = [
    "exec",
    "attach",
    "binding",
    "eviction",
    "log",
    "portforward",
    "proxy",
    "status",
];

/// The kinds that make pods, and where their template stands.
const CONTROLLERS: [(&str, &str, &str); 8] = [
    ("", "podtemplates", "/template"),
    ("", "replicationcontrollers", "/spec/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("batch", "jobs", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
];

/// The plug-in.
#[derive(Default)]
pub struct PodSecurity {
    /// What holds where labels say nothing.
    defaults: Policy,
    exempt: Exemptions,
}

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Validate
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let verdict = object.map_or(Ok(()), |object| self.check(review, object, old));
        Box::pin(std::future::ready(verdict))
    }
}

impl PodSecurity {
    /// The plug-in as its configuration has it.
    ///
    /// # Errors
    /// What of it is wrong.
    pub fn from_config(config: &Value) -> Result<PodSecurity, String> {
        let (defaults, exempt) = config::read(config)?;
        Ok(PodSecurity { defaults, exempt })
    }

    fn check(&self, review: &Review, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        let (group, resource) = (&*review.resource.group, &*review.resource.resource);
        match (group, resource, &*review.subresource) {
            ("", "namespaces", "") => self.namespace(review, object, old),
            ("", "pods", subresource) if !IGNORED_SUBRESOURCES.contains(&subresource) => self.pod(review, object, old),
            (_, _, "") => {
                self.controller(review, object);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The policy of the namespace of the request, as its labels are now. A namespace that is not there has no pods either.
    fn policy_of(&self, review: &Review) -> Policy {
        let namespaces = GroupResource {
            group: String::new(),
            resource: "namespaces".into(),
        };
        let namespace = review.cluster.get(&namespaces, "", &review.namespace);
        namespace.map_or(self.defaults, |namespace| {
            let (policy, errors) = policy::of(&self.defaults, |label| namespace.label(label));
            if !errors.is_empty() {
                review.metrics.pod_security.unreadable(review);
            }
            policy
        })
    }

    /// Whether nothing holds for the request; the audit log is told.
    fn exempts(&self, review: &Review) -> bool {
        let why = if self.exempt.namespaces.contains(&review.namespace) {
            "namespace"
        } else if self.exempt.usernames.contains(&review.user.name) {
            "user"
        } else {
            return false;
        };
        review.annotate(format!("{AUDIT_PREFIX}exempt"), why);
        review.metrics.pod_security.exempted(review);
        true
    }

    fn exempts_class(&self, spec: &Value) -> bool {
        let class = spec["runtimeClassName"].as_str();
        class.is_some_and(|class| self.exempt.runtime_classes.iter().any(|own| own == class))
    }

    /// The same for what a pod runs in.
    fn exempts_pod(&self, review: &Review, spec: &Value) -> bool {
        let exempts = self.exempts_class(spec);
        if exempts {
            review.annotate(format!("{AUDIT_PREFIX}exempt"), "runtimeClass");
            review.metrics.pod_security.exempted(review);
        }
        exempts
    }

    fn pod(&self, review: &Review, pod: &Value, old: Option<&Value>) -> Result<(), Status> {
        if self.exempts(review) {
            return Ok(());
        }
        let policy = self.policy_of(review);
        let told = &review.metrics.pod_security;
        if policy.takes_everything() {
            review.annotate(format!("{AUDIT_PREFIX}enforce-policy"), policy.enforce.to_string());
            told.evaluated(review, "enforce", policy.enforce.told(), true);
            return Ok(());
        }
        if old.is_some_and(|old| !changes_images(pod, old)) || self.exempts_pod(review, &pod["spec"]) {
            return Ok(());
        }
        review.annotate(format!("{AUDIT_PREFIX}enforce-policy"), policy.enforce.to_string());
        note(review, policy.audit, &pod["metadata"], &pod["spec"]);
        let broken = violations(policy.enforce, &pod["metadata"], &pod["spec"]);
        told.evaluated(review, "enforce", policy.enforce.told(), broken.is_empty());
        if !broken.is_empty() {
            let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&broken));
            return Err(review.forbidden(&why));
        }
        warn(review, policy.warn, &pod["metadata"], &pod["spec"]);
        Ok(())
    }

    fn controller(&self, review: &Review, object: &Value) {
        let (group, resource) = (&*review.resource.group, &*review.resource.resource);
        let found = CONTROLLERS
            .iter()
            .find(|(own, plural, _)| (*own, *plural) == (group, resource));
        let template = found.and_then(|(_, _, path)| object.pointer(path));
        let Some(template) = template.filter(|template| template.is_object() && !self.exempts(review)) else {
            return;
        };
        let policy = self.policy_of(review);
        if policy.takes_everything() || self.exempts_pod(review, &template["spec"]) {
            return;
        }
        note(review, policy.audit, &template["metadata"], &template["spec"]);
        warn(review, policy.warn, &template["metadata"], &template["spec"]);
    }

    /// A namespace's labels have to be readable; a stricter one tells of the pods that it would not take any more.
    fn namespace(&self, review: &Review, namespace: &Value, old: Option<&Value>) -> Result<(), Status> {
        let (policy, errors) = policy::of(&self.defaults, |label| meta::label(namespace, label));
        let before = old.map(|old| policy::of(&self.defaults, |label| meta::label(old, label)));
        let known = before.as_ref().is_some_and(|(_, old_errors)| *old_errors == errors);
        if !errors.is_empty() && !known {
            let kind = GroupKind {
                group: String::new(),
                kind: "Namespace".into(),
            };
            return Err(Status::invalid(&kind, meta::name(namespace), &errors));
        }
        let name = meta::name(namespace);
        let is_exempt = self.exempt.namespaces.iter().any(|own| own == name);
        let relaxed = before.is_some_and(|(before, _)| {
            let (new, old) = (policy.enforce, before.enforce);
            new == old || new.level == Level::Privileged || (new.version == old.version && new.level <= old.level)
        });
        if is_exempt && !relaxed {
            if let Some(ignored) = self.ignored(namespace, &policy) {
                let name = api::field::quote(name);
                review.warn(format!(
                    "namespace {name} is exempt from Pod Security, and the policy ({ignored}) will be ignored"
                ));
            }
        } else if old.is_some() && !relaxed {
            for warning in self.existing(review, name, policy.enforce) {
                review.warn(warning);
            }
        }
        Ok(())
    }

    /// What an exempt namespace's labels ask for in vain.
    fn ignored(&self, namespace: &Value, policy: &Policy) -> Option<String> {
        if policy.takes_everything() || *policy == self.defaults {
            return None;
        }
        let has = |label: &str| meta::label(namespace, &format!("{AUDIT_PREFIX}{label}")).is_some();
        let modes = [
            ("enforce", policy.enforce),
            ("audit", policy.audit),
            ("warn", policy.warn),
        ];
        let asked = modes
            .iter()
            .filter(|(mode, rule)| rule.level != Level::Privileged && (has(mode) || has(&format!("{mode}-version"))));
        let asked: Vec<String> = asked.map(|(mode, rule)| format!("{mode}={rule}")).collect();
        (!asked.is_empty()).then(|| asked.join(", "))
    }

    fn existing(&self, review: &Review, namespace: &str, rule: Rule) -> Vec<String> {
        let pods = GroupResource {
            group: String::new(),
            resource: "pods".into(),
        };
        let pods: Vec<Arc<Object>> = review.cluster.list(&pods, Some(namespace));
        let mut warnings = Vec::new();
        if pods.len() > NAMESPACE_PODS_MAX {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {NAMESPACE_PODS_MAX} of {} existing pods",
                pods.len()
            ));
        }
        // For each combination of reasons: the first pod by name, and how many there are.
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for pod in pods.iter().take(NAMESPACE_PODS_MAX) {
            let value = pod.value();
            if self.exempts_class(&value["spec"]) {
                continue;
            }
            let broken = violations(rule, &value["metadata"], &value["spec"]);
            if !broken.is_empty() {
                let reasons: Vec<&str> = broken.iter().map(|violation| &*violation.reason).collect();
                let entry = found.entry(reasons.join(", ")).or_insert((pod.name().to_owned(), 0));
                entry.1 += 1;
            }
        }
        if !found.is_empty() {
            warnings.push(format!(
                "existing pods in namespace {} violate the new PodSecurity enforce level \"{rule}\"",
                api::field::quote(namespace)
            ));
        }
        let mut pods: Vec<String> = found
            .into_iter()
            .map(|(reasons, (name, count))| match count {
                1 => format!("{name}: {reasons}"),
                2 => format!("{name} (and 1 other pod): {reasons}"),
                _ => format!("{name} (and {} other pods): {reasons}", count - 1),
            })
            .collect();
        pods.sort();
        warnings.extend(pods);
        warnings
    }
}

/// Tells the audit log of what the audited level does not take.
fn note(review: &Review, rule: Rule, metadata: &Value, spec: &Value) {
    let broken = violations(rule, metadata, spec);
    if !broken.is_empty() {
        let what = format!("would violate PodSecurity \"{rule}\": {}", details(&broken));
        review.annotate(format!("{AUDIT_PREFIX}audit-violations"), what);
        review
            .metrics
            .pod_security
            .evaluated(review, "audit", rule.told(), false);
    }
}

fn warn(review: &Review, rule: Rule, metadata: &Value, spec: &Value) {
    let broken = violations(rule, metadata, spec);
    if !broken.is_empty() {
        review.warn(format!("would violate PodSecurity \"{rule}\": {}", details(&broken)));
        review
            .metrics
            .pod_security
            .evaluated(review, "warn", rule.told(), false);
    }
}

/// Whether containers come, or change what they run; nothing else that matters here can change.
fn changes_images(pod: &Value, old: &Value) -> bool {
    let list = |pod: &Value, field: &str| -> BTreeMap<String, String> {
        let containers = pod["spec"][field].as_array().into_iter().flatten();
        let text = |container: &Value, field: &str| container[field].as_str().unwrap_or("").to_owned();
        containers
            .map(|container| (text(container, "name"), text(container, "image")))
            .collect()
    };
    ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .any(|field| list(pod, field) != list(old, field))
}

fn details(broken: &[Violation]) -> String {
    let texts: Vec<String> = broken
        .iter()
        .map(|violation| format!("{} ({})", violation.reason, violation.detail))
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::World;
    use super::*;

    fn world(labels: &Value) -> World {
        World::new(&[("namespaces", json!({"metadata": {"name": "n", "labels": labels}}))])
    }

    /// Refusals and warnings of one write.
    fn ask(world: &World, resource: (&str, &str, &str), object: &Value, old: Option<&Value>) -> Vec<String> {
        let operation = if old.is_some() {
            Operation::Update
        } else {
            Operation::Create
        };
        let (group, plural, subresource) = resource;
        let review = world.review(operation, group, plural, subresource, "n", "a");
        let refused = PodSecurity::default()
            .check(&review, object, old)
            .err()
            .map(|status| status.message);
        let warnings = std::mem::take(&mut *review.warnings.lock());
        refused.into_iter().chain(warnings).collect()
    }

    fn privileged() -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"containers":
            [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]}})
    }

    const PODS: (&str, &str, &str) = ("", "pods", "");
    const WHY: &str = "privileged (container \"c\" must not set securityContext.privileged=true)";

    #[test]
    fn pods_are_refused_or_warned_about() {
        let enforce = "pod-security.kubernetes.io/enforce";
        let warn = "pod-security.kubernetes.io/warn";
        let violates = format!("pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": {WHY}");
        let would = format!("would violate PodSecurity \"baseline:v1.30\": {WHY}");
        let versioned = json!({warn: "baseline", "pod-security.kubernetes.io/warn-version": "v1.30"});
        for (labels, expect) in [
            (json!({}), vec![]),
            (json!({enforce: "privileged"}), vec![]),
            (json!({enforce: "baseline"}), vec![violates.clone()]),
            (versioned, vec![would]),
        ] {
            assert_eq!(ask(&world(&labels), PODS, &privileged(), None), expect, "{labels}");
        }
        let world = world(&json!({enforce: "baseline"}));
        // Only a change of what runs is looked at, in the main resource and where containers are added.
        let mut other = privileged();
        other["metadata"]["labels"] = json!({"x": "y"});
        assert!(ask(&world, PODS, &other, Some(&privileged())).is_empty());
        other["spec"]["containers"][0]["image"] = "j".into();
        assert_eq!(ask(&world, PODS, &other, Some(&privileged())), [violates]);
        assert!(ask(&world, ("", "pods", "status"), &other, Some(&privileged())).is_empty());
        let mut debugged = privileged();
        debugged["spec"]["containers"][0]["securityContext"] = json!({});
        let plain = debugged.clone();
        debugged["spec"]["ephemeralContainers"] = json!([{"name": "d", "securityContext": {"privileged": true}}]);
        assert_eq!(
            ask(&world, ("", "pods", "ephemeralcontainers"), &debugged, Some(&plain)).len(),
            1
        );
        // Whoever makes such pods is warned: the enforced level is the least that is warned about.
        let would = format!("would violate PodSecurity \"baseline:latest\": {WHY}");
        let deployment = json!({"spec": {"template": privileged()}});
        assert_eq!(
            ask(&world, ("apps", "deployments", ""), &deployment, None),
            std::slice::from_ref(&would)
        );
        let job = json!({"spec": {"jobTemplate": {"spec": {"template": privileged()}}}});
        assert_eq!(ask(&world, ("batch", "cronjobs", ""), &job, None), [would]);
        assert!(ask(&world, ("", "configmaps", ""), &deployment, None).is_empty());
    }

    #[test]
    fn the_audit_log_is_told() {
        let of = |labels: Value| {
            let review = world(&labels).review(Operation::Create, "", "pods", "", "n", "a");
            // What is refused is told, too.
            let _ = PodSecurity::default().check(&review, &privileged(), None);
            crate::admission::testing::told(&review)
        };
        let policy = |rule: &str| ("pod-security.kubernetes.io/enforce-policy".to_owned(), rule.to_owned());
        let violations = format!("would violate PodSecurity \"baseline:latest\": {WHY}");
        let violations = ("pod-security.kubernetes.io/audit-violations".to_owned(), violations);
        let (enforce, audit) = ("pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/audit");
        assert_eq!(of(json!({})), [policy("privileged:latest")]);
        assert_eq!(of(json!({enforce: "baseline"})), [policy("baseline:latest")]);
        assert_eq!(
            of(json!({audit: "baseline"})),
            [policy("privileged:latest"), violations]
        );
    }

    #[test]
    fn what_labels_say_in_vain_is_counted() {
        for (level, count) in [("baseline", 0), ("none", 1)] {
            let review = world(&json!({"pod-security.kubernetes.io/enforce": level})).review(
                Operation::Create,
                "",
                "pods",
                "",
                "n",
                "a",
            );
            let object = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
            let _ = PodSecurity::default().check(&review, &object, None);
            assert_eq!(review.metrics.pod_security.unreadable_count(), count, "{level}");
        }
    }

    #[test]
    fn namespaces_have_readable_labels_and_tell_of_their_pods() {
        let label =
            |level: &str| json!({"metadata": {"name": "n", "labels": {"pod-security.kubernetes.io/enforce": level}}});
        let world = world(&json!({}));
        let namespaces = ("", "namespaces", "");
        let invalid = "Namespace \"n\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"none\": must be one of privileged, baseline, restricted";
        assert_eq!(ask(&world, namespaces, &label("none"), None), [invalid]);
        assert!(ask(&world, namespaces, &label("none"), Some(&label("none"))).is_empty());
        for name in ["b", "c", "a"] {
            let mut pod = privileged();
            pod["metadata"] = json!({"name": name, "namespace": "n"});
            world.put("pods", pod);
        }
        let warnings = ask(&world, namespaces, &label("baseline"), Some(&label("privileged")));
        assert_eq!(
            warnings,
            [
                "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
                "b (and 2 other pods): privileged",
            ]
        );
        assert!(ask(&world, namespaces, &label("baseline"), Some(&label("restricted"))).is_empty());
    }

    #[test]
    fn a_configuration_says_what_holds_without_labels_and_for_whom_nothing_does() {
        let plugin = PodSecurity {
            defaults: Policy {
                enforce: Rule {
                    level: Level::Baseline,
                    ..Rule::EVERYTHING
                },
                ..Policy::default()
            },
            exempt: Exemptions {
                usernames: vec!["root".into()],
                namespaces: vec!["m".into()],
                runtime_classes: vec!["kata".into()],
            },
        };
        let world = world(&json!({}));
        let ask = |namespace: &str, user: &str, class: Option<&str>| {
            let mut review = world.review(Operation::Create, "", "pods", "", namespace, "a");
            review.user = Arc::new(crate::request::UserInfo::new::<String>(user, []));
            let mut pod = privileged();
            pod["spec"]["runtimeClassName"] = json!(class);
            let verdict = plugin.check(&review, &pod, None);
            (verdict.is_ok(), crate::admission::testing::told(&review))
        };
        let exempt = |why: &str| vec![("pod-security.kubernetes.io/exempt".to_owned(), why.to_owned())];
        let policy = (
            "pod-security.kubernetes.io/enforce-policy".to_owned(),
            "baseline:latest".to_owned(),
        );
        for (namespace, user, class, expect) in [
            ("n", "jane", None, (false, vec![policy.clone()])),
            ("n", "jane", Some("runc"), (false, vec![policy])),
            ("n", "jane", Some("kata"), (true, exempt("runtimeClass"))),
            ("n", "root", None, (true, exempt("user"))),
            ("m", "jane", None, (true, exempt("namespace"))),
        ] {
            assert_eq!(ask(namespace, user, class), expect, "{namespace} {user} {class:?}");
        }
        let named = |name: &str| {
            let review = world.review(Operation::Create, "", "namespaces", "", name, name);
            let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
            plugin
                .check(&review, &json!({"metadata": {"name": name, "labels": labels}}), None)
                .unwrap();
            review.warnings.into_inner()
        };
        let ignored =
            "namespace \"m\" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored";
        assert_eq!(named("m"), [ignored]);
        assert!(named("n").is_empty());
    }
}
