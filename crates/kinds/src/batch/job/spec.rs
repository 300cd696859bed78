//! The rules of a job's spec, and what may change of it.
//!
//! Source: `ValidateJob` and `ValidateJobSpecUpdate` in `pkg/apis/batch/validation/validation.go`, and
//! `validationOptionsForJob` in `pkg/registry/batch/job/strategy.go`.

use api::Value;
use api::field::Path;
use api::selector::LabelSelector;
use api::validation::{dns1123_label, domain_prefixed_path, label_selector};
use serde_json::json;

use super::policy;
use super::strategy::{NAME_LABELS, UID_LABELS};
use crate::apps::workload;
use crate::check::At;
use crate::core::pod;
use crate::view::{Edit, View};

/// Pods of an indexed job at once, and indexes that may fail.
const INDEXED_MAX: i64 = 100_000;
/// The same for jobs of more completions than [`INDEXED_MAX`] that count failures by index.
const INDEXED_MANY_MAX: i64 = 10_000;
const MANAGER_BYTES_MAX: usize = 63;

/// Everything of a job's own spec; in an update, with the spec before it.
pub fn job(spec: &At, old: Option<&Value>) {
    template_of_job(spec, old);
    let selector = spec.get("selector");
    // A selector is for life: what was stored may stay.
    let broken = |old: &Value| !label_selector(old.at("selector"), false, &selector.path).is_empty();
    let any_value = old.is_some_and(broken);
    match selector.is_set() {
        false => selector.missing(""),
        true => selector.extend(label_selector(selector.value, any_value, &selector.path)),
    }
    workload::selected(spec);
}

/// What holds for the job in a CronJob, too.
pub fn template_of_job(spec: &At, old: Option<&Value>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(field).non_negative();
    }
    let per_index = spec.get("backoffLimitPerIndex");
    if spec.value.has("maxFailedIndexes") && !per_index.is_set() {
        per_index.missing("when maxFailedIndexes is specified");
    }
    let manager = spec.get("managedBy");
    if manager.is_set() {
        manager.extend(domain_prefixed_path(&manager.path, manager.text()));
        if manager.text().len() > MANAGER_BYTES_MAX {
            manager.too_long(MANAGER_BYTES_MAX);
        }
    }
    completion_mode(spec);
    if spec.value.has("podFailurePolicy") {
        policy::failure(spec);
    }
    let success = spec.get("successPolicy");
    if success.is_set() {
        match is_indexed(spec.value) {
            true => policy::success(spec),
            false => success.invalid("requires indexed completion mode"),
        }
    }
    let replacement = spec.get("podReplacementPolicy");
    if replacement.is_set() {
        match spec.value.has("podFailurePolicy") {
            true => replacement.one_of(&["Failed"]),
            false => replacement.one_of(&["Failed", "TerminatingOrFailed"]),
        }
    }
    pod::validate_template(&spec.get("template"), old.map(|old| old.at("template")));
    restart_policy(spec);
}

fn is_indexed(spec: &Value) -> bool {
    spec.text("completionMode") == "Indexed"
}

fn completion_mode(spec: &At) {
    let mode = spec.get("completionMode");
    if mode.is_set() {
        mode.one_of(&["NonIndexed", "Indexed"]);
    }
    if is_indexed(spec.value) {
        return indexed(spec);
    }
    if matches!(mode.text(), "" | "NonIndexed") {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            let field = spec.get(field);
            field.ensure(!field.is_set(), "requires indexed completion mode");
        }
    }
}

fn indexed(spec: &At) {
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let failed = spec.get("maxFailedIndexes");
    if !completions.is_set() {
        completions.missing("when completion mode is Indexed");
    }
    let at_most = |at: &At, max: i64, when: &str| {
        let kept = at.number().is_none_or(|number| number <= max);
        at.ensure(kept, format!("must be less than or equal to {max}{when}"));
    };
    at_most(&parallelism, INDEXED_MAX, " when completion mode is Indexed");
    if let (Some(failed_max), Some(completions)) = (failed.number(), completions.number()) {
        failed.ensure(failed_max <= completions, "must be less than or equal to completions");
    }
    at_most(&failed, INDEXED_MAX, "");
    if completions.number().is_some_and(|number| number > INDEXED_MAX) && spec.value.has("backoffLimitPerIndex") {
        if !failed.is_set() {
            failed.missing(format!("must be specified when completions is above {INDEXED_MAX}"));
        }
        let when = format!(" when completions are above {INDEXED_MAX} and used with backoff limit per index");
        at_most(&parallelism, INDEXED_MANY_MAX, &when);
        at_most(&failed, INDEXED_MANY_MAX, &when);
    }
}

fn restart_policy(spec: &At) {
    let policy = spec.get("template.spec.restartPolicy");
    match policy.text() {
        // Most likely nothing was said, and defaulted.
        "" | "Always" => policy.missing("valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.value.has("podFailurePolicy") => {
            policy.invalid("only \"Never\" is supported when podFailurePolicy is specified");
        }
        _ => policy.one_of(&["OnFailure", "Never"]),
    }
}

