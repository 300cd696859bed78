//! Preemption: which less important pods would have to go so that a pod fits, and where that costs least.
//!
//! Source: `pkg/scheduler/framework/preemption/preemption.go` and `plugins/defaultpreemption`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use base::random::Random;

use crate::budgets::Budgets;
use crate::cluster::{Cluster, Node};
use crate::decide::{Unschedulable, told};
use crate::filters::{Refusal, filter_beside};
use crate::pod::Pod;

/// What upstream's plug-in for resource claims says of a pod that has none, ahead of preemption's own words.
const NO_CLAIMS: &str = "no new claims to deallocate";
const NO_HELP: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
/// So many candidates are enough, or a tenth of the nodes if that is more.
/// Source: `minCandidateNodesAbsolute`, `minCandidateNodesPercentage`.
const CANDIDATES_MIN: usize = 100;

/// What can be done for a pod that fits nowhere.
#[derive(Debug)]
pub enum Outcome {
    /// These pods go, and the room on that node is the pod's.
    Victims {
        /// Where room is made.
        node: Arc<str>,
        /// Who goes, the most important first.
        pods: Vec<Arc<Pod>>,
    },
    /// Nothing.
    Nothing {
        /// What to say about it.
        why: String,
        /// Whether no node is kept for it any more.
        forget: bool,
    },
}

/// Looks for victims on the nodes where that can help.
pub fn preempt(
    pod: &Pod,
    cluster: &Cluster,
    budgets: &Budgets<'_>,
    failure: &Unschedulable,
    random: &Random,
) -> Outcome {
    let nothing = |why: String, forget| Outcome::Nothing {
        why: format!("{NO_CLAIMS}, preemption: {why}"),
        forget,
    };
    if failure.nodes == 0 || failure.own.is_some() {
        let (why, forget) = (String::new(), false);
        return Outcome::Nothing { why, forget };
    }
    if let Err(why) = may_preempt(pod, cluster, failure) {
        return nothing(why.into(), false);
    }
    let (mut refusals, mut without_victims): (BTreeMap<String, usize>, usize) = (BTreeMap::new(), 0);
    let mut candidates = Vec::new();
    let nodes: Vec<&Node> = failure
        .resolvable
        .iter()
        .filter_map(|name| cluster.node(name))
        .collect();
    let enough = (nodes.len() / 10).max(CANDIDATES_MIN);
    // Another node is first each time, so that the first ones do not bear it all.
    let begin = if nodes.is_empty() { 0 } else { random.index(nodes.len()) };
    for at in 0..nodes.len() {
        let node = nodes[(begin + at) % nodes.len()];
        match victims(pod, node, cluster.nominated(&node.name), budgets) {
            Ok(victims) => candidates.push((node, victims)),
            Err(None) => without_victims += 1,
            Err(Some(refusal)) => {
                for reason in refusal.reasons {
                    *refusals.entry(reason.to_string()).or_default() += 1;
                }
            }
        }
        // Where every node breaks a budget, all of them are looked at.
        if candidates.len() >= enough && candidates.iter().any(|(_, victims)| victims.violations == 0) {
            break;
        }
    }
    let cheapest = candidates.into_iter().min_by_key(|(_, victims)| cost(victims));
    match cheapest {
        Some((node, victims)) => Outcome::Victims {
            node: node.name.clone(),
            pods: victims.pods,
        },
        None => {
            let others = failure.nodes - nodes.len();
            let counts = [(NO_VICTIMS, without_victims), (NO_HELP, others)];
            let counts = counts.into_iter().filter(|(_, count)| *count > 0);
            refusals.extend(counts.map(|(why, count)| (why.to_owned(), count)));
            nothing(told(failure.nodes, &refusals), true)
        }
    }
}

/// Source: `PodEligibleToPreemptOthers`.
fn may_preempt(pod: &Pod, cluster: &Cluster, failure: &Unschedulable) -> Result<(), &'static str> {
    if !pod.preempts {
        return Err("not eligible due to preemptionPolicy=Never.");
    }
    let kept = cluster.node(&pod.nominated);
    if let Some(node) = kept.filter(|node| failure.resolvable.contains(&node.name))
        && node
            .pods
            .values()
            .any(|other| other.priority < pod.priority && other.leaves_for_another)
    {
        return Err("not eligible due to a terminating pod on the nominated node.");
    }
    Ok(())
}

/// Who would have to go from a node.
struct Victims {
    /// The most important first.
    pods: Vec<Arc<Pod>>,
    /// How many of them a budget protects.
    violations: usize,
}

