//! Audit: who asked for what, when, and what came of it, as events of `audit.k8s.io/v1`.
//!
//! A [`Policy`] says how much is told of a request. A [`Trail`] follows the request through its stages and hands an event for
//! each of them to the [`AuditSink`]. Invariant: whatever happens to a request that the policy tells of, its last stage
//! (`ResponseComplete`, or `Panic`) is told exactly once, when its answer has been sent or given up.
//!
//! Source: `k8s.io/apiserver/pkg/audit` and `pkg/endpoints/filters/audit.go`.

mod format;
mod held;
mod log;
mod policy;
mod rotation;
mod throttle;
mod trail;
mod truncate;
mod webhook;

use std::sync::Arc;

use api::{Map, Value};
use base::Clock;
use futures::future::BoxFuture;
use serde_json::json;

pub use format::{Format, line};
pub use log::{LogOptions, LogSink};
pub use policy::{Policy, PolicyError};
pub use rotation::{LogFile, Rotation};
pub use trail::{AnnounceError, Trail};
pub use truncate::Truncate;
pub use webhook::{Batch, WebhookSink};

use crate::metrics::AuditMetrics;
use crate::request::{Attributes, UserInfo};

/// How much of a request is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Who, what, when, and the answer's code.
    Metadata,
    /// And the object of the request.
    Request,
    /// And that of the answer.
    RequestResponse,
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        let all = [Level::Metadata, Level::Request, Level::RequestResponse];
        all.into_iter().find(|level| level.as_str() == text)
    }

    /// As events have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// When something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before anything is done.
    RequestReceived,
    /// A watch has begun.
    ResponseStarted,
    /// The answer has been sent, or given up.
    ResponseComplete,
    /// The server fell over it.
    Panic,
}

impl Stage {
    fn parse(text: &str) -> Option<Stage> {
        let all = [
            Stage::RequestReceived,
            Stage::ResponseStarted,
            Stage::ResponseComplete,
            Stage::Panic,
        ];
        all.into_iter().find(|stage| stage.as_str() == text)
    }

    /// As events have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// Where events go.
pub trait AuditSink: Send + Sync {
    /// What losses are counted under.
    fn name(&self) -> &'static str;

    /// Takes an event. Must not block.
    ///
    /// # Errors
    /// It was not taken. The caller counts the loss, the sink tells why.
    fn write(&self, event: &Value) -> Result<(), String>;

    /// Whether requests wait for their events (upstream's modes `blocking` and `blocking-strict`); `None`: they go on
    /// (`batch`).
    fn waits(&self) -> Option<Strictness> {
        None
    }

    /// Takes an event, and is done when it is where it should be.
    ///
    /// # Errors
    /// As [`AuditSink::write`], or it was lost on its way.
    fn deliver<'a>(&'a self, event: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(self.write(event)))
    }
}

/// What becomes of a request whose first event is lost, when requests wait for their events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// It goes on.
    Lax,
    /// It is refused.
    Strict,
}

/// A policy and where its events go.
pub struct Auditor {
    policy: Policy,
    sinks: Vec<Arc<dyn AuditSink>>,
    clock: Clock,
    metrics: AuditMetrics,
}

/// What is known of a request when it comes.
pub struct Facts<'a> {
    /// Its id, the same in all its events and in the answer's `Audit-Id`.
    pub id: &'a str,
    /// Path and query.
    pub uri: &'a str,
    /// Who proved to be there.
    pub user: &'a UserInfo,
    /// As whom they act.
    pub impersonated: Option<&'a UserInfo>,
    /// The verb of constrained impersonation that allowed it; or empty.
    pub constraint: &'a str,
    /// What is asked.
    pub request: &'a Attributes,
    /// The addresses it came from, the farthest first.
    pub source_ips: Vec<String>,
    /// The client's name for itself.
    pub user_agent: &'a str,
}

impl Auditor {
    /// An auditor that counts what it tells.
    pub fn new(policy: Policy, sinks: Vec<Arc<dyn AuditSink>>, clock: Clock, metrics: AuditMetrics) -> Auditor {
        Auditor {
            policy,
            sinks,
            clock,
            metrics,
        }
    }

    /// What it counts.
    pub(crate) fn metrics(&self) -> AuditMetrics {
        self.metrics.clone()
    }

    /// Begins to follow a request; `None`: the policy says nothing of it.
    pub fn begin(self: &Arc<Self>, facts: &Facts<'_>) -> Option<Trail> {
        let acting = facts.impersonated.unwrap_or(facts.user);
        let verdict = self.policy.judge(acting, facts.request)?;
        self.metrics.level(verdict.level.as_str());
        let mut event = Map::new();
        let now = self.now();
        for (field, value) in [
            ("kind", "Event"),
            ("apiVersion", "audit.k8s.io/v1"),
            ("level", verdict.level.as_str()),
            ("auditID", facts.id),
            ("requestURI", facts.uri),
            ("verb", &facts.request.verb),
            ("requestReceivedTimestamp", &now),
        ] {
            event.insert(field.into(), value.into());
        }
        event.insert("user".into(), facts.user.to_value());
        if let Some(user) = facts.impersonated {
            event.insert("impersonatedUser".into(), user.to_value());
        }
        if !facts.constraint.is_empty() {
            let metadata = json!({"impersonationConstraint": facts.constraint});
            event.insert("authenticationMetadata".into(), metadata);
        }
        event.insert("sourceIPs".into(), json!(facts.source_ips));
        if !facts.user_agent.is_empty() {
            event.insert("userAgent".into(), facts.user_agent.into());
        }
        if let Some(object) = object_reference(facts.request) {
            event.insert("objectRef".into(), object);
        }
        Some(Trail::new(self.clone(), verdict, event))
    }

    /// Whether requests wait for their events.
    fn waits(&self) -> bool {
        self.sinks.iter().any(|sink| sink.waits().is_some())
    }

    /// The time as `metav1.MicroTime`.
    fn now(&self) -> String {
        self.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }
}

fn object_reference(request: &Attributes) -> Option<Value> {
    if !request.is_resource {
        return None;
    }
    let mut reference = Map::new();
    for (field, value) in [
        ("resource", &request.resource),
        ("namespace", &request.namespace),
        ("name", &request.name),
        ("apiGroup", &request.group),
        ("apiVersion", &request.version),
        ("subresource", &request.subresource),
    ] {
        if !value.is_empty() {
            reference.insert(field.into(), value.as_str().into());
        }
    }
    Some(Value::Object(reference))
}

#[cfg(test)]
mod tests;
