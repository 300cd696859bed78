//! One pod's task: looks at what is, decides, acts, tells; then waits for the next event or deadline.
//!
//! Invariants: for each container at most one start or end is under way (`busy`); the status is written only when it
//! differs from what the API has; nothing here waits for a container's end but the end of the pod itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::Pod;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backoff::Backoffs;
use super::kill::Ending;
use super::reports::Verdicts;
use super::resizing::Resizing;
use super::start::{POST_START_ERROR, RUN_ERROR, Start};
use super::verdict::Verdict;
use super::{Shared, container_reference, full_name, hooks};
use crate::config::{self, identity};
use crate::observed::{Observed, Run};
use crate::plan::{self, Defined, Facts, Kill, Plan, Role, defined};
use crate::probes::{PodNames, Probes, Report, Target};
use crate::restart::Anew;
use crate::status::Waiting;
use crate::volumes::{Changes, PodVolumes};

/// The runtime is asked again after this long when it did not answer.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);
/// A container that cannot be made (not one that crashed) is tried again after this long.
/// Source: `pkg/kubelet/kubelet.go` (`backOffPeriod`).
pub(super) const START_RETRY: Duration = Duration::from_secs(10);
/// For how long the first status waits for what is being started: most containers run by then, and one write tells all.
const FIRST_STATUS_PATIENCE: Duration = Duration::from_millis(200);
/// Runs of a container that are kept: the present one and the one before, whose log people ask for.
const RUNS_KEPT: usize = 2;

/// News for a worker.
#[derive(Clone, Debug)]
pub enum Input {
    /// The pod changed in the API.
    Pod(Arc<Pod>),
    /// Something changed in the runtime.
    Runtime,
    /// The pod is gone from the API.
    Gone,
}

/// What ended in the background.
pub(super) enum Done {
    Started {
        container: String,
        outcome: Result<(), Waiting>,
    },
    Killed {
        container: String,
    },
}

/// A container that could not be made.
pub(super) struct Failure {
    pub(super) waiting: Waiting,
    pub(super) until: Instant,
    pub(super) delay: Duration,
}

impl Failure {
    /// Whether there was a run all the same: then its end counts, as that of any other run.
    pub(super) fn ran(&self) -> bool {
        matches!(&*self.waiting.reason, RUN_ERROR | POST_START_ERROR)
    }
}

/// The task of one pod.
pub struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) inputs: mpsc::UnboundedReceiver<Input>,
    pub(super) gone: bool,
    pub(super) probes: Probes,
    reports: mpsc::UnboundedReceiver<Report>,
    pub(super) verdicts: Verdicts,
    backoffs: Backoffs,
    pub(super) failures: BTreeMap<String, Failure>,
    pub(super) last_words: BTreeMap<String, String>,
    /// Pauses that people were told of.
    pub(super) told: BTreeSet<(String, u64, u32)>,
    pub(super) work: JoinSet<Done>,
    pub(super) busy: BTreeSet<String>,
    /// Containers being started that have a postStart hook.
    hooked: BTreeSet<String>,
    pub(super) volumes: Option<Arc<PodVolumes>>,
    pub(super) asked_volumes: bool,
    pub(super) setup_retry: Option<(Instant, Duration)>,
    /// Whether volumes show something that has changed.
    stale: bool,
    /// Until when the first status may wait.
    first_status: Option<Instant>,
    /// Why the node ended the pod for good.
    pub(super) verdict: Option<Verdict>,
    pub(super) next_storage_check: Option<Instant>,
    /// The pod with what its containers are to have: its definition, unless that has to wait.
    pub(super) promised: Arc<Pod>,
    pub(super) resizing: Resizing,
    /// The last restart of all containers.
    anew: Anew,
}

// === impl Worker ===

