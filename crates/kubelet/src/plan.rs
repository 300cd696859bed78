//! What to do about a pod next: a plain function from what it should be and what it is (D7).
//!
//! Source: `pkg/kubelet/kuberuntime/kuberuntime_manager.go` (`computePodActions`) and
//! `kuberuntime_container.go` (`computeInitContainerActions`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use client::k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};
use tokio::time::Instant;

use crate::observed::{Observed, Run, RunState};
use crate::restart::restarts;

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that goes on running.
    Sidecar,
    /// One of the pod's own.
    Main,
    /// Came later, to look into the pod: never started again, and no part of the pod's phase and readiness.
    Ephemeral,
}

/// A container of a pod's definition.
#[derive(Clone, Debug)]
pub struct Defined<'a> {
    /// What it is to the pod.
    pub role: Role,
    /// Its definition.
    pub container: Cow<'a, Container>,
    /// For an ephemeral container: the container whose processes it sees.
    pub target: Option<&'a str>,
}

// === impl Role ===

impl Role {
    /// The list of the pod's definition that has it.
    pub fn list(self) -> &'static str {
        match self {
            Role::Init | Role::Sidecar => "initContainers",
            Role::Main => "containers",
            Role::Ephemeral => "ephemeralContainers",
        }
    }

    /// Whether it has to be ready before the pod's own containers start.
    pub fn is_init(self) -> bool {
        matches!(self, Role::Init | Role::Sidecar)
    }

    /// Whether the pod's readiness depends on it as long as it lasts.
    pub fn serves(self) -> bool {
        matches!(self, Role::Main | Role::Sidecar)
    }
}

/// When a container may be tried again, and how long that pause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The end of the pause.
    pub until: Instant,
    /// Its whole length in seconds, for the words of the status.
    pub seconds: u64,
}

/// What is known besides the definition and the runtime's state.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Runs (by id) that a probe wants ended.
    pub condemned: BTreeMap<String, Condemned>,
    /// Containers whose start-up is not over (a startup probe has not passed yet).
    pub starting: BTreeSet<String>,
    /// Containers that have to wait after a failure.
    pub pauses: BTreeMap<String, Pause>,
    /// Containers that are being started or stopped right now.
    pub busy: BTreeSet<String>,
    /// The hash of each definition.
    pub hashes: BTreeMap<String, String>,
}

/// Why and how a run is to be ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condemned {
    /// For the event.
    pub why: String,
    /// The failed probe's own grace period in seconds; without one the pod's counts.
    pub grace_seconds: Option<i64>,
}

/// A run to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The run.
    pub id: String,
    /// Its container.
    pub name: String,
    /// Why and how.
    pub condemned: Condemned,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// A sandbox is missing: make the one of this attempt, after ending what is left of older ones.
    pub make_sandbox: Option<u32>,
    /// Nothing is to be started any more: end what still runs, sidecars last.
    pub finish: bool,
    /// Containers to start, with the number of the attempt.
    pub start: Vec<(String, u32)>,
    /// Runs to end.
    pub kill: Vec<Kill>,
    /// Look again then.
    pub look_again: Option<Instant>,
}

/// All containers of a pod's definition, in the order in which they start; ephemeral ones, which wait for none, at the end.
pub fn defined(pod: &Pod) -> Vec<Defined<'_>> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        Defined {
            role: if sidecar { Role::Sidecar } else { Role::Init },
            container: Cow::Borrowed(container),
            target: None,
        }
    });
    let main = spec.containers.iter().map(|container| Defined {
        role: Role::Main,
        container: Cow::Borrowed(container),
        target: None,
    });
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|own| Defined {
        role: Role::Ephemeral,
        container: Cow::Owned(as_container(own)),
        target: own.target_container_name.as_deref().filter(|name| !name.is_empty()),
    });
    init.chain(main).chain(ephemeral).collect()
}

/// What a container of the pod is to it.
pub fn role_of(pod: &Pod, name: &str) -> Option<Role> {
    let all = defined(pod);
    all.iter()
        .find(|defined| defined.container.name == name)
        .map(|d| d.role)
}

