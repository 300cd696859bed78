//! The webhook backend: events are sent to a service of others, many at a time.
//!
//! This is upstream's `batch` mode with its values: a request does not wait for the service, and an event that finds the buffer
//! full is lost and counted. Invariants: batches begin in the order of their events; what was taken before
//! [`WebhookSink::close`] is sent, or counted as lost, when it returns.
//!
//! Source: `k8s.io/apiserver/plugin/pkg/audit/webhook`, `plugin/pkg/audit/buffered`, `plugin/pkg/audit/truncate` and
//! `pkg/server/options/audit.go`.

use std::time::Duration;

use api::Value;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::AuditSink;
use crate::hook::Hook;
use crate::metrics::AuditMetrics;

/// So many batches are on their way at most: upstream has no limit, its throttle apart.
const BATCHES_MAX: usize = 32;
/// An event that was shortened says so.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// How events are put together: upstream's `--audit-webhook-batch-*`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch {
    /// So many events wait at most.
    pub buffer_events: usize,
    /// So many are sent at once.
    pub events_max: usize,
    /// So long the first of a batch waits for others.
    pub wait_max: Duration,
    /// Batches a second, and how many of them at once after a pause; `None`: no limit.
    pub throttle: Option<(f64, f64)>,
    /// How long an event and a batch may be: upstream's `--audit-webhook-truncate-*`; `None`: no limit.
    pub truncate: Option<Truncate>,
}

/// What is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// Bytes of an event; a longer one is sent without its objects, or not at all.
    pub event_bytes_max: usize,
    /// Bytes of a batch.
    pub batch_bytes_max: usize,
}

impl Default for Batch {
    /// Upstream's for webhooks.
    fn default() -> Batch {
        Batch {
            buffer_events: 10_000,
            events_max: 400,
            wait_max: Duration::from_secs(30),
            throttle: Some((10.0, 15.0)),
            truncate: None,
        }
    }
}

/// Takes events and sends them.
pub struct WebhookSink {
    queue: Mutex<Option<mpsc::Sender<Value>>>,
    sender: Mutex<Option<JoinHandle<()>>>,
}

// === impl WebhookSink ===

impl WebhookSink {
    /// Starts to send through that hook. Needs a runtime.
    pub fn start(hook: Hook, batch: Batch, metrics: AuditMetrics) -> WebhookSink {
        let (queue, events) = mpsc::channel(batch.buffer_events.max(1));
        let sender = Sender {
            hook: std::sync::Arc::new(hook),
            batch,
            metrics,
            events,
            tokens: batch.throttle.map_or(0.0, |(_, burst)| burst),
            filled: Instant::now(),
        };
        WebhookSink {
            queue: Mutex::new(Some(queue)),
            sender: Mutex::new(Some(tokio::spawn(sender.run()))),
        }
    }

    /// Takes no more, and returns when all that was taken is sent or given up.
    pub async fn close(&self) {
        self.queue.lock().take();
        let sender = self.sender.lock().take();
        if let Some(sender) = sender
            && sender.await.is_err()
        {
            tracing::error!("the audit webhook's sender fell over");
        }
    }
}

impl AuditSink for WebhookSink {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn write(&self, event: &Value) -> Result<(), String> {
        let queue = self.queue.lock();
        let queue = queue.as_ref().ok_or("the audit webhook is closed")?;
        queue
            .try_send(event.clone())
            .map_err(|_| "audit buffer queue blocked".into())
    }
}

struct Sender {
    hook: std::sync::Arc<Hook>,
    batch: Batch,
    metrics: AuditMetrics,
    events: mpsc::Receiver<Value>,
    tokens: f64,
    filled: Instant,
}

// === impl Sender ===

impl Sender {
    async fn run(mut self) {
        let mut under_way = JoinSet::new();
        while let Some(events) = self.collect().await {
            self.throttle().await;
            for events in shorten(events, self.batch.truncate, &self.metrics) {
                if under_way.len() >= BATCHES_MAX {
                    under_way.join_next().await;
                }
                under_way.spawn(send(self.hook.clone(), events, self.metrics.clone()));
            }
        }
        while under_way.join_next().await.is_some() {}
    }

    /// The next batch; `None`: nothing comes any more.
    async fn collect(&mut self) -> Option<Vec<Value>> {
        let mut events = vec![self.events.recv().await?];
        let end = Instant::now() + self.batch.wait_max;
        while events.len() < self.batch.events_max {
            match tokio::time::timeout_at(end, self.events.recv()).await {
                Ok(Some(event)) => events.push(event),
                Ok(None) | Err(_) => break,
            }
        }
        Some(events)
    }

