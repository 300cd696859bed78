//! What the printed columns of many kinds share: definitions, ages, and texts for what is not there.
//!
//! Source of the texts: `pkg/printers/internalversion/printers.go`; of ages: `k8s.io/apimachinery/pkg/util/duration`.

use api::Value;

use crate::row::{Column, Columns, PrintContext};
use crate::view::View;

/// The `Name` column.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: "The name of the object, unique in its namespace or in the cluster.",
};

/// The `Age` column.
pub const AGE: Column = text("Age", "How long ago the object was created.");

/// Shown where a list or an optional field is empty.
pub const NONE: &str = "<none>";
/// Shown where a time is not known.
pub const UNKNOWN: &str = "<unknown>";
/// Shown where an optional field was not set.
pub const UNSET: &str = "<unset>";

/// A column of text that is always shown.
pub const fn text(name: &'static str, description: &'static str) -> Column {
    typed(name, "string", description)
}

/// A column of numbers that is always shown.
pub const fn integer(name: &'static str, description: &'static str) -> Column {
    typed(name, "integer", description)
}

/// A column of truth values that is always shown.
pub const fn boolean(name: &'static str, description: &'static str) -> Column {
    typed(name, "boolean", description)
}

/// A column of text that is shown with `-o wide`.
pub const fn wide(name: &'static str, description: &'static str) -> Column {
    Column {
        priority: 1,
        ..text(name, description)
    }
}

const fn typed(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind,
        format: "",
        priority: 0,
        description,
    }
}

/// The columns of kinds for which upstream has no printer: the name and the time of creation.
pub const CREATED_AT: Columns = Columns {
    definitions: &[
        NAME,
        Column {
            name: "Created At",
            kind: "date",
            format: "",
            priority: 0,
            description: "When the object was created.",
        },
    ],
    cells: |object, _| vec![name(object), object.at("metadata.creationTimestamp").clone()],
};

/// Name and age.
pub const NAME_AND_AGE: Columns = Columns {
    definitions: &[NAME, AGE],
    cells: |object, context| vec![name(object), age(object, context)],
};

/// The containers, images and selector columns of workloads.
pub const CONTAINERS: Column = wide("Containers", "Names of each container in the template.");
/// See [`CONTAINERS`].
pub const IMAGES: Column = wide("Images", "Images referenced by each container in the template.");
/// See [`CONTAINERS`].
pub const SELECTOR: Column = wide("Selector", "Which pods the object selects, by their labels.");

/// `metadata.name`.
pub fn name(object: &Value) -> Value {
    object.text("metadata.name").into()
}

/// How long ago the object was created.
pub fn age(object: &Value, context: &PrintContext) -> Value {
    since(object.text("metadata.creationTimestamp"), context).into()
}

/// How long ago a time was, or `<unknown>`.
pub fn since(time: &str, context: &PrintContext) -> String {
    match seconds(time) {
        Some(then) => human_duration(context.now_seconds - then),
        None => UNKNOWN.into(),
    }
}

/// A time in seconds since 1970; `None` when absent.
pub fn seconds(time: &str) -> Option<i64> {
    time.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// The text, or a placeholder when it is empty.
pub fn or<'a>(text: &'a str, placeholder: &'a str) -> &'a str {
    if text.is_empty() { placeholder } else { text }
}

/// Seconds in two to three significant digits, as `duration.HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |a: i64, unit_a: &str, b: i64, unit_b: &str| match b {
        0 => format!("{a}{unit_a}"),
        b => format!("{a}{unit_a}{b}{unit_b}"),
    };
    match () {
        () if seconds < -1 => "<invalid>".into(),
        () if seconds < 0 => "0s".into(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if years < 8 => two(years, "y", days % 365, "d"),
        () => format!("{years}y"),
    }
}

/// Labels as `a=b,c=d`, or `<none>`.
pub fn labels(map: &Value) -> String {
    let pairs: Vec<String> = map
        .entries("")
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    or(&pairs.join(","), NONE).into()
}

/// A label selector as `metav1.FormatLabelSelector`: `<none>` when it is empty, and requirements sorted by key.
pub fn selector(selector: &Value) -> String {
    or(&selector_text(selector), NONE).into()
}

/// A label selector as `labels.Selector.String()`; empty when it has no requirement.
pub fn selector_text(selector: &Value) -> String {
    let mut requirements: Vec<(String, String)> = selector
        .entries("matchLabels")
        .map(|(key, value)| (key.into(), format!("{key}={}", value.as_str().unwrap_or(""))))
        .collect();
    for expression in selector.list("matchExpressions") {
        let key = expression.text("key");
        let mut values: Vec<&str> = expression.texts("values").collect();
        values.sort_unstable();
        let text = match expression.text("operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_string(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".into(),
        };
        requirements.push((key.into(), text));
    }
    requirements.sort_by(|a, b| a.0.cmp(&b.0));
    let texts: Vec<String> = requirements.into_iter().map(|(_, text)| text).collect();
    texts.join(",")
}

/// The names of a pod template's containers, joined by commas.
pub fn container_names(pod_spec: &Value) -> Value {
    joined(pod_spec.list("containers"), "name").into()
}

/// The images of a pod template's containers, joined by commas.
pub fn container_images(pod_spec: &Value) -> Value {
    joined(pod_spec.list("containers"), "image").into()
}

/// One text field of every element, joined by commas.
pub fn joined(list: &[Value], field: &str) -> String {
    let texts: Vec<&str> = list.iter().map(|element| element.text(field)).collect();
    texts.join(",")
}

/// `True` or `False` as columns show it, `<unset>` when absent.
pub fn truth(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    }
}

/// The first `max` texts joined by commas and how many more there are; `<unset>` for none.
pub fn with_more(list: &[String], max: usize) -> String {
    if list.len() > max {
        return format!("{} + {} more...", list[..max].join(","), list.len() - max);
    }
    or(&list.join(","), UNSET).into()
}

/// Load balancer addresses, sorted and joined.
pub fn load_balancer(status: &Value) -> String {
    let addresses: std::collections::BTreeSet<&str> = status
        .list("ingress")
        .iter()
        .map(|point| or(point.text("ip"), point.text("hostname")))
        .filter(|address| !address.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

/// Access modes in short: `RWO,ROX`.
pub fn access_modes(modes: &[Value]) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let present: Vec<&str> = short
        .into_iter()
        .filter(|(long, _)| modes.iter().any(|mode| mode.as_str() == Some(long)))
        .map(|(_, short)| short)
        .collect();
    present.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_short() {
        for (seconds, expect) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_160, "3h6m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (730 * 86_400, "2y"),
            (735 * 86_400, "2y5d"),
            (8 * 365 * 86_400, "8y"),
        ] {
            assert_eq!(human_duration(seconds), expect, "{seconds}");
        }
    }

    #[test]
    fn selectors_are_sorted_by_key() {
        let given = json!({"matchLabels": {"b": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]});
        assert_eq!(selector(&given), "a in (x,y),b=1,!c");
        assert_eq!(selector(&json!({})), "<none>");
    }

    #[test]
    fn long_lists_are_cut() {
        let list: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).into();
        assert_eq!(with_more(&list, 3), "a,b,c + 2 more...");
        assert_eq!(with_more(&list[..1], 3), "a");
        assert_eq!(with_more(&[], 3), "<unset>");
    }

    #[test]
    fn ages_are_unknown_without_a_time() {
        let context = PrintContext { now_seconds: 100 };
        assert_eq!(since("", &context), "<unknown>");
        assert_eq!(since("1970-01-01T00:00:10Z", &context), "90s");
    }
}
