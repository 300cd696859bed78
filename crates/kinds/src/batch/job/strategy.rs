//! Defaults of a job and what happens around its writes.
//!
//! Source: `SetDefaults_Job`, `pkg/registry/batch/job/strategy.go`.

use api::Value;
use api::field::ErrorList;

use super::{spec, status};
use crate::apps::workload;
use crate::check::Report;
use crate::core::pod;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

/// Labels that tie pods to their job, by their old and new names.
pub(super) const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
/// See [`UID_LABELS`].
pub(super) const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

/// Beyond these the controller may lose track of which indexes are done.
const COMPLETIONS_TRACKED_MAX: i64 = 100_000;
const PARALLELISM_TRACKED_MAX: i64 = 10_000;

/// Jobs.
pub struct Jobs;

impl Strategy for Jobs {
    fn default(&self, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
        if !object.flag("spec.manualSelector") {
            select_own_pods(object);
        }
        workload::drop_disabled(object, None);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        workload::drop_disabled(object, Some(old));
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |job| {
            spec::generated_selector(&job, true);
            spec::job(&job.get("spec"), None);
            spec::pod_names(&job);
        })
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |job| match context.subresource {
            "status" => status::update(&job, old),
            _ => spec::update(&job, old),
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        warnings("spec", object, old)
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// What a user is told of the job's spec at a path, and of a new object's name.
pub fn warnings(path: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    if !pod::is_generation(object, old) {
        return Vec::new();
    }
    let mut told = match old {
        None => pod::name_warnings(object),
        Some(_) => Vec::new(),
    };
    let spec = object.at(path);
    if spec.text("completionMode") == "Indexed"
        && spec.count("completions") > COMPLETIONS_TRACKED_MAX
        && spec.count("parallelism") > PARALLELISM_TRACKED_MAX
    {
        told.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    told.extend(pod::spec_warnings(&format!("{path}.template"), object, old));
    told
}

/// A job's pods are labelled with its name and uid, and found by the uid.
fn select_own_pods(object: &mut Value) {
    let (name, uid) = (api::meta::name(object).to_string(), api::meta::uid(object).to_string());
    let labels = object.object("spec.template.metadata.labels");
    for label in NAME_LABELS {
        labels.entry(label).or_insert_with(|| name.clone().into());
    }
    for label in UID_LABELS {
        labels.entry(label).or_insert_with(|| uid.clone().into());
    }
    let selector = object.object("spec.selector.matchLabels");
    selector.entry(UID_LABELS[1]).or_insert_with(|| uid.into());
}

fn default(object: &mut Value) {
    object.object("spec");
    default_spec(&mut object["spec"]);
    let labels = object.at("spec.template.metadata.labels").clone();
    if object.entries("metadata.labels").next().is_none() && !labels.is_null() {
        object.object("metadata").insert("labels".into(), labels);
    }
}

/// The defaults of a job's spec but for what depends on the job: upstream gives them to jobs and not to the template
/// of a CronJob, which has only those of its pod template.
fn default_spec(spec: &mut Value) {
    pod::default_template(spec.existing("template"));
    if !spec.has("completions") && !spec.has("parallelism") {
        spec.put("completions", 1);
    }
    spec.put_default("parallelism", 1);
    let backoff = if spec.has("backoffLimitPerIndex") { i32::MAX } else { 6 };
    spec.put_default("backoffLimit", backoff);
    spec.put_default("completionMode", "NonIndexed");
    spec.put_default("suspend", false);
    let replacement = if spec.has("podFailurePolicy") {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    spec.put_default("podReplacementPolicy", replacement);
    spec.put_default("manualSelector", false);
    default_failure_policy(spec);
}

/// The defaults of a pod failure policy.
pub fn default_failure_policy(spec: &mut Value) {
    for rule in spec.elements("podFailurePolicy.rules") {
        for pattern in rule.elements("onPodConditions") {
            pattern.put_default_text("status", "True");
        }
    }
}
