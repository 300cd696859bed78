//! The certificates.k8s.io group: CertificateSigningRequest.

use api::Value;

use crate::build::Row;
use crate::generic;
use crate::print::{AGE, NAME, NONE, age, human_duration, name, or, text};
use crate::row::{Columns, PrintContext, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![row()]
}

fn row() -> StorageKind {
    Row::cluster(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
    )
    .short(&["csr"])
    .strategy(Requests)
    .view("approval")
    .status()
    .fields(&[("spec.signerName", |object| object.text("spec.signerName").into())])
    .columns(COLUMNS)
    .build()
}

/// A request never changes; approval writes conditions, status the certificate.
struct Requests;

impl Strategy for Requests {
    /// Who asks is what authentication found, not what the request says.
    fn prepare_for_create(&self, object: &mut Value, context: &WriteContext) {
        generic::reset_status(object);
        object.object("spec").insert("username".into(), context.user.into());
        for field in ["uid", "groups", "extra"] {
            object.cut(&format!("spec.{field}"));
        }
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        match context.subresource {
            "" => {
                object.copy_from(old, "spec");
                object.copy_from(old, "status");
            }
            "approval" => {
                let conditions = object.at("status.conditions").clone();
                generic::keep_all_but_status(object, old);
                object.copy_from(old, "status");
                match conditions {
                    Value::Null => drop(object.cut("status.conditions")),
                    conditions => drop(object.object("status").insert("conditions".into(), conditions)),
                }
            }
            _ => generic::keep_all_but_status(object, old),
        }
    }
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        AGE,
        text("SignerName", "Who is asked to sign."),
        text("Requestor", "Who asks."),
        text("RequestedDuration", "For how long the certificate should be valid."),
        text("Condition", "What became of the request."),
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let duration = object.number("spec.expirationSeconds").map(human_duration);
    vec![
        name(object),
        age(object, context),
        or(object.text("spec.signerName"), NONE).into(),
        object.text("spec.username").into(),
        duration.unwrap_or_else(|| NONE.into()).into(),
        condition(object).into(),
    ]
}

fn condition(object: &Value) -> String {
    let has = |kind: &str| object.list("status.conditions").iter().any(|c| c.text("type") == kind);
    let mut text = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_string();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !object.text("status.certificate").is_empty() {
        text.push_str(",Issued");
    }
    text
}
