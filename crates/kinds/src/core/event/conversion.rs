//! Between core/v1 and events.k8s.io/v1, which name the same facts differently.
//!
//! Source of the mapping: `pkg/apis/events/v1/conversion.go`.

use api::{Status, Value};

use crate::row::Conversion;
use crate::view::Edit;

/// events.k8s.io/v1.
pub const EVENTS_V1: Conversion = Conversion { to_hub, from_hub };

/// (core/v1, events.k8s.io/v1); fields that are not here have one name in both.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn to_hub(object: Value) -> Result<Value, Status> {
    Ok(renamed(object, RENAMED.map(|(core, events)| (events, core))))
}

fn from_hub(object: Value) -> Result<Value, Status> {
    Ok(renamed(object, RENAMED))
}

fn renamed(mut object: Value, names: [(&str, &str); 7]) -> Value {
    for (from, to) in names {
        if let Some(value) = object.cut(from) {
            object.put(to, value);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_survives_both_ways() {
        let core = json!({
            "metadata": {"name": "e", "namespace": "n"}, "involvedObject": {"kind": "Pod", "name": "p"},
            "reason": "Started", "message": "started it", "source": {"component": "kubelet"}, "type": "Normal",
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z", "count": 2,
            "reportingComponent": "kubelet", "reportingInstance": "node", "eventTime": null, "action": "Start",
            "related": {"kind": "Node"}, "series": {"count": 3, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
        let events = from_hub(core.clone()).expect("converts");
        assert_eq!(
            events,
            json!({
                "metadata": {"name": "e", "namespace": "n"}, "regarding": {"kind": "Pod", "name": "p"},
                "reason": "Started", "note": "started it", "deprecatedSource": {"component": "kubelet"},
                "type": "Normal", "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z",
                "deprecatedLastTimestamp": "2026-01-01T00:00:01Z", "deprecatedCount": 2,
                "reportingController": "kubelet", "reportingInstance": "node", "eventTime": null, "action": "Start",
                "related": {"kind": "Node"},
                "series": {"count": 3, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}})
        );
        assert_eq!(to_hub(events).expect("converts"), core);
    }
}
