//! ServiceCIDR: a range of service addresses.

use api::Value;
use api::field::ErrorList;
use api::validation::{cidr, parse_cidr_sloppy};

use crate::build::Row;
use crate::check::{At, Report};
use crate::generic;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "ServiceCIDR", "servicecidrs")
        .strategy(ServiceCidrs)
        .status()
        .columns(COLUMNS)
        .build()
}

const IMMUTABLE: &str = "field is immutable";

/// Source: `ValidateServiceCIDR` and `ValidateServiceCIDRUpdate` in `pkg/apis/networking/validation/validation.go`, and
/// `pkg/registry/networking/servicecidr/strategy.go`.
struct ServiceCidrs;

impl Strategy for ServiceCidrs {
    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        if context.subresource == "status" {
            generic::keep_metadata(object, old);
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| ranges(&object.get("spec")))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            if context.subresource != "status" {
                update(&object.get("spec"), old.list("spec.cidrs"));
            }
        })
    }

    fn reset_fields(&self, subresource: &str) -> Option<&'static [&'static str]> {
        match subresource {
            "status" => Some(&["metadata", "spec"]),
            _ => None,
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// One range, or one of each family.
fn ranges(spec: &At) {
    let (all, list) = (spec.get("cidrs"), spec.value.list("cidrs"));
    match list.len() {
        0 => return all.missing("at least one CIDR required"),
        1 | 2 => {}
        _ => return all.invalid_as(spec.value.clone(), "may only hold up to 2 values"),
    }
    for range in spec.items("cidrs") {
        range.extend(cidr(&range.path, range.text()));
    }
    let family = |range: &Value| parse_cidr_sloppy(range.as_str()?).map(|(address, _)| address.is_ipv4());
    if let [first, second] = list
        && family(first).is_some()
        && family(first) == family(second)
    {
        all.invalid("may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64");
    }
}

/// Ranges are for life; a second one may join the first.
fn update(spec: &At, old: &[Value]) {
    let new = spec.items("cidrs");
    let joined = old.len() == 1 && new.len() == 2;
    if old.len() != new.len() && !joined {
        let all = spec.get("cidrs");
        return all.invalid_as(all.value.clone(), IMMUTABLE);
    }
    for (range, old) in new.iter().zip(old) {
        range.ensure(range.value == old, IMMUTABLE);
    }
    if joined {
        ranges(spec);
    }
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("CIDRs", "The ranges."), AGE],
    cells: |object, context| {
        let ranges: Vec<&str> = object.texts("spec.cidrs").collect();
        vec![name(object), ranges.join(",").into(), age(object, context)]
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, check};

    #[test]
    fn rules() {
        let of = |ranges: &str| format!("{{metadata: {{labels: {{a: b}}}}, spec: {{cidrs: [{ranges}]}}}}");
        let families = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        let (one, two) = (of("10.0.0.0/24"), of("10.0.0.0/24, '2001:db8::/64'"));
        for case in [
            Case::new("one").object(&one),
            Case::new("one of each").object(&two),
            Case::new("none")
                .object(&of(""))
                .errors(&["spec.cidrs: Required value: at least one CIDR required"]),
            Case::new("more").object(&of("a, b, c")).errors(&[
                "spec.cidrs: Invalid value: {\"cidrs\":[\"a\",\"b\",\"c\"]}: may only hold up to 2 values",
            ]),
            Case::new("two of one").object(&of("10.0.0.0/24, 10.1.0.0/24")).errors(&[&format!(
                "spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"10.1.0.0/24\"]: {families}"
            )]),
            Case::new("not as ranges are written").object(&of("10.0.0.1/24, a")).errors(&[
                "spec.cidrs[0]: Invalid value: \"10.0.0.1/24\": must not have bits set beyond the prefix length",
                "spec.cidrs[1]: Invalid value: \"a\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ]),
            Case::new("a second one joins").old(&one).object(&two),
            Case::new("not of the same family")
                .old(&one)
                .object(&of("10.0.0.0/24, 10.1.0.0/24"))
                .errors(&[&format!(
                    "spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"10.1.0.0/24\"]: {families}"
                )]),
            Case::new("the first stays")
                .old(&one)
                .object(&of("10.1.0.0/24"))
                .errors(&["spec.cidrs[0]: Invalid value: \"10.1.0.0/24\": field is immutable"]),
            Case::new("and none leaves").old(&two).object(&one).errors(&[
                "spec.cidrs: Invalid value: [\"10.0.0.0/24\"]: field is immutable",
            ]),
            Case::new("status is written apart")
                .old(&one)
                .subresource("status")
                .object("{metadata: {labels: {c: d}}, spec: {}, status: {conditions: [{type: Ready}]}}")
                .field("metadata.labels", serde_json::json!({"a": "b"}))
                .field("spec.cidrs.0", "10.0.0.0/24")
                .field("status.conditions.0.type", "Ready"),
        ] {
            check(&ServiceCidrs, case);
        }
    }
}
