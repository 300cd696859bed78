//! Generates `src/generated/` from `proto/`, without `protoc`: run it after changing a definition.

use std::path::Path;

mod generator;

fn main() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = crate_dir.join("src/generated");
    generator::generate(crate_dir, &out).expect("the definitions under proto/ compile");
    println!("wrote {}", out.display());
}
