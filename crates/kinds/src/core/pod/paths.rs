//! Rules for paths inside of containers and volumes.

use crate::check::At;

/// `..` is no part of the path.
pub fn no_backsteps(path: &At) {
    if path.text().split('/').any(|part| part == "..") {
        path.invalid("must not contain '..'");
    }
}

/// Relative, and without `..`.
pub fn local_descending(path: &At) {
    if path.text().starts_with('/') {
        path.invalid("must be a relative path");
    }
    no_backsteps(path);
}

/// Relative, without `..`, and not of the names that atomic writes use (`..data`).
pub fn local_not_reserved(path: &At) {
    local_descending(path);
    let text = path.text();
    if text.starts_with("..") && !text.starts_with("../") {
        path.invalid("must not start with '..'");
    }
}
