//! Defaults, rules and what happens around a write of a CronJob.
//!
//! Source: `SetDefaults_CronJob`, `validateCronJobSpec` in `pkg/apis/batch/validation/validation.go` and
//! `pkg/registry/batch/cronjob/strategy.go`.

use std::sync::LazyLock;

use api::Value;
use api::cron;
use api::field::ErrorList;
use regex::Regex;

use crate::batch::job;
use crate::check::{At, Report};
use crate::core::pod;
use crate::gates;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

/// A job's name is the CronJob's and eleven more characters, of 63.
const NAME_BYTES_MAX: usize = 52;
const TEMPLATE: &str = "spec.jobTemplate.spec.template";

/// One part of the name of a time zone.
static ZONE_PART: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[A-Za-z.\-_0-9+]{1,14}$").expect("invariant: the pattern is a constant"));

/// CronJobs.
pub struct CronJobs;

impl Strategy for CronJobs {
    fn default(&self, object: &mut Value) {
        pod::default_template(object.existing(TEMPLATE));
        if let Some(spec) = object.existing("spec.jobTemplate.spec") {
            job::default_failure_policy(spec);
        }
        object.object("spec");
        let spec = &mut object["spec"];
        spec.put_default("concurrencyPolicy", "Allow");
        spec.put_default("suspend", false);
        spec.put_default("successfulJobsHistoryLimit", 3);
        spec.put_default("failedJobsHistoryLimit", 1);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
        drop_disabled(object, None);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        drop_disabled(object, Some(old));
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            spec(&object.get("spec"), None);
            let name = object.get("metadata.name");
            name.ensure(
                name.text().len() <= NAME_BYTES_MAX,
                format!("must be no more than {NAME_BYTES_MAX} characters"),
            );
        })
    }

    /// Upstream has no rules for the status.
    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            if context.subresource != "status" {
                spec(&object.get("spec"), Some(old.at("spec")));
            }
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        if context.subresource == "status" {
            return Vec::new();
        }
        let mut told = job::warnings("spec.jobTemplate.spec", object, old);
        if old.is_some() && names_zone(object.text("spec.schedule")) {
            told.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .into(),
            );
        }
        told
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn drop_disabled(object: &mut Value, old: Option<&Value>) {
    if let Some(template) = object.existing(TEMPLATE) {
        gates::drop_disabled(template, old.map(|old| old.at(TEMPLATE)), "core.v1.PodTemplateSpec");
    }
}

fn spec(spec: &At, old: Option<&Value>) {
    schedule(spec, old);
    spec.get("startingDeadlineSeconds").non_negative();
    let zone = spec.get("timeZone");
    if old.is_none_or(|old| old.at("timeZone") != zone.value) {
        time_zone(&zone);
    }
    spec.get("concurrencyPolicy")
        .required_one_of(&["Allow", "Forbid", "Replace"]);
    job_template(&spec.get("jobTemplate.spec"), old.map(|old| old.at("jobTemplate.spec")));
    spec.get("successfulJobsHistoryLimit").non_negative();
    spec.get("failedJobsHistoryLimit").non_negative();
}

fn names_zone(schedule: &str) -> bool {
    schedule.contains("TZ")
}

/// A schedule does not name its time zone: the field beside it does, but for objects that are older than the field.
fn schedule(spec: &At, old: Option<&Value>) {
    let schedule = spec.get("schedule");
    if !schedule.required() {
        return;
    }
    if let Err(error) = cron::parse(schedule.text()) {
        schedule.invalid(error);
    }
    if !names_zone(schedule.text()) {
        return;
    }
    match old.is_some_and(|old| names_zone(old.text("schedule"))) {
        false => schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"),
        true if spec.value.has("timeZone") => {
            schedule.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule");
        }
        true => {}
    }
}

fn time_zone(zone: &At) {
    if !zone.is_set() {
        return;
    }
    let name = zone.text();
    if name.is_empty() {
        return zone.invalid("timeZone must be nil or non-empty string");
    }
    let strange = |part: &str| matches!(part, "." | "..") || part.starts_with('-') || !ZONE_PART.is_match(part);
    if name.split('/').any(strange) {
        return zone.invalid(format!("unknown time zone {name}"));
    }
    if name.eq_ignore_ascii_case("local") {
        zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    }
    if let Err(error) = cron::location(name) {
        zone.invalid(error);
    }
}

fn job_template(spec: &At, old: Option<&Value>) {
    job::template_of_job(spec, old);
    let selector = spec.get("selector");
    selector.ensure(!selector.is_set(), "`selector` will be auto-generated");
    if spec.value.flag("manualSelector") {
        spec.get("manualSelector").not_supported(&["nil", "false"]);
    }
}
