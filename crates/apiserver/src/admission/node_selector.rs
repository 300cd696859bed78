//! PodNodeSelector: a namespace's annotation says on which nodes its pods run, and a configuration which labels they may ask
//! for.
//!
//! Source: `plugin/pkg/admission/podnodeselector/admission.go`.

use std::collections::BTreeMap;

use api::{GroupResource, Status, Value, validation};
use futures::future::BoxFuture;
use serde_json::json;

use crate::pipeline::{Operation, Plugin, Review};

/// The annotation of namespaces.
const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// What a configuration calls the selector of namespaces without the annotation.
const DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// The plug-in.
#[derive(Debug, Default)]
pub struct PodNodeSelector {
    /// What pods of a namespace may ask for; of none, anything.
    allowed: BTreeMap<String, Labels>,
    /// What pods of namespaces get that say nothing.
    default: Labels,
}

// === impl PodNodeSelector ===

impl PodNodeSelector {
    /// The plug-in as its configuration has it.
    ///
    /// # Errors
    /// A selector that is none.
    pub fn from_config(config: &Value) -> Result<PodNodeSelector, String> {
        let mut plugin = PodNodeSelector::default();
        let own = &config["podNodeSelectorPluginConfig"];
        for (name, selector) in own.as_object().into_iter().flatten() {
            // Upstream's decoder takes texts only, and so nothing is understood as less than was meant.
            let selector = selector
                .as_str()
                .ok_or_else(|| format!("invalid selector of {name}: it is no text"))?;
            let labels = labels(selector)?;
            if name == DEFAULT {
                plugin.default = labels;
            } else {
                plugin.allowed.insert(name.clone(), labels);
            }
        }
        Ok(plugin)
    }

    /// What the namespace asks for.
    fn of_namespace(&self, review: &Review) -> Result<Labels, Status> {
        let namespaces = GroupResource {
            group: String::new(),
            resource: "namespaces".into(),
        };
        let namespace = review.cluster.get(&namespaces, "", &review.namespace);
        let namespace = namespace.ok_or_else(|| Status::not_found(&namespaces, &review.namespace))?;
        match namespace.value()["metadata"]["annotations"][ANNOTATION].as_str() {
            Some(text) => labels(text).map_err(Status::internal),
            None => Ok(self.default.clone()),
        }
    }
}

