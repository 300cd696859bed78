//! The webhook backend: events are sent to a service of others, many at a time.
//!
//! In upstream's mode `batch` a request does not wait for the service, and an event that finds the buffer full is lost and
//! counted. In `blocking` and `blocking-strict` each event goes alone, and a request waits until its first and its last one are
//! there; those of a request that was given up, and that a watch began, are sent while nobody waits. Invariants: batches begin
//! in the order of their events; what was taken before [`WebhookSink::close`] is sent, or counted as lost, when it returns.
//!
//! Source: `k8s.io/apiserver/plugin/pkg/audit/webhook`, `plugin/pkg/audit/buffered`, `plugin/pkg/audit/truncate` and
//! `pkg/server/options/audit.go`.

use std::sync::Arc;
use std::time::Duration;

use api::Value;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::throttle::Throttle;
use super::{AuditSink, Strictness, Truncate};
use crate::hook::Hook;
use crate::metrics::AuditMetrics;

/// So many batches are on their way at most: upstream has no limit, its throttle apart.
const BATCHES_MAX: usize = 32;
/// When requests wait for events, so many are on their way at most of which nobody waits for the last one, and so many in all:
/// those of requests that went away meanwhile take the time that the service takes.
const UNATTENDED_MAX: usize = 1024;
const TASKS_MAX: usize = 8 * 1024;

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
pub struct WebhookSink(Way);

enum Way {
    /// Many at a time, while requests go on.
    Batched {
        queue: Mutex<Option<mpsc::Sender<Value>>>,
        sender: Mutex<Option<JoinHandle<()>>>,
    },
    /// One by one. Those that nobody can wait for any more are sent by tasks.
    Blocking {
        service: Arc<Receiver>,
        strictness: Strictness,
        tasks: TaskTracker,
    },
}

/// Whom events are sent to.
struct Receiver {
    hook: Hook,
    truncate: Option<Truncate>,
    metrics: AuditMetrics,
}

// === impl WebhookSink ===

impl WebhookSink {
    /// Starts to send through that hook, many at a time. Needs a runtime.
    pub fn start(hook: Hook, batch: Batch, metrics: AuditMetrics) -> WebhookSink {
        let (queue, events) = mpsc::channel(batch.buffer_events.max(1));
        let sender = Sender {
            service: Receiver::new(hook, &batch, metrics),
            batch,
            events,
            throttle: batch.throttle.map(Throttle::new),
        };
        WebhookSink(Way::Batched {
            queue: Mutex::new(Some(queue)),
            sender: Mutex::new(Some(tokio::spawn(sender.run()))),
        })
    }

    /// Sends events one by one, and requests wait for theirs.
    pub fn blocking(hook: Hook, batch: Batch, strictness: Strictness, metrics: AuditMetrics) -> WebhookSink {
        WebhookSink(Way::Blocking {
            service: Receiver::new(hook, &batch, metrics),
            strictness,
            tasks: TaskTracker::new(),
        })
    }

    /// Takes no more, and returns when all that was taken is sent or given up.
    pub async fn close(&self) {
        match &self.0 {
            Way::Batched { queue, sender } => {
                queue.lock().take();
                let sender = sender.lock().take();
                if let Some(sender) = sender
                    && sender.await.is_err()
                {
                    tracing::error!("the audit webhook's sender fell over");
                }
            }
            Way::Blocking { tasks, .. } => {
                tasks.close();
                tasks.wait().await;
            }
        }
    }
}

impl AuditSink for WebhookSink {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn write(&self, event: &Value) -> Result<(), String> {
        match &self.0 {
            Way::Batched { queue, .. } => {
                let queue = queue.lock();
                let queue = queue.as_ref().ok_or("the audit webhook is closed")?;
                queue
                    .try_send(event.clone())
                    .map_err(|_| "audit buffer queue blocked".into())
            }
            Way::Blocking { tasks, .. } if tasks.is_closed() || tasks.len() >= UNATTENDED_MAX => {
                Err("audit buffer queue blocked".into())
            }
            Way::Blocking { service, tasks, .. } => {
                let (service, event) = (service.clone(), event.clone());
                tasks.spawn(async move {
                    if service.send_one(&event).await.is_err() {
                        service.metrics.lost("webhook");
                    }
                });
                Ok(())
            }
        }
    }

