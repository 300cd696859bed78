//! Which members may be asked how far a watch is.
//!
//! A progress answer must not come before the events up to its revision. It could, and events could be lost behind a
//! compaction, before 3.4.31 and 3.5.13 (the versions from which upstream's `RequestWatchProgress` feature check lets
//! kube-apiserver rely on it).

/// Whether a member of this version answers progress requests truthfully. Unknown versions do not.
pub(super) fn progress_is_safe(version: &str) -> bool {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Result<Vec<u32>, _> = release.split('.').map(str::parse).collect();
    match numbers.as_deref() {
        // A release candidate of the first safe patch was not one yet.
        Ok([3, 4, patch]) => *patch > 31 || (*patch == 31 && release == version),
        Ok([3, 5, patch]) => *patch > 13 || (*patch == 13 && release == version),
        Ok([3, minor, _]) => *minor > 5,
        Ok([major, _, _]) => *major > 3,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_safe_or_not() {
        for (version, safe) in [
            ("3.4.23", false),
            ("3.4.30", false),
            ("3.4.31", true),
            ("3.5.0", false),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.5.13-rc.0", false),
            ("3.5.21+git", true),
            ("3.6.0-rc.1", true),
            ("3.7.0", true),
            ("4.0.0", true),
            ("3.3.27", false),
            ("3.4", false),
            ("", false),
            ("not decided", false),
        ] {
            assert_eq!(progress_is_safe(version), safe, "{version}");
        }
    }
}