/// An ephemeral container as what it is for the node: a container. Validation allows it no ports, probes, hooks and resources.
fn as_container(own: &EphemeralContainer) -> Container {
    let own = own.clone();
    Container {
        name: own.name,
        image: own.image,
        image_pull_policy: own.image_pull_policy,
        command: own.command,
        args: own.args,
        working_dir: own.working_dir,
        env: own.env,
        env_from: own.env_from,
        volume_mounts: own.volume_mounts,
        volume_devices: own.volume_devices,
        security_context: own.security_context,
        stdin: own.stdin,
        stdin_once: own.stdin_once,
        tty: own.tty,
        termination_message_path: own.termination_message_path,
        termination_message_policy: own.termination_message_policy,
        ..Container::default()
    }
}

/// The pod's restart policy.
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or("Always")
}

/// What to do next about a pod that is not being deleted.
pub fn plan(pod: &Pod, observed: &Observed, facts: &Facts, now: Instant) -> Plan {
    tracing::trace!(target: "walk", pod = pod.metadata.name, "what is next");
    let containers = defined(pod);
    let policy = restart_policy(pod);
    if is_over(&containers, policy, observed) {
        return Plan {
            finish: observed.is_running(),
            ..Plan::default()
        };
    }
    let Some(sandbox) = observed.ready_sandbox() else {
        let attempt = observed.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
        return Plan {
            make_sandbox: Some(attempt),
            ..Plan::default()
        };
    };
    let mut planner = Planner {
        observed,
        facts,
        now,
        sandbox: &sandbox.id,
        policy,
        plan: Plan::default(),
    };
    // All containers start anew: first, all end.
    if observed.past.iter().any(Run::is_running) {
        planner.end_past();
        return planner.plan;
    }
    // Once a container of the pod's own was started in this sandbox, init containers are behind us.
    let initialized = containers
        .iter()
        .any(|defined| defined.role == Role::Main && planner.current(&defined.container.name).is_some());
    // Before the others, so that somebody can look why those do not start.
    for defined in containers.iter().filter(|defined| defined.role == Role::Ephemeral) {
        planner.ephemeral(&defined.container);
    }
    for defined in &containers {
        let go_on = match defined.role {
            Role::Init => initialized || planner.init(&defined.container),
            Role::Sidecar => planner.sidecar(&defined.container) || initialized,
            Role::Main => {
                planner.main(&defined.container);
                true
            }
            Role::Ephemeral => true,
        };
        if !go_on {
            break;
        }
    }
    planner.plan
}

/// Whether nothing of the pod will run again.
fn is_over(containers: &[Defined], policy: &str, observed: &Observed) -> bool {
    let is_done = |defined: &Defined| {
        let latest = observed.latest(&defined.container.name);
        latest.is_some_and(|run| run.is_over() && !restarts(policy, defined.role, &defined.container, run))
    };
    let failed_init = containers.iter().any(|defined| {
        let succeeded = observed.latest(&defined.container.name).is_some_and(Run::succeeded);
        defined.role == Role::Init && is_done(defined) && !succeeded
    });
    let mut own = containers.iter().filter(|defined| defined.role == Role::Main);
    failed_init || own.all(is_done)
}

struct Planner<'a> {
    observed: &'a Observed,
    facts: &'a Facts,
    now: Instant,
    sandbox: &'a str,
    policy: &'a str,
    plan: Plan,
}

// === impl Planner ===

