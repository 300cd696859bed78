//! The task that owns the scheduler's state: it follows pods and nodes, decides, and sends bindings off.

use std::collections::HashSet;
use std::sync::Arc;

use base::Shutdown;
use base::clock::Clock;
use base::random::Random;
use client::events::Recorder;
use client::informer::{Delta, Informer, SharedInformers};
use client::{Client, Error};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::budgets::Budgets;
use crate::cluster::Cluster;
use crate::decide::{Decider, Unschedulable};
use crate::filters;
use crate::pod::{Pod, PodKey};
use crate::preempt::{Outcome, preempt};
use crate::queue::{Attempt, Queue};
use crate::report;
use crate::view::{BudgetView, NodeView, PodView};

/// Decisions in a row before the next look at what changed: stale state costs more than the look.
const DECISIONS_IN_A_ROW: usize = 64;
/// Bindings that are written at a time: enough to keep the store's group commit full.
const BINDINGS_MAX: usize = 128;
/// Conditions that are written at a time.
const CONDITIONS_MAX: usize = 32;

/// What the scheduler needs.
pub struct Config {
    /// Writes bindings, conditions and events, as `system:kube-scheduler`.
    pub client: Client,
    /// The informers it shares with others of the process.
    pub informers: SharedInformers,
    /// The wall clock.
    pub clock: Clock,
    /// Breaks ties.
    pub random: Random,
    /// The name that pods ask for.
    pub name: String,
}

/// How a binding ended.
struct Bound {
    pod: Arc<Pod>,
    node: Arc<str>,
    outcome: Result<(), Error>,
}

struct Scheduler {
    name: String,
    client: Client,
    clock: Clock,
    recorder: Recorder,
    shutdown: Shutdown,
    /// As they are read: preemption looks at labels.
    pods: Informer<PodView>,
    budgets: Informer<BudgetView>,
    decider: Decider,
    cluster: Cluster,
    queue: Queue,
    /// Pods that were given a node whose binding is not settled, by uid.
    assumed: HashSet<Arc<str>>,
    /// Nodes on which something became free or changed since the last look.
    changed: HashSet<Arc<str>>,
    bindings: mpsc::UnboundedSender<Bound>,
    preemptions: mpsc::UnboundedSender<PodKey>,
    random: Random,
    binding_seats: Arc<Semaphore>,
    condition_seats: Arc<Semaphore>,
}

/// Schedules until the end is asked for.
pub async fn run(config: Config, shutdown: Shutdown) {
    let pods: Informer<PodView> = config.informers.informer();
    let nodes: Informer<NodeView> = config.informers.informer();
    let budgets: Informer<BudgetView> = config.informers.informer();
    let (mut pod_news, mut node_news) = (pods.subscribe(), nodes.subscribe());
    if !pods.synced().await || !nodes.synced().await || !budgets.synced().await {
        return;
    }
    let recorder = Recorder::start(config.client.clone(), &config.name, "", config.clock.clone(), &shutdown);
    let (bindings, mut bound) = mpsc::unbounded_channel();
    let (preemptions, mut preempted) = mpsc::unbounded_channel();
    let mut scheduler = Scheduler {
        name: config.name,
        client: config.client,
        clock: config.clock,
        recorder,
        shutdown: shutdown.clone(),
        pods,
        budgets,
        decider: Decider::new(config.random.fork()),
        cluster: Cluster::default(),
        queue: Queue::default(),
        assumed: HashSet::new(),
        changed: HashSet::new(),
        bindings,
        preemptions,
        random: config.random,
        binding_seats: Arc::new(Semaphore::new(BINDINGS_MAX)),
        condition_seats: Arc::new(Semaphore::new(CONDITIONS_MAX)),
    };
    loop {
        // All that is known comes before a decision.
        while let Some(delta) = node_news.try_next() {
            scheduler.on_node(delta);
        }
        while let Some(delta) = pod_news.try_next() {
            scheduler.on_pod(delta);
        }
        while let Ok(bound) = bound.try_recv() {
            scheduler.on_bound(bound);
        }
        while let Ok(key) = preempted.try_recv() {
            scheduler.queue.unschedulable(&key, Instant::now());
        }
        scheduler.wake_helped();
        scheduler.decide_some();
        if scheduler.queue.has_work() {
            tokio::task::yield_now().await;
            if shutdown.is_triggered() {
                return;
            }
            continue;
        }
        let deadline = scheduler.queue.next_deadline();
        tokio::select! {
            () = shutdown.cancelled() => return,
            delta = pod_news.next() => match delta {
                Some(delta) => scheduler.on_pod(delta),
                None => return,
            },
            delta = node_news.next() => match delta {
                Some(delta) => scheduler.on_node(delta),
                None => return,
            },
            Some(bound) = bound.recv() => scheduler.on_bound(bound),
            Some(key) = preempted.recv() => scheduler.queue.unschedulable(&key, Instant::now()),
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                scheduler.decide_some();
            }
        }
    }
}