/// `a=b,c=d`: labels and not requirements. Source: `ConvertSelectorToLabelsMap` of `k8s.io/apimachinery/pkg/labels`.
fn labels(text: &str) -> Result<Labels, String> {
    let mut labels = Labels::new();
    for pair in text.split(',').filter(|_| !text.is_empty()) {
        let parts: Vec<&str> = pair.split('=').collect();
        let [key, value] = parts[..] else {
            return Err(format!("invalid selector: {}", parts.join(" ")));
        };
        let (key, value) = (key.trim(), value.trim());
        let broken: Vec<String> = [validation::qualified_name(key), validation::label_value(value)].concat();
        if !broken.is_empty() {
            return Err(format!("invalid selector: {pair}: {}", broken.join("; ")));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn selector_of(pod: &Value) -> Labels {
    let selector = pod["spec"]["nodeSelector"].as_object().into_iter().flatten();
    let texts = selector.map(|(key, value)| (key.clone(), value.as_str().unwrap_or("").to_owned()));
    texts.collect()
}

fn conflict(a: &Labels, b: &Labels) -> bool {
    a.iter()
        .any(|(key, value)| b.get(key).is_some_and(|other| other != value))
}

impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
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
        let mut admit = || {
            let Some(pod) = object.as_mut().filter(|_| review.is_about("", "pods", "")) else {
                return Ok(());
            };
            let (wanted, mut own) = (self.of_namespace(review)?, selector_of(pod));
            if conflict(&wanted, &own) {
                let why = "pod node label selector conflicts with its namespace node label selector";
                return Err(review.forbidden(why));
            }
            own.extend(wanted);
            if !own.is_empty() {
                pod["spec"]["nodeSelector"] = json!(own);
            }
            Ok(())
        };
        Box::pin(std::future::ready(admit()))
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let validate = || {
            let Some(pod) = object.filter(|_| review.is_about("", "pods", "")) else {
                return Ok(());
            };
            let own = selector_of(pod);
            if conflict(&self.of_namespace(review)?, &own) {
                let why = "pod node label selector conflicts with its namespace node label selector";
                return Err(review.forbidden(why));
            }
            let allowed = self
                .allowed
                .get(&review.namespace)
                .filter(|allowed| !allowed.is_empty());
            match allowed.is_none_or(|allowed| own.iter().all(|(key, value)| allowed.get(key) == Some(value))) {
                true => Ok(()),
                false => {
                    let why = "pod node label selector labels conflict with its namespace whitelist";
                    Err(review.forbidden(why))
                }
            }
        };
        Box::pin(std::future::ready(validate()))
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::super::testing::World;
    use super::*;

    fn run(config: Value, annotation: Option<&str>, selector: Value) -> Result<Value, String> {
        let plugin = PodNodeSelector::from_config(&json!({"podNodeSelectorPluginConfig": config})).unwrap();
        let annotations = annotation.map_or(json!({}), |text| json!({ANNOTATION: text}));
        let world = World::new(&[(
            "namespaces",
            json!({"metadata": {"name": "n", "annotations": annotations}}),
        )]);
        let review = world.review(Operation::Create, "", "pods", "", "n", "a");
        let mut pod = Some(json!({"spec": {"nodeSelector": selector}}));
        let told = |status: Status| status.message;
        block_on(plugin.admit(&review, &mut pod, None)).map_err(told)?;
        block_on(plugin.validate(&review, pod.as_ref(), None)).map_err(told)?;
        Ok(pod.unwrap()["spec"]["nodeSelector"].take())
    }

    #[test]
    fn pods_run_where_their_namespace_says() {
        let conflicts =
            "pods \"a\" is forbidden: pod node label selector conflicts with its namespace node label selector";
        let outside = "pods \"a\" is forbidden: pod node label selector labels conflict with its namespace whitelist";
        for (config, annotation, selector, expect) in [
            (json!({}), None, json!({"a": "b"}), Ok(json!({"a": "b"}))),
            (
                json!({}),
                Some("env=dev, x=y"),
                json!({"a": "b"}),
                Ok(json!({"a": "b", "env": "dev", "x": "y"})),
            ),
            (json!({}), Some("env=dev"), json!({"env": "prod"}), Err(conflicts)),
            (json!({DEFAULT: "env=dev"}), None, json!({}), Ok(json!({"env": "dev"}))),
            (
                json!({DEFAULT: "env=dev"}),
                Some(""),
                json!({"z": "1"}),
                Ok(json!({"z": "1"})),
            ),
            (json!({"n": "a=b"}), None, json!({"a": "b"}), Ok(json!({"a": "b"}))),
            (json!({"n": "a=b"}), None, json!({"a": "c"}), Err(outside)),
            (json!({"n": "a=b"}), Some("env=dev"), json!({}), Err(outside)),
            (json!({"m": "a=b"}), None, json!({"a": "c"}), Ok(json!({"a": "c"}))),
        ] {
            let told = format!("{config} {annotation:?} {selector}");
            assert_eq!(
                run(config, annotation, selector),
                expect.map_err(str::to_owned),
                "{told}"
            );
        }
        for selector in [
            json!("a"),
            json!("a=b=c"),
            json!("a in (b)"),
            json!("=b"),
            json!("a=*"),
            json!({"a": "b"}),
        ] {
            let config = json!({"podNodeSelectorPluginConfig": {"n": selector}});
            let why = PodNodeSelector::from_config(&config).unwrap_err();
            assert!(why.starts_with("invalid selector"), "{why}");
        }
    }
}
