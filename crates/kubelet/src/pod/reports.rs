//! What probes said of a pod's runs, and what follows from it.

use std::collections::BTreeMap;

use client::k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use super::{Shared, container_reference};
use crate::observed::Observed;
use crate::plan::{Condemned, Facts, defined};
use crate::probes::{Kind, Note, Report};
use crate::status::Known;

/// Verdicts by run.
#[derive(Debug, Default)]
pub struct Verdicts {
    runs: BTreeMap<String, Verdict>,
}

#[derive(Debug, Default)]
struct Verdict {
    started: Option<bool>,
    ready: Option<bool>,
    condemned: Option<Condemned>,
}

// === impl Verdicts ===

impl Verdicts {
    /// Takes a report, and tells its failure to people.
    pub fn take(&mut self, report: Report, pod: &Pod, shared: &Shared) {
        if let Some(note) = &report.note {
            let about = container_reference(pod, &report.container);
            let (reason, text) = words(report.kind, note);
            shared.recorder.warning(about, reason, text);
        }
        let Some(verdict) = report.verdict else { return };
        let own = self.runs.entry(report.run).or_default();
        match report.kind {
            Kind::Readiness => own.ready = Some(verdict),
            Kind::Startup if verdict => own.started = Some(true),
            Kind::Startup | Kind::Liveness if !verdict => {
                let word = report.kind.word().to_lowercase();
                own.condemned = Some(Condemned {
                    why: format!("Container {} failed {word} probe, will be restarted", report.container),
                    grace_seconds: own_grace(pod, &report.container, report.kind),
                });
            }
            Kind::Startup | Kind::Liveness => {}
        }
    }

    /// Forgets runs that are gone.
    pub fn keep(&mut self, observed: &Observed) {
        self.runs.retain(|id, _| observed.runs.iter().any(|run| run.id == *id));
    }

    /// What the plan has to know.
    pub fn tell_plan(&self, pod: &Pod, observed: &Observed, facts: &mut Facts) {
        for (id, verdict) in &self.runs {
            if let Some(condemned) = &verdict.condemned {
                facts.condemned.insert(id.clone(), condemned.clone());
            }
        }
        for defined in defined(pod) {
            if !self.has_started(pod, &defined.container, observed) {
                facts.starting.insert(defined.container.name.clone());
            }
        }
    }

    /// What the status has to know.
    pub fn tell_status(&self, pod: &Pod, observed: &Observed, known: &mut Known) {
        for defined in defined(pod) {
            let container = &*defined.container;
            let started = self.has_started(pod, container, observed);
            let verdict = observed.latest(&container.name).and_then(|run| self.runs.get(&run.id));
            let asked = container.readiness_probe.is_some();
            let ready = if asked {
                verdict
                    .and_then(|v| v.ready)
                    .unwrap_or_else(|| told_before(pod, container, observed, |s| Some(s.ready)))
            } else {
                started
            };
            known.started.insert(container.name.clone(), started);
            known.ready.insert(container.name.clone(), ready);
        }
    }

    fn has_started(&self, pod: &Pod, container: &Container, observed: &Observed) -> bool {
        let Some(run) = observed.latest(&container.name).filter(|run| run.is_running()) else {
            return false;
        };
        container.startup_probe.is_none()
            || self.runs.get(&run.id).and_then(|v| v.started) == Some(true)
            || told_before(pod, container, observed, |status| status.started)
    }
}

/// The event of a probe. Source: `pkg/kubelet/prober/prober.go` (`probe`).
fn words(kind: Kind, note: &Note) -> (&'static str, String) {
    let kind = kind.word();
    match note {
        Note::Failed(text) => ("Unhealthy", format!("{kind} probe failed: {text}")),
        Note::Errored(text) => (
            "Unhealthy",
            format!("{kind} probe errored and resulted in unknown state: {text}"),
        ),
        Note::Warning(text) => ("ProbeWarning", format!("{kind} probe warning: {text}")),
    }
}

/// The grace period that the failed probe itself gives.
/// Source: `kuberuntime_container.go` (`setTerminationGracePeriod`).
fn own_grace(pod: &Pod, name: &str, kind: Kind) -> Option<i64> {
    let all = defined(pod);
    let container = &all.iter().find(|d| d.container.name == name)?.container;
    let probe = match kind {
        Kind::Startup => container.startup_probe.as_ref(),
        Kind::Liveness => container.liveness_probe.as_ref(),
        Kind::Readiness => None,
    };
    probe?.termination_grace_period_seconds
}

/// What the API knows of the present run: a kubelet that was started again leaves containers as they were until a probe
/// says otherwise, so that their Services do not lose them meanwhile.
/// Source: KEP-4781 (the gate `ChangeContainerStatusOnKubeletRestart` is off).
fn told_before(
    pod: &Pod,
    container: &Container,
    observed: &Observed,
    of: impl Fn(&ContainerStatus) -> Option<bool>,
) -> bool {
    let Some(run) = observed.latest(&container.name).filter(|run| run.is_running()) else {
        return false;
    };
    let lists = pod
        .status
        .iter()
        .flat_map(|s| [&s.container_statuses, &s.init_container_statuses]);
    let mut all = lists.flatten().flatten();
    all.find(|status| {
        let id = status.container_id.as_deref().and_then(|id| id.rsplit_once("//"));
        status.name == container.name && id.is_some_and(|(_, id)| id == run.id)
    })
    .and_then(of)
    .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{Run, RunState};
    use serde_json::json;

    #[test]
    fn a_probe_may_have_a_grace_period_of_its_own() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{
            "name": "a", "startupProbe": {"terminationGracePeriodSeconds": 3}, "livenessProbe": {},
        }]}}))
        .unwrap();
        for (kind, expect) in [
            (Kind::Startup, Some(3)),
            (Kind::Liveness, None),
            (Kind::Readiness, None),
        ] {
            assert_eq!(own_grace(&pod, "a", kind), expect, "{kind:?}");
        }
    }

    #[test]
    fn what_ran_before_keeps_its_readiness_until_a_probe_speaks() {
        for (id, said, expect) in [
            ("same", None, (true, true)),
            ("other", None, (false, false)),
            ("same", Some(false), (true, false)),
            ("other", Some(true), (false, true)),
        ] {
            let pod: Pod = serde_json::from_value(json!({
                "spec": {"containers": [{"name": "a", "startupProbe": {}, "readinessProbe": {}}]},
                "status": {"containerStatuses": [{
                    "name": "a", "ready": true, "started": true, "containerID": "trireme://same", "image": "", "imageID": "",
                    "restartCount": 0,
                }]},
            }))
            .unwrap();
            let run = Run {
                id: id.into(),
                name: "a".into(),
                state: RunState::Running,
                ..Run::default()
            };
            let observed = Observed {
                runs: vec![run],
                ..Observed::default()
            };
            let mut verdicts = Verdicts::default();
            verdicts.runs.entry(id.into()).or_default().ready = said;
            let mut known = Known::default();
            verdicts.tell_status(&pod, &observed, &mut known);
            assert_eq!((known.started["a"], known.ready["a"]), expect, "{id} {said:?}");
        }
    }
}
