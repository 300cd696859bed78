//! Rules for projected volumes.
//!
//! Source: `validateProjectionSources` in `pkg/apis/core/validation/validation.go`. Trust bundles and pod
//! certificates are behind feature gates that are off, so that their sources are dropped before they get here.

use std::collections::BTreeSet;

use super::paths;
use super::volumes::{downward_api_file, key_to_path, mode};
use crate::check::At;
use crate::view::View;

const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// A projected volume.
pub fn validate(volume: &At) {
    mode(&volume.get("defaultMode"));
    let mut files = BTreeSet::new();
    for source in volume.items("sources") {
        let mut kinds = 0;
        for kind in ["secret", "configMap"] {
            let from = source.get(kind);
            if !from.is_set() {
                continue;
            }
            kinds += 1;
            let name = from.get("name");
            name.required();
            for item in from.items("items") {
                key_to_path(&item);
                once(volume, &mut files, item.value.text("path"), name.text());
            }
        }
        let downward = source.get("downwardAPI");
        if downward.is_set() {
            kinds += 1;
            for item in downward.items("items") {
                downward_api_file(&downward.elsewhere(downward.path.clone(), item.value));
                let path = item.value.text("path");
                once(volume, &mut files, path, path);
            }
        }
        let token = source.get("serviceAccountToken");
        if token.is_set() {
            kinds += 1;
            service_account_token(volume, &token);
        }
        if kinds > 1 {
            source.forbidden("may not specify more than 1 volume type per source");
        }
    }
}

fn once<'a>(volume: &At, files: &mut BTreeSet<&'a str>, path: &'a str, shown: &str) {
    if !path.is_empty() && !files.insert(path) {
        volume.invalid_as(shown, "conflicting duplicate paths");
    }
}

fn service_account_token(volume: &At, token: &At) {
    let seconds = token.get("expirationSeconds");
    let number = seconds.number().unwrap_or(0);
    if number < TOKEN_SECONDS_MIN {
        seconds.invalid_as(number, "may not specify a duration less than 10 minutes");
    }
    if number > TOKEN_SECONDS_MAX {
        seconds.invalid_as(number, "may not specify a duration larger than 2^32 seconds");
    }
    path_of_token(volume, token).required();
}

/// No token is written outside of its volume.
pub fn token_paths(volume: &At) {
    for source in volume.items("sources") {
        let path = path_of_token(volume, &source.get("serviceAccountToken"));
        if !path.is_empty() {
            paths::local_not_reserved(&path);
        }
    }
}

/// Upstream tells of the path as the volume's and not the source's.
fn path_of_token<'a>(volume: &At<'a>, token: &At<'a>) -> At<'a> {
    volume.elsewhere(volume.path.child("path"), token.get("path").value)
}
