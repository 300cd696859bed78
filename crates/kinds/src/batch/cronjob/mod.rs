//! CronJob.

mod strategy;
#[cfg(test)]
mod tests;

use api::Value;

use crate::build::Row;
use crate::print::{
    AGE, CONTAINERS, IMAGES, NAME, NONE, SELECTOR, age, boolean, container_images, container_names, integer, name, or,
    selector, since, text, truth,
};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("batch", "v1", "CronJob", "cronjobs")
        .short(&["cj"])
        .in_all()
        .strategy(strategy::CronJobs)
        .generation()
        .status()
        .columns(COLUMNS)
        .build()
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
