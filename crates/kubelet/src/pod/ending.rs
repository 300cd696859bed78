//! The end of a pod: its containers, its sandbox, its volumes, and at last its object in the API.
//!
//! The order is a promise: the object is removed only after nothing of the pod runs, so that whoever waits for its end
//! (a StatefulSet, a namespace) can rely on it.

use std::collections::BTreeSet;
use std::time::Duration;

use client::{DeleteParams, Preconditions, resources};
use tokio::time::Instant;

use super::kill::{Ending, Order};
use super::worker::{Worker, address, grace_seconds};
use super::{container_reference, full_name};
use crate::config::{identity, log_directory};
use crate::observed::{Observed, Run};
use crate::plan::{Facts, Role, defined};

/// The runtime is asked again after this long when it did not answer.
const RETRY: Duration = Duration::from_secs(1);

impl Worker {
    /// Ends the pod. A shorter grace period that is asked for meanwhile counts from then on.
    pub(super) async fn end(&mut self) {
        self.probes.keep(&[]);
        let begun = Instant::now();
        let mut told = false;
        let mut ended = BTreeSet::new();
        loop {
            let (_, _, uid) = identity(&self.pod);
            let Ok(observed) = Observed::of_pod(&self.shared.cri, uid).await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            // One that was made and never started has nothing to end: it goes with the sandbox.
            let running: Vec<_> = observed.runs.iter().filter(|run| run.is_running()).cloned().collect();
            self.write(&observed, false).await;
            if running.is_empty() {
                break;
            }
            if running.iter().all(|run| ended.contains(&run.id)) {
                // They outlived their kill: the runtime said why.
                tokio::time::sleep(RETRY).await;
            }
            let grace = grace_seconds(&self.pod);
            let left = (grace - i64::try_from(begun.elapsed().as_secs()).unwrap_or(grace)).max(0);
            if !told {
                self.tell_stopping(&running);
                told = true;
            }
            let ends = self.end_runs(&observed, &running, left);
            tokio::pin!(ends);
            loop {
                tokio::select! {
                    _ = &mut ends => {
                        ended.extend(running.iter().map(|run| run.id.clone()));
                        break;
                    }
                    input = self.inputs.recv() => match input {
                        None => return,
                        Some(input) => {
                            self.take(input);
                            if grace_seconds(&self.pod) < grace {
                                break; // Less time than was given: tell the runtime again.
                            }
                        }
                    },
                }
            }
        }
        self.remove().await;
    }

    /// Tells people that these runs are about to end.
    pub(super) fn tell_stopping(&self, running: &[Run]) {
        for run in running {
            let about = container_reference(&self.pod, &run.name);
            let text = format!("Stopping container {}", run.name);
            self.shared.recorder.normal(about, "Killing", text);
        }
    }

    /// Ends runs of the pod, sidecars last. The future holds nothing of the worker.
    pub(super) fn end_runs(
        &self,
        observed: &Observed,
        running: &[Run],
        grace_seconds: i64,
    ) -> impl Future<Output = ()> + use<> {
        let (shared, pod) = (self.shared.clone(), self.pod.clone());
        let (address, running) = (address(observed), running.to_vec());
        async move {
            let all = defined(&pod);
            // Sidecars serve the others until their end: they go last, in the reverse of the order they came in.
            let sidecars: Vec<&str> = all
                .iter()
                .rev()
                .filter(|d| d.role == Role::Sidecar)
                .map(|d| d.container.name.as_str())
                .collect();
            let rank = |name: &str| {
                sidecars
                    .iter()
                    .position(|sidecar| *sidecar == name)
                    .map_or(0, |at| at + 1)
            };
            let ranks: Vec<usize> = running.iter().map(|run| rank(&run.name)).collect();
            let order = Order::new(&ranks);
            let ends = running.iter().zip(&ranks).map(async |(run, rank)| {
                let ending = Ending {
                    container: all.iter().find(|d| d.container.name == run.name).map(|d| &*d.container),
                    run: &run.id,
                    address,
                    grace_seconds,
                };
                ending.kill_after(&shared, &pod, order.turn(*rank)).await;
                order.ended(*rank);
            });
            futures::future::join_all(ends).await;
        }
    }

    async fn write(&mut self, observed: &Observed, ending: bool) {
        if !self.gone {
            self.write_status(observed, &Facts::default(), ending).await;
        }
    }

    async fn remove(&mut self) {
        let pod = self.pod.clone();
        let (namespace, name, uid) = identity(&pod);
        let observed = loop {
            match self.stop_sandboxes(uid).await {
                Ok(observed) => break observed,
                Err(error) => {
                    tracing::warn!(pod = %full_name(&pod), %error, "the pod is not ended yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        while let Err(error) = self.shared.volumes.teardown(uid).await {
            tracing::warn!(pod = %full_name(&pod), %error, "the pod's volumes are not removed yet");
            tokio::time::sleep(RETRY).await;
        }
        self.write(&observed, true).await;
        if !self.gone {
            let params = DeleteParams {
                grace_seconds: Some(0),
                preconditions: Preconditions {
                    uid: Some(uid.into()),
                    ..Preconditions::default()
                },
                ..DeleteParams::default()
            };
            loop {
                match self
                    .shared
                    .client
                    .delete(&resources::PODS, namespace, name, &params)
                    .await
                {
                    Ok(_) => break,
                    Err(error) if error.is_not_found() || error.is_conflict() => break,
                    Err(error) => {
                        tracing::warn!(pod = %full_name(&pod), %error, "the pod's object is not removed yet");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
        for run in &observed.runs {
            if let Err(error) = self.shared.cri.remove_container(&run.id).await {
                tracing::warn!(pod = %full_name(&pod), %error, "a container is left behind");
            }
        }
        for sandbox in &observed.sandboxes {
            if let Err(error) = self.shared.cri.remove_sandbox(&sandbox.id).await {
                tracing::warn!(pod = %full_name(&pod), %error, "a sandbox is left behind");
            }
        }
        let logs = log_directory(&pod, &self.shared.node);
        if let Err(error) = std::fs::remove_dir_all(&logs)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %logs.display(), %error, "logs are left behind");
        }
    }

    /// Ends the pod's sandboxes; what is left then.
    pub(super) async fn stop_sandboxes(&self, uid: &str) -> crate::cri::Result<Observed> {
        for sandbox in self.shared.cri.sandboxes(Some(uid)).await? {
            self.shared.cri.stop_sandbox(&sandbox.id).await?;
        }
        Observed::of_pod(&self.shared.cri, uid).await
    }
}
