//! ServiceCIDR: a range of service addresses.

use crate::build::Row;
use crate::generic::WithStatus;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "ServiceCIDR", "servicecidrs")
        .strategy(WithStatus::PLAIN)
        .status()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("CIDRs", "The ranges."), AGE],
    cells: |object, context| {
        let ranges: Vec<&str> = object.texts("spec.cidrs").collect();
        vec![name(object), ranges.join(",").into(), age(object, context)]
    },
};
