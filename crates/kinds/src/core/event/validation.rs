//! The rules of events: loose for core/v1, whose clients are old, and strict for events.k8s.io/v1.
//!
//! Source: `pkg/apis/core/validation/events.go`.

use api::Value;
use api::field::{ErrorList, Path};
use api::validation::{dns1123_subdomain, qualified_name};

use crate::check::{At, Report};
use crate::row::{Strategy, WriteContext};
use crate::view::View;

const WORD_CHARACTERS_MAX: usize = 128;
const NOTE_CHARACTERS_MAX: usize = 1024;

/// Events.
pub struct Events;

impl Strategy for Events {
    fn validate_create(&self, object: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |event| {
            shared(&event, context);
            if is_strict(context) {
                strict(&event);
            }
        })
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |event| {
            shared(&event, context);
            if !is_strict(context) {
                return;
            }
            if event.value.at("series") != old.at("series") {
                series(&event);
            }
            for field in FIXED {
                match old.at(field).is_string() && !field.ends_with("Time") && !field.ends_with("Timestamp") {
                    true => event.get(field).unchanged_text(old.at(field)),
                    false => event.get(field).unchanged(old.at(field)),
                }
            }
            let controller = event.get("reportingComponent");
            let shown = controller.elsewhere(Path::new("reportingController"), controller.value);
            shown.unchanged_text(old.at("reportingComponent"));
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// What an update through events.k8s.io cannot change.
const FIXED: [&str; 12] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingInstance",
];

fn is_strict(context: &WriteContext) -> bool {
    context.version.starts_with("events.k8s.io/")
}

fn shared(event: &At, context: &WriteContext) {
    let (about, own) = (
        event.get("involvedObject.namespace"),
        event.value.text("metadata.namespace"),
    );
    let modern = !event.get("eventTime").is_empty();
    let matches = match (modern, about.text()) {
        (false, "") => matches!(own, "" | "default"),
        (true, "") => matches!(own, "default" | "kube-system"),
        (false, about) => about == own,
        (true, _) => true,
    };
    if !matches {
        about.invalid_as(about.text(), "does not match event.namespace");
    }
    if modern {
        self::modern(event, context);
    }
    for message in dns1123_subdomain(own) {
        let at = event.elsewhere(Path::new("namespace"), event.value);
        at.invalid_as(own, message);
    }
}

/// An event that knows when it happened to the microsecond also knows who saw it and why.
fn modern(event: &At, context: &WriteContext) {
    let controller = event.get("reportingComponent");
    let name = if is_strict(context) {
        "reportingController"
    } else {
        "reportingComponent"
    };
    let shown = controller.elsewhere(Path::new(name), controller.value);
    shown.required();
    for message in qualified_name(controller.text()) {
        shown.invalid_as(controller.text(), message);
    }
    for field in ["reportingInstance", "action", "reason"] {
        let field = event.get(field);
        field.required();
        limited(&field, WORD_CHARACTERS_MAX);
    }
    limited(&event.get("message"), NOTE_CHARACTERS_MAX);
}

fn limited(field: &At, max: usize) {
    if field.text().len() > max {
        field.invalid_as("", format!("can have at most {max} characters"));
    }
}

fn strict(event: &At) {
    series(event);
    event.get("eventTime").required();
    let kind = event.get("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        kind.invalid_as("", format!("has invalid value: {}", kind.text()));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let field = event.get(field);
        let unset = field.is_empty() || field.number() == Some(0);
        if !unset {
            field.invalid_as("", "needs to be unset");
        }
    }
}

fn series(event: &At) {
    let series = event.get("series");
    if !series.is_set() {
        return;
    }
    if series.value.count("count") < 2 {
        series.get("count").invalid_as("", "should be at least 2");
    }
    series.get("lastObservedTime").required();
}

#[cfg(test)]
mod tests {
    use super::Events;
    use crate::testing::{Case, QUALIFIED, check};

    const STRICT: &str = "events.k8s.io/v1";
    const MODERN: &str = "metadata: {namespace: a}, involvedObject: {namespace: a}, type: Normal, reason: r, action: x, \
                          reportingComponent: c, reportingInstance: i, eventTime: '2026-01-01T00:00:00.000000Z'";

    #[test]
    fn old_clients() {
        for case in [
            Case::new("an event").object("metadata: {namespace: a}\ninvolvedObject: {namespace: a}"),
            Case::new("of a node").object("metadata: {namespace: default}\ninvolvedObject: {kind: Node}"),
            Case::new("elsewhere")
                .object("metadata: {namespace: a}\ninvolvedObject: {namespace: b}")
                .errors(&["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]),
            Case::new("a time and nothing else")
                .object("metadata: {namespace: a}\ninvolvedObject: {namespace: a}\neventTime: '2026-01-01T00:00:00Z'")
                .errors(&[
                    "reportingComponent: Required value",
                    "reportingComponent: Invalid value: \"\": name part must be non-empty",
                    &format!("reportingComponent: Invalid value: \"\": {QUALIFIED}"),
                    "reportingInstance: Required value",
                    "action: Required value",
                    "reason: Required value",
                ]),
            Case::new("anything may change")
                .old("metadata: {namespace: a}\ninvolvedObject: {namespace: a}\nreason: a")
                .object("metadata: {namespace: a}\ninvolvedObject: {namespace: a}\nreason: b"),
        ] {
            check(&Events, case);
        }
        let long = format!("{{{MODERN}, message: {}}}", "x".repeat(1025));
        let case = Case::new("long").object(&long);
        check(
            &Events,
            case.errors(&["message: Invalid value: \"\": can have at most 1024 characters"]),
        );
    }

    #[test]
    fn new_clients() {
        let event = format!("{{{MODERN}}}");
        for case in [
            Case::new("an event").object(&event),
            Case::new("a series")
                .object(&format!("{{{MODERN}, series: {{count: 1}}}}"))
                .errors(&[
                    "series.count: Invalid value: \"\": should be at least 2",
                    "series.lastObservedTime: Required value",
                ]),
            Case::new("no time")
                .object("metadata: {namespace: a}\ninvolvedObject: {namespace: a}\ntype: X")
                .errors(&[
                    "eventTime: Required value",
                    "type: Invalid value: \"\": has invalid value: X",
                ]),
            Case::new("old fields")
                .object(&format!(
                    "{{{MODERN}, count: 1, source: {{host: a}}, firstTimestamp: '2026-01-01T00:00:00Z', lastTimestamp: \
                     '2026-01-01T00:00:00Z'}}"
                ))
                .errors(&[
                    "count: Invalid value: \"\": needs to be unset",
                    "source: Invalid value: \"\": needs to be unset",
                    "firstTimestamp: Invalid value: \"\": needs to be unset",
                    "lastTimestamp: Invalid value: \"\": needs to be unset",
                ]),
            Case::new("only the series changes")
                .old(&event)
                .object(
                    &event
                        .replace("action: x", "action: z")
                        .replace("reportingComponent: c", "reportingComponent: d"),
                )
                .errors(&[
                    "action: Invalid value: \"z\": field is immutable",
                    "reportingController: Invalid value: \"d\": field is immutable",
                ]),
        ] {
            check(&Events, case.version(STRICT));
        }
    }
}
