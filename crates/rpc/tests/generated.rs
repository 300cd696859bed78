//! The checked-in code is what the definitions generate.

#[path = "../examples/generate/generator.rs"]
mod generator;

#[test]
fn checked_in_code_is_current() {
    let crate_dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();
    generator::generate(crate_dir, fresh.path()).unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(fresh.path()).unwrap() {
        let entry = entry.unwrap();
        let checked_in = crate_dir.join("src/generated").join(entry.file_name());
        assert!(
            std::fs::read(&checked_in).unwrap() == std::fs::read(entry.path()).unwrap(),
            "{} is stale: run `cargo run -p rpc --example generate`",
            checked_in.display()
        );
        seen += 1;
    }
    assert_eq!(
        seen,
        std::fs::read_dir(crate_dir.join("src/generated")).unwrap().count()
    );
}
