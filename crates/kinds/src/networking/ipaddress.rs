//! IPAddress: one allocated service address.

use api::Value;
use api::field::ErrorList;
use api::validation::{dns1123_subdomain, path_segment_name};

use crate::build::Row;
use crate::check::{At, Report};
use crate::names;
use crate::print::{NAME, NONE, name, text};
use crate::row::{Columns, PrintContext, StorageKind, Strategy, WriteContext};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "IPAddress", "ipaddresses")
        .short(&["ip"])
        .named(names::ip_address)
        .strategy(IpAddresses)
        .columns(COLUMNS)
        .build()
}

/// Source: `ValidateIPAddress` and `ValidateIPAddressUpdate` in `pkg/apis/networking/validation/validation.go`.
struct IpAddresses;

impl Strategy for IpAddresses {
    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| parent(&object.get("spec.parentRef")))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            let reference = object.get("spec.parentRef");
            parent(&reference);
            reference.unchanged(old.at("spec.parentRef"));
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// The group and the namespace may be empty: those of services are, and of what has no namespace.
fn parent(parent: &At) {
    if !parent.is_set() {
        return parent.missing("");
    }
    let group = parent.get("group");
    if !group.is_empty() {
        group.check(dns1123_subdomain(group.text()));
    }
    for (field, needed) in [("resource", true), ("name", true), ("namespace", false)] {
        let field = parent.get(field);
        if needed {
            field.required();
        }
        if !field.is_empty() {
            field.check(path_segment_name(field.text()));
        }
    }
}

/// Upstream shows no age here.
const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("ParentRef", "What the address belongs to.")],
    cells,
};

fn cells(object: &Value, _context: &PrintContext) -> Vec<Value> {
    let parent = match object.at("spec.parentRef") {
        Value::Null => NONE.into(),
        parent => {
            let resource = parent.text("resource").to_lowercase();
            let group = parent.text("group").to_lowercase();
            let dot = if group.is_empty() { "" } else { "." };
            let namespace = parent.text("namespace");
            let slash = if namespace.is_empty() { "" } else { "/" };
            format!("{resource}{dot}{group}{slash}{namespace}/{}", parent.text("name"))
        }
    };
    vec![name(object), parent.into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, SUBDOMAIN, check};

    #[test]
    fn rules() {
        let address = |parent: &str| format!("spec: {{parentRef: {parent}}}");
        let service = address("{resource: services, namespace: n, name: s}");
        for case in [
            Case::new("of a service").object(&service),
            Case::new("of a gateway")
                .object(&address("{group: gateway.networking.k8s.io, resource: gateways, name: g}")),
            Case::new("of nothing")
                .object("{spec: {}}")
                .errors(&["spec.parentRef: Required value"]),
            Case::new("of something").object(&address("{}")).errors(&[
                "spec.parentRef.resource: Required value",
                "spec.parentRef.name: Required value",
            ]),
            Case::new("of something strange")
                .object(&address("{group: A, resource: a/b, namespace: '..', name: '.'}"))
                .errors(&[
                    &format!("spec.parentRef.group: Invalid value: \"A\": {SUBDOMAIN}"),
                    "spec.parentRef.resource: Invalid value: \"a/b\": may not contain '/'",
                    "spec.parentRef.namespace: Invalid value: \"..\": may not be '..'",
                    "spec.parentRef.name: Invalid value: \".\": may not be '.'",
                ]),
            Case::new("for life")
                .old(&service)
                .object(&service.replace("name: s", "name: t"))
                .errors(&[
                    "spec.parentRef: Invalid value: {\"name\":\"t\",\"namespace\":\"n\",\"resource\":\"services\"}: field \
                     is immutable",
                ]),
        ] {
            check(&IpAddresses, case);
        }
    }
}
