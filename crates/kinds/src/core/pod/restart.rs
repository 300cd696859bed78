//! When a container is started again: its own policy and rules, and else those of its pod.
//!
//! Source: `validateContainerRestartPolicy` in `pkg/apis/core/validation/validation.go`, `ContainerShouldRestart` in
//! `pkg/api/v1/pod/util.go`. The kubelet decides by the same rules on its typed objects (`kubelet/src/restart.rs`).

use api::Value;
use api::field::Error;

use crate::check::At;
use crate::view::View;

const POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const ACTIONS: [&str; 2] = ["Restart", RESTART_ALL];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const RESTART_ALL: &str = "RestartAllContainers";
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// `restartPolicy` and `restartPolicyRules` of an init container: without a policy, upstream looks no further.
pub fn validate_init(container: &At) {
    if container.value.has("restartPolicy") {
        validate(container);
    } else {
        rules_need_policy(container);
    }
}

/// `restartPolicy` and `restartPolicyRules` of a container.
pub fn validate(container: &At) {
    let policy = container.get("restartPolicy");
    if policy.is_set() {
        policy.one_of(&POLICIES);
    }
    rules_need_policy(container);
    at_most(&container.get("restartPolicyRules"), RULES_MAX);
    for rule in container.items("restartPolicyRules") {
        rule.get("action").one_of(&ACTIONS);
        let codes = rule.get("exitCodes");
        if codes.is_set() {
            codes.get("operator").one_of(&OPERATORS);
            at_most(&codes.get("values"), EXIT_CODES_MAX);
        } else {
            codes.missing("must be specified");
        }
    }
}

fn rules_need_policy(container: &At) {
    let policy = container.get("restartPolicy");
    if !policy.is_set() && !container.get("restartPolicyRules").is_empty() {
        policy.missing("must specify restartPolicy when restart rules are used");
    }
}

fn at_most(list: &At, max: usize) {
    let count = list.value.as_array().map_or(0, Vec::len);
    if count > max {
        list.report.push(Error::too_many(&list.path, count, max));
    }
}

/// Whether some rule of the pod starts all of its containers anew, so that each may leave its end.
pub fn may_restart_all(spec: &Value) -> bool {
    let containers = spec.list("initContainers").iter().chain(spec.list("containers"));
    containers
        .flat_map(|container| container.list("restartPolicyRules"))
        .any(|rule| rule.text("action") == RESTART_ALL)
}

/// Whether a container that ended with this code is started again.
pub fn restarts(container: &Value, spec: &Value, exit_code: i64) -> bool {
    let own = Some(container.text("restartPolicy")).filter(|policy| POLICIES.contains(policy));
    if container.has("restartPolicy") {
        let matching = container.list("restartPolicyRules").iter().find(|rule| {
            let listed = rule
                .list("exitCodes.values")
                .iter()
                .any(|code| code.as_i64() == Some(exit_code));
            match rule.text("exitCodes.operator") {
                "In" => listed,
                "NotIn" => rule.has("exitCodes") && !listed,
                _ => false,
            }
        });
        if matching.is_some_and(|rule| ACTIONS.contains(&rule.text("action"))) {
            return true;
        }
    }
    match own.unwrap_or_else(|| spec.text("restartPolicy")) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}
