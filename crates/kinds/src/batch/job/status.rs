//! What a job's status may say: the controller's own mistakes are refused, too. A rule about a field holds from the moment
//! it changes, so that statuses of long ago stay writable.
//!
//! Source: `validateJobStatus` and `ValidateJobStatusUpdate` in `pkg/apis/batch/validation/validation.go`, and
//! `getStatusValidationOptions` in `pkg/registry/batch/job/strategy.go`.

use std::collections::BTreeSet;

use api::Value;

use super::indexes;
use crate::check::At;
use crate::view::View;

/// An update of the status.
pub fn update(job: &At, old: &Value) {
    let status = job.get("status");
    counters(&status);
    uncounted(&status);
    let change = Change { job, old };
    change.conditions();
    change.times();
    change.finished();
    change.indexes();
    change.transitions();
}

fn counters(status: &At) {
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.get(field).non_negative();
    }
}

/// Pods that ended and are not counted yet: each once.
fn uncounted(status: &At) {
    let mut seen = BTreeSet::new();
    for list in ["uncountedTerminatedPods.succeeded", "uncountedTerminatedPods.failed"] {
        for uid in status.items(list) {
            match uid.text() {
                "" => uid.invalid("must not be empty"),
                _ => uid.unique(&mut seen),
            }
        }
    }
}

/// A condition of this type is true.
fn is(job: &Value, kind: &str) -> bool {
    let of_kind = |condition: &&Value| condition.text("type") == kind && condition.text("status") == "True";
    job.list("status.conditions")
        .iter()
        .any(|condition| of_kind(&condition))
}

fn is_finished(job: &Value) -> bool {
    is(job, "Complete") || is(job, "Failed")
}

/// A status and the one before.
struct Change<'a> {
    job: &'a At<'a>,
    old: &'a Value,
}

impl<'a> Change<'a> {
    fn now(&self, kind: &str) -> bool {
        is(self.job.value, kind)
    }

