//! The certificates.k8s.io group: CertificateSigningRequest.

mod strategy;
#[cfg(test)]
pub(crate) mod tests;
mod validation;

use api::Value;

use crate::build::Row;
use crate::print::{AGE, NAME, NONE, age, human_duration, name, or, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

use strategy::Requests;

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
    .reads(&["spec.signerName"])
    .columns(COLUMNS)
    .build()
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
