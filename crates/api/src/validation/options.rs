//! The options of write requests.
//!
//! Source: `k8s.io/apimachinery/pkg/apis/meta/v1/validation`. The options come as their object form.

use crate::Value;
use crate::field::{Error, ErrorList, Path};

/// A field manager's name ends here, in bytes.
pub const FIELD_MANAGER_LENGTH_MAX: usize = 128;

/// The name of a field manager: short and printable.
pub fn field_manager(name: &str, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    if name.len() > FIELD_MANAGER_LENGTH_MAX {
        errors.push(Error::too_long(path, FIELD_MANAGER_LENGTH_MAX as i64));
    }
    for (position, c) in name.char_indices().filter(|(_, c)| !is_print(*c)) {
        let detail = format!("invalid character U+{:04X} (at position {position})", c as u32);
        errors.push(Error::invalid(path, name, detail));
    }
    errors
}

/// Go's `unicode.IsPrint`, near enough for names: no control characters, no blank but the space itself.
fn is_print(c: char) -> bool {
    let invisible = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}');
    c == ' ' || !(c.is_control() || c.is_whitespace() || invisible)
}

/// `dryRun` is empty or `All`.
pub fn dry_run(values: &[&str], path: &Path) -> ErrorList {
    if values.iter().all(|value| *value == "All") {
        return Vec::new();
    }
    vec![Error::not_supported(path, values.to_vec(), &["All"])]
}

/// `fieldValidation` is empty, `Ignore`, `Warn` or `Strict`.
pub fn field_validation(value: &str, path: &Path) -> ErrorList {
    let supported = ["", "Ignore", "Strict", "Warn"];
    if supported.contains(&value) {
        return Vec::new();
    }
    vec![Error::not_supported(path, value, &supported)]
}

/// `CreateOptions`.
pub fn create_options(options: &Value) -> ErrorList {
    let text = |name: &str| options[name].as_str().unwrap_or_default();
    let mut errors = field_manager(text("fieldManager"), &Path::new("fieldManager"));
    errors.extend(dry_run(&texts(&options["dryRun"]), &Path::new("dryRun")));
    errors.extend(field_validation(text("fieldValidation"), &Path::new("fieldValidation")));
    errors
}

/// `UpdateOptions`: the same rules.
pub fn update_options(options: &Value) -> ErrorList {
    create_options(options)
}

/// `PatchOptions`; `apply` tells whether the patch is a server-side apply.
pub fn patch_options(options: &Value, apply: bool) -> ErrorList {
    let mut errors = Vec::new();
    if apply {
        if options["fieldManager"].as_str().unwrap_or_default().is_empty() {
            let path = Path::new("fieldManager");
            errors.push(Error::required(&path, "is required for apply patch"));
        }
    } else if !options["force"].is_null() {
        let detail = "may not be specified for non-apply patch";
        errors.push(Error::forbidden(&Path::new("force"), detail));
    }
    errors.extend(create_options(options));
    errors
}

/// `DeleteOptions`.
pub fn delete_options(options: &Value) -> ErrorList {
    let mut errors = Vec::new();
    let propagation = &options["propagationPolicy"];
    let path = Path::new("propagationPolicy");
    if !options["orphanDependents"].is_null() && !propagation.is_null() {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(Error::invalid(&path, propagation.clone(), detail));
    }
    let supported = ["Foreground", "Background", "Orphan", "nil"];
    if !propagation.is_null() && !propagation.as_str().is_some_and(|p| supported[..3].contains(&p)) {
        errors.push(Error::not_supported(&path, propagation.clone(), &supported));
    }
    errors.extend(dry_run(&texts(&options["dryRun"]), &Path::new("dryRun")));
    errors.extend(ignore_store_read_error(options));
    errors
}

/// The deletion of an unreadable object goes with no other option.
fn ignore_store_read_error(options: &Value) -> ErrorList {
    const FIELD: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";
    if options[FIELD] != Value::Bool(true) {
        return Vec::new();
    }
    let others = [
        "propagationPolicy",
        "orphanDependents",
        "gracePeriodSeconds",
        "preconditions",
    ];
    let set = others.into_iter().filter(|name| !options[*name].is_null());
    set.map(|name| Error::invalid(&Path::new(FIELD), true, format!("cannot be set together with .{name}")))
        .collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(errors: ErrorList) -> String {
        errors.iter().map(Error::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn write_options_are_checked() {
        for (options, apply, expect) in [
            (json!({}), false, ""),
            (
                json!({"fieldManager": "kubectl", "dryRun": ["All"], "fieldValidation": "Strict"}),
                false,
                "",
            ),
            (
                json!({}),
                true,
                "fieldManager: Required value: is required for apply patch",
            ),
            (
                json!({"force": true}),
                false,
                "force: Forbidden: may not be specified for non-apply patch",
            ),
            (
                json!({"dryRun": ["Al"]}),
                false,
                "dryRun: Unsupported value: [\"Al\"]: supported values: \"All\"",
            ),
            (
                json!({"fieldValidation": "x"}),
                false,
                "fieldValidation: Unsupported value: \"x\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            ),
            (
                json!({"fieldManager": "a\nb"}),
                false,
                "fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)",
            ),
            (
                json!({"fieldManager": "a".repeat(129)}),
                false,
                "fieldManager: Too long: may not be more than 128 bytes",
            ),
        ] {
            assert_eq!(text(patch_options(&options, apply)), expect);
        }
    }

    #[test]
    fn delete_options_are_checked() {
        for (options, expect) in [
            (json!({}), ""),
            (json!({"propagationPolicy": "Orphan"}), ""),
            (
                json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
                "propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set",
            ),
            (
                json!({"propagationPolicy": "x"}),
                "propagationPolicy: Unsupported value: \"x\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
            ),
            (
                json!({"ignoreStoreReadErrorWithClusterBreakingPotential": true, "gracePeriodSeconds": 0}),
                "ignoreStoreReadErrorWithClusterBreakingPotential: Invalid value: true: cannot be set together with .gracePeriodSeconds",
            ),
        ] {
            assert_eq!(text(delete_options(&options)), expect);
        }
    }
}