// === impl Scheduler ===

impl Scheduler {
    fn on_node(&mut self, delta: Delta<NodeView>) {
        match delta {
            Delta::Added(node) | Delta::Updated { new: node, .. } => {
                if self.cluster.put_node(&node) {
                    self.changed.insert((&*node.metadata.name).into());
                }
            }
            Delta::Deleted(node) => self.cluster.remove_node(&node.metadata.name),
            Delta::Synced => {}
        }
    }

    fn on_pod(&mut self, delta: Delta<PodView>) {
        match delta {
            Delta::Added(view) | Delta::Updated { new: view, .. } => self.put_pod(Arc::new(Pod::of_view(&view))),
            Delta::Deleted(view) => {
                let pod = Pod::of_view(&view);
                self.queue.remove(&pod.key);
                self.free(&pod.uid);
            }
            Delta::Synced => {}
        }
    }

    fn put_pod(&mut self, pod: Arc<Pod>) {
        if pod.takes_room() {
            self.queue.remove(&pod.key);
            self.assumed.remove(&pod.uid);
            self.cluster.forget_nomination(&pod.uid);
            self.cluster.put_pod(&pod);
        } else if pod.waits_for(&self.name) {
            // While its binding is under way the pod is not ours to queue again.
            if !self.assumed.contains(&pod.uid) {
                self.tell_gated(&pod);
                self.cluster.nominate(&pod);
                self.queue.put(pod, Instant::now());
            }
        } else {
            self.queue.remove(&pod.key);
            self.free(&pod.uid);
        }
    }

    fn free(&mut self, uid: &Arc<str>) {
        self.assumed.remove(uid);
        self.cluster.forget_nomination(uid);
        if let Some(node) = self.cluster.remove_pod(uid) {
            self.changed.insert(node);
        }
    }

    /// Wakes the pods that could now go to a node that changed.
    fn wake_helped(&mut self) {
        if self.changed.is_empty() {
            return;
        }
        let changed = std::mem::take(&mut self.changed);
        let nodes: Vec<_> = changed.iter().filter_map(|name| self.cluster.node(name)).collect();
        self.queue.wake_where(Instant::now(), |pod| {
            nodes.iter().any(|node| filters::filter(pod, node).is_ok())
        });
    }

    fn decide_some(&mut self) {
        for _ in 0..DECISIONS_IN_A_ROW {
            let Some(attempt) = self.queue.pop(Instant::now()) else {
                return;
            };
            self.decide(attempt);
        }
    }

    fn decide(&mut self, attempt: Attempt) {
        let pod = attempt.pod;
        tracing::trace!(target: "walk", pod = %pod.key.name, "a pod is popped");
        match self.decider.decide(&pod, &self.cluster) {
            Ok(node) => {
                let mut placed = Pod::clone(&pod);
                placed.node = node.clone();
                self.cluster.forget_nomination(&pod.uid);
                self.cluster.put_pod(&Arc::new(placed));
                self.assumed.insert(pod.uid.clone());
                self.bind(pod, node);
            }
            Err(why) => match self.preempt(&pod, &why) {
                Outcome::Victims { node, pods } => {
                    self.unschedulable(&pod, &why.message(""), &node);
                    self.make_room(&pod, node, pods);
                }
                Outcome::Nothing { why: after, forget } => {
                    let nominated = if forget { "".into() } else { pod.nominated.clone() };
                    self.unschedulable(&pod, &why.message(&after), &nominated);
                    self.keep_room(&pod, nominated);
                    self.queue.unschedulable(&pod.key, Instant::now());
                }
            },
        }
    }

    fn preempt(&self, pod: &Pod, why: &Unschedulable) -> Outcome {
        let view = |key: &PodKey| self.pods.get(&key.namespace, &key.name);
        let budgets = Budgets::new(self.budgets.list(), &view);
        preempt(pod, &self.cluster, &budgets, why, &self.random)
    }