impl Worker {
    /// A worker for a pod.
    pub fn new(shared: Arc<Shared>, pod: Arc<Pod>, inputs: mpsc::UnboundedReceiver<Input>) -> Worker {
        let (report, reports) = mpsc::unbounded_channel();
        let (namespace, name, uid) = identity(&pod);
        let names = PodNames {
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let (cri, random, metrics) = (shared.cri.clone(), shared.random.fork(), shared.probe_metrics.clone());
        let probes = Probes::new(cri, random, report, names, metrics);
        Worker {
            verdict: Verdict::of_status(&pod),
            next_storage_check: None,
            promised: pod.clone(),
            resizing: Resizing::default(),
            anew: Anew::default(),
            shared,
            pod,
            inputs,
            gone: false,
            probes,
            reports,
            verdicts: Verdicts::default(),
            backoffs: Backoffs::default(),
            failures: BTreeMap::new(),
            last_words: BTreeMap::new(),
            told: BTreeSet::new(),
            work: JoinSet::new(),
            busy: BTreeSet::new(),
            hooked: BTreeSet::new(),
            volumes: None,
            asked_volumes: false,
            setup_retry: None,
            stale: false,
            first_status: None,
        }
    }

    /// Lives as long as the pod.
    pub async fn run(mut self) {
        let mut sources: Option<Changes> = None;
        loop {
            if self.gone || self.pod.metadata.deletion_timestamp.is_some() {
                self.work.abort_all();
                self.end().await;
                return;
            }
            if std::mem::take(&mut self.stale) {
                self.refresh().await;
            }
            let deadline = self.sync().await;
            // There is no news of volumes before they were asked for; what changed since then is not missed.
            if sources.is_none() && self.asked_volumes {
                sources = Some(self.shared.volumes.changes(identity(&self.pod).2));
            }
            let changed = async {
                match &mut sources {
                    Some(sources) => sources.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(input) => self.take(input),
                    // The kubelet ends; the pod goes on.
                    None => return,
                },
                Some(report) = self.reports.recv() => self.verdicts.take(report, &self.pod, &self.shared),
                Some(done) = self.work.join_next() => self.settle(done),
                true = changed => self.refresh().await,
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
            // Whatever else is there already belongs to the same look.
            while let Ok(input) = self.inputs.try_recv() {
                self.take(input);
            }
            while let Ok(report) = self.reports.try_recv() {
                self.verdicts.take(report, &self.pod, &self.shared);
            }
            while let Some(done) = self.work.try_join_next() {
                self.settle(done);
            }
        }
    }

    pub(super) fn take(&mut self, input: Input) {
        match input {
            Input::Pod(pod) => {
                let shown = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
                // The downward API shows them: what shows them is made anew with the next look.
                self.stale |= shown(&pod) != shown(&self.pod);
                // The news may be older than what the API answered to our own write.
                if revision(&pod) >= revision(&self.pod) {
                    self.forgive_changed(&pod);
                    self.pod = pod;
                }
            }
            Input::Runtime => {}
            Input::Gone => self.gone = true,
        }
    }

    /// What went wrong with a container says nothing of the one that another image makes: it is tried at once. (Upstream's
    /// back-offs are kept by the container's hash.)
    fn forgive_changed(&mut self, new: &Pod) {
        let (old, new) = (defined(&self.pod), defined(new));
        for old in &old {
            let name = &old.container.name;
            let is_it = |new: &&Defined| new.container.name == *name;
            if new.iter().find(is_it).map(|new| config::hash(&new.container)) != Some(config::hash(&old.container)) {
                self.backoffs.forget(name);
                self.failures.remove(name);
            }
        }
    }

    fn settle(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let Ok(done) = done else { return };
        match done {
            Done::Killed { container } => drop(self.busy.remove(&container)),
            Done::Started { container, outcome } => {
                self.busy.remove(&container);
                self.hooked.remove(&container);
                match outcome {
                    Ok(()) => drop(self.failures.remove(&container)),
                    Err(waiting) => self.fail(container, waiting),
                }
            }
        }
    }

    fn fail(&mut self, container: String, waiting: Waiting) {
        let pulls = waiting.reason == "ErrImagePull";
        let old = self
            .failures
            .get(&container)
            .filter(|old| (old.waiting.reason == "ErrImagePull") == pulls);
        let delay = match old {
            Some(old) if pulls => (old.delay * 2).min(Duration::from_secs(300)),
            _ => START_RETRY,
        };
        if pulls {
            self.tell_pull_pause(&container);
        }
        let mut failure = Failure {
            waiting,
            until: Instant::now() + delay,
            delay,
        };
        if failure.ran() {
            failure.until = Instant::now();
        }
        self.failures.insert(container, failure);
    }

    /// One look at the pod. Answers when to look again without an event.
    async fn sync(&mut self) -> Option<Instant> {
        let (_, _, uid) = identity(&self.pod);
        let mut observed = match Observed::of_pod(&self.shared.cri, uid).await {
            Ok(observed) => observed.without_unhooked(&self.hooked),
            Err(error) => {
                tracing::warn!(pod = %full_name(&self.pod), %error, "the runtime does not answer");
                return Some(Instant::now() + RUNTIME_RETRY);
            }
        };
        if !self.anew.set_past_apart(&self.pod, &mut observed, self.busy.is_empty()) {
            return None;
        }
        let judged = self.judge(&observed).await;
        if let Some(verdict) = self.verdict.clone() {
            return self.carry_out(&verdict, &observed).await;
        }
        self.verdicts.keep(&observed);
        self.failures
            .retain(|name, failure| !is_started_since(&observed, name, failure));
        self.read_last_words(&observed);
        let resized = self.resize(&observed).await;
        self.ask_running(&observed);
        let facts = self.facts(&observed);
        let plan = plan::plan(&self.pod, &observed, &facts, Instant::now());
        let mut deadline = earlier(earlier(plan.look_again, judged), resized);
        deadline = earlier(deadline, self.act(&plan, &observed).await);
        if plan.make_sandbox.is_some() && self.setup_retry.is_none() {
            // It is there now: the next look, at once, starts what is in it and tells of both together.
            return deadline;
        }
        if self.volumes.is_none() && !plan.finish && observed.all_runs().any(Run::is_running) {
            // The kubelet was started again: what the pod's volumes show has to follow their sources as before.
            self.prepare().await;
            deadline = earlier(deadline, self.setup_retry.map(|(at, _)| at));
        }
        self.collect(&observed).await;
        self.tell_pauses(&facts, &observed);
        deadline = match self.first_status_waits() {
            Some(until) => earlier(deadline, Some(until)),
            None => earlier(deadline, self.write_status(&observed, &facts, false).await),
        };
        let retry = self
            .setup_retry
            .map(|(at, _)| at)
            .filter(|_| plan.make_sandbox.is_some());
        earlier(deadline, retry)
    }

    /// Until when nothing is told, because more is about to be known.
    fn first_status_waits(&mut self) -> Option<Instant> {
        let told = self
            .pod
            .status
            .as_ref()
            .is_some_and(|status| status.start_time.is_some());
        if told || self.busy.is_empty() || !self.failures.is_empty() {
            return None;
        }
        let now = Instant::now();
        let until = *self.first_status.get_or_insert(now + FIRST_STATUS_PATIENCE);
        (until > now).then_some(until)
    }

    fn facts(&self, observed: &Observed) -> Facts {
        let mut facts = Facts {
            busy: self.busy.clone(),
            ..Facts::default()
        };
        self.verdicts.tell_plan(&self.pod, observed, &mut facts);
        facts.condemned.extend(self.resizing.condemned.clone());
        let now = Instant::now();
        for defined in defined(&self.pod) {
            let name = &defined.container.name;
            facts.hashes.insert(name.clone(), config::hash(&defined.container));
            if self.busy.contains(name) {
                continue; // It is being started: its pause is over.
            }
            let over = observed.latest(name).filter(|run| run.is_over());
            let failed = over.map(|run| self.instant_of(run.finished_at));
            let crash = failed.and_then(|failed| self.backoffs.pause(name, failed));
            let made = self.failures.get(name).map(|f| plan::Pause {
                until: f.until,
                seconds: f.delay.as_secs(),
            });
            if let Some(pause) = [crash, made]
                .into_iter()
                .flatten()
                .filter(|p| p.until > now)
                .max_by_key(|p| p.until)
            {
                facts.pauses.insert(name.clone(), pause);
            }
        }
        facts
    }

    /// A moment of the runtime on the monotonic clock, never in the future.
    fn instant_of(&self, nanoseconds: i64) -> Instant {
        let now = Instant::now();
        let Ok(then) = Timestamp::from_nanosecond(nanoseconds.into()) else {
            return now;
        };
        let ago = Duration::try_from(self.shared.clock.now().duration_since(then)).unwrap_or_default();
        now.checked_sub(ago).unwrap_or(now)
    }

    /// Does what the plan says.
    async fn act(&mut self, plan: &Plan, observed: &Observed) -> Option<Instant> {
        if plan.finish {
            self.finish(observed).await;
            return None;
        }
        if let Some(attempt) = plan.make_sandbox {
            return self.make_sandbox(attempt, observed).await;
        }
        for kill in &plan.kill {
            self.start_kill(kill, observed);
        }
        if !plan.start.is_empty() {
            let Some(volumes) = self.prepare().await else {
                return self.setup_retry.map(|(at, _)| at);
            };
            for (name, attempt) in &plan.start {
                self.start(name, *attempt, observed, volumes.clone());
            }
        }
        None
    }

    fn start(&mut self, name: &str, attempt: u32, observed: &Observed, volumes: Arc<PodVolumes>) {
        let promised = self.promised.clone();
        let (Some(sandbox), all) = (observed.ready_sandbox(), defined(&promised)) else {
            return;
        };
        let Some(defined) = all.iter().find(|defined| defined.container.name == name) else {
            return;
        };
        if observed.latest(name).is_some_and(Run::is_over) {
            self.backoffs.tried(name, Instant::now());
        }
        let start = Start {
            pod: promised.clone(),
            container: defined.container.clone().into_owned(),
            target: defined.target.map(|name| {
                let run = observed.latest(name).map(|run| run.id.clone());
                run.ok_or_else(|| name.to_owned())
            }),
            attempt,
            sandbox: sandbox.id.clone(),
            sandbox_config: config::sandbox(&self.pod, sandbox.attempt, &self.shared.node),
            pod_ips: sandbox.ips.clone(),
            volumes,
        };
        let (shared, container) = (self.shared.clone(), name.to_owned());
        self.busy.insert(container.clone());
        if hooks::post_start(&defined.container).is_some() {
            self.hooked.insert(container.clone());
        }
        self.work.spawn(async move {
            let outcome = start.run(&shared).await;
            Done::Started { container, outcome }
        });
    }

    fn start_kill(&mut self, kill_run: &Kill, observed: &Observed) {
        let about = container_reference(&self.pod, &kill_run.name);
        self.shared
            .recorder
            .normal(about, "Killing", kill_run.condemned.why.clone());
        self.probes.stop(&kill_run.id);
        let container = defined(&self.pod)
            .iter()
            .find(|d| d.container.name == kill_run.name)
            .map(|d| d.container.clone().into_owned());
        let own = kill_run.condemned.grace_seconds;
        let grace = own.unwrap_or_else(|| grace_seconds(&self.pod));
        let (shared, pod, run, name) = (
            self.shared.clone(),
            self.pod.clone(),
            kill_run.id.clone(),
            kill_run.name.clone(),
        );
        let address = address(observed);
        self.busy.insert(name.clone());
        self.work.spawn(async move {
            let ending = Ending {
                container: container.as_ref(),
                run: &run,
                address,
                grace_seconds: grace,
            };
            ending.kill(&shared, &pod).await;
            Done::Killed { container: name }
        });
    }

    /// The pod is over: what still runs (sidecars, the sandbox) ends.
    async fn finish(&mut self, observed: &Observed) {
        self.probes.keep(&[]);
        let rest = defined(&self.pod).into_iter().rev();
        let rest = rest.filter(|d| matches!(d.role, Role::Sidecar | Role::Ephemeral));
        for defined in rest.map(|d| d.container.into_owned()).collect::<Vec<_>>() {
            if let Some(run) = observed.latest(&defined.name).filter(|run| run.is_running()) {
                let ending = Ending {
                    container: Some(&defined),
                    run: &run.id,
                    address: address(observed),
                    grace_seconds: grace_seconds(&self.pod),
                };
                ending.kill(&self.shared, &self.pod).await;
            }
        }
        for sandbox in observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
            if let Err(error) = self.shared.cri.stop_sandbox(&sandbox.id).await {
                tracing::warn!(pod = %full_name(&self.pod), %error, "a sandbox was not ended");
            }
        }
    }

    fn ask_running(&mut self, observed: &Observed) {
        let running: Vec<&Run> = observed.runs.iter().filter(|run| run.is_running()).collect();
        let ids: Vec<&str> = running.iter().map(|run| run.id.as_str()).collect();
        self.probes.keep(&ids);
        for run in running {
            let all = defined(&self.pod);
            let Some(defined) = all.iter().find(|d| d.container.name == run.name && d.role.serves()) else {
                continue;
            };
            let container = &defined.container;
            let asks = [
                &container.startup_probe,
                &container.readiness_probe,
                &container.liveness_probe,
            ];
            if asks.iter().any(|probe| probe.is_some()) {
                let host = || self.shared.host_ips.read().first().and_then(|ip| ip.parse().ok());
                let address = address(observed).or_else(host);
                self.probes.start(Target {
                    address,
                    run: run.id.clone(),
                    container: container.clone().into_owned(),
                });
            }
        }
    }

    /// Removes runs that nobody asks for any more.
    async fn collect(&mut self, observed: &Observed) {
        let all = defined(&self.pod);
        // The run that started all anew says so as long as something has to be started.
        let mut awaited = all.iter().filter(|defined| defined.role != Role::Ephemeral);
        let restarting = awaited.any(|defined| observed.latest(&defined.container.name).is_none());
        let is_kept = |run: &Run| restarting && observed.past.iter().any(|past| past.id == run.id);
        for defined in &all {
            let old = observed
                .runs_of(&defined.container.name)
                .skip(RUNS_KEPT)
                .filter(|run| run.is_over() && !is_kept(run));
            for run in old {
                if let Err(error) = self.shared.cri.remove_container(&run.id).await {
                    tracing::debug!(pod = %full_name(&self.pod), %error, "an old container was not removed");
                }
            }
        }
        for old in observed.sandboxes.iter().skip(1).filter(|sandbox| !sandbox.ready) {
            if observed.all_runs().all(|run| run.sandbox != old.id)
                && let Err(error) = self.shared.cri.remove_sandbox(&old.id).await
            {
                tracing::debug!(pod = %full_name(&self.pod), %error, "an old sandbox was not removed");
            }
        }
    }
}

/// How new a state of a pod is. Source: KEP-5504, resource versions of one resource can be compared.
fn revision(pod: &Pod) -> u64 {
    pod.metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

fn is_started_since(observed: &Observed, name: &str, failure: &Failure) -> bool {
    observed.latest(name).is_some_and(Run::is_running) && failure.until <= Instant::now()
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The pod's first address.
pub(super) fn address(observed: &Observed) -> Option<IpAddr> {
    observed.ready_sandbox()?.ips.first()?.parse().ok()
}

/// How long the pod's containers may take to end, in seconds: what the deletion asks for, otherwise what the pod wants, and
/// never nothing. A pod that was removed at once has its own time.
/// Source: `pkg/kubelet/pod_workers.go` (`calculateEffectiveGracePeriod`).
pub(super) fn grace_seconds(pod: &Pod) -> i64 {
    let asked = pod
        .metadata
        .deletion_grace_period_seconds
        .filter(|seconds| *seconds != 0);
    let own = || pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    asked.or_else(own).unwrap_or(30).max(1)
}
