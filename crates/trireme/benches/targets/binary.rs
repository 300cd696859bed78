//! How large the program is: static, stripped.

use std::path::Path;

use crate::cluster::TRIREME;
use crate::figure;

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    let megabytes = |path: &Path| anyhow::Ok(std::fs::metadata(path)?.len() as f64 / 1e6);
    let release = Path::new(TRIREME);
    figure(
        "binary.release",
        megabytes(release)?,
        "static, stripped, profile release",
    );
    // `cargo build --profile dist -p trireme` takes its time, so it is measured only where somebody ran it.
    if let Some(target) = release.parent().and_then(Path::parent) {
        let dist = target.join("dist/trireme");
        if dist.exists() {
            figure("binary.dist", megabytes(&dist)?, "static, stripped, profile dist");
        }
    }
    Ok(())
}
