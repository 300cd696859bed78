//! `/version`: which API this is, in the words clients compare.

use api::Value;

/// The version of the API that is served.
pub const GIT_VERSION: &str = concat!("v1.36.0+trireme.", env!("CARGO_PKG_VERSION"));

/// The document of `/version`.
pub fn document() -> Value {
    serde_json::json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": option_env!("TRIREME_GIT_COMMIT").unwrap_or(""),
        "gitTreeState": "clean",
        "buildDate": option_env!("TRIREME_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "none (Rust)",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_and_minor_are_numbers() {
        let version = document();
        assert_eq!(version["major"].as_str().unwrap().parse::<u32>(), Ok(1));
        assert_eq!(version["minor"].as_str().unwrap().parse::<u32>(), Ok(36));
        assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36.0+trireme"));
    }
}