    fn unschedulable(&self, pod: &Arc<Pod>, message: &str, nominated: &str) {
        report::failed(&self.recorder, pod, message);
        self.tell(pod, report::UNSCHEDULABLE, message, nominated);
    }

    fn keep_room(&mut self, pod: &Pod, node: Arc<str>) {
        let mut nominated = Pod::clone(pod);
        nominated.nominated = node;
        self.cluster.nominate(&Arc::new(nominated));
    }

    /// Makes the victims go. Until they were told to, the pod is not tried again: it would find the same ones.
    fn make_room(&mut self, pod: &Arc<Pod>, node: Arc<str>, victims: Vec<Arc<Pod>>) {
        // Less important pods for which room was being made there look for another.
        let less = self.cluster.nominated(&node).iter();
        let less: Vec<Arc<Pod>> = less.filter(|other| other.priority < pod.priority).cloned().collect();
        for other in &less {
            self.cluster.forget_nomination(&other.uid);
        }
        self.keep_room(pod, node);
        let (client, recorder, done) = (self.client.clone(), self.recorder.clone(), self.preemptions.clone());
        let (clock, pod, seats) = (self.clock.clone(), pod.clone(), self.condition_seats.clone());
        self.shutdown.spawn(async move {
            let Ok(_seat) = seats.acquire().await else { return };
            for other in less {
                report::write_no_nomination(&client, &other).await;
            }
            for victim in victims {
                if let Err(error) = report::evict(&client, &recorder, &victim, &pod, clock.now()).await {
                    let (namespace, name) = (&victim.key.namespace, &victim.key.name);
                    tracing::warn!(%namespace, %name, %error, "a pod was not made to go for a more important one");
                }
            }
            // The receiver is gone only when the scheduler ends.
            let _ = done.send(pod.key.clone());
        });
    }

    fn bind(&self, pod: Arc<Pod>, node: Arc<str>) {
        let (client, seats, done) = (self.client.clone(), self.binding_seats.clone(), self.bindings.clone());
        self.shutdown.spawn(async move {
            let Ok(_seat) = seats.acquire().await else { return };
            let PodKey { namespace, name } = &pod.key;
            tracing::trace!(target: "walk", pod = %name, "the pod is bound");
            let outcome = client.bind(namespace, name, Some(&pod.uid), &node).await;
            // The receiver is gone only when the scheduler ends.
            let _ = done.send(Bound { pod, node, outcome });
        });
    }

    fn on_bound(&mut self, bound: Bound) {
        let Bound { pod, node, outcome } = bound;
        match outcome {
            Ok(()) => {
                let message = format!("Successfully assigned {}/{} to {node}", pod.key.namespace, pod.key.name);
                self.recorder.normal(report::reference(&pod), "Scheduled", message);
                // The pod keeps its place on the node until the informer tells of the bound pod, or of its end.
                self.queue.remove(&pod.key);
            }
            Err(error) => {
                // An answer that got lost may have bound the pod: then the informer will tell, and put it back there.
                if self.assumed.contains(&pod.uid) {
                    self.free(&pod.uid);
                    self.queue.failed(&pod.key, Instant::now());
                }
                if !error.is_not_found() {
                    let message = format!("running Bind plugin \"DefaultBinder\": {error}");
                    report::failed(&self.recorder, &pod, &message);
                    self.tell(&pod, report::SCHEDULER_ERROR, &message, &pod.nominated);
                } else {
                    self.queue.remove(&pod.key);
                }
            }
        }
    }

    fn tell_gated(&self, pod: &Arc<Pod>) {
        if !pod.gates.is_empty() {
            self.tell(pod, report::GATED, report::GATED_MESSAGE, &pod.nominated);
        }
    }

    fn tell(&self, pod: &Arc<Pod>, reason: &str, message: &str, nominated: &str) {
        let Some(patch) = report::condition_patch(pod, reason, message, nominated, self.clock.now()) else {
            return;
        };
        let (client, pod, seats) = (self.client.clone(), pod.clone(), self.condition_seats.clone());
        self.shutdown.spawn(async move {
            let Ok(_seat) = seats.acquire().await else { return };
            report::write_condition(&client, &pod, &patch).await;
        });
    }
}
