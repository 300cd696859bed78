//! What `kubectl get events` shows; one table for both served versions.

use api::Value;

use super::conversion;
use crate::print::{NAME, name, or, since, text, wide};
use crate::row::{Column, Columns, PrintContext};
use crate::view::View;

/// The columns of core/v1.
pub const CORE: Columns = Columns {
    definitions: DEFINITIONS,
    cells,
};

/// The columns of events.k8s.io/v1.
pub const EVENTS_V1: Columns = Columns {
    definitions: DEFINITIONS,
    cells: |object, context| match (conversion::EVENTS_V1.to_hub)(object.clone()) {
        Ok(object) => cells(&object, context),
        Err(_) => Vec::new(),
    },
};

const DEFINITIONS: &[Column] = &[
    text("Last Seen", "When the event happened last."),
    text("Type", "Normal or Warning."),
    text("Reason", "Why it happened, in one word."),
    text("Object", "What the event is about."),
    wide("Subobject", "The part of the object that the event is about."),
    wide("Source", "Who reported the event."),
    text("Message", "What happened."),
    wide("First Seen", "When the event happened first."),
    wide("Count", "How often the event happened."),
    Column { priority: 1, ..NAME },
];

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let first = since(or(object.text("firstTimestamp"), object.text("eventTime")), context);
    let (last, count) = match object.at("series") {
        Value::Null => {
            let last = object.text("lastTimestamp");
            let last = if last.is_empty() {
                first.clone()
            } else {
                since(last, context)
            };
            (last, object.count("count").max(1))
        }
        series => (since(series.text("lastObservedTime"), context), series.count("count")),
    };
    let kind = object.text("involvedObject.kind").to_lowercase();
    let target = match object.text("involvedObject.name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = or(object.text("source.component"), object.text("reportingComponent"));
    let source = match or(object.text("source.host"), object.text("reportingInstance")) {
        "" => component.to_string(),
        instance => format!("{component}, {instance}"),
    };
    vec![
        last.into(),
        object.text("type").into(),
        object.text("reason").into(),
        target.into(),
        object.text("involvedObject.fieldPath").into(),
        source.into(),
        object.text("message").trim().into(),
        first.into(),
        count.into(),
        name(object),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line() {
        let object = json!({
            "metadata": {"name": "web.1"}, "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec"},
            "reason": "Started", "message": " started \n", "source": {"component": "kubelet", "host": "n1"},
            "type": "Normal", "firstTimestamp": "1970-01-01T00:00:00Z", "lastTimestamp": "1970-01-01T00:01:00Z",
            "count": 2});
        let context = PrintContext { now_seconds: 100 };
        assert_eq!(
            Value::Array(cells(&object, &context)),
            json!([
                "40s",
                "Normal",
                "Started",
                "pod/web",
                "spec",
                "kubelet, n1",
                "started",
                "100s",
                2,
                "web.1"
            ])
        );
        let object = json!({"metadata": {"name": "x"}, "involvedObject": {"kind": "Node"},
            "eventTime": "1970-01-01T00:00:10.000000Z", "reportingComponent": "c"});
        let cells = cells(&object, &context);
        assert_eq!(
            (&cells[0], &cells[3], &cells[5], &cells[8]),
            (&json!("90s"), &json!("node"), &json!("c"), &json!(1))
        );
    }
}
