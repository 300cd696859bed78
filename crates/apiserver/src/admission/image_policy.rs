//! ImagePolicyWebhook: a service of others says of each pod whether its images may run, and is believed for a while.
//!
//! Source: `plugin/pkg/admission/imagepolicy` (`admission.go`, `config.go`).

use std::path::Path;
use std::time::Duration;

use api::{Map, Status, Value};
use base::Random;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::hook::{Hook, RETRY_PAUSE, ReadFile, Remembered, TIMEOUT, Target};
use crate::pipeline::{Operation, Plugin, Review, Step};

/// Upstream's defaults, and between which values others may be.
const ALLOW_TTL: Duration = Duration::from_secs(5 * 60);
const DENY_TTL: Duration = Duration::from_secs(30);
const TTL_RANGE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30 * 60)];
const BACKOFF_RANGE: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(5 * 60)];
/// A number that stands for none.
const NONE: i64 = -1;
/// What the audit annotations begin with.
const AUDIT_PREFIX: &str = "imagepolicywebhook.image-policy.k8s.io/";
/// What annotations of pods the service is told contain.
const TOLD: &str = ".image-policy.k8s.io/";

/// What a configuration says.
#[derive(Clone, Debug)]
pub struct ImagePolicyConfig {
    target: Target,
    allow_ttl: Duration,
    deny_ttl: Duration,
    retry_pause: Duration,
    allows_by_default: bool,
}

/// The plug-in.
pub struct ImagePolicyWebhook {
    hook: Hook,
    config: ImagePolicyConfig,
    /// By the digest of the question: who asks chooses its length.
    known: Mutex<Remembered<[u8; 32], Value>>,
}

// === impl ImagePolicyConfig ===

impl ImagePolicyConfig {
    /// Reads the configuration and the file that it names.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn read(config: &Value, read: &ReadFile) -> Result<ImagePolicyConfig, String> {
        let config = &config["imagePolicy"];
        if !config.is_object() {
            return Err("no config specified".into());
        }
        let file = config["kubeConfigFile"].as_str().unwrap_or("");
        let second = Duration::from_secs(1);
        let read = ImagePolicyConfig {
            target: Target::from_kubeconfig(Path::new(file), read)?,
            allow_ttl: time("allowTTL", &config["allowTTL"], second, TTL_RANGE, ALLOW_TTL)?,
            deny_ttl: time("denyTTL", &config["denyTTL"], second, TTL_RANGE, DENY_TTL)?,
            retry_pause: time(
                "retryBackoff",
                &config["retryBackoff"],
                Duration::from_millis(1),
                BACKOFF_RANGE,
                RETRY_PAUSE,
            )?,
            allows_by_default: config["defaultAllow"] == true,
        };
        // Whether its certificates can be used.
        ImagePolicyWebhook::new(read.clone(), Random::seeded(0))?;
        Ok(read)
    }
}

fn time(
    field: &str,
    value: &Value,
    unit: Duration,
    range: [Duration; 2],
    default: Duration,
) -> Result<Duration, String> {
    let [least, most] = range;
    let text = api::duration::text;
    let count = match value.as_i64() {
        None if !value.is_null() => return Err(format!("{field}: {value} is no whole number")),
        None | Some(0) => return Ok(default),
        Some(NONE) => return Ok(Duration::ZERO),
        Some(count) => count,
    };
    let time = u32::try_from(count).ok().and_then(|count| unit.checked_mul(count));
    let fitting = time.filter(|time| (least..=most).contains(time));
    fitting.ok_or_else(|| {
        format!(
            "{field}: valid value is between {} and {}, got {count}",
            text(least),
            text(most)
        )
    })
}

// === impl ImagePolicyWebhook ===

impl ImagePolicyWebhook {
    /// A plug-in that asks that service.
    ///
    /// # Errors
    /// Its certificates cannot be used.
    pub fn new(config: ImagePolicyConfig, random: Random) -> Result<ImagePolicyWebhook, String> {
        Ok(ImagePolicyWebhook {
            hook: Hook::new(config.target.clone(), TIMEOUT, config.retry_pause, random)?,
            config,
            known: Mutex::default(),
        })
    }