/// The least important pods of the node that have to go, and of those that no budget protects if there is a choice. Source:
/// `SelectVictimsOnNode`.
///
/// # Errors
/// Why the pod does not even fit without all less important ones; `None`: there are none.
fn victims(pod: &Pod, node: &Node, rivals: &[Arc<Pod>], budgets: &Budgets<'_>) -> Result<Victims, Option<Refusal>> {
    let less = node.pods.values().filter(|other| other.priority < pod.priority);
    let mut less: Vec<Arc<Pod>> = less.cloned().collect();
    if less.is_empty() {
        return Err(None);
    }
    let mut emptier = node.clone();
    less.iter().for_each(|other| emptier.remove(&other.uid));
    filter_beside(pod, &emptier, rivals).map_err(Some)?;
    let by_importance = |other: &Arc<Pod>| (Reverse(other.priority), other.started, other.uid.clone());
    less.sort_by_key(by_importance);
    let violated = budgets.violated(&less);
    let (mut protected, mut free) = (Vec::new(), Vec::new());
    for (other, violated) in less.into_iter().zip(violated) {
        if violated { &mut protected } else { &mut free }.push(other);
    }
    // Those that a budget protects stay if they can, then the more important ones.
    let mut goes = |other: &Arc<Pod>| {
        emptier.add(other);
        let goes = filter_beside(pod, &emptier, rivals).is_err();
        if goes {
            emptier.remove(&other.uid);
        }
        goes
    };
    protected.retain(&mut goes);
    free.retain(&mut goes);
    let violations = protected.len();
    let mut pods = protected;
    pods.append(&mut free);
    pods.sort_by_key(by_importance);
    Ok(Victims { pods, violations })
}

