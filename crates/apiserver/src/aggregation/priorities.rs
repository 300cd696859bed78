//! Where the server's own group versions stand among all: upstream's numbers.
//!
//! Source: `DefaultGenericAPIServicePriorities` of `pkg/controlplane/apiserver/aggregator.go`, and `apiVersionPriorities` of
//! `cmd/kube-apiserver/app/aggregator.go`.

/// Where a group version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Priority {
    /// The group among groups.
    pub group: i64,
    /// The version in its group.
    pub version: i64,
}

/// The group of APIServices comes first, always, and has no APIService itself.
pub(crate) const OWN_GROUP: &str = "apiregistration.k8s.io";

/// Custom resources. Source: `pkg/controlplane/controller/crdregistration`.
pub(crate) const CUSTOM: Priority = Priority {
    group: 1000,
    version: 100,
};

/// Of the group of APIServices. Source: `APIRegistrationGroupPriority`.
const OWN: Priority = Priority {
    group: 20_001,
    version: 0,
};

const BUILT_IN: [(&str, &str, i64, i64); 51] = [
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("events.k8s.io", "v1beta1", 17_750, 5),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authentication.k8s.io", "v1beta1", 17_700, 9),
    ("authentication.k8s.io", "v1alpha1", 17_700, 1),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("autoscaling", "v2beta1", 17_500, 9),
    ("autoscaling", "v2beta2", 17_500, 1),
    ("batch", "v1", 17_400, 15),
    ("batch", "v1beta1", 17_400, 9),
    ("batch", "v2alpha1", 17_400, 9),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("certificates.k8s.io", "v1beta1", 17_300, 9),
    ("certificates.k8s.io", "v1alpha1", 17_300, 1),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("networking.k8s.io", "v1beta1", 17_200, 9),
    ("policy", "v1", 17_100, 15),
    ("policy", "v1beta1", 17_100, 9),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("storage.k8s.io", "v1beta1", 16_800, 9),
    ("storage.k8s.io", "v1alpha1", 16_800, 1),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1beta1", 16_700, 12),
    ("admissionregistration.k8s.io", "v1alpha1", 16_700, 9),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("scheduling.k8s.io", "v1alpha2", 16_600, 2),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("coordination.k8s.io", "v1beta1", 16_500, 13),
    ("coordination.k8s.io", "v1alpha2", 16_500, 12),
    ("node.k8s.io", "v1", 16_300, 15),
    ("node.k8s.io", "v1alpha1", 16_300, 1),
    ("node.k8s.io", "v1beta1", 16_300, 9),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("discovery.k8s.io", "v1beta1", 16_200, 12),
    ("resource.k8s.io", "v1", 16_200, 21),
    ("resource.k8s.io", "v1beta2", 16_200, 15),
    ("resource.k8s.io", "v1beta1", 16_200, 9),
    ("resource.k8s.io", "v1alpha3", 16_200, 1),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("flowcontrol.apiserver.k8s.io", "v1beta3", 16_100, 18),
    ("flowcontrol.apiserver.k8s.io", "v1beta2", 16_100, 15),
    ("flowcontrol.apiserver.k8s.io", "v1beta1", 16_100, 12),
    ("flowcontrol.apiserver.k8s.io", "v1alpha1", 16_100, 9),
    ("internal.apiserver.k8s.io", "v1alpha1", 16_000, 9),
    ("storagemigration.k8s.io", "v1beta1", 15_800, 9),
];

/// Of a group version that is built in; `None`: it is none.
pub(crate) fn built_in(group: &str, version: &str) -> Option<Priority> {
    let mut all = BUILT_IN.iter();
    let (_, _, group, version) = all.find(|(own, in_version, ..)| *own == group && *in_version == version)?;
    Some(Priority {
        group: *group,
        version: *version,
    })
}

/// Of a group version that this server answers for.
pub(crate) fn local(group: &str, version: &str) -> Priority {
    match group {
        OWN_GROUP => OWN,
        _ => built_in(group, version).unwrap_or(CUSTOM),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_built_in_group_version_has_one() {
        let all: BTreeSet<_> = BUILT_IN.iter().map(|(group, version, ..)| (group, version)).collect();
        assert_eq!(all.len(), BUILT_IN.len());
        for row in kinds::rows() {
            for served in &row.served {
                let known = built_in(&served.group, &served.version).is_some();
                assert_eq!(known, served.group != OWN_GROUP, "{}/{}", served.group, served.version);
            }
        }
        for entry in crate::virtuals::ALL {
            assert!(built_in(entry.group, entry.version).is_some(), "{}", entry.group);
        }
        assert_eq!(local("example.com", "v1"), CUSTOM);
        assert_eq!(local(OWN_GROUP, "v1").group, 20_001);
    }
}
