//! EventRateLimit: how many events may be written, by all, in a namespace, by a user, or about one object from one source.
//!
//! Source: `plugin/pkg/admission/eventratelimit`.

use std::collections::HashMap;
use std::time::Duration;

use api::field::{Error, ErrorList, Path, aggregate};
use api::{Status, Value};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::pipeline::{Operation, Plugin, Review, Step};

/// How many keys a limit remembers when its configuration does not say: upstream's.
const KEYS: usize = 4096;
/// What a refused client is told to wait: upstream's `NewTooManyRequestsError` says nothing, and clients take a second.
const RETRY_AFTER_SECONDS: i32 = 1;
const TYPES: [&str; 4] = ["Namespace", "Server", "SourceAndObject", "User"];

/// The plug-in.
pub struct EventRateLimit(Vec<Limit>);

struct Limit {
    kind: String,
    per_second: f64,
    burst: f64,
    keys_max: usize,
    buckets: Mutex<HashMap<String, Bucket>>,
}

/// Tokens at a time; they come back at the limit's rate.
struct Bucket {
    tokens: f64,
    at: Instant,
}

// === impl EventRateLimit ===

impl EventRateLimit {
    /// The plug-in as its configuration has it.
    ///
    /// # Errors
    /// What of it is wrong, as upstream words it.
    pub fn from_config(config: &Value) -> Result<EventRateLimit, String> {
        let kind = (config["apiVersion"].as_str(), config["kind"].as_str());
        if kind != (Some("eventratelimit.admission.k8s.io/v1alpha1"), Some("Configuration")) {
            return Err("it must be Configuration of eventratelimit.admission.k8s.io/v1alpha1".into());
        }
        let (root, mut errors) = (Path::new("limits"), ErrorList::new());
        let given = config["limits"].as_array().cloned().unwrap_or_default();
        if given.is_empty() {
            errors.push(Error::invalid(&root, Value::Array(Vec::new()), "must not be empty"));
        }
        let limits = given.iter().enumerate().map(|(index, limit)| {
            let path = root.index(index);
            let number = |field: &str| limit[field].as_i64().unwrap_or(0);
            let kind = limit["type"].as_str().unwrap_or("");
            if !TYPES.contains(&kind) {
                errors.push(Error::not_supported(&path.child("type"), kind, &TYPES));
            }
            for field in ["burst", "qps"] {
                if number(field) <= 0 {
                    errors.push(Error::invalid(&path.child(field), number(field), "must be positive"));
                }
            }
            let keys = number("cacheSize");
            if kind != "Server" && keys < 0 {
                errors.push(Error::invalid(&path.child("cacheSize"), keys, "must not be negative"));
            }
            Limit {
                kind: kind.into(),
                per_second: number("qps") as f64,
                burst: number("burst") as f64,
                keys_max: usize::try_from(keys).ok().filter(|keys| *keys > 0).unwrap_or(KEYS),
                buckets: Mutex::default(),
            }
        });
        let limits: Vec<Limit> = limits.collect();
        match errors.is_empty() {
            true => Ok(EventRateLimit(limits)),
            false => Err(aggregate(&errors)),
        }
    }

    fn check(&self, review: &Review, event: Option<&Value>) -> Result<(), Status> {
        if review.resource.resource != "events" || review.kind.kind != "Event" || review.dry_run {
            return Ok(());
        }
        let now = Instant::now();
        let refused: Vec<String> = self
            .0
            .iter()
            .filter_map(|limit| {
                let key = limit.key(review, event);
                let why = format!("limit reached on type {} for key {key}", limit.kind);
                (!limit.takes(key, now)).then_some(why)
            })
            .collect();
        let why = match &refused[..] {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Err(Status::too_many_requests(why, RETRY_AFTER_SECONDS))
    }
}

// === impl Limit ===

impl Limit {
    fn key(&self, review: &Review, event: Option<&Value>) -> String {
        match &*self.kind {
            "Namespace" => review.namespace.clone(),
            "User" => review.user.name.clone(),
            "SourceAndObject" => event.map(source_and_object).unwrap_or_default(),
            _ => String::new(),
        }
    }

    fn takes(&self, key: String, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= self.keys_max && !buckets.contains_key(&key) {
            // The one that was used longest ago is full again before all others.
            let oldest = buckets
                .iter()
                .min_by_key(|(_, bucket)| bucket.at)
                .map(|(key, _)| key.clone());
            oldest.and_then(|oldest| buckets.remove(&oldest));
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            tokens: self.burst,
            at: now,
        });
        let passed: Duration = now.saturating_duration_since(bucket.at);
        bucket.tokens = (bucket.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
        bucket.at = now;
        let takes = bucket.tokens >= 1.0;
        if takes {
            bucket.tokens -= 1.0;
        }
        takes
    }
}

fn source_and_object(event: &Value) -> String {
    let object = &event["involvedObject"];
    let parts = [
        &event["source"]["component"],
        &event["source"]["host"],
        &object["kind"],
        &object["namespace"],
        &object["name"],
        &object["uid"],
        &object["apiVersion"],
    ];
    parts.iter().filter_map(|part| part.as_str()).collect()
}

impl Plugin for EventRateLimit {
    fn name(&self) -> &'static str {
        "EventRateLimit"
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
        Box::pin(std::future::ready(self.check(review, object)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::World;
    use super::*;

    fn config(limits: Value) -> Result<EventRateLimit, String> {
        let version = "eventratelimit.admission.k8s.io/v1alpha1";
        EventRateLimit::from_config(&json!({"apiVersion": version, "kind": "Configuration", "limits": limits}))
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_come_back_at_the_rate() {
        let plugin = config(json!([{"type": "Namespace", "qps": 1, "burst": 2, "cacheSize": 1}])).unwrap();
        let world = World::default();
        let write = |namespace: &str| {
            let mut review = world.review(Operation::Create, "", "events", "", namespace, "e");
            review.kind.kind = "Event".into();
            plugin
                .check(&review, None)
                .map_err(|status| (status.code, status.message))
        };
        assert!(write("a").is_ok() && write("a").is_ok());
        let refused = (429, "limit reached on type Namespace for key a".to_owned());
        assert_eq!(write("a"), Err(refused.clone()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(write("a").is_ok());
        assert_eq!(write("a"), Err(refused));
        // Only one key is remembered: another one makes room.
        assert!(write("b").is_ok() && write("a").is_ok());
    }

    #[test]
    fn limits_are_checked() {
        for (limits, expect) in [
            (json!([]), "limits: Invalid value: []: must not be empty"),
            (
                json!([{"type": "Pod", "qps": 1, "burst": 1}]),
                "limits[0].type: Unsupported value: \"Pod\": supported values: \"Namespace\", \"Server\", \
                 \"SourceAndObject\", \"User\"",
            ),
            (
                json!([{"type": "User", "cacheSize": -1}]),
                "[limits[0].burst: Invalid value: 0: must be positive, limits[0].qps: Invalid value: 0: must be positive, \
                 limits[0].cacheSize: Invalid value: -1: must not be negative]",
            ),
        ] {
            assert_eq!(config(limits).err().unwrap(), expect);
        }
    }
}