/// What decides between nodes, in this order: the number of victims that a budget protects, the priority of the most important
/// victim, the sum of priorities, the number of victims, and how short the longest-running of the most important ones has
/// run. Source: `pickOneNodeForPreemption`.
fn cost(victims: &Victims) -> (usize, i32, i64, usize, Reverse<jiff::Timestamp>) {
    let pods = &victims.pods;
    let highest = pods.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    // Negative priorities must not make many victims cheaper than few.
    let sum = pods.iter().map(|victim| i64::from(victim.priority) + (1 << 31)).sum();
    let most_important = pods.iter().filter(|victim| victim.priority == highest);
    let earliest = most_important.map(|victim| victim.started).min();
    (
        victims.violations,
        highest,
        sum,
        pods.len(),
        Reverse(earliest.unwrap_or(jiff::Timestamp::MAX)),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decide::Decider;
    use crate::pod::PodKey;
    use crate::view::{BudgetView, NodeView, PodView};

    fn pod(name: &str, priority: i32, cpu: &str, extra: Value) -> Pod {
        let mut view = json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"priority": priority, "containers": [{"resources": {"requests": {"cpu": cpu}}}]},
            "status": {},
        });
        for (pointer, value) in extra.as_object().unwrap() {
            let (part, field) = pointer.split_once('/').unwrap();
            view[part][field] = value.clone();
        }
        Pod::of_view(&serde_json::from_value::<PodView>(view).unwrap())
    }

    /// Nodes of two CPUs; the pods that are there as `name node priority cpu minute-of-start`.
    fn cluster(nodes: &[&str], pods: &[&str]) -> Cluster {
        let mut cluster = Cluster::default();
        for name in nodes {
            let status = json!({"allocatable": {"cpu": "2", "memory": "8Gi", "pods": "10"}});
            let node = json!({"metadata": {"name": name}, "status": status});
            cluster.put_node(&serde_json::from_value::<NodeView>(node).unwrap());
        }
        for line in pods {
            let words: Vec<&str> = line.split(' ').collect();
            let started = format!("2026-01-01T00:{}:00Z", words[4]);
            let extra = json!({"spec/nodeName": words[1], "status/startTime": started});
            cluster.put_pod(&Arc::new(pod(words[0], words[2].parse().unwrap(), words[3], extra)));
        }
        cluster
    }

    /// `node: victims`, or what is said.
    fn run(pod: &Pod, cluster: &Cluster) -> String {
        run_with(pod, cluster, &[])
    }

    /// The same with budgets, as `label allowed disrupted...`: each pod has a label of its name's first letter.
    fn run_with(pod: &Pod, cluster: &Cluster, budgets: &[&str]) -> String {
        let random = Random::seeded(1);
        let failure = Decider::new(random.fork()).decide(pod, cluster).unwrap_err();
        let budget = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            let disrupted: serde_json::Map<String, Value> = words[2..]
                .iter()
                .map(|name| ((*name).to_owned(), json!("2026-01-01T00:00:00Z")))
                .collect();
            let selector = match words[0] {
                "*" => json!({}),
                label => json!({"matchLabels": {label: "yes"}}),
            };
            let status = json!({"disruptionsAllowed": words[1].parse::<i32>().unwrap(), "disruptedPods": disrupted});
            let view = json!({"metadata": {"name": words[0]}, "spec": {"selector": selector}, "status": status});
            Arc::new(serde_json::from_value::<BudgetView>(view).unwrap())
        };
        let view = |key: &PodKey| {
            let view = json!({"metadata": {"name": &*key.name, "labels": {&key.name[..1]: "yes"}}});
            Some(Arc::new(serde_json::from_value::<PodView>(view).unwrap()))
        };
        let budgets = Budgets::new(budgets.iter().map(budget).collect(), &view);
        match preempt(pod, cluster, &budgets, &failure, &random) {
            Outcome::Victims { node, pods } => {
                let names: Vec<&str> = pods.iter().map(|pod| &*pod.key.name).collect();
                format!("{node}: {}", names.join(" "))
            }
            Outcome::Nothing { why, .. } => failure.message(&why),
        }
    }

    #[test]
    fn the_cheapest_victims_are_found() {
        for (pods, expect) in [
            // One that is enough, and the less important one.
            (&["x a 1 1 00", "y a 2 1 00", "z b 5 2 00"][..], "a: x"),
            // As few as are needed, the earlier started stay.
            (&["x a 1 1 05", "y a 1 1 04", "z b 5 2 00"], "a: x"),
            // The highest priority decides before the number.
            (&["x a 3 2 00", "y b 1 1500m 00", "z b 2 500m 00"], "b: y"),
            // Of equal cost the one that ran shorter goes.
            (&["x a 3 2 01", "z b 3 2 02"], "b: z"),
            // Who is as important stays.
            (
                &["x a 10 2 00", "y b 10 2 00"],
                "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are \
                 available: 2 No preemption victims found for incoming pod.",
            ),
            (
                &["x a 10 1500m 00", "y a 1 500m 00", "z b 10 2 00"],
                "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are \
                 available: 1 Insufficient cpu, 1 No preemption victims found for incoming pod.",
            ),
        ] {
            let cluster = cluster(&["a", "b"], pods);
            assert_eq!(run(&pod("p", 10, "1", json!({})), &cluster), expect, "{pods:?}");
        }
    }

    #[test]
    fn budgets_are_kept_where_that_is_possible() {
        // Two of one CPU on each node.
        let both = &["x a 1 1 00", "y a 2 1 00", "z b 3 2 00"];
        for (pods, budgets, expect) in [
            (&both[..], &[][..], "a: x"),
            // The more important one goes in place of the one that is protected.
            (both, &["x 0"], "a: y"),
            // It may go once.
            (both, &["x 1"], "a: x"),
            // It is going already.
            (both, &["x 0 x"], "a: x"),
            // A selector of everybody protects nobody.
            (both, &["* 0"], "a: x"),
            // Another node, though its pod is more important.
            (both, &["x 0", "y 0"], "b: z"),
            // Nothing else is left: as few as possible.
            (both, &["x 0", "y 0", "z 0"], "a: x"),
            // Of a budget that lets one go, the second one breaks it; the more important one is counted first.
            (&["xa a 1 1 00", "xb a 2 1 00"], &["x 1"], "a: xb"),
        ] {
            let nodes = if pods.len() == both.len() {
                &["a", "b"][..]
            } else {
                &["a"]
            };
            let cluster = cluster(nodes, pods);
            assert_eq!(
                run_with(&pod("p", 10, "1", json!({})), &cluster, budgets),
                expect,
                "{pods:?} {budgets:?}"
            );
        }
    }

    #[test]
    fn what_cannot_help_is_said() {
        let full = cluster(&["a"], &["x a 1 2 00"]);
        for (cpu, extra, expect) in [
            (
                "3",
                json!({}),
                "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are \
                 available: 1 Preemption is not helpful for scheduling.",
            ),
            (
                "1",
                json!({"spec/nodeSelector": {"no": "where"}}),
                "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to \
                 deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
            ),
            (
                "1",
                json!({"spec/preemptionPolicy": "Never"}),
                "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible due \
                 to preemptionPolicy=Never.",
            ),
        ] {
            assert_eq!(run(&pod("p", 10, cpu, extra), &full), expect);
        }
        assert_eq!(
            run(&pod("p", 10, "1", json!({})), &Cluster::default()),
            "no nodes available to schedule pods"
        );
    }

    #[test]
    fn room_that_is_being_made_is_waited_for_and_kept() {
        let mut cluster = cluster(&["a"], &[]);
        let leaving = json!({
            "spec/nodeName": "a", "metadata/deletionTimestamp": "2026-01-01T00:00:00Z",
            "status/conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}],
        });
        cluster.put_pod(&Arc::new(pod("x", 1, "2", leaving)));
        let important = pod("p", 10, "2", json!({"status/nominatedNodeName": "a"}));
        cluster.nominate(&Arc::new(important.clone()));
        assert_eq!(
            run(&important, &cluster),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to a \
             terminating pod on the nominated node."
        );
        cluster.remove_pod("x");
        // Who is less important does not take the room; who is more important does.
        let decide = |pod: &Pod| Decider::new(Random::seeded(1)).decide(pod, &cluster).is_ok();
        assert!(!decide(&pod("q", 9, "1", json!({}))) && !decide(&pod("q", 10, "1", json!({}))));
        assert!(decide(&pod("q", 11, "1", json!({}))) && decide(&important));
    }
}
