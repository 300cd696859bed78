//! Job.

use api::Value;

use crate::build::Row;
use crate::core::pod;
use crate::generic;
use crate::print::{
    AGE, CONTAINERS, IMAGES, NAME, SELECTOR, age, container_images, container_names, human_duration, name, seconds,
    selector, text,
};
use crate::row::{Columns, PrintContext, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The row. Deleting one leaves its pods alone, as clients of batch/v1 from before garbage collection expect.
pub fn row() -> StorageKind {
    Row::namespaced("batch", "v1", "Job", "jobs")
        .in_all()
        .strategy(Jobs)
        .generation()
        .orphans()
        .status()
        .fields(&[("status.successful", |object| {
            object.count("status.succeeded").to_string()
        })])
        .columns(COLUMNS)
        .build()
}

/// Labels that tie pods to their job, by their old and new names.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

struct Jobs;

impl Strategy for Jobs {
    fn default(&self, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
        if !object.flag("spec.manualSelector") {
            select_own_pods(object);
        }
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
    }
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
            pattern.put_default("status", "True");
        }
    }
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "How far the job is."),
        text("Completions", "How many pods succeeded, of how many."),
        text("Duration", "How long the job took, or takes until now."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let spec = object.at("spec.template.spec");
    let succeeded = object.count("status.succeeded");
    let completions = match (object.number("spec.completions"), object.count("spec.parallelism")) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let ended = seconds(object.text("status.completionTime")).unwrap_or(context.now_seconds);
    let duration = seconds(object.text("status.startTime")).map(|start| human_duration(ended - start));
    vec![
        name(object),
        status(object).into(),
        completions.into(),
        duration.unwrap_or_default().into(),
        age(object, context),
        container_names(spec),
        container_images(spec),
        selector(object.at("spec.selector")).into(),
    ]
}

fn status(object: &Value) -> &'static str {
    let has = |kind: &str| {
        let found = object.list("status.conditions").iter().find(|c| c.text("type") == kind);
        found.is_some_and(|c| c.text("status") == "True")
    };
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if api::meta::is_deleting(object) => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_selects_its_own_pods() {
        let case = crate::testing::Case::new("a job")
            .object("metadata: {name: j, uid: u}\nspec: {template: {spec: {containers: [{name: a, image: i}]}}}")
            .field(
                "spec.selector.matchLabels",
                json!({"batch.kubernetes.io/controller-uid": "u"}),
            )
            .field(
                "spec.template.metadata.labels",
                json!({
                "batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j", "controller-uid": "u",
                "job-name": "j"}),
            )
            .field("spec.completions", 1)
            .field("spec.backoffLimit", 6);
        crate::testing::check(&Jobs, case);
    }

    #[test]
    fn completions_and_duration_show() {
        let context = PrintContext { now_seconds: 100 };
        for (spec, status, expect) in [
            (
                json!({"completions": 3, "parallelism": 1}),
                json!({"succeeded": 1}),
                ["Running", "1/3", ""],
            ),
            (
                json!({"parallelism": 4}),
                json!({"startTime": "1970-01-01T00:00:00Z"}),
                ["Running", "0/1 of 4", "100s"],
            ),
            (
                json!({"completions": 1}),
                json!({"succeeded": 1, "startTime": "1970-01-01T00:00:00Z", "completionTime": "1970-01-01T00:00:05Z",
                    "conditions": [{"type": "Complete", "status": "True"}]}),
                ["Complete", "1/1", "5s"],
            ),
        ] {
            let cells = cells(
                &json!({"metadata": {"name": "j"}, "spec": spec, "status": status}),
                &context,
            );
            assert_eq!(cells[1..4], expect.map(Value::from));
        }
    }
}
