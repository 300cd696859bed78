//! The style as a test: crate edges, module docs, formatting, clippy, and file lengths as a report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{cargo, workspace};

/// The layer of each crate (design, section 1). A crate may use crates of lower layers only, and of its own layer none,
/// but for the edges in [`SAME_LAYER`].
const LAYERS: &[(&str, u8)] = &[
    ("api", 0),
    ("base", 0),
    ("cel", 0),
    ("rpc", 0),
    ("sys", 0),
    ("streams", 0),
    ("descriptions", 0),
    ("kinds", 1),
    ("quota", 1),
    ("store", 1),
    ("client", 1),
    ("runtime", 1),
    ("shim", 1),
    ("apiserver", 2),
    ("scheduler", 2),
    ("controllers", 2),
    ("kubelet", 2),
    ("network", 2),
    ("trireme", 3),
    ("testkit", 4),
    ("xtask", 5),
];
/// Edges inside a layer, each with its reason.
const SAME_LAYER: &[(&str, &str)] = &[
    // Quantities, selectors and the rules of names are part of the expression language too.
    ("cel", "api"),
    // What the containers of a pod ask for together is summed in one place.
    ("kinds", "quota"),
];
/// Crates that only some may use: `store` is the API server's (and backup's), `kinds` the API server's.
const RESERVED: &[(&str, &[&str])] = &[
    ("store", &["apiserver", "trireme", "testkit"]),
    ("kinds", &["apiserver", "trireme", "testkit", "xtask"]),
];
/// Crates that may contain `unsafe`.
const UNSAFE: &[&str] = &["sys", "shim"];
/// From this many lines a file is reported: what is the second noun in there?
const LONG_LINES: usize = 600;
/// Words that may not stay in the code, with what to do about them.
const BANNED: &[(&str, &str)] = &[
    ("SystemTime::now", "take the time from base::clock"),
    ("thread_rng", "take randomness from base::random"),
    ("std::time::Instant::now", "use tokio::time::Instant"),
    ("#[ignore", "a test that is not run is not a test"),
    ("#[should_panic", "assert on the error instead"),
];
/// Files that own what is banned elsewhere.
const OWNERS: &[&str] = &["crates/base/", "crates/shim/", "crates/sys/", "xtask/"];

/// Runs every check and tells all that is wrong at once.
pub fn run_checks() -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let packages = packages()?;
    edges(&packages, &mut wrong);
    architecture(&packages, &mut wrong)?;
    for page in files("md", &["docs", "examples", "crates", "xtask", ""])? {
        links(&page, &mut wrong)?;
    }
    for file in sources()? {
        let text = std::fs::read_to_string(&file)?;
        let name = file.strip_prefix(workspace()).unwrap_or(&file).display().to_string();
        source(&name, &text, &mut wrong);
    }
    Ok(wrong)
}

/// The job: all checks, then rustfmt and clippy.
pub fn run() -> anyhow::Result<()> {
    let wrong = run_checks()?;
    for line in &wrong {
        eprintln!("tidy: {line}");
    }
    report_lengths()?;
    run_cargo(&["fmt", "--all", "--check"])?;
    run_cargo(&["fmt", "--manifest-path", "crates/conformance/Cargo.toml", "--check"])?;
    run_cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ])?;
    if !wrong.is_empty() {
        bail!("{} places are untidy, see above", wrong.len());
    }
    Ok(())
}

fn run_cargo(arguments: &[&str]) -> anyhow::Result<()> {
    crate::run(&cargo(), arguments)
}

/// The workspace's packages and, for each, those it uses outside of tests.
fn packages() -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let output = crate::child(&cargo())
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--locked",
            "--offline",
        ])
        .current_dir(workspace())
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let all: Vec<Value> = list(&metadata["packages"]);
    let ours: BTreeSet<String> = all.iter().map(name).collect();
    Ok(all
        .iter()
        .map(|package| {
            let uses = list(&package["dependencies"])
                .into_iter()
                .filter(|used| used["kind"].is_null());
            (
                name(package),
                uses.map(|used| name(&used))
                    .filter(|used| ours.contains(used))
                    .collect(),
            )
        })
        .collect())
}

