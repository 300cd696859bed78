//! What the runtime has of one pod: its sandboxes and every run of its containers.

use std::collections::{BTreeMap, BTreeSet};

use rpc::cri::{self, ContainerState, PodSandboxState};

use crate::cri::{ANNOTATION_HASH, Cri, LABEL_CONTAINER_NAME, Result};

/// A pod as the runtime has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The sandboxes, the newest first.
    pub sandboxes: Vec<Sandbox>,
    /// All runs of all containers, the newest first.
    pub runs: Vec<Run>,
    /// Those of before the last restart of all containers, the newest first; they are in `runs` until that is looked for.
    pub past: Vec<Run>,
}

/// A sandbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sandbox {
    /// The runtime's name for it.
    pub id: String,
    /// How many came before.
    pub attempt: u32,
    /// Whether it is as it should be.
    pub ready: bool,
    /// The pod's addresses; none on the node's own network.
    pub ips: Vec<String>,
}

/// One run of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// The runtime's name for it.
    pub id: String,
    /// The container's name in the pod.
    pub name: String,
    /// How many runs came before.
    pub attempt: u32,
    /// Its sandbox.
    pub sandbox: String,
    /// Its state.
    pub state: RunState,
    /// When it was made, in nanoseconds since 1970.
    pub created_at: i64,
    /// When it was started, in nanoseconds since 1970.
    pub started_at: i64,
    /// When it ended, in nanoseconds since 1970.
    pub finished_at: i64,
    /// How it ended.
    pub exit_code: i32,
    /// Why it ended, in one word.
    pub reason: String,
    /// Why it ended, for people.
    pub message: String,
    /// The image as the pod names it.
    pub image: String,
    /// The image as it was found.
    pub image_ref: String,
    /// The hash of the definition it was made from.
    pub hash: String,
    /// Its log.
    pub log_path: String,
    /// Where it may leave a last word, on this node.
    pub termination_log: Option<String>,
    /// What it was given of CPU and memory.
    pub resources: Option<cri::LinuxContainerResources>,
    /// Whom it runs as: user, group and further groups.
    pub user: Option<(i64, i64, Vec<i64>)>,
}

/// The state of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunState {
    /// Made, not started.
    #[default]
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime lost it.
    Unknown,
}

// === impl Observed ===

impl Observed {
    /// Asks the runtime about a pod.
    pub async fn of_pod(cri: &Cri, uid: &str) -> Result<Observed> {
        let (sandboxes, containers) = futures::try_join!(cri.sandboxes(Some(uid)), cri.containers(Some(uid)))?;
        let statuses = containers.iter().map(|container| cri.container_status(&container.id));
        let addresses = sandboxes.iter().map(|sandbox| cri.sandbox_status(&sandbox.id));
        let (statuses, addresses) = futures::join!(
            futures::future::join_all(statuses),
            futures::future::join_all(addresses)
        );
        let mut observed = Observed::default();
        for (sandbox, status) in sandboxes.into_iter().zip(addresses) {
            match status {
                Ok(status) => observed.sandboxes.push(Sandbox::of_cri(&sandbox, &status)),
                Err(error) if error.not_found => {}
                Err(error) => return Err(error),
            }
        }
        for (container, status) in containers.into_iter().zip(statuses) {
            match status {
                Ok(status) => observed.runs.push(Run::of_cri(&container, status)),
                Err(error) if error.not_found => {}
                Err(error) => return Err(error),
            }
        }
        observed
            .sandboxes
            .sort_by_key(|sandbox| std::cmp::Reverse(sandbox.attempt));
        observed
            .runs
            .sort_by(|a, b| b.created_at.cmp(&a.created_at).then(b.attempt.cmp(&a.attempt)));
        Ok(observed)
    }

    /// A run whose postStart hook has not ended is not there yet for probes, plan and status.
    /// Source: upstream's pod worker looks at its pod again only when the hook is over.
    pub fn without_unhooked(mut self, hooked: &BTreeSet<String>) -> Observed {
        for name in hooked {
            let newest = self.runs.iter_mut().find(|run| run.name == *name);
            if let Some(run) = newest.filter(|run| run.is_running()) {
                run.state = RunState::Created;
            }
        }
        self
    }

