//! Probes: whether a container has started, is ready, and lives.
//!
//! Each probe of a running container is a task that asks in its period and reports a verdict when it changes. A startup
//! probe comes first: the others wait for it. Source: `pkg/kubelet/prober/worker.go`.

mod ask;
mod grpc;
pub(crate) mod http;
mod metrics;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use base::{Random, Shutdown};
use client::k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cri::Cri;

pub use ask::{Answer, ask};
use metrics::Outcome;
pub use metrics::{PodNames, ProbeMetrics};

/// How often a program that just started is asked whether it is ready, and the pause between: together less than the
/// shortest period a probe can have.
const EAGER_TRIES: u32 = 10;
const EAGER_PAUSE: Duration = Duration::from_millis(50);

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Whether start-up is over.
    Startup,
    /// Whether requests may come.
    Readiness,
    /// Whether the container is to be kept.
    Liveness,
}

impl Kind {
    /// The word in events.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// A verdict that changed, or a failure to tell of.
#[derive(Clone, Debug)]
pub struct Report {
    /// The container.
    pub container: String,
    /// The run that was asked.
    pub run: String,
    /// The probe.
    pub kind: Kind,
    /// The verdict after the thresholds; `None` when it did not change.
    pub verdict: Option<bool>,
    /// What people should know, when it did not just succeed.
    pub note: Option<Note>,
}

/// What an event tells of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It failed.
    Failed(String),
    /// It could not be asked, which is no verdict.
    Errored(String),
    /// It succeeded, with a doubt.
    Warning(String),
}

/// Where a run is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// The pod's address.
    pub address: Option<IpAddr>,
    /// The run.
    pub run: String,
    /// The container's definition, for named ports.
    pub container: Container,
}

/// The probes of one pod's running containers.
pub struct Probes {
    cri: Cri,
    random: Random,
    reports: mpsc::UnboundedSender<Report>,
    counted: Counted,
    running: BTreeMap<String, Shutdown>,
}

/// Where the answers to one pod's probes are counted.
#[derive(Clone)]
struct Counted {
    pod: PodNames,
    metrics: ProbeMetrics,
}

// === impl Probes ===

impl Probes {
    /// Probes of a pod that report there, and are counted.
    pub fn new(
        cri: Cri,
        random: Random,
        reports: mpsc::UnboundedSender<Report>,
        pod: PodNames,
        metrics: ProbeMetrics,
    ) -> Probes {
        Probes {
            cri,
            random,
            reports,
            counted: Counted { pod, metrics },
            running: BTreeMap::new(),
        }
    }

    /// Starts asking a run, unless it is asked already.
    pub fn start(&mut self, target: Target) {
        if self.running.contains_key(&target.run) {
            return;
        }
        let shutdown = Shutdown::new();
        self.running.insert(target.run.clone(), shutdown.clone());
        let container = &target.container;
        let probe = |kind: Kind, probe: &Option<Probe>| probe.clone().map(|probe| (kind, probe));
        let startup = probe(Kind::Startup, &container.startup_probe);
        let rest: Vec<(Kind, Probe)> = [
            probe(Kind::Readiness, &container.readiness_probe),
            probe(Kind::Liveness, &container.liveness_probe),
        ]
        .into_iter()
        .flatten()
        .collect();
        let (cri, reports, random, counted, stop) = (
            self.cri.clone(),
            self.reports.clone(),
            self.random.fork(),
            self.counted.clone(),
            shutdown.clone(),
        );
        let work = async move {
            let asker = Asker {
                cri,
                reports,
                random,
                counted,
                target,
            };
            if let Some((kind, probe)) = startup
                && !asker.until_started(kind, &probe).await
            {
                return;
            }
            futures::future::join_all(rest.iter().map(|(kind, probe)| asker.forever(*kind, probe))).await;
        };
        shutdown.spawn(async move {
            let _ = stop.until(work).await;
        });
    }

    /// Stops asking a run.
    pub fn stop(&mut self, run: &str) {
        if let Some(shutdown) = self.running.remove(run) {
            shutdown.trigger();
        }
    }

    /// Stops asking every run but these.
    pub fn keep(&mut self, runs: &[&str]) {
        let gone: Vec<String> = self
            .running
            .keys()
            .filter(|run| !runs.contains(&run.as_str()))
            .cloned()
            .collect();
        gone.iter().for_each(|run| self.stop(run));
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.running.values().for_each(Shutdown::trigger);
        self.counted.metrics.forget(&self.counted.pod);
    }
}