    async fn check(&self, review: &Review, pod: &Value, fields: &[&str]) -> Result<(), Status> {
        let spec = asked(review, pod, fields);
        let question: [u8; 32] = Sha256::digest(spec.to_string()).into();
        let known = self.known.lock().get(&question).cloned();
        let said = match known {
            Some(said) => said,
            None => match self.ask(spec).await {
                Ok(said) => {
                    let ttl = match said["allowed"] == true {
                        true => self.config.allow_ttl,
                        false => self.config.deny_ttl,
                    };
                    if !ttl.is_zero() {
                        self.known.lock().put(question, said.clone(), ttl);
                    }
                    said
                }
                Err(error) if self.config.allows_by_default => {
                    tracing::warn!(
                        error,
                        "a pod is taken in spite of a failure of the image policy webhook"
                    );
                    review.annotate(format!("{AUDIT_PREFIX}failed-open"), "true");
                    return Ok(());
                }
                Err(error) => return Err(review.forbidden(&error)),
            },
        };
        for (key, value) in said["auditAnnotations"].as_object().into_iter().flatten() {
            review.annotate(format!("{AUDIT_PREFIX}{key}"), value.as_str().unwrap_or(""));
        }
        match (said["allowed"] == true, said["reason"].as_str().unwrap_or("")) {
            (true, _) => Ok(()),
            (false, "") => Err(review.forbidden("one or more images rejected by webhook backend")),
            (false, reason) => Err(review.forbidden(&format!(
                "image policy webhook backend denied one or more images: {reason}"
            ))),
        }
    }

    async fn ask(&self, spec: Value) -> Result<Value, String> {
        let question = json!({"kind": "ImageReview", "apiVersion": "imagepolicy.k8s.io/v1alpha1", "metadata": {},
            "spec": spec, "status": {"allowed": false}});
        let mut answer = self.hook.ask(&question).await.map_err(|error| error.to_string())?;
        match answer["kind"].as_str() {
            None | Some("ImageReview") => Ok(answer["status"].take()),
            Some(other) => Err(format!(
                "the answer is of kind {}, not ImageReview",
                api::field::quote(other)
            )),
        }
    }
}

/// Containers may be added to a running pod: they are asked about where they are added.
fn fields_of(subresource: &str) -> Option<&'static [&'static str]> {
    match subresource {
        "" => Some(&["containers", "initContainers"]),
        "ephemeralcontainers" => Some(&["ephemeralContainers"]),
        _ => None,
    }
}

fn asked(review: &Review, pod: &Value, fields: &[&str]) -> Value {
    let containers = fields
        .iter()
        .flat_map(|field| pod["spec"][*field].as_array().into_iter().flatten());
    let containers: Vec<Value> = containers
        .map(|container| json!({"image": container["image"]}))
        .collect();
    let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    let annotations: Map = annotations
        .filter(|(key, _)| key.contains(TOLD))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut spec = json!({"containers": containers, "namespace": review.namespace});
    if !annotations.is_empty() {
        spec["annotations"] = Value::Object(annotations);
    }
    spec
}

