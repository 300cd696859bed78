//! What storage and volume attributes classes share: the name of the driver and the parameters it is given.
//!
//! Source: `validateProvisioner` and `validateParameters` in `pkg/apis/storage/validation/validation.go`.

use api::field::Error;
use api::validation::qualified_name;

use crate::check::At;

const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
const PARAMETERS_MAX: usize = 512;

/// The name of who makes or changes volumes: a qualified name in any case of letters.
pub fn driver(name: &At) {
    if !name.required() {
        return;
    }
    let lower = name.text().to_lowercase();
    for message in qualified_name(&lower) {
        name.invalid_as(lower.as_str(), message);
    }
}

/// Keys and values of any kind, not too many and not too large.
pub fn parameters(object: &At, may_be_empty: bool) {
    let parameters = object.get("parameters");
    let entries = object.entries("parameters");
    if entries.len() > PARAMETERS_MAX {
        return parameters.too_long(PARAMETERS_MAX);
    }
    let mut size = 0;
    for (key, value) in &entries {
        if key.is_empty() {
            parameters.invalid_as("", "field can not be empty.");
        }
        size += key.len() + value.text().len();
    }
    if size > PARAMETERS_BYTES_MAX {
        parameters.too_long(PARAMETERS_BYTES_MAX);
    }
    if !may_be_empty && entries.is_empty() {
        parameters.missing("must contain at least one key/value pair");
    }
}

/// A field that stays: `updates to X are forbidden.`
pub fn fixed(object: &At, old: &api::Value, field: &str) {
    let now = object.get(field);
    if !api::validation::immutable(now.value, crate::view::View::at(old, field), &now.path).is_empty() {
        let why = format!("updates to {field} are forbidden.");
        object.report.push(Error::forbidden(&now.path, why));
    }
}