    fn waits(&self) -> Option<Strictness> {
        match &self.0 {
            Way::Batched { .. } => None,
            Way::Blocking { strictness, .. } => Some(*strictness),
        }
    }

    fn deliver<'a>(&'a self, event: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        match &self.0 {
            Way::Batched { .. } => Box::pin(std::future::ready(self.write(event))),
            Way::Blocking { tasks, .. } if tasks.is_closed() || tasks.len() >= TASKS_MAX => {
                Box::pin(std::future::ready(Err("audit buffer queue blocked".into())))
            }
            Way::Blocking { service, tasks, .. } => {
                // Its end does not depend on whether the client waits.
                let (service, event, (tell, told)) = (service.clone(), event.clone(), oneshot::channel());
                tasks.spawn(async move {
                    if let Err(Err(_)) = tell.send(service.send_one(&event).await) {
                        service.metrics.lost("webhook");
                    }
                });
                Box::pin(async move { told.await.unwrap_or_else(|_| Err("the audit webhook fell over".into())) })
            }
        }
    }
}

// === impl Receiver ===

impl Receiver {
    fn new(hook: Hook, batch: &Batch, metrics: AuditMetrics) -> Arc<Receiver> {
        Arc::new(Receiver {
            hook,
            truncate: batch.truncate,
            metrics,
        })
    }

    async fn send_one(&self, event: &Value) -> Result<(), String> {
        let event = match self.truncate {
            None => event.clone(),
            Some(limits) => match limits.shortened(event) {
                Some((event, _)) => event.into_owned(),
                None => return Err("event is too large even after truncating".into()),
            },
        };
        self.send(vec![event]).await
    }

    /// What the service says to them is its own.
    async fn send(&self, events: Vec<Value>) -> Result<(), String> {
        let count = events.len();
        let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": events});
        let told = self.hook.tell(&list).await;
        told.map_err(|error| {
            tracing::error!(%error, events = count, "Error in audit plugin 'webhook'");
            error.to_string()
        })
    }
}

struct Sender {
    service: Arc<Receiver>,
    batch: Batch,
    events: mpsc::Receiver<Value>,
    throttle: Option<Throttle>,
}

// === impl Sender ===

impl Sender {
    async fn run(mut self) {
        let mut under_way = JoinSet::new();
        while let Some(events) = self.collect().await {
            if let Some(throttle) = &mut self.throttle {
                tokio::time::sleep(throttle.take()).await;
            }
            for events in shorten(events, self.batch.truncate, &self.service.metrics) {
                if under_way.len() >= BATCHES_MAX {
                    under_way.join_next().await;
                }
                let service = self.service.clone();
                under_way.spawn(async move {
                    let count = events.len();
                    if service.send(events).await.is_err() {
                        (0..count).for_each(|_| service.metrics.lost("webhook"));
                    }
                });
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
}

/// Events without what is too long, in batches that are short enough.
fn shorten(events: Vec<Value>, limits: Option<Truncate>, metrics: &AuditMetrics) -> Vec<Vec<Value>> {
    let Some(limits) = limits else {
        return vec![events];
    };
    let (mut batches, mut bytes) = (vec![Vec::new()], 0);
    for event in events {
        let Some((event, size)) = limits.shortened(&event) else {
            metrics.lost("webhook");
            continue;
        };
        let event = event.into_owned();
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

    use super::super::truncate::TRUNCATED;
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
    async fn whoever_blocks_waits_for_each_event() {
        let service = Service::start(|number, _| (if number < 2 { 200 } else { 400 }, json!({}))).await;
        let metrics = AuditMetrics::default();
        let hook = Hook::new(service.target(), TIMEOUT, Duration::from_millis(1), Random::seeded(1)).unwrap();
        let sink = WebhookSink::blocking(hook, Batch::default(), Strictness::Strict, metrics.clone());
        assert_eq!(sink.waits(), Some(Strictness::Strict));
        assert_eq!(sink.deliver(&json!({"number": 0})).await, Ok(()));
        assert_eq!(service.asked()[0]["items"], json!([{"number": 0}]));
        sink.write(&json!({"number": 1})).unwrap();
        // Whoever goes away does not take the event along.
        drop(sink.deliver(&json!({"number": 2})));
        sink.close().await;
        assert_eq!((service.asked().len(), metrics.losses("webhook")), (3, 1));
        assert!(sink.deliver(&json!({})).await.is_err());
        assert!(sink.write(&json!({})).is_err(), "it is closed");
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
