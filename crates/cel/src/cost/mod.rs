//! What expressions cost. The numbers are upstream's: rules are admitted by them, so they are part of the API.

pub(crate) mod actual;
pub(crate) mod calls;
pub(crate) mod estimate;
#[cfg(test)]
mod tests;

/// The cost of making a list.
pub(crate) const LIST: u64 = 10;
/// The cost of making a map.
pub(crate) const MAP: u64 = 30;
/// The cost of making a record.
pub(crate) const STRUCT: u64 = 40;
/// The cost of looking at a character once.
pub(crate) const CHARACTER: f64 = 0.1;
/// The cost that each character of a pattern adds to each unit of the text's.
pub(crate) const PATTERN_CHARACTER: f64 = 0.25;
/// A check of the authorizer: two of them fit into a call, a third does not.
pub(crate) const CHECK: u64 = 350_000;
/// The shortest requirement of a selector that needs a list is two characters long: `k,`.
pub(crate) const REQUIREMENTS_PER_CHARACTER: f64 = 0.5;
/// Functions that only look at a part of a value of a library.
pub(crate) const NOMINAL: &[&str] = &[
    "serviceAccount",
    "path",
    "group",
    "resource",
    "subresource",
    "namespace",
    "name",
    "allowed",
    "reason",
    "error",
    "errored",
    "masked",
    "prefixLength",
    "family",
    "isUnspecified",
    "isLoopback",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isGlobalUnicast",
    "format.named",
    "sign",
    "asInteger",
    "isInteger",
    "asApproximateFloat",
    "isGreaterThan",
    "isLessThan",
    "compareTo",
    "add",
    "sub",
    "major",
    "minor",
    "patch",
    "getScheme",
    "getHostname",
    "getHost",
    "getPort",
    "getEscapedPath",
    "getQuery",
];
