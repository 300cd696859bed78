//! The generator, shared with the test that compares its output with what is checked in.

use std::error::Error;
use std::path::Path;

/// Compiles every definition under `crate_dir/proto` and writes the Rust code for it into `out_dir`.
pub fn generate(crate_dir: &Path, out_dir: &Path) -> Result<(), Box<dyn Error>> {
    let proto = crate_dir.join("proto");
    let definitions = [
        "runtime_v1.proto",
        "etcdserverpb.proto",
        "kms_v2.proto",
        "external_jwt.proto",
        "otlp_trace.proto",
    ]
    .map(|name| proto.join(name));
    let descriptors = protox::compile(definitions, [&proto])?;
    std::fs::create_dir_all(out_dir)?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .build_transport(true)
        // Keys and values are shared with the buffer they came in.
        .bytes(".etcdserverpb")
        .bytes(".mvccpb")
        // Their Debug is written by hand, so that no password or key is printed.
        .skip_debug([
            "runtime.v1.AuthConfig",
            "etcdserverpb.AuthenticateRequest",
            "etcdserverpb.AuthenticateResponse",
            "etcdserverpb.AuthUserAddRequest",
            "v1.SignJWTResponse",
            "v2.DecryptResponse",
            "v2.EncryptRequest",
        ])
        .out_dir(out_dir)
        .compile_fds(descriptors)?;
    Ok(())
}
