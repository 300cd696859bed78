//! Recording events: what happened to an object, for people (`kubectl describe`).
//!
//! A [`Recorder`] never makes its caller wait and never fails it: events go through a bounded queue to one task, which
//! merges repeats and writes. When the queue is full, events are dropped and counted.

mod correlator;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Clock, Shutdown};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::kind::Meta;
use crate::{Client, Patch, Resource, resources};
use correlator::{Correlator, Write};

/// Events that wait to be written. Source: client-go's broadcaster queue (1,000).
const QUEUE_MAX: usize = 1000;
/// The longest message the API accepts. Source: `validation/events.go` (1 kB).
const MESSAGE_BYTES_MAX: usize = 1024;

/// Whether an event is a worry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Information.
    Normal,
    /// Something is wrong.
    Warning,
}

impl EventType {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// What an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObjectReference {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Empty for objects that are in none.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's uid.
    pub uid: String,
    /// The object's revision.
    pub resource_version: String,
    /// A part of the object, such as `spec.containers{web}`.
    pub field_path: String,
}

impl ObjectReference {
    /// A reference to an object of a resource.
    pub fn to(resource: &Resource, meta: &dyn Meta) -> ObjectReference {
        ObjectReference {
            api_version: resource.api_version(),
            kind: resource.kind.to_string(),
            namespace: meta.namespace().into(),
            name: meta.name().into(),
            uid: meta.uid().into(),
            resource_version: meta.resource_version().into(),
            field_path: String::new(),
        }
    }

    /// The same about a part of the object.
    pub fn field(mut self, field_path: impl Into<String>) -> ObjectReference {
        self.field_path = field_path.into();
        self
    }

    fn to_json(&self) -> Value {
        let fields = [
            ("apiVersion", &self.api_version),
            ("kind", &self.kind),
            ("namespace", &self.namespace),
            ("name", &self.name),
            ("uid", &self.uid),
            ("resourceVersion", &self.resource_version),
            ("fieldPath", &self.field_path),
        ];
        fields
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key, value.as_str()))
            .collect()
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Occurrence {
    /// To what.
    pub about: ObjectReference,
    /// Whether it is a worry.
    pub event_type: EventType,
    /// In one word, such as `SuccessfulCreate`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Records events under one component's name. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Starts the task that writes; it ends with `shutdown`. `component` is such as `replicaset-controller`, `host` the
    /// node's name or empty.
    pub fn start(client: Client, component: &str, host: &str, clock: Clock, shutdown: &Shutdown) -> Recorder {
        let (queue, mut waiting) = mpsc::channel(QUEUE_MAX);
        let mut correlator = Correlator::new(component, host);
        let stop = shutdown.clone();
        shutdown.spawn(async move {
            while let Some(Some(occurrence)) = stop.until(waiting.recv()).await {
                let Some(write) = correlator.observe(&occurrence, clock.now()) else {
                    continue;
                };
                if let Some(outcome) = stop.until(perform(&client, &mut correlator, write)).await
                    && let Err(error) = outcome
                {
                    // As upstream: an event is not worth more than a line in the log.
                    tracing::debug!(%error, reason = occurrence.reason, "an event was not recorded");
                }
            }
        });
        Recorder {
            queue,
            dropped: Arc::default(),
        }
    }

    /// Records an event.
    pub fn event(&self, about: ObjectReference, event_type: EventType, reason: &str, message: impl Into<String>) {
        let mut message: String = message.into();
        truncate(&mut message);
        let occurrence = Occurrence {
            about,
            event_type,
            reason: reason.into(),
            message,
        };
        if self.queue.try_send(occurrence).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that all is well.
    pub fn normal(&self, about: ObjectReference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Normal, reason, message);
    }

    /// Records a worry.
    pub fn warning(&self, about: ObjectReference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Warning, reason, message);
    }

    /// How many events were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

async fn perform(client: &Client, correlator: &mut Correlator, write: Write) -> crate::Result<()> {
    let Write {
        key,
        namespace,
        body,
        existing,
    } = write;
    if let Some(name) = existing {
        let edit = json!({
            "count": body["count"], "lastTimestamp": body["lastTimestamp"], "message": body["message"],
        });
        match client
            .patch(&resources::EVENTS, &namespace, &name, None, &Patch::Merge, &edit)
            .await
        {
            Err(error) if error.is_not_found() => {}
            outcome => return outcome.map(drop),
        }
    }
    client.create_in(&resources::EVENTS, &namespace, &body).await?;
    correlator.written(key, api::meta::name(&body));
    Ok(())
}

fn truncate(message: &mut String) {
    if message.len() > MESSAGE_BYTES_MAX {
        let mut end = MESSAGE_BYTES_MAX;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
    }
}

#[cfg(test)]
mod tests;
