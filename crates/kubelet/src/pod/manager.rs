//! Starts a worker for each pod of the node, feeds it, and ends what the runtime has of pods that are no more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::Shutdown;
use client::informer::{Delta, Informer};
use client::k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;
use tokio::sync::mpsc;

use super::Shared;
use super::worker::{Input, Worker};
use crate::config::identity;
use crate::cri::LABEL_POD_UID;

/// The runtime is asked for its events again after this long when the connection was lost.
const EVENTS_RETRY: Duration = Duration::from_secs(1);

/// The pods that have a worker, by uid.
pub type Running = Arc<RwLock<HashMap<String, Arc<Pod>>>>;

/// The workers of a node.
pub struct Manager {
    shared: Arc<Shared>,
    pods: Informer<Pod>,
    workers: HashMap<String, mpsc::UnboundedSender<Input>>,
    running: Running,
    shutdown: Shutdown,
}

// === impl Manager ===

impl Manager {
    /// A manager of the pods that the informer tells of: those bound to this node.
    pub fn new(shared: Arc<Shared>, pods: Informer<Pod>, shutdown: Shutdown) -> Manager {
        Manager {
            shared,
            pods,
            workers: HashMap::new(),
            running: Running::default(),
            shutdown,
        }
    }

    /// The pods that have a worker.
    pub fn running(&self) -> Running {
        self.running.clone()
    }

    /// Works until the end is asked for; pods go on without it.
    pub async fn run(mut self) {
        let mut news = self.pods.subscribe();
        if !self.pods.synced().await {
            return;
        }
        let (ended, mut ends) = mpsc::unbounded_channel::<String>();
        let mut events = self.follow_runtime();
        let mut swept = false;
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                delta = news.next() => match delta {
                    None => return,
                    Some(Delta::Synced) => {}
                    Some(delta) => self.on_pod(delta, &ended),
                },
                Some(uid) = events.recv() => {
                    if let Some(worker) = self.workers.get(&uid) {
                        // A worker that is at its end hears nothing any more.
                        let _ = worker.send(Input::Runtime);
                    } else if uid.is_empty() {
                        self.workers.values().for_each(|worker| drop(worker.send(Input::Runtime)));
                    }
                }
                Some(uid) = ends.recv() => {
                    self.workers.remove(&uid);
                    self.shared.deferred.lock().remove(&uid);
                    self.running.write().remove(&uid);
                    // The object may be there still, or again under this uid, when its removal was refused.
                    let again = self.pods.list().into_iter().find(|pod| identity(pod).2 == uid);
                    if let Some(pod) = again {
                        self.on_pod(Delta::Added(pod), &ended);
                    }
                }
            }
            if !swept {
                swept = true;
                self.sweep(&ended).await;
            }
        }
    }

    fn on_pod(&mut self, delta: Delta<Pod>, ended: &mpsc::UnboundedSender<String>) {
        let Some(pod) = delta.object().cloned() else { return };
        let uid = identity(&pod).2.to_owned();
        let gone = matches!(delta, Delta::Deleted(_));
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if gone || matches!(phase, Some("Succeeded" | "Failed")) {
            self.tell_deferred();
        }
        if let Some(worker) = self.workers.get(&uid) {
            let _ = worker.send(if gone { Input::Gone } else { Input::Pod(pod) });
            return;
        }
        if !gone {
            self.start(uid, pod, ended, false);
        }
    }

    /// There is more room than before: pods that wait to be resized look again.
    fn tell_deferred(&self) {
        for uid in self.shared.deferred.lock().iter() {
            if let Some(worker) = self.workers.get(uid) {
                let _ = worker.send(Input::Runtime);
            }
        }
    }

    fn start(&mut self, uid: String, pod: Arc<Pod>, ended: &mpsc::UnboundedSender<String>, gone: bool) {
        tracing::trace!(target: "walk", pod = identity(&pod).1, "a worker is started");
        let (inputs, receiver) = mpsc::unbounded_channel();
        if gone {
            let _ = inputs.send(Input::Gone);
        }
        self.running.write().insert(uid.clone(), pod.clone());
        let mut worker = Worker::new(self.shared.clone(), pod, receiver);
        worker.gone = gone;
        self.workers.insert(uid.clone(), inputs);
        let (ended, stop) = (ended.clone(), self.shutdown.clone());
        self.shutdown.spawn(async move {
            if stop.until(worker.run()).await.is_some() {
                let _ = ended.send(uid);
            }
        });
    }

    /// Ends what the runtime has of pods that went while nobody looked.
    async fn sweep(&mut self, ended: &mpsc::UnboundedSender<String>) {
        let Ok(sandboxes) = self.shared.cri.sandboxes(None).await else {
            return;
        };
        for sandbox in sandboxes {
            let Some(uid) = sandbox.labels.get(LABEL_POD_UID) else {
                continue;
            };
            if self.workers.contains_key(uid) || self.pods.list().iter().any(|pod| identity(pod).2 == uid) {
                continue;
            }
            let metadata = sandbox.metadata.clone().unwrap_or_default();
            let mut pod = Pod::default();
            pod.metadata.name = Some(metadata.name);
            pod.metadata.namespace = Some(metadata.namespace);
            pod.metadata.uid = Some(uid.clone());
            self.start(uid.clone(), Arc::new(pod), ended, true);
        }
    }

    /// The uids of pods in which something happened; an empty one stands for all (events may have been missed).
    fn follow_runtime(&self) -> mpsc::UnboundedReceiver<String> {
        let (send, receive) = mpsc::unbounded_channel();
        let (cri, stop) = (self.shared.cri.clone(), self.shutdown.clone());
        self.shutdown.spawn(async move {
            let follow = async {
                loop {
                    if let Ok(mut events) = cri.events().await {
                        if send.send(String::new()).is_err() {
                            return;
                        }
                        while let Ok(Some(event)) = events.message().await {
                            let labels = event.pod_sandbox_status.map(|status| status.labels).unwrap_or_default();
                            let uid = labels.get(LABEL_POD_UID).cloned().unwrap_or_default();
                            if send.send(uid).is_err() {
                                return;
                            }
                        }
                    }
                    tokio::time::sleep(EVENTS_RETRY).await;
                }
            };
            let _ = stop.until(follow).await;
        });
        receive
    }
}
