//! The account is complete and true.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

#[test]
fn every_field_of_every_deep_kind_is_accounted() {
    let kinds = deep_kinds();
    assert!(kinds.len() >= 18, "{kinds:?}");
    for kind in kinds {
        let rules = account(&kind).expect("a deep kind");
        let missing: Vec<&str> = rules
            .iter()
            .filter(|rule| rule.rule == UNACCOUNTED)
            .map(|rule| rule.path.as_str())
            .collect();
        assert!(missing.is_empty(), "{kind}: {missing:?}");
    }
}

#[test]
fn every_entry_is_a_field() {
    for (type_name, field) in RULES.keys() {
        let prefixes = ["api.", "apimachinery.pkg.apis.", ""];
        let schema = prefixes
            .iter()
            .find_map(|prefix| SchemaRef::builtin_type(&format!("{prefix}{type_name}")));
        let schema = schema.unwrap_or_else(|| panic!("{type_name} is no type"));
        // Container and EphemeralContainer share their entry.
        let shared = *type_name == "core.v1.Container" && *field == "targetContainerName";
        assert!(
            shared || schema.node().field(field).is_some(),
            "{type_name} has no {field}"
        );
    }
}

/// Fields of gates that are off, and only they, are said to be dropped, or lie below one that is.
#[test]
fn gates_agree_with_the_account() {
    for kind in deep_kinds() {
        check_gates(&kind);
    }
}

fn check_gates(kind: &str) {
    let row = crate::rows().into_iter().find(|row| row.kind == kind).expect("a row");
    let schema = SchemaRef::builtin(&GroupVersionKind::new(&row.group, &row.hub, &row.kind)).expect("a schema");
    for rule in account(kind).expect("a deep kind") {
        let names: Vec<&str> = rule
            .path
            .split('.')
            .flat_map(|part| part.split_inclusive("[]"))
            .collect();
        let mut steps: Vec<String> = Vec::new();
        for name in names {
            match name.strip_suffix("[]") {
                Some("") => steps.push("[]".into()),
                Some(name) => steps.extend([name.to_string(), "[]".to_string()]),
                None => steps.push(name.into()),
            }
        }
        let (field, parent) = steps.split_last().expect("a path");
        let parent: Vec<&str> = parent.iter().map(String::as_str).collect();
        let parent = schema.at(&parent).expect("the account follows the schema");
        let node = parent.node();
        let gates = node.field(field).expect("a field").gates();
        let off = crate::gates::is_disabled(node.name(), field, &gates);
        assert_eq!(off, rule.rule == GATED, "{kind} {}", rule.path);
    }
}

#[test]
fn rules_and_examples_are_functions() {
    let mut wrong = BTreeSet::new();
    for (rule, test) in RULES.values() {
        if ![NO_RULE, BELOW, GATED].contains(rule) {
            for function in [rule, test] {
                if !exists(function) {
                    wrong.insert(*function);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(!exists("core::pod::spec::no_such_rule"), "the check can fail");
}

/// Whether a path names a function, or a module, in the sources of this crate or of `api`.
fn exists(path: &str) -> bool {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (root, path) = match path.strip_prefix("api::") {
        Some(rest) => (Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/src"), rest),
        None => (here, path),
    };
    let parts: Vec<&str> = path.split("::").filter(|part| *part != "tests").collect();
    let Some((function, modules)) = parts.split_last() else {
        return false;
    };
    let base = modules.iter().fold(root, |path, module| path.join(module));
    let mut files = vec![
        base.with_extension("rs"),
        base.join("mod.rs"),
        base.join(format!("{function}.rs")),
    ];
    files.extend(rust_files(&base));
    // A file of tests may lie one folder further down, beside what it tests.
    if let (Some(parent), Some(last)) = (base.parent(), modules.last()) {
        files.push(parent.join("tests").join(format!("{last}.rs")));
    }
    files.iter().any(|file| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.contains(&format!("fn {function}("))
            || text.contains(&format!("fn {function}<"))
            || file_is(file, function)
    })
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn file_is(file: &Path, module: &str) -> bool {
    file.exists() && file.file_stem().is_some_and(|stem| stem == module)
}
