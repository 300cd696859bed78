//! `trireme version`.

use crate::cli::{Format, Version};
use crate::errors::Result;

/// Both versions, for people.
pub fn text() -> String {
    format!(
        "trireme {} (Kubernetes {})",
        env!("CARGO_PKG_VERSION"),
        apiserver::version::GIT_VERSION
    )
}

/// Prints the versions.
pub fn run(arguments: Version) -> Result {
    let (own, api) = (env!("CARGO_PKG_VERSION"), apiserver::version::GIT_VERSION);
    match arguments.output {
        Format::Text => println!("{}", text()),
        Format::Json => println!("{}", serde_json::json!({"trireme": own, "kubernetes": api})),
    }
    Ok(())
}
