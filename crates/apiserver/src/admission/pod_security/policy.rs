//! What a namespace's labels say.
//!
//! Source: `PolicyToEvaluate`, `ParseLevel` and `ParseVersion` of `k8s.io/pod-security-admission/api/helpers.go`.

use std::fmt;

use api::field::{Error, ErrorList, Path};

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything is taken.
    Privileged,
    /// Nothing that is known to lead to more rights.
    Baseline,
    /// Hardened pods only.
    Restricted,
}

/// The minor version whose rules hold; the newest ones are `LATEST`.
pub type Minor = u32;

/// The rules of this server.
pub const LATEST: Minor = Minor::MAX;

/// The minor version of this server.
const NEWEST: Minor = 36;

/// A level and the version of its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The level.
    pub level: Level,
    /// The version.
    pub version: Minor,
}

impl Rule {
    /// Takes every pod.
    pub const EVERYTHING: Rule = Rule {
        level: Level::Privileged,
        version: LATEST,
    };
}

impl Level {
    /// The word in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

impl Rule {
    /// The level and the version as metrics tell them: versions of the future are one, and what takes everything has none.
    pub fn told(self) -> (&'static str, String) {
        let version = match self.version {
            _ if self.level == Level::Privileged => "latest".into(),
            LATEST => "latest".into(),
            minor if minor <= NEWEST => format!("v1.{minor}"),
            _ => "future".into(),
        };
        (self.level.as_str(), version)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level.as_str();
        match self.version {
            LATEST => write!(f, "{level}:latest"),
            minor => write!(f, "{level}:v1.{minor}"),
        }
    }
}

/// What a namespace asks for. Audit labels are checked too; without an audit log nothing comes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What is refused.
    pub enforce: Rule,
    /// What the audit log tells.
    pub audit: Rule,
    /// What is warned about.
    pub warn: Rule,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            enforce: Rule::EVERYTHING,
            audit: Rule::EVERYTHING,
            warn: Rule::EVERYTHING,
        }
    }
}

impl Policy {
    /// Whether no pod is refused or warned about.
    pub fn takes_everything(&self) -> bool {
        [self.enforce, self.audit, self.warn]
            .iter()
            .all(|rule| rule.level == Level::Privileged)
    }
}

/// Reads the labels; what they leave out is as in `defaults`. What cannot be read is told, and counts as the strictest where it refuses and as nothing where it
/// only speaks.
pub fn of<'a>(defaults: &Policy, label: impl Fn(&str) -> Option<&'a str>) -> (Policy, ErrorList) {
    let mut policy = *defaults;
    let mut errors = ErrorList::new();
    let mut read = |mode: &str, rule: &mut Rule, unreadable: Level| {
        let mut wrong = |name: &str, value: &str, why: &str| {
            let path = Path::new("metadata").child("labels").key(&format!("{PREFIX}{name}"));
            errors.push(Error::invalid(&path, value, why));
        };
        let level = label(&format!("{PREFIX}{mode}"));
        let mut readable = level.is_some();
        if let Some(text) = level {
            rule.level = level_of(text).unwrap_or_else(|| {
                wrong(mode, text, "must be one of privileged, baseline, restricted");
                readable = false;
                unreadable
            });
        }
        let name = format!("{mode}-version");
        let version = label(&format!("{PREFIX}{name}"));
        if let Some(text) = version {
            rule.version = version_of(text).unwrap_or_else(|| {
                wrong(&name, text, "must be \"latest\" or \"v1.x\"");
                LATEST
            });
        }
        (level.is_some(), readable, version.is_some())
    };
    let (_, enforced, _) = read("enforce", &mut policy.enforce, Level::Restricted);
    read("audit", &mut policy.audit, Level::Privileged);
    let (warned, _, warn_version) = read("warn", &mut policy.warn, Level::Privileged);
    // Whoever enforces warns at least as much.
    if !warned && enforced && policy.enforce.level > policy.warn.level {
        policy.warn.level = policy.enforce.level;
        if !warn_version {
            policy.warn.version = policy.enforce.version;
        }
    }
    (policy, errors)
}

pub(super) fn level_of(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

pub(super) fn version_of(text: &str) -> Option<Minor> {
    if text == "latest" {
        return Some(LATEST);
    }
    let digits = text.strip_prefix("v1.")?;
    let plain = digits == "0" || !digits.starts_with('0');
    let minor: Minor = digits.parse().ok()?;
    (plain && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read() {
        for (labels, enforce, warn, errors) in [
            (&[][..], "privileged:latest", "privileged:latest", 0),
            (&[("enforce", "baseline")], "baseline:latest", "baseline:latest", 0),
            (
                &[("enforce", "restricted"), ("enforce-version", "v1.25")],
                "restricted:v1.25",
                "restricted:v1.25",
                0,
            ),
            (
                &[
                    ("enforce", "restricted"),
                    ("warn", "baseline"),
                    ("warn-version", "v1.0"),
                ],
                "restricted:latest",
                "baseline:v1.0",
                0,
            ),
            (
                &[("enforce", "x"), ("warn", "y")],
                "restricted:latest",
                "privileged:latest",
                2,
            ),
            (
                &[("enforce-version", "v1.01"), ("audit", "z")],
                "privileged:latest",
                "privileged:latest",
                2,
            ),
            (&[("warn-version", "1.2")], "privileged:latest", "privileged:latest", 1),
        ] {
            let find = |name: &str| {
                let found = labels.iter().find(|(own, _)| name.strip_prefix(PREFIX) == Some(own));
                found.map(|(_, value)| *value)
            };
            let (policy, found) = of(&Policy::default(), find);
            assert_eq!(
                (policy.enforce.to_string(), policy.warn.to_string(), found.len()),
                (enforce.into(), warn.into(), errors),
                "{labels:?}"
            );
        }
    }
}