    /// The newest sandbox, when it is ready.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// All runs, those of the past too.
    pub fn all_runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().chain(&self.past)
    }

    /// The runs of a container, the newest first, those of the past too.
    pub fn runs_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Run> {
        self.all_runs().filter(move |run| run.name == name)
    }

    /// The newest run of a container before a restart of all.
    pub fn latest_past(&self, name: &str) -> Option<&Run> {
        self.past.iter().find(|run| run.name == name)
    }

    /// The newest run of a container; none of the past.
    pub fn latest(&self, name: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.name == name)
    }

    /// Whether anything runs.
    pub fn is_running(&self) -> bool {
        self.sandboxes.iter().any(|sandbox| sandbox.ready) || self.all_runs().any(Run::is_running)
    }
}

impl Sandbox {
    fn of_cri(sandbox: &cri::PodSandbox, status: &cri::PodSandboxStatus) -> Sandbox {
        let network = status.network.clone().unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|ip| ip.ip);
        Sandbox {
            id: sandbox.id.clone(),
            attempt: sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
            ready: status.state == PodSandboxState::SandboxReady as i32,
            ips: std::iter::once(network.ip)
                .chain(more)
                .filter(|ip| !ip.is_empty())
                .collect(),
        }
    }
}

// === impl Run ===

impl Run {
    fn of_cri(container: &cri::Container, status: cri::ContainerStatus) -> Run {
        let metadata = status.metadata.clone().unwrap_or_default();
        let label = |labels: &std::collections::HashMap<String, String>| labels.get(LABEL_CONTAINER_NAME).cloned();
        let image = status.image.clone().unwrap_or_default();
        let termination = status.annotations.get("io.kubernetes.container.terminationMessagePath");
        let mounts: BTreeMap<&String, &String> = status
            .mounts
            .iter()
            .map(|mount| (&mount.container_path, &mount.host_path))
            .collect();
        let user = status.user.and_then(|user| user.linux);
        Run {
            resources: status.resources.and_then(|resources| resources.linux),
            user: user.map(|user| (user.uid, user.gid, user.supplemental_groups)),
            name: label(&status.labels).unwrap_or(metadata.name),
            attempt: metadata.attempt,
            sandbox: container.pod_sandbox_id.clone(),
            state: match ContainerState::try_from(status.state) {
                Ok(ContainerState::ContainerCreated) => RunState::Created,
                Ok(ContainerState::ContainerRunning) => RunState::Running,
                Ok(ContainerState::ContainerExited) => RunState::Exited,
                _ => RunState::Unknown,
            },
            created_at: status.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            exit_code: status.exit_code,
            image: if image.user_specified_image.is_empty() {
                image.image
            } else {
                image.user_specified_image
            },
            hash: status.annotations.get(ANNOTATION_HASH).cloned().unwrap_or_default(),
            termination_log: termination
                .and_then(|path| mounts.get(path))
                .map(|path| path.to_string()),
            id: status.id,
            reason: status.reason,
            message: status.message,
            image_ref: status.image_ref,
            log_path: status.log_path,
        }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.state == RunState::Running
    }

    /// Whether it ended, or was lost.
    pub fn is_over(&self) -> bool {
        matches!(self.state, RunState::Exited | RunState::Unknown)
    }

    /// Whether it ended as it should.
    pub fn succeeded(&self) -> bool {
        self.state == RunState::Exited && self.exit_code == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_there_once_its_hook_has_ended() {
        let run = |name: &str, state| Run {
            name: name.into(),
            state,
            ..Run::default()
        };
        let observed = Observed {
            runs: vec![
                run("a", RunState::Running),
                run("b", RunState::Running),
                run("c", RunState::Exited),
                run("c", RunState::Running),
            ],
            ..Observed::default()
        };
        let seen = observed.without_unhooked(&["a".into(), "c".into()].into());
        let states: Vec<RunState> = seen.runs.iter().map(|run| run.state).collect();
        use RunState::{Created, Exited, Running};
        assert_eq!(states, [Created, Running, Exited, Running]);
    }
}