struct Asker {
    cri: Cri,
    reports: mpsc::UnboundedSender<Report>,
    random: Random,
    counted: Counted,
    target: Target,
}

/// Turns answers into verdicts: so many in a row are needed.
struct Counter {
    in_a_row: i32,
    last: Option<bool>,
    success_threshold: i32,
    failure_threshold: i32,
}

impl Counter {
    fn new(probe: &Probe) -> Counter {
        Counter {
            in_a_row: 0,
            last: None,
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }

    /// The verdict, when this answer makes one.
    fn count(&mut self, success: bool) -> Option<bool> {
        self.in_a_row = if self.last == Some(success) {
            self.in_a_row.saturating_add(1)
        } else {
            1
        };
        self.last = Some(success);
        let needed = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        (self.in_a_row >= needed).then_some(success)
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value
            .and_then(|v| u64::try_from(v).ok())
            .filter(|v| *v > 0)
            .unwrap_or(default),
    )
}

// === impl Asker ===

impl Asker {
    /// Asks until the container has started; false when it is given up (the report condemns the run).
    async fn until_started(&self, kind: Kind, probe: &Probe) -> bool {
        let mut counter = Counter::new(probe);
        tokio::time::sleep(initial(probe)).await;
        loop {
            let verdict = self.once(kind, probe, &mut counter, None).await;
            match verdict {
                Some(true) => return true,
                Some(false) => return false,
                None => tokio::time::sleep(seconds(probe.period_seconds, 10)).await,
            }
        }
    }

    async fn forever(&self, kind: Kind, probe: &Probe) {
        let mut counter = Counter::new(probe);
        let mut known = None;
        tokio::time::sleep(initial(probe)).await;
        let period = seconds(probe.period_seconds, 10);
        if kind == Kind::Readiness {
            self.eagerly(probe).await;
        }
        // Probes of one node are spread over their period; the first answer of readiness is what users wait for.
        if kind == Kind::Liveness {
            tokio::time::sleep(period.mul_f64(self.random.unit())).await;
        }
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(verdict) = self.once(kind, probe, &mut counter, known).await {
                known = Some(verdict);
            }
        }
    }

    /// A program needs a moment before it listens: it is asked in quick succession until it answers for the first time,
    /// or its moment is over. Only then do the period and the thresholds count, and failures are told.
    async fn eagerly(&self, probe: &Probe) {
        let limit = seconds(probe.timeout_seconds, 1);
        for _ in 0..EAGER_TRIES {
            let answer = ask(&self.cri, probe, &self.target, limit).await;
            if matches!(answer, Answer::Success | Answer::Warning(_)) {
                return;
            }
            tokio::time::sleep(EAGER_PAUSE).await;
        }
    }

    async fn once(&self, kind: Kind, probe: &Probe, counter: &mut Counter, known: Option<bool>) -> Option<bool> {
        let limit = seconds(probe.timeout_seconds, 1);
        let began = Instant::now();
        let (success, note) = match ask(&self.cri, probe, &self.target, limit).await {
            Answer::Success => (Some(true), None),
            Answer::Warning(text) => (Some(true), Some(Note::Warning(text))),
            Answer::Failure(text) => (Some(false), Some(Note::Failed(text))),
            Answer::Unknown(text) => (None, Some(Note::Errored(text))),
        };
        let outcome = match success {
            Some(true) => Outcome::Successful,
            Some(false) => Outcome::Failed,
            None => Outcome::Unknown,
        };
        let Counted { pod, metrics } = &self.counted;
        metrics.asked(pod, &self.target.container.name, kind, outcome, began.elapsed());
        let verdict = success.and_then(|success| counter.count(success));
        let changed = verdict.filter(|verdict| known != Some(*verdict));
        if changed.is_some() || note.is_some() {
            let (container, run) = (self.target.container.name.clone(), self.target.run.clone());
            // The worker that listened is gone when its pod is.
            let _ = self.reports.send(Report {
                container,
                run,
                kind,
                verdict: changed,
                note,
            });
        }
        verdict
    }
}

fn initial(probe: &Probe) -> Duration {
    Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_need_answers_in_a_row() {
        let probe = Probe {
            success_threshold: Some(2),
            failure_threshold: Some(3),
            ..Probe::default()
        };
        let mut counter = Counter::new(&probe);
        let answers = [true, true, true, false, false, true, false, false, false, false];
        let verdicts: Vec<Option<bool>> = answers.iter().map(|answer| counter.count(*answer)).collect();
        let yes = Some(true);
        let no = Some(false);
        assert_eq!(verdicts, [None, yes, yes, None, None, None, None, None, no, no]);
    }
}