fn edges(packages: &BTreeMap<String, BTreeSet<String>>, wrong: &mut Vec<String>) {
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    for (package, uses) in packages {
        let Some(layer) = layers.get(&**package) else {
            wrong.push(format!(
                "crate {package} has no layer: add it to the design's table and to xtask/src/tidy.rs"
            ));
            continue;
        };
        for used in uses.iter().filter(|used| *used != package) {
            let below = layers.get(&**used).is_some_and(|other| other < layer);
            if !below && !SAME_LAYER.contains(&(&**package, &**used)) {
                wrong.push(format!(
                    "crate {package} (layer {layer}) uses {used}: dependencies point down only"
                ));
            }
            for (reserved, users) in RESERVED {
                if used == reserved && !users.contains(&&**package) {
                    wrong.push(format!(
                        "crate {package} uses {used}, which only {} may",
                        users.join(", ")
                    ));
                }
            }
        }
    }
}

/// Every crate has its paragraph in ARCHITECTURE.md.
fn architecture(packages: &BTreeMap<String, BTreeSet<String>>, wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let page = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    for package in packages.keys() {
        if !page.contains(&format!("### `{package}`")) {
            wrong.push(format!("ARCHITECTURE.md has no paragraph \"### `{package}`\""));
        }
    }
    for path in page.split('`').filter(|word| word.starts_with("crates/")) {
        if !workspace().join(path).exists() {
            wrong.push(format!("ARCHITECTURE.md names {path}, which does not exist"));
        }
    }
    Ok(())
}

/// Every link to a file leads to one, and every named place of a page is a heading of it.
fn links(page: &Path, wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(page)?;
    let name = page.strip_prefix(workspace()).unwrap_or(page).display();
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (file, place) = link.split_once('#').unwrap_or((link, ""));
        let target = match file {
            "" => page.to_owned(),
            file => page.parent().unwrap_or(Path::new("")).join(file),
        };
        if !target.exists() {
            wrong.push(format!("{name}: links to {file}, which does not exist"));
        } else if !place.is_empty() && !headings(&std::fs::read_to_string(&target)?).contains(place) {
            wrong.push(format!("{name}: links to {link}, and there is no such heading"));
        }
    }
    Ok(())
}

/// The names that GitHub and others give to a page's headings.
fn headings(page: &str) -> BTreeSet<String> {
    let titles = page.lines().filter(|line| line.starts_with('#'));
    let name = |title: &str| {
        let kept = title.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    titles.map(name).collect()
}

fn source(name: &str, text: &str, wrong: &mut Vec<String>) {
    if is_generated(name) {
        return;
    }
    if !text.starts_with("//!") {
        wrong.push(format!("{name}: begins without a module doc (`//!`)"));
    }
    let owner = OWNERS.iter().any(|owner| name.starts_with(owner));
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if line.ends_with([' ', '\t']) {
            wrong.push(format!("{name}:{number}: ends with a blank"));
        }
        for (word, instead) in BANNED {
            if line.contains(word) && !owner {
                wrong.push(format!("{name}:{number}: {word} is banned: {instead}"));
            }
        }
        let allowed =
            UNSAFE.iter().any(|own| name.starts_with(&format!("crates/{own}/"))) || name.starts_with("xtask/");
        if line.trim_start().starts_with("unsafe ") && !allowed {
            wrong.push(format!("{name}:{number}: unsafe belongs to {}", UNSAFE.join(" and ")));
        }
    }
}

fn is_generated(name: &str) -> bool {
    name.contains("/generated/")
}

fn report_lengths() -> anyhow::Result<()> {
    let mut long = Vec::new();
    for file in sources()? {
        let lines = std::fs::read_to_string(&file)?.lines().count();
        let name = file.strip_prefix(workspace()).unwrap_or(&file).display().to_string();
        if lines > LONG_LINES && !is_generated(&name) {
            long.push((lines, name));
        }
    }
    long.sort_by(|a, b| b.cmp(a));
    for (lines, name) in long {
        eprintln!("long file: {lines} {name}");
    }
    Ok(())
}

fn sources() -> anyhow::Result<Vec<PathBuf>> {
    files("rs", &["crates", "xtask"])
}

/// Files with that ending below folders of the workspace; of "" only those that lie right there.
fn files(ending: &str, folders: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    fn walk(folder: &Path, ending: &str, deep: bool, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                if deep && !path.ends_with("target") {
                    walk(&path, ending, deep, found)?;
                }
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    for folder in folders {
        walk(&workspace().join(folder), ending, !folder.is_empty(), &mut found)?;
    }
    found.sort();
    Ok(found)
}