impl<'a> Planner<'a> {
    /// The newest run in the present sandbox.
    fn current(&self, name: &str) -> Option<&'a Run> {
        self.observed.latest(name).filter(|run| run.sandbox == self.sandbox)
    }

    /// Answers whether the next container may start.
    fn init(&mut self, container: &Container) -> bool {
        match self.current(&container.name) {
            Some(run) if run.succeeded() => true,
            Some(run) if run.is_running() => {
                self.kill_if_condemned(run);
                false
            }
            _ => {
                self.start(&container.name);
                false
            }
        }
    }

    /// Answers whether the next container may start.
    fn sidecar(&mut self, container: &Container) -> bool {
        match self.current(&container.name) {
            Some(run) if run.is_running() => {
                self.kill_if_unwanted(run, container);
                !self.facts.starting.contains(&container.name)
            }
            _ => {
                self.start(&container.name);
                false
            }
        }
    }

    fn main(&mut self, container: &Container) {
        match self.current(&container.name) {
            Some(run) if run.is_running() => self.kill_if_unwanted(run, container),
            Some(run) if run.is_over() && !restarts(self.policy, Role::Main, container, run) => {}
            _ => self.start(&container.name),
        }
    }

    /// Whatever became of it, in this sandbox or an older one: it had its run.
    fn ephemeral(&mut self, container: &Container) {
        let latest = self.observed.latest(&container.name);
        if latest.is_none_or(|run| run.state == RunState::Created) {
            self.start(&container.name);
        }
    }

    /// Ends what is left of before a restart of all containers, at once.
    fn end_past(&mut self) {
        for run in self.observed.past.iter().filter(|run| run.is_running()) {
            self.kill(
                run,
                Condemned {
                    why: "killing".into(),
                    grace_seconds: Some(0),
                },
            );
        }
    }

    fn kill_if_unwanted(&mut self, run: &Run, container: &Container) {
        let wanted = self.facts.hashes.get(&container.name);
        if wanted.is_some_and(|hash| *hash != run.hash) {
            let why = format!("Container {} definition changed", container.name);
            return self.kill(
                run,
                Condemned {
                    why,
                    grace_seconds: None,
                },
            );
        }
        self.kill_if_condemned(run);
    }

    fn kill_if_condemned(&mut self, run: &Run) {
        if let Some(condemned) = self.facts.condemned.get(&run.id) {
            self.kill(run, condemned.clone());
        }
    }

    fn kill(&mut self, run: &Run, condemned: Condemned) {
        if !self.facts.busy.contains(&run.name) {
            self.plan.kill.push(Kill {
                id: run.id.clone(),
                name: run.name.clone(),
                condemned,
            });
        }
    }

    fn start(&mut self, name: &str) {
        if self.facts.busy.contains(name) {
            return;
        }
        if let Some(pause) = self.facts.pauses.get(name).filter(|pause| pause.until > self.now) {
            let earlier = self.plan.look_again.map_or(pause.until, |at| at.min(pause.until));
            self.plan.look_again = Some(earlier);
            return;
        }
        // A run that was made and never started is a crash of ours: the next attempt takes its place.
        let attempt = self
            .observed
            .runs_of(name)
            .map(|run| run.attempt + u32::from(run.state != RunState::Created))
            .max();
        self.plan.start.push((name.to_owned(), attempt.unwrap_or(0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::Sandbox;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}))
            .unwrap()
    }

    /// `name:state` with state `run`, `ok`, `fail`, `new`; a sandbox is there unless `none`.
    fn observed(text: &str) -> Observed {
        let mut observed = Observed {
            sandboxes: vec![Sandbox {
                id: "s0".into(),
                ready: true,
                ..Sandbox::default()
            }],
            ..Observed::default()
        };
        for (at, word) in text.split_whitespace().enumerate() {
            let (name, state) = word.split_once(':').unwrap_or((word, ""));
            if name == "none" {
                observed.sandboxes.clear();
                continue;
            }
            if name == "dead" {
                observed.sandboxes[0].ready = false;
                continue;
            }
            let (state, exit_code) = match state {
                "run" => (RunState::Running, 0),
                "ok" => (RunState::Exited, 0),
                "fail" => (RunState::Exited, 1),
                _ => (RunState::Created, 0),
            };
            let attempt = observed.runs_of(name).count() as u32;
            observed.runs.insert(
                0,
                Run {
                    id: format!("{name}{at}"),
                    name: name.into(),
                    sandbox: "s0".into(),
                    state,
                    exit_code,
                    attempt,
                    ..Run::default()
                },
            );
        }
        observed
    }

    fn words(plan: &Plan) -> String {
        let mut words = Vec::new();
        if let Some(attempt) = plan.make_sandbox {
            words.push(format!("sandbox{attempt}"));
        }
        if plan.finish {
            words.push("finish".into());
        }
        words.extend(plan.kill.iter().map(|kill| format!("kill:{}", kill.name)));
        words.extend(plan.start.iter().map(|(name, attempt)| format!("{name}#{attempt}")));
        if plan.look_again.is_some() {
            words.push("later".into());
        }
        words.join(" ")
    }

    #[tokio::test]
    async fn pods_go_through_their_life() {
        let two = || json!([{"name": "a"}, {"name": "b"}]);
        let with_init = |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "i"}, {"name": "j"}], "containers": two()});
        let with_sidecar = |policy: &str| {
            json!({
                "restartPolicy": policy, "containers": [{"name": "a"}],
                "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}],
            })
        };
        let plain = |policy: &str| json!({"restartPolicy": policy, "containers": two()});
        let looked_into = |policy: &str| {
            json!({
                "restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}],
                "ephemeralContainers": [{"name": "e", "targetContainerName": "a"}],
            })
        };
        for (spec, state, expect) in [
            (plain("Always"), "none", "sandbox0"),
            (plain("Always"), "dead", "sandbox1"),
            (plain("Always"), "", "a#0 b#0"),
            (plain("Always"), "a:run b:run", ""),
            (plain("Always"), "a:fail b:run", "a#1"),
            (plain("Always"), "a:fail a:ok b:run", "a#2"),
            (plain("Always"), "a:new b:run", "a#0"),
            (plain("OnFailure"), "a:ok b:fail", "b#1"),
            (plain("OnFailure"), "a:ok b:ok", "finish"),
            (plain("Never"), "a:ok b:fail", "finish"),
            (plain("Never"), "dead a:ok b:fail", ""),
            (plain("Never"), "a:ok b:run", ""),
            (with_init("Always"), "", "i#0"),
            (with_init("Always"), "i:run", ""),
            (with_init("Always"), "i:ok", "j#0"),
            (with_init("Always"), "i:fail", "i#1"),
            (with_init("Never"), "i:fail", "finish"),
            (with_init("Always"), "i:ok j:ok", "a#0 b#0"),
            (with_init("Always"), "i:ok j:ok a:run b:fail", "b#1"),
            (with_sidecar("Always"), "", "s#0"),
            (with_sidecar("Always"), "s:run", "i#0"),
            (with_sidecar("Always"), "s:run i:ok", "a#0"),
            (with_sidecar("Always"), "s:fail i:ok a:run", "s#1"),
            (with_sidecar("Never"), "s:run i:ok a:ok", "finish"),
            (looked_into("Always"), "none", "sandbox0"),
            (looked_into("Always"), "i:run", "e#0"),
            (looked_into("Always"), "i:ok a:run", "e#0"),
            (looked_into("Always"), "i:ok a:run e:new", "e#0"),
            (looked_into("Always"), "i:ok a:run e:run", ""),
            (looked_into("Always"), "i:ok a:run e:fail", ""),
            (looked_into("Never"), "i:ok a:ok e:run", "finish"),
        ] {
            let plan = plan(&pod(spec.clone()), &observed(state), &Facts::default(), Instant::now());
            assert_eq!(words(&plan), expect, "{state:?} {spec}");
        }
    }

    #[tokio::test]
    async fn facts_change_the_plan() {
        let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
        let now = Instant::now();
        let condemned = Facts {
            condemned: [("a0".into(), Condemned::default())].into(),
            ..Facts::default()
        };
        assert_eq!(words(&plan(&pod, &observed("a:run b:run"), &condemned, now)), "kill:a");
        let busy = Facts {
            busy: ["a".into()].into(),
            ..condemned
        };
        assert_eq!(words(&plan(&pod, &observed("a:run b:run"), &busy, now)), "");
        let pause = Pause {
            until: now + Duration::from_secs(10),
            seconds: 10,
        };
        let paused = Facts {
            pauses: [("a".into(), pause)].into(),
            ..Facts::default()
        };
        assert_eq!(words(&plan(&pod, &observed("a:fail b:run"), &paused, now)), "later");
        assert_eq!(
            words(&plan(&pod, &observed("a:fail b:run"), &paused, pause.until)),
            "a#1"
        );
        let changed = Facts {
            hashes: [("a".into(), "new".into())].into(),
            ..Facts::default()
        };
        assert_eq!(words(&plan(&pod, &observed("a:run b:run"), &changed, now)), "kill:a");
    }

    #[tokio::test]
    async fn a_sidecar_that_starts_up_holds_the_rest_back() {
        let pod =
            pod(json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]}));
        let starting = Facts {
            starting: ["s".into()].into(),
            ..Facts::default()
        };
        assert_eq!(words(&plan(&pod, &observed("s:run"), &starting, Instant::now())), "");
        assert_eq!(
            words(&plan(&pod, &observed("s:run"), &Facts::default(), Instant::now())),
            "a#0"
        );
    }
}
