//! Builds the shim (`crates/shim`), deflates it and hands the path to the crate, which embeds the bytes.
//!
//! The shim is a package of its own outside of the workspace: a small static executable at a fixed address, optimised for
//! size, and the only user of `libcontainer`. It is built by a nested cargo in a target directory shared by all profiles
//! (`<target>/shim-build`), so debug, test, clippy and release builds of the workspace compile it once.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::DeflateEncoder;

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let shim_dir = manifest_dir.join("../shim");
    for path in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", shim_dir.join(path).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBSECCOMP_LIB_PATH");
    let out_dir = PathBuf::from(variable("OUT_DIR"));
    let target_dir = shared_target_dir(&out_dir).join("shim-build");
    let libraries = std::env::var("LIBSECCOMP_LIB_PATH").unwrap_or_else(|_| find_libseccomp());

    let mut cargo = Command::new(variable("CARGO"));
    // What the outer cargo set for this package would be taken for the nested one's own settings.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let kept = ["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_NET_OFFLINE", "CARGO_BUILD_JOBS"].contains(&name.as_str());
        let foreign =
            name.starts_with("CARGO") || name.starts_with("RUSTC") || name == "RUSTFLAGS" || name == "OUT_DIR";
        if foreign && !kept && name != "CARGO" {
            cargo.env_remove(&name);
        }
    }
    let status = cargo
        .current_dir(&shim_dir)
        .args(["build", "--release", "--locked", "--target", TARGET])
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
        .env("LIBSECCOMP_LINK_TYPE", "static")
        .env("LIBSECCOMP_LIB_PATH", &libraries)
        .status()
        .expect("cargo can be run");
    assert!(
        status.success(),
        "the shim did not build; it needs libseccomp.a (Debian: apt-get install libseccomp-dev)"
    );
    let built = target_dir.join(TARGET).join("release/shim");
    // A file of its own, so that a build going on in the shared directory does not change it under the compiler.
    let deflated = out_dir.join("shim.deflate");
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let bytes = std::fs::read(&built).expect("the shim can be read");
    encoder.write_all(&bytes).expect("memory can be written");
    let bytes = encoder.finish().expect("memory can be written");
    std::fs::write(&deflated, bytes).expect("the deflated shim can be written");
    println!("cargo::rustc-env=TRIREME_SHIM={}", deflated.display());
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

/// The target directory's root: the one with cargo's cache tag.
fn shared_target_dir(out_dir: &Path) -> PathBuf {
    out_dir
        .ancestors()
        .filter(|dir| dir.join("CACHEDIR.TAG").exists())
        .last()
        .or_else(|| out_dir.ancestors().nth(5))
        .expect("OUT_DIR lies in a target directory")
        .to_owned()
}

/// The directory of Debian's static libseccomp.
fn find_libseccomp() -> String {
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
    let found = places.iter().find(|dir| Path::new(dir).join("libseccomp.a").exists());
    found
        .unwrap_or_else(|| panic!("there is no libseccomp.a; on Debian: apt-get install libseccomp-dev"))
        .to_string()
}
