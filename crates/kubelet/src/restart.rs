//! When a container that ended is started again: by its own rules and policy, and else by its pod's; and which runs are of
//! before a restart of all containers.
//!
//! Source: `pkg/api/v1/pod/util.go` (`ContainerShouldRestart`, `FindMatchingContainerRestartRule`) and KEP-5532. The API server
//! lets containers leave their end by the same rules (`kinds/src/core/pod/restart.rs`).
//!
//! Upstream removes all containers from the runtime and remembers in the pod's status that it does. Here the runtime's own
//! record decides: what was made before the end of a run that starts all anew is of the past, and counts for nothing but the
//! number of restarts and the last state. So a kubelet that ends in between goes on where it was.

use client::k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

use crate::observed::{Observed, Run};
use crate::plan::{Role, defined, restart_policy};

const RESTART: &str = "Restart";
const RESTART_ALL: &str = "RestartAllContainers";

/// Whether a run of a container that is over is followed by another.
pub fn restarts(pod_policy: &str, role: Role, container: &Container, run: &Run) -> bool {
    match role {
        Role::Ephemeral => false,
        Role::Sidecar => true,
        Role::Init if run.succeeded() => false,
        Role::Init | Role::Main => {
            let own = container.restart_policy.as_deref();
            if own.is_some() && matches!(action(container, run), Some(RESTART | RESTART_ALL)) {
                return true;
            }
            match own.unwrap_or(pod_policy) {
                "Never" => false,
                "OnFailure" => !run.succeeded(),
                _ => true,
            }
        }
    }
}

/// Whether some rule of the pod starts all of its containers anew.
pub fn may_restart_all(pod: &Pod) -> bool {
    let all = defined(pod);
    let mut rules = all
        .iter()
        .flat_map(|defined| defined.container.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == RESTART_ALL)
}

/// The last restart of all containers that was noticed.
#[derive(Debug, Default)]
pub struct Anew {
    /// When it was wanted (the end of the run that wants it), and up to when runs were made for what was before. In
    /// nanoseconds since 1970; nothing before the first look.
    noticed: Option<(i64, i64)>,
}

impl Anew {
    /// Sets apart the runs of before the last restart of all containers. Answers false when a container is just being started
    /// for what is over: nothing is to be done until it was.
    pub fn set_past_apart(&mut self, pod: &Pod, observed: &mut Observed, idle: bool) -> bool {
        if !may_restart_all(pod) {
            return true;
        }
        let all = defined(pod);
        let starts_all_anew = |run: &&Run| {
            let container = all
                .iter()
                .find(|d| d.container.name == run.name && d.role != Role::Ephemeral);
            run.is_over() && container.is_some_and(|d| action(&d.container, run) == Some(RESTART_ALL))
        };
        let wanted = observed
            .runs
            .iter()
            .filter(starts_all_anew)
            .map(|run| run.finished_at)
            .max();
        let wanted = wanted.unwrap_or(0);
        // What a kubelet finds when it starts was noticed by the one before.
        let (known, mut until) = self.noticed.unwrap_or((wanted, wanted));
        if wanted > known {
            if !idle {
                return false;
            }
            let made = observed.runs.iter().map(|run| run.created_at).max();
            until = made.unwrap_or(0).max(wanted);
        }
        self.noticed = Some((wanted.max(known), until));
        let is_past = |run: &Run| {
            let ephemeral = all
                .iter()
                .any(|d| d.container.name == run.name && d.role == Role::Ephemeral);
            run.created_at <= until && !ephemeral
        };
        let runs = std::mem::take(&mut observed.runs);
        (observed.past, observed.runs) = runs.into_iter().partition(is_past);
        true
    }
}

/// Whether all containers are being started anew: some of the past still runs, or nothing of the present was made.
pub fn is_restarting_all(pod: &Pod, observed: &Observed) -> bool {
    let all = defined(pod);
    let present = |run: &Run| {
        all.iter()
            .any(|d| d.container.name == run.name && d.role != Role::Ephemeral)
    };
    !observed.past.is_empty() && (observed.past.iter().any(Run::is_running) || !observed.runs.iter().any(present))
}

/// What the first matching rule says.
fn action<'a>(container: &'a Container, run: &Run) -> Option<&'a str> {
    let rules = container.restart_policy_rules.iter().flatten();
    let matching = |rule: &&ContainerRestartRule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|code| *code == run.exit_code);
            match &*codes.operator {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        })
    };
    rules.into_iter().find(matching).map(|rule| &*rule.action)
}