    async fn throttle(&mut self) {
        let Some((per_second, burst)) = self.batch.throttle else {
            return;
        };
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * per_second).min(burst);
        self.filled = now;
        if self.tokens < 1.0 {
            tokio::time::sleep(Duration::from_secs_f64((1.0 - self.tokens) / per_second)).await;
            (self.tokens, self.filled) = (1.0, Instant::now());
        }
        self.tokens -= 1.0;
    }
}

async fn send(hook: std::sync::Arc<Hook>, events: Vec<Value>, metrics: AuditMetrics) {
    let count = events.len();
    let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": events});
    // What the service says to them is its own.
    if let Err(error) = hook.tell(&list).await {
        tracing::error!(%error, events = count, "Error in audit plugin 'webhook'");
        (0..count).for_each(|_| metrics.lost("webhook"));
    }
}

/// Events without what is too long, in batches that are short enough.
fn shorten(events: Vec<Value>, limits: Option<Truncate>, metrics: &AuditMetrics) -> Vec<Vec<Value>> {
    let Some(limits) = limits else {
        return vec![events];
    };
    let (mut batches, mut bytes) = (vec![Vec::new()], 0);
    for mut event in events {
        let mut size = event.to_string().len();
        if size > limits.event_bytes_max {
            if let Some(fields) = event.as_object_mut() {
                fields.remove("requestObject");
                fields.remove("responseObject");
            }
            event["annotations"][TRUNCATED] = "true".into();
            size = event.to_string().len();
        }
        if size > limits.event_bytes_max {
            tracing::warn!("event is too large: it is not sent to the audit webhook");
            metrics.lost("webhook");
            continue;
        }
        if bytes > 0 && bytes + size > limits.batch_bytes_max {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        batches
            .last_mut()
            .expect("invariant: there is a first batch")
            .push(event);
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

#[cfg(test)]
mod tests {
    use base::Random;

    use super::*;
    use crate::hook::TIMEOUT;
    use crate::hook::testing::Service;

    fn sink(service: &Service, batch: Batch, metrics: &AuditMetrics) -> WebhookSink {
        let hook = Hook::new(service.target(), TIMEOUT, Duration::from_millis(1), Random::seeded(1));
        WebhookSink::start(hook.unwrap(), batch, metrics.clone())
    }

    #[tokio::test]
    async fn events_are_sent_in_batches() {
        let service = Service::start(|_, _| (200, json!({}))).await;
        let metrics = AuditMetrics::default();
        let batch = Batch {
            events_max: 3,
            ..Batch::default()
        };
        let sink = sink(&service, batch, &metrics);
        for number in 0..7 {
            sink.write(&json!({"number": number})).unwrap();
        }
        sink.close().await;
        assert!(sink.write(&json!({})).is_err(), "it is closed");
        let mut sizes = Vec::new();
        let mut numbers = Vec::new();
        for list in service.asked() {
            assert_eq!(
                (&list["kind"], &list["apiVersion"]),
                (&json!("EventList"), &json!("audit.k8s.io/v1"))
            );
            let items = list["items"].as_array().unwrap().clone();
            sizes.push(items.len());
            numbers.extend(items.iter().map(|item| item["number"].as_u64().unwrap()));
        }
        // Batches travel beside each other.
        numbers.sort_unstable();
        sizes.sort_unstable();
        assert_eq!((sizes, numbers), (vec![1, 3, 3], (0..7).collect()));
        assert_eq!(metrics.losses("webhook"), 0);
    }

    #[tokio::test]
    async fn what_is_not_taken_is_counted() {
        let service = Service::start(|_, _| (400, json!({}))).await;
        let metrics = AuditMetrics::default();
        let sink = sink(&service, Batch::default(), &metrics);
        sink.write(&json!({})).unwrap();
        sink.write(&json!({})).unwrap();
        sink.close().await;
        assert_eq!(metrics.losses("webhook"), 2);
    }

    #[test]
    fn long_events_lose_their_objects_and_long_batches_are_parted() {
        let metrics = AuditMetrics::default();
        let long = |field: &str| json!({"a": 1, field: "x".repeat(100)});
        let events = vec![
            json!({"a": 0}),
            long("requestObject"),
            long("requestURI"),
            json!({"a": 2}),
        ];
        let limits = Truncate {
            event_bytes_max: 80,
            batch_bytes_max: 65,
        };
        let got = shorten(events.clone(), Some(limits), &metrics);
        let shorter = json!({"a": 1, "annotations": {TRUNCATED: "true"}});
        assert_eq!(got, [vec![json!({"a": 0}), shorter], vec![json!({"a": 2})]]);
        assert_eq!(metrics.losses("webhook"), 1);
        assert_eq!(shorten(events.clone(), None, &metrics), [events]);
    }
}