/// The selector of a job that did not choose one itself is the one that was made for it. Jobs of old have labels
/// without a prefix only.
pub fn generated_selector(job: &At, prefixed: bool) {
    let (spec, selector) = (job.value.at("spec"), job.get("spec.selector"));
    if spec.flag("manualSelector") || !selector.is_set() {
        return;
    }
    let (name, uid) = (job.value.text("metadata.name"), job.get("metadata.uid"));
    uid.required();
    let metadata = job.get("spec.template.metadata");
    let own = [
        (UID_LABELS[0], uid.text()),
        (NAME_LABELS[0], name),
        (UID_LABELS[1], uid.text()),
        (NAME_LABELS[1], name),
    ];
    let asked = if prefixed { &own[..] } else { &own[..2] };
    for (label, value) in asked {
        has_label(&metadata, label, value);
    }
    let expected = |key: &str| own.iter().find(|(label, _)| *label == key).map(|(_, value)| *value);
    if LabelSelector::from_object(selector.value).is_ok_and(|selector| !selector.matches(expected)) {
        selector.invalid("`selector` not auto-generated");
    }
}

/// Upstream: `ValidateHasLabel`.
fn has_label(metadata: &At, label: &str, expected: &str) {
    let labels = metadata.get("labels");
    match labels.value.get(label).and_then(Value::as_str) {
        None => {
            let path = labels.path.key(label);
            let missing = metadata.elsewhere(path, metadata.value);
            missing.missing(format!("must be '{expected}'"));
        }
        Some(actual) if actual != expected => {
            let wrong = metadata.elsewhere(labels.path.key(label), metadata.value);
            wrong.invalid_as(labels.value.clone(), format!("must be '{expected}'"));
        }
        Some(_) => {}
    }
}

/// The last pod of an indexed job has a name that fits a label.
pub fn pod_names(job: &At) {
    let completions = job.value.count("spec.completions");
    if !is_indexed(job.value.at("spec")) || completions <= 0 {
        return;
    }
    let name = job.value.text("metadata.name");
    let last = format!("{name}-{}", completions - 1);
    if !dns1123_label(&last).is_empty() {
        let detail = format!("will not able to create pod with invalid DNS label: {last}");
        job.elsewhere(Path::new("metadata").child("name"), job.value.at("metadata.name"))
            .invalid(detail);
    }
}

/// An update.
pub fn update(whole: &At, old: &Value) {
    let (spec, before) = (&whole.get("spec"), old.at("spec"));
    let had = |label: &str| before.at("template.metadata.labels").get(label).is_some();
    generated_selector(whole, had(NAME_LABELS[1]) && had(UID_LABELS[1]));
    pod_names(whole);
    job(spec, Some(before));
    completions(spec, before);
    spec.get("selector").unchanged(before.at("selector"));
    template(spec, old);
    for field in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        spec.get(field).unchanged(before.at(field));
    }
}

/// Indexed jobs grow and shrink, with as many pods at once.
fn completions(spec: &At, old: &Value) {
    let completions = spec.get("completions");
    if !is_indexed(spec.value) {
        return completions.unchanged(old.at("completions"));
    }
    let changed = completions.is_set() && completions.value != old.at("completions");
    if changed && completions.number() != spec.value.number("parallelism") {
        completions.invalid("can only be modified in tandem with spec.parallelism");
    }
}

/// The template is for life. While a job is suspended and none of its pods is left, where its pods may go and what they
/// get can change.
fn template(spec: &At, old: &Value) {
    let template = spec.get("template");
    let mut before = old.at("spec.template").clone();
    let paused = |condition: &Value| condition.text("type") == "Suspended" && condition.text("status") == "True";
    let waits = !old.has("status.startTime") || old.list("status.conditions").iter().any(paused);
    if !old.flag("spec.suspend") {
        return template.unchanged(&before);
    }
    let idle = waits && old.count("status.active") == 0;
    if !idle {
        return template.unchanged(&before);
    }
    for field in [
        "affinity.nodeAffinity",
        "nodeSelector",
        "tolerations",
        "schedulingGates",
    ] {
        before.copy_from(template.value, &format!("spec.{field}"));
    }
    // An affinity of which nothing else is left is none.
    let empty = |affinity: &Value| affinity.is_null() || *affinity == json!({});
    if empty(before.at("spec.affinity")) && empty(template.value.at("spec.affinity")) {
        before.copy_from(template.value, "spec.affinity");
    }
    for list in ["spec.containers", "spec.initContainers"] {
        let new = template.value.list(list);
        if new.len() != before.list(list).len() {
            continue;
        }
        for (container, new) in before.elements(list).zip(new) {
            if container.text("name") == new.text("name") {
                container.copy_from(new, "resources");
            }
        }
    }
    // Upstream compares the specs alone here.
    template.get("spec").unchanged(before.at("spec"));
}
