//! Resources that are served and never stored: reviews, bindings, component statuses.

/// One of them.
pub struct Virtual {
    /// The group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The plural.
    pub plural: &'static str,
    /// The kind of the body.
    pub kind: &'static str,
    /// Whether it lives in a namespace.
    pub namespaced: bool,
    /// The verbs.
    pub verbs: &'static [&'static str],
    /// Short names.
    pub short_names: &'static [&'static str],
}

const CREATE: &[&str] = &["create"];

const fn review(group: &'static str, plural: &'static str, kind: &'static str, namespaced: bool) -> Virtual {
    Virtual {
        group,
        version: "v1",
        plural,
        kind,
        namespaced,
        verbs: CREATE,
        short_names: &[],
    }
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// All that discovery names.
pub const ALL: &[Virtual] = &[
    review("", "bindings", "Binding", true),
    Virtual {
        group: "",
        version: "v1",
        plural: "componentstatuses",
        kind: "ComponentStatus",
        namespaced: false,
        verbs: &["get", "list"],
        short_names: &["cs"],
    },
    review(AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview", false),
    review(AUTHENTICATION, "tokenreviews", "TokenReview", false),
    review(
        AUTHORIZATION,
        "localsubjectaccessreviews",
        "LocalSubjectAccessReview",
        true,
    ),
    review(
        AUTHORIZATION,
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        false,
    ),
    review(
        AUTHORIZATION,
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
        false,
    ),
    review(AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview", false),
];

/// The one of that resource.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Virtual> {
    ALL.iter()
        .find(|entry| entry.group == group && entry.version == version && entry.plural == plural)
}
