//! Job.

mod indexes;
mod policy;
mod spec;
mod status;
mod strategy;
#[cfg(test)]
mod tests;

use api::Value;

use crate::build::Row;
use crate::print::{
    AGE, CONTAINERS, IMAGES, NAME, SELECTOR, age, container_images, container_names, human_duration, name, seconds,
    selector, text,
};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

pub use spec::template_of_job;
use strategy::Jobs;
pub use strategy::{default_failure_policy, warnings};

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
        .reads(&["status.succeeded"])
        .columns(COLUMNS)
        .build()
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
mod column_tests {
    use super::*;
    use serde_json::json;

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