    /// Whether one of these conditions came or went.
    fn turned(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| self.now(kind) != is(self.old, kind))
    }

    /// Whether one of these fields changed.
    fn changed(&self, fields: &[&str]) -> bool {
        let status = |job: &'a Value, field: &str| job.at("status").at(field);
        fields
            .iter()
            .any(|field| status(self.job.value, field) != status(self.old, field))
    }

    fn turned_finished(&self) -> bool {
        is_finished(self.job.value) != is_finished(self.old)
    }

    fn at(&self, field: &str) -> At<'a> {
        self.job.get("status").get(field)
    }

    /// Conditions that exclude or demand each other.
    fn conditions(&self) {
        let conditions = self.at("conditions");
        let refuse = |broken: bool, why: &str| {
            if broken {
                conditions.broken(why);
            }
        };
        let (complete, failed) = (self.now("Complete"), self.now("Failed"));
        let (target, met) = (self.now("FailureTarget"), self.now("SuccessCriteriaMet"));
        let why = "cannot set Complete=True and Failed=true conditions";
        refuse(self.turned(&["Complete", "Failed"]) && complete && failed, why);
        let why = "cannot set Complete=True and FailureTarget=true conditions";
        refuse(self.turned(&["Complete", "FailureTarget"]) && complete && target, why);
        let why = "cannot set Failed=True condition without the FailureTarget=true condition";
        refuse(self.turned(&["Failed", "FailureTarget"]) && failed && !target, why);
        let why = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        refuse(
            self.turned(&["Complete", "SuccessCriteriaMet"]) && complete && !met,
            why,
        );
        refuse(
            met && failed,
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        );
        let why = "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions";
        refuse(met && target, why);
        let why = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        refuse(self.job.value.has("spec.successPolicy") && !met && complete, why);
        for kind in ["Failed", "Complete", "FailureTarget"] {
            let why = format!("cannot disable the terminal {kind}=True condition");
            refuse(is(self.old, kind) && !self.now(kind), &why);
        }
        let had = is(self.old, "SuccessCriteriaMet");
        refuse(had && !met, "cannot disable the SuccessCriteriaMet=True condition");
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        refuse(is(self.old, "Complete") && !had && met, why);
    }

    fn times(&self) {
        let (started, completed) = (self.at("startTime"), self.at("completionTime"));
        if self.turned(&["Complete"]) || self.changed(&["completionTime"]) {
            match (completed.is_set(), self.now("Complete")) {
                (true, false) => {
                    completed.invalid("cannot set completionTime when there is no Complete=True condition");
                }
                (false, true) => completed.missing("completionTime is required for Complete jobs"),
                _ => {}
            }
        }
        if self.changed(&["startTime", "completionTime"]) && started.is_set() && completed.is_set() {
            // Times in normal form are in order as texts.
            completed.ensure(
                completed.text() >= started.text(),
                "must be equal to or after `startTime`",
            );
        }
        let before = self.old.at("status.completionTime");
        if completed.is_set() && !before.is_null() && completed.value != before {
            completed.invalid("field is immutable");
        }
        let before = self.old.at("status.startTime");
        if !before.is_null() && started.value != before && !self.job.value.flag("spec.suspend") {
            started.missing("startTime cannot be removed for unsuspended job");
        }
    }

    /// What a job that is finished has and has not.
    fn finished(&self) {
        let finished = is_finished(self.job.value);
        let touched = |fields: &[&str]| finished && (self.turned_finished() || self.changed(fields));
        let (active, terminating) = (self.at("active"), self.at("terminating"));
        if touched(&["active"]) && active.number().unwrap_or(0) > 0 {
            active.invalid("active>0 is invalid for finished job");
        }
        let spec = self.job.value.at("spec");
        let never_starts = spec.flag("suspend") && spec.number("completions") == Some(0);
        let started = self.at("startTime");
        if touched(&["startTime"]) && !never_starts && !started.is_set() {
            started.missing("startTime is required for finished job");
        }
        let uncounted = self.at("uncountedTerminatedPods");
        let pods = uncounted.value.list("failed").len() + uncounted.value.list("succeeded").len();
        if touched(&["uncountedTerminatedPods"]) && pods > 0 {
            uncounted.invalid("must be empty for finished job");
        }
        if touched(&["terminating"]) && terminating.number().unwrap_or(0) > 0 {
            terminating.invalid("terminating>0 is invalid for finished job");
        }
        let ready = self.at("ready");
        if self.changed(&["ready", "active"]) && ready.number().unwrap_or(0) > active.number().unwrap_or(0) {
            ready.invalid("cannot set more ready pods than active");
        }
    }

    fn indexes(&self) {
        let spec = self.job.value.at("spec");
        let (completed, failed) = (self.at("completedIndexes"), self.at("failedIndexes"));
        let (new_completed, new_failed) = (self.changed(&["completedIndexes"]), self.changed(&["failedIndexes"]));
        let per_index = spec.has("backoffLimitPerIndex");
        let readable = |at: &At, name: &str| {
            if let Some(Err(why)) = spec.number("completions").map(|max| indexes::count(at.text(), max)) {
                at.invalid(format!("error parsing {name}: {why}"));
            }
        };
        if new_completed {
            readable(&completed, "completedIndexes");
        }
        if new_failed && per_index && failed.is_set() {
            readable(&failed, "failedIndexes");
        }
        if new_completed && !completed.is_empty() && spec.text("completionMode") != "Indexed" {
            completed.invalid("cannot set non-empty completedIndexes when non-indexed completion mode");
        }
        if new_failed && !per_index && failed.is_set() {
            failed.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null");
        }
        if (new_completed || new_failed)
            && let Some(max) = spec.number("completions")
            && let Some(index) = indexes::overlap(completed.text(), failed.text(), max)
        {
            failed.invalid(format!("failedIndexes and completedIndexes overlap at index: {index}"));
        }
    }

    /// What only grows.
    fn transitions(&self) {
        let spec = self.job.value.at("spec");
        let shrank = |field: &str| self.at(field).number().unwrap_or(0) < self.old.at("status").count(field);
        let complain = |field: &str| {
            let at = self.at(field);
            at.invalid_as(at.number().unwrap_or(0), format!("cannot decrease the {field} counter"));
        };
        if shrank("failed") {
            complain("failed");
        }
        // An indexed job with a pod an index can be made smaller.
        let elastic = spec.text("completionMode") == "Indexed" && spec.at("completions") == spec.at("parallelism");
        if shrank("succeeded") && !elastic {
            complain("succeeded");
        }
    }
}
