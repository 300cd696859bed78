//! Collects the descriptions of all API types from the sources of `k8s-openapi` and compresses them.
//!
//! That crate carries upstream's OpenAPI descriptions in its `schemars` implementations. Compiling those costs forty
//! seconds and half a gigabyte; they are generated code of one fixed form, so reading them as text costs none of it.
//! A text that is not of that form (another version of the crate) stops the build with a count that is too low.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version of Kubernetes whose types are described.
const VERSION: &str = "v1_36";
/// How many descriptions there are at least; v1.36 has 3,400.
const LEAST: usize = 3000;
/// How much text is compressed together, of a megabyte: what deflate looks back over. Less would compress worse, more would be
/// unpacked in vain.
const BLOCK_BYTES: usize = 32 * 1024;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../Cargo.lock");
    let mut found = BTreeMap::new();
    let directory = sources().join("src").join(VERSION);
    // The structs in them are compared with our schema by a test.
    println!("cargo::rustc-env=K8S_OPENAPI_SOURCES={}", directory.display());
    collect(&directory, &mut found);
    assert!(
        found.len() >= LEAST,
        "only {} descriptions in the sources of k8s-openapi: has its generated code another form?",
        found.len()
    );
    let (mut packed, mut index) = (Vec::new(), String::from("&[\n"));
    let (mut first, mut text) = (String::new(), String::new());
    let mut found = found.into_iter().peekable();
    while let Some((key, description)) = found.next() {
        let escaped = description.replace('\\', "\\\\").replace('\n', "\\n");
        text.push_str(&format!("{key}\t{escaped}\n"));
        if first.is_empty() {
            first = key;
        }
        if text.len() >= BLOCK_BYTES || found.peek().is_none() {
            let begin = packed.len();
            packed.extend(deflated(&text));
            index.push_str(&format!("({first:?}, {begin}, {}),\n", packed.len()));
            first.clear();
            text.clear();
        }
    }
    index.push(']');
    write("descriptions.deflate", &packed);
    write("blocks.rs", index.as_bytes());
}

fn deflated(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes()).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

fn write(name: &str, bytes: &[u8]) {
    let out = PathBuf::from(variable("OUT_DIR")).join(name);
    fs::write(&out, bytes).unwrap_or_else(|error| panic!("writing {}: {error}", out.display()));
}

/// Where cargo keeps the sources of `k8s-openapi`: beside all others, or (vendored, or not fetched yet) where cargo says.
fn sources() -> PathBuf {
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let lock = fs::read_to_string(manifest.with_file_name("../../Cargo.lock")).unwrap_or_default();
    let version = lock
        .split("name = \"k8s-openapi\"\nversion = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    if let (Some(version), Some(home)) = (version, home) {
        for registry in fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten() {
            let directory = registry.path().join(format!("k8s-openapi-{version}"));
            if directory.join("src").join(VERSION).is_dir() {
                return directory;
            }
        }
    }
    let output = Command::new(variable("CARGO"))
        .args(["metadata", "--format-version=1", "--manifest-path"])
        .arg(&manifest)
        .output()
        .expect("running cargo metadata");
    let text = String::from_utf8_lossy(&output.stdout);
    // "manifest_path":"/.../k8s-openapi-0.29.0/Cargo.toml"
    let path = text
        .split("\"manifest_path\":\"")
        .filter_map(|rest| rest.split('"').next())
        .find(|path| path.contains("/k8s-openapi"));
    match path.and_then(|path| Path::new(path).parent()) {
        Some(directory) => directory.into(),
        None => panic!(
            "cargo metadata does not tell where k8s-openapi is: {}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"))
}

fn collect(directory: &Path, found: &mut BTreeMap<String, String>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("reading a directory").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if let Some((_, schema)) = text.split_once("#[cfg(feature = \"schemars\")]") {
                read(schema, found);
            }
        }
    }
}

/// Reads one implementation of `JsonSchema`, told apart by the columns that its lines begin at.
fn read(schema: &str, found: &mut BTreeMap<String, String>) {
    let mut ty = None;
    let mut field = String::new();
    for line in schema.lines() {
        let rest = line.trim_start();
        let column = line.len() - rest.len();
        match (column, &ty) {
            (8, None) => {
                ty = rest
                    .strip_prefix("\"io.k8s.")
                    .and_then(|rest| rest.split('"').next())
                    .map(String::from);
            }
            (12, Some(ty)) => {
                if let Some(text) = rest.strip_prefix("\"description\": ").and_then(literal) {
                    found.insert(ty.clone(), text);
                }
            }
            (16, Some(_)) => {
                if let Some((name, after)) = rest.strip_prefix('"').and_then(|rest| rest.split_once("\":"))
                    && after.trim_start().starts_with(['{', '('])
                {
                    field = name.into();
                }
            }
            (20, Some(ty)) if !field.is_empty() => {
                let text = rest
                    .strip_prefix("\"description\": ")
                    .or_else(|| rest.strip_prefix("schema_obj.ensure_object().insert(\"description\".into(), "))
                    .and_then(literal);
                if let Some(text) = text {
                    found.insert(format!("{ty}/{field}"), text);
                }
            }
            _ => {}
        }
    }
}

/// The value of the Rust string literal that `text` begins with.
fn literal(text: &str) -> Option<String> {
    let mut chars = text.strip_prefix('"')?.chars();
    let mut out = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                '0' => out.push('\0'),
                'u' => {
                    let code: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    out.push(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32)?);
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}
