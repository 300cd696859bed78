//! Defaults, rules and what happens around a write of a daemon set.
//!
//! Source: `SetDefaults_DaemonSet`, `ValidateDaemonSetSpec` and `pkg/registry/apps/daemonset/strategy.go`.

use api::Value;
use api::field::ErrorList;
use api::validation::int_or_percent;

use crate::apps::workload::{self, amount, at_most_all};
use crate::check::{At, Report};
use crate::core::pod;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

const HISTORY_DEFAULT: i64 = 10;

/// The number of the template, which apps/v1 keeps in an annotation since its field is gone.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Daemon sets.
pub struct DaemonSets;

impl Strategy for DaemonSets {
    fn default(&self, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
        let annotations = object.object("metadata.annotations");
        annotations.entry(TEMPLATE_GENERATION).or_insert_with(|| "1".into());
        workload::drop_disabled(object, None);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        workload::drop_disabled(object, Some(old));
        let before = api::meta::annotation(old, TEMPLATE_GENERATION).and_then(|text| text.parse::<i64>().ok());
        let changed = object.at("spec.template") != old.at("spec.template");
        if let Some(before) = before {
            let now = (before + i64::from(changed)).to_string();
            object
                .object("metadata.annotations")
                .insert(TEMPLATE_GENERATION.into(), now.into());
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| spec(&object.get("spec"), None))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        workload::validate_update(object, old, context, spec, status)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        // Of each number of the template, not of each generation.
        match old {
            Some(old) if object.at("spec.template") == old.at("spec.template") => Vec::new(),
            _ => pod::spec_warnings("spec.template", object, None),
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn default(object: &mut Value) {
    pod::default_template(object.existing("spec.template"));
    object.object("spec.updateStrategy");
    let strategy = &mut object["spec"]["updateStrategy"];
    strategy.put_default("type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate" {
        strategy.object("rollingUpdate");
        strategy["rollingUpdate"].put_default("maxUnavailable", 1);
        strategy["rollingUpdate"].put_default("maxSurge", 0);
    }
    object["spec"].put_default("revisionHistoryLimit", HISTORY_DEFAULT);
}

fn spec(spec: &At, old: Option<&Value>) {
    let template = spec.get("template");
    let selector = spec.get("selector");
    workload::selected(spec);
    workload::well_formed(&selector, "daemonset");
    pod::validate_template(&template, old.map(|old| old.at("template")));
    workload::runs_forever(&template, "DaemonSet");
    spec.get("minReadySeconds").non_negative();
    update_strategy(&spec.get("updateStrategy"));
    spec.get("revisionHistoryLimit").non_negative();
}

fn update_strategy(strategy: &At) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.value.text("type") {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.is_set() => rolling.missing(""),
        "RollingUpdate" => rolling_update(&rolling),
        _ => {
            let kind = strategy.get("type");
            kind.elsewhere(strategy.path.clone(), kind.value)
                .not_supported(&["RollingUpdate", "OnDelete"]);
        }
    }
}

fn rolling_update(rolling: &At) {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    for field in [&unavailable, &surge] {
        field.extend(int_or_percent(field.value, &field.path));
    }
    at_most_all(&unavailable);
    at_most_all(&surge);
    match (amount(unavailable.value) != 0, amount(surge.value) != 0) {
        (true, true) => surge.invalid("may not be set when maxUnavailable is non-zero"),
        (false, false) => unavailable.missing("cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn status(status: &At, old: &Value) {
    for counter in [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ] {
        status.get(counter).non_negative();
    }
    workload::collisions(status, old);
}
