//! CronJobs, by example.

use super::strategy::CronJobs;
use crate::row::{Strategy, WriteContext, Writer};
use crate::testing::{Case, NOW, check, yaml};

const TEMPLATE: &str = "{spec: {restartPolicy: Never, containers: [{name: a, image: i}]}}";

/// A CronJob in flow YAML: its schedule and fields of its spec besides the template.
fn cron(schedule: &str, fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { ", " };
    format!(
        "{{metadata: {{name: c}}, spec: {{schedule: '{schedule}', jobTemplate: {{spec: {{template: {TEMPLATE}}}}}{comma}{fields}}}}}"
    )
}

#[test]
fn defaults() {
    for case in [
        Case::new("what is left open")
            .object(&cron("* * * * *", ""))
            .field("spec.concurrencyPolicy", "Allow")
            .field("spec.suspend", false)
            .field("spec.successfulJobsHistoryLimit", 3)
            .field("spec.failedJobsHistoryLimit", 1)
            .field("spec.jobTemplate.spec.template.spec.dnsPolicy", "ClusterFirst")
            // A job's own defaults are for the job that is made.
            .field("spec.jobTemplate.spec.completions", ())
            .field("status", serde_json::json!({})),
        Case::new("what is given stays")
            .object(&cron(
                "* * * * *",
                "concurrencyPolicy: Replace, suspend: true, successfulJobsHistoryLimit: 0, failedJobsHistoryLimit: 0",
            ))
            .field("spec.concurrencyPolicy", "Replace")
            .field("spec.suspend", true)
            .field("spec.successfulJobsHistoryLimit", 0)
            .field("spec.failedJobsHistoryLimit", 0),
    ] {
        check(&CronJobs, case);
    }
}