/// The pod's policy and what a container of it does at its end.
pub fn restarts_in(pod: &Pod, role: Role, container: &Container, run: &Run) -> bool {
    restarts(restart_policy(pod), role, container, run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::RunState;
    use serde_json::{Value, json};

    fn over(name: &str, exit_code: i32, created_at: i64, finished_at: i64) -> Run {
        Run {
            id: format!("{name}{created_at}"),
            name: name.into(),
            state: RunState::Exited,
            exit_code,
            created_at,
            finished_at,
            ..Run::default()
        }
    }

    fn rule(action: &str, operator: &str, codes: &[i32]) -> Value {
        json!({"action": action, "exitCodes": {"operator": operator, "values": codes}})
    }

    #[test]
    fn own_rules_come_before_policies() {
        for (role, pod_policy, own, exit_code, expect) in [
            (Role::Main, "Never", json!({}), 1, false),
            (Role::Main, "Never", json!({"restartPolicy": "OnFailure"}), 1, true),
            (Role::Main, "Never", json!({"restartPolicy": "OnFailure"}), 0, false),
            (Role::Main, "Always", json!({"restartPolicy": "Never"}), 1, false),
            (
                Role::Main,
                "Always",
                json!({"restartPolicy": "Never", "restartPolicyRules": [rule("Restart", "In", &[42])]}),
                42,
                true,
            ),
            (
                Role::Main,
                "Always",
                json!({"restartPolicy": "Never", "restartPolicyRules": [rule("Restart", "NotIn", &[42])]}),
                42,
                false,
            ),
            (
                Role::Main,
                "Never",
                json!({"restartPolicy": "Never", "restartPolicyRules": [rule("RestartAllContainers", "NotIn", &[0])]}),
                7,
                true,
            ),
            (Role::Init, "Never", json!({"restartPolicy": "OnFailure"}), 1, true),
            (Role::Init, "Always", json!({"restartPolicy": "Never"}), 1, false),
            (Role::Init, "Always", json!({}), 0, false),
            (Role::Sidecar, "Never", json!({"restartPolicy": "Always"}), 0, true),
            (Role::Ephemeral, "Always", json!({}), 1, false),
        ] {
            let mut container = own.clone();
            container["name"] = "a".into();
            let container: Container = serde_json::from_value(container).unwrap();
            let got = restarts(pod_policy, role, &container, &over("a", exit_code, 1, 2));
            assert_eq!(got, expect, "{role:?} {pod_policy} {own} {exit_code}");
        }
    }

    #[test]
    fn what_was_made_before_is_past() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "a", "restartPolicy": "Never", "restartPolicyRules": [rule("RestartAllContainers", "In", &[42])]},
            {"name": "b"},
        ], "ephemeralContainers": [{"name": "e"}]}}))
        .unwrap();
        let mut running = over("b", 0, 2, 0);
        running.state = RunState::Running;
        let look = |anew: &mut Anew, runs: Vec<Run>, idle: bool| {
            let mut observed = Observed {
                runs,
                ..Observed::default()
            };
            let looked = anew.set_past_apart(&pod, &mut observed, idle);
            let ids = |runs: &[Run]| runs.iter().map(|run| run.id.clone()).collect::<Vec<_>>().join(" ");
            let restarting = is_restarting_all(&pod, &observed);
            looked.then(|| (ids(&observed.past), ids(&observed.runs), restarting))
        };
        let split = |runs: Vec<Run>| look(&mut Anew::default(), runs, true).unwrap();
        let told = |past: &str, present: &str, restarting| (past.to_owned(), present.to_owned(), restarting);
        assert_eq!(
            split(vec![running.clone(), over("a", 1, 1, 3)]),
            told("", "b2 a1", false)
        );
        assert_eq!(
            split(vec![running, over("a", 42, 1, 3), over("e", 0, 1, 2)]),
            told("b2 a1", "e1", true)
        );
        let after = vec![over("a", 1, 6, 7), over("b", 137, 2, 4), over("a", 42, 1, 3)];
        assert_eq!(split(after), told("b2 a1", "a6", false));
        // The second time counts from its own end.
        let again = vec![over("a", 42, 6, 9), over("b", 0, 5, 6), over("a", 42, 1, 3)];
        assert_eq!(split(again), told("a6 b5 a1", "", true));
        // What was being started when the restart was wanted belongs to what was before.
        let mut anew = Anew::default();
        let before = look(&mut anew, vec![over("a", 1, 1, 2)], true);
        assert_eq!(before, Some(told("", "a1", false)));
        assert_eq!(look(&mut anew, vec![over("a", 42, 1, 3)], false), None);
        let late = vec![over("b", 0, 4, 5), over("a", 42, 1, 3)];
        assert_eq!(look(&mut anew, late.clone(), true), Some(told("b4 a1", "", true)));
        let next = [vec![over("a", 0, 6, 7)], late].concat();
        assert_eq!(look(&mut anew, next, false), Some(told("b4 a1", "a6", false)));
    }
}
