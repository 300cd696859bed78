//! Defaults, rules and what happens around a write of a deployment.
//!
//! Source: `SetDefaults_Deployment`, `ValidateDeploymentSpec` and `pkg/registry/apps/deployment/strategy.go`.

use api::Value;
use api::field::ErrorList;
use api::validation::int_or_percent;

use crate::apps::workload::{self, amount, at_most_all};
use crate::check::{At, Report};
use crate::core::pod;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

const SURGE_DEFAULT: &str = "25%";
const HISTORY_DEFAULT: i64 = 10;
const PROGRESS_SECONDS_DEFAULT: i64 = 600;

/// Deployments.
pub struct Deployments;

impl Strategy for Deployments {
    fn default(&self, object: &mut Value) {
        workload::default_replicas(object);
        object.object("spec.strategy");
        let spec = &mut object["spec"];
        pod::default_template(spec.existing("template"));
        let strategy = &mut spec["strategy"];
        strategy.put_default("type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate" {
            strategy.object("rollingUpdate");
            strategy["rollingUpdate"].put_default("maxUnavailable", SURGE_DEFAULT);
            strategy["rollingUpdate"].put_default("maxSurge", SURGE_DEFAULT);
        }
        spec.put_default("revisionHistoryLimit", HISTORY_DEFAULT);
        spec.put_default("progressDeadlineSeconds", PROGRESS_SECONDS_DEFAULT);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
        workload::drop_disabled(object, None);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        if context.subresource == "status" {
            object.copy_from(old, "metadata.labels");
        }
        workload::drop_disabled(object, Some(old));
    }

    /// Annotations count too: the controller copies them to replica sets.
    fn generation_changed(&self, object: &Value, old: &Value) -> bool {
        object.at("spec") != old.at("spec") || object.at("metadata.annotations") != old.at("metadata.annotations")
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| spec(&object.get("spec"), None))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        workload::validate_update(object, old, context, spec, status)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        pod::template_warnings("spec.template", object, old)
    }

    fn reset_fields(&self, subresource: &str) -> Option<&'static [&'static str]> {
        match subresource {
            "status" => Some(&["metadata.labels", "spec"]),
            _ => None,
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn spec(spec: &At, old: Option<&Value>) {
    spec.get("replicas").non_negative();
    workload::validate(spec, old);
    strategy(&spec.get("strategy"));
    spec.get("minReadySeconds").non_negative();
    spec.get("revisionHistoryLimit").non_negative();
    let progress = spec.get("progressDeadlineSeconds");
    if let Some(seconds) = progress.number() {
        progress.non_negative();
        let longer = seconds > spec.value.count("minReadySeconds");
        progress.ensure(longer, "must be greater than minReadySeconds");
    }
}

fn strategy(strategy: &At) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.value.text("type") {
        "Recreate" => {
            rolling.forbidden_when_set("may not be specified when strategy `type` is 'Recreate'");
        }
        "RollingUpdate" if !rolling.is_set() => rolling.missing("this should be defaulted and never be nil"),
        "RollingUpdate" => rolling_update(&rolling),
        _ => {
            let kind = strategy.get("type");
            kind.elsewhere(strategy.path.clone(), kind.value)
                .not_supported(&["Recreate", "RollingUpdate"]);
        }
    }
}

fn rolling_update(rolling: &At) {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    for field in [&unavailable, &surge] {
        field.extend(int_or_percent(field.value, &field.path));
    }
    if amount(unavailable.value) == 0 && amount(surge.value) == 0 {
        unavailable.invalid("may not be 0 when `maxSurge` is 0");
    }
    at_most_all(&unavailable);
}

fn status(status: &At, old: &Value) {
    workload::validate_status(
        status,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
        &["updatedReplicas", "readyReplicas", "availableReplicas"],
    );
    workload::collisions(status, old);
}