impl Plugin for ImagePolicyWebhook {
    fn name(&self) -> &'static str {
        "ImagePolicyWebhook"
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
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let fields = fields_of(&review.subresource).filter(|_| review.is_about("", "pods", &review.subresource));
        let pod = object.zip(fields);
        Box::pin(async move {
            match pod {
                Some((pod, fields)) => self.check(review, pod, fields).await,
                None => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use crate::hook::testing::Service;

    fn plugin(service: &Service, allows_by_default: bool) -> ImagePolicyWebhook {
        let config = ImagePolicyConfig {
            target: service.target(),
            allow_ttl: ALLOW_TTL,
            deny_ttl: DENY_TTL,
            retry_pause: Duration::from_millis(1),
            allows_by_default,
        };
        ImagePolicyWebhook::new(config, Random::seeded(1)).unwrap()
    }

    fn pod(image: &str) -> Value {
        json!({"metadata": {"annotations": {"a.image-policy.k8s.io/x": "1", "other": "2"}},
            "spec": {"containers": [{"image": image}], "initContainers": [{"image": "init"}],
                "ephemeralContainers": [{"image": "debug"}]}})
    }

    async fn ask(plugin: &ImagePolicyWebhook, image: &str) -> (Result<(), String>, Vec<(String, String)>) {
        let review = World::default().review(Operation::Create, "", "pods", "", "n", "a");
        let pod = pod(image);
        let verdict = plugin.validate(&review, Some(&pod), None).await;
        (
            verdict.map_err(|status| status.message),
            crate::admission::testing::told(&review),
        )
    }

    #[tokio::test]
    async fn the_service_decides_and_is_remembered() {
        let service = Service::start(|_, review| {
            let status = match review["spec"]["containers"][0]["image"].as_str() {
                Some("good") => json!({"allowed": true, "auditAnnotations": {"k": "v"}}),
                Some("bad") => json!({"allowed": false, "reason": "it is old"}),
                _ => json!({"allowed": false}),
            };
            (
                200,
                json!({"kind": "ImageReview", "apiVersion": "imagepolicy.k8s.io/v1alpha1", "status": status}),
            )
        })
        .await;
        let plugin = plugin(&service, false);
        let annotation = ("imagepolicywebhook.image-policy.k8s.io/k".to_owned(), "v".to_owned());
        for _ in 0..2 {
            assert_eq!(ask(&plugin, "good").await, (Ok(()), vec![annotation.clone()]));
        }
        assert_eq!(service.asked().len(), 1);
        let spec = json!({"containers": [{"image": "good"}, {"image": "init"}], "namespace": "n",
            "annotations": {"a.image-policy.k8s.io/x": "1"}});
        assert_eq!(service.asked()[0]["spec"], spec);
        for (image, why) in [
            (
                "bad",
                "pods \"a\" is forbidden: image policy webhook backend denied one or more images: it is old",
            ),
            (
                "x",
                "pods \"a\" is forbidden: one or more images rejected by webhook backend",
            ),
        ] {
            assert_eq!(ask(&plugin, image).await.0, Err(why.to_owned()));
        }
    }

    #[tokio::test]
    async fn containers_that_are_added_later_are_asked_about() {
        let service = Service::start(|_, _| (200, json!({"status": {"allowed": false}}))).await;
        let (plugin, pod) = (plugin(&service, true), pod("x"));
        for (operation, subresource, expect) in [
            (Operation::Update, "", Some(json!([{"image": "x"}, {"image": "init"}]))),
            (
                Operation::Update,
                "ephemeralcontainers",
                Some(json!([{"image": "debug"}])),
            ),
            (Operation::Update, "status", None),
            (Operation::Create, "binding", None),
        ] {
            let review = World::default().review(operation, "", "pods", subresource, "n", "a");
            let verdict = plugin.validate(&review, Some(&pod), None).await;
            assert_eq!(verdict.is_err(), expect.is_some(), "{subresource}");
            let asked = service.asked();
            if let Some(containers) = expect {
                assert_eq!(asked[asked.len() - 1]["spec"]["containers"], containers);
            }
        }
        assert_eq!(service.asked().len(), 2);
    }

    #[tokio::test]
    async fn who_does_not_answer_is_taken_for_what_the_configuration_says() {
        let service = Service::start(|_, _| (403, json!({}))).await;
        let open = ask(&plugin(&service, true), "x").await;
        let annotation = (
            "imagepolicywebhook.image-policy.k8s.io/failed-open".to_owned(),
            "true".to_owned(),
        );
        assert_eq!(open, (Ok(()), vec![annotation]));
        assert!(ask(&plugin(&service, false), "x").await.0.is_err());
    }

    #[test]
    fn times_are_in_their_range() {
        let second = Duration::from_secs(1);
        for (value, expect) in [
            (json!(null), Ok(ALLOW_TTL)),
            (json!(0), Ok(ALLOW_TTL)),
            (json!(-1), Ok(Duration::ZERO)),
            (json!(50), Ok(second * 50)),
            (json!(1801), Err("x: valid value is between 1s and 30m0s, got 1801")),
            (json!(-2), Err("x: valid value is between 1s and 30m0s, got -2")),
            (json!("5"), Err("x: \"5\" is no whole number")),
        ] {
            assert_eq!(
                time("x", &value, second, TTL_RANGE, ALLOW_TTL),
                expect.map_err(str::to_owned),
                "{value}"
            );
        }
    }
}
