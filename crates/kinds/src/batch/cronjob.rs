//! CronJob.

use api::Value;

use crate::build::Row;
use crate::core::pod;
use crate::generic::WithStatus;
use crate::print::{
    AGE, CONTAINERS, IMAGES, NAME, NONE, SELECTOR, age, boolean, container_images, container_names, integer, name, or,
    selector, since, text, truth,
};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("batch", "v1", "CronJob", "cronjobs")
        .short(&["cj"])
        .in_all()
        .strategy(WithStatus(default))
        .generation()
        .status()
        .columns(COLUMNS)
        .build()
}

fn default(object: &mut Value) {
    pod::default_template(object.existing("spec.jobTemplate.spec.template"));
    if let Some(spec) = object.existing("spec.jobTemplate.spec") {
        super::job::default_failure_policy(spec);
    }
    object.object("spec");
    let spec = &mut object["spec"];
    spec.put_default("concurrencyPolicy", "Allow");
    spec.put_default("suspend", false);
    spec.put_default("successfulJobsHistoryLimit", 3);
    spec.put_default("failedJobsHistoryLimit", 1);
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Schedule", "When jobs are made, in cron's words."),
        text("Timezone", "The time zone of the schedule."),
        boolean("Suspend", "Whether no jobs are made for now."),
        integer("Active", "How many jobs are running."),
        text("Last Schedule", "How long ago a job was made."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let spec = object.at("spec.jobTemplate.spec.template.spec");
    let last = match object.text("status.lastScheduleTime") {
        "" => NONE.into(),
        time => since(time, context),
    };
    vec![
        name(object),
        object.text("spec.schedule").into(),
        or(object.text("spec.timeZone"), NONE).into(),
        truth(object.boolean("spec.suspend")).into(),
        object.list("status.active").len().into(),
        last.into(),
        age(object, context),
        container_names(spec),
        container_images(spec),
        selector(object.at("spec.jobTemplate.spec.selector")).into(),
    ]
}