#[test]
fn schedules_and_zones() {
    let tz = "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field \
              instead";
    for (schedule, fields, errors) in [
        ("*/5 * * * *", "", vec![]),
        ("@hourly", "timeZone: Europe/Berlin", vec![]),
        ("@every 1h", "timeZone: Etc/GMT+3", vec![]),
        ("", "", vec!["spec.schedule: Required value"]),
        (
            "61 * * * *",
            "",
            vec!["spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61"],
        ),
        ("TZ=UTC 0 * * * *", "", vec![tz]),
        (
            "TZ=0",
            "",
            vec![
                "spec.schedule: Invalid value: \"TZ=0\": invalid schedule format: runtime error: slice bounds out of range \
                 [:-1]",
                "spec.schedule: Invalid value: \"TZ=0\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ],
        ),
        (
            "0 * * * *",
            "timeZone: ''",
            vec!["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"],
        ),
        (
            "0 * * * *",
            "timeZone: Amerika/New_York",
            vec!["spec.timeZone: Invalid value: \"Amerika/New_York\": unknown time zone Amerika/New_York"],
        ),
        (
            "0 * * * *",
            "timeZone: local",
            vec![
                "spec.timeZone: Invalid value: \"local\": timeZone must be an explicit time zone as defined in \
                 https://www.iana.org/time-zones",
                "spec.timeZone: Invalid value: \"local\": unknown time zone local",
            ],
        ),
        (
            "0 * * * *",
            "timeZone: Europe/../Berlin",
            vec!["spec.timeZone: Invalid value: \"Europe/../Berlin\": unknown time zone Europe/../Berlin"],
        ),
        (
            "0 * * * *",
            "timeZone: Continent/Zone-Of-No-Return",
            vec![
                "spec.timeZone: Invalid value: \"Continent/Zone-Of-No-Return\": unknown time zone \
                 Continent/Zone-Of-No-Return",
            ],
        ),
    ] {
        let name = format!("{schedule} {fields}");
        check(
            &CronJobs,
            Case::new(&name).object(&cron(schedule, fields)).errors(&errors),
        );
    }
}

#[test]
fn create() {
    let negative = "Invalid value: -1: must be greater than or equal to 0";
    for case in [
        Case::new("numbers and policies")
            .object(&cron(
                "0 * * * *",
                "startingDeadlineSeconds: -1, successfulJobsHistoryLimit: -1, failedJobsHistoryLimit: -1, \
                 concurrencyPolicy: Some",
            ))
            .errors(&[
                &format!("spec.startingDeadlineSeconds: {negative}"),
                &format!("spec.successfulJobsHistoryLimit: {negative}"),
                &format!("spec.failedJobsHistoryLimit: {negative}"),
                "spec.concurrencyPolicy: Unsupported value: \"Some\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ]),
        Case::new("jobs find their pods themselves")
            .object(
                &cron("0 * * * *", "").replace(
                    "{spec: {template",
                    "{spec: {parallelism: -1, manualSelector: true, selector: {matchLabels: {a: b}}, template",
                ),
            )
            .errors(&[
                &format!("spec.jobTemplate.spec.parallelism: {negative}"),
                "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be \
                 auto-generated",
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
            ]),
        Case::new("pods of jobs end")
            .object(&cron("0 * * * *", "").replace("restartPolicy: Never, ", ""))
            .errors(&[
                "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ]),
        Case::new("jobs have longer names")
            .object(&cron("0 * * * *", "").replace("name: c}", &format!("name: {}}}", "c".repeat(53))))
            .errors(&[&format!(
                "metadata.name: Invalid value: \"{}\": must be no more than 52 characters",
                "c".repeat(53)
            )]),
    ] {
        check(&CronJobs, case);
    }
}

#[test]
fn update() {
    let zoned = cron("TZ=UTC 0 * * * *", "");
    let unknown = cron("0 * * * *", "timeZone: Some/Where");
    for case in [
        Case::new("an old schedule with a zone")
            .old(&zoned)
            .object(&zoned.replace("TZ=UTC 0", "CRON_TZ=UTC 5")),
        Case::new("not with the field, too")
            .old(&zoned)
            .object(&cron("TZ=UTC 0 * * * *", "timeZone: UTC"))
            .errors(&[
                "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use both timeZone field and TZ or CRON_TZ in \
                 schedule",
            ]),
        Case::new("a zone that is not known any more")
            .old(&unknown)
            .object(&unknown.replace("0 *", "5 *")),
        Case::new("a long name")
            .old(&cron("0 * * * *", "").replace("name: c}", &format!("name: {}}}", "c".repeat(53))))
            .object(&cron("5 * * * *", "").replace("name: c}", &format!("name: {}}}", "c".repeat(53)))),
        Case::new("status is written apart")
            .old(&cron("0 * * * *", ""))
            .subresource("status")
            .object("{metadata: {name: c}, spec: {schedule: ''}, status: {active: [{name: j}]}}")
            .field("spec.schedule", "0 * * * *")
            .field("status.active.0.name", "j"),
    ] {
        check(&CronJobs, case);
    }
}

#[test]
fn warnings() {
    let context = WriteContext {
        now: NOW,
        subresource: "",
        user: Writer::named("tester"),
        version: "v1",
    };
    let many = "completionMode: Indexed, completions: 100001, parallelism: 10001, ";
    let object = yaml(&cron("TZ=UTC 0 * * * *", "").replace("{spec: {template", &format!("{{spec: {{{many}template")));
    let created = CronJobs.warnings(&object, None, &context);
    assert!(
        created[0].starts_with("spec.jobTemplate.spec: In Indexed Jobs"),
        "{created:?}"
    );
    let unchanged = CronJobs.warnings(&object, Some(&object), &context);
    assert_eq!(unchanged.len(), 1);
    let mut next = object.clone();
    next["metadata"]["generation"] = 2.into();
    let updated = CronJobs.warnings(&next, Some(&object), &context);
    assert!(
        updated[1].starts_with("cannot use TZ or CRON_TZ in spec.spec.schedule"),
        "{updated:?}"
    );
    assert_eq!((created.len(), updated.len()), (1, 2));
}
