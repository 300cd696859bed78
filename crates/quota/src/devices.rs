//! Extended resources that DeviceClasses stand for: pods ask for them by name, claims for their devices by class, and a quota of
//! the name limits both. A claim that was made for such a pod takes only what the pod does not.
//!
//! Sources: `resource_claims.go` of `pkg/quota/v1/evaluator/core`, and the extended resource cache of
//! `k8s.io/dynamic-resource-allocation`.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use api::{Value, meta};

use crate::amounts::{self, Amounts};
use crate::charge::Charge;
use crate::names::{DEVICE_CLASS, IMPLICIT};

/// Marks claims that were made for what a pod asks for by name.
const MADE_FOR_POD: &str = "resource.kubernetes.io/extended-resource-claim";

/// The extended resources that DeviceClasses stand for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceClasses {
    /// By class; `None`: only the one that is named as the class.
    names: BTreeMap<String, Option<String>>,
}

/// A claim that was made for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeFor {
    /// The claim's own name.
    pub claim: String,
    /// When it was made.
    pub created: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
}

/// A pod that claims may be made for.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumer {
    /// Its uid.
    pub uid: String,
    /// The claim that it says was made for it; empty: it says nothing yet.
    pub claim: String,
    /// What it takes.
    pub usage: Amounts,
}

// === impl DeviceClasses ===

impl DeviceClasses {
    /// Reads the objects.
    pub fn of(classes: impl IntoIterator<Item = Value>) -> DeviceClasses {
        let name = |class: &Value| class["spec"]["extendedResourceName"].as_str().map(str::to_owned);
        let classes = classes.into_iter();
        DeviceClasses {
            names: classes
                .map(|class| (meta::name(&class).to_owned(), name(&class)))
                .collect(),
        }
    }

    /// Adds to what a claim takes by class what it takes by name, but for what the pod takes that it was made for.
    pub fn add_names(&self, claim: &mut Charge, pod: Option<&Amounts>) {
        let mut named = Amounts::new();
        for (name, amount) in &claim.usage {
            let Some(class) = name.strip_suffix(DEVICE_CLASS) else {
                continue;
            };
            // Nobody asks by name for a class that is not there.
            let Some(extended) = self.names.get(class) else {
                continue;
            };
            named.insert(format!("requests.{IMPLICIT}{class}"), amount.clone());
            if let Some(extended) = extended {
                named.insert(format!("requests.{extended}"), amount.clone());
            }
        }
        let nothing = Amounts::new();
        claim.usage.extend(amounts::increase(&named, pod.unwrap_or(&nothing)));
    }
}

// === impl MadeFor ===

impl MadeFor {
    /// Reads it from a claim; `None`: it was made for itself.
    pub fn of(claim: &Value) -> Option<MadeFor> {
        if meta::annotation(claim, MADE_FOR_POD) != Some("true") {
            return None;
        }
        let owners = claim["metadata"]["ownerReferences"].as_array()?;
        let owner = owners.iter().find(|owner| owner["controller"] == true)?;
        if owner["kind"] != "Pod" || owner["apiVersion"] != "v1" {
            return None;
        }
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        Some(MadeFor {
            claim: meta::name(claim).to_owned(),
            created: text(&claim["metadata"]["creationTimestamp"]),
            pod: text(&owner["name"]),
            uid: text(&owner["uid"]),
        })
    }

    /// Whether it was made before another one for the same pod.
    pub fn is_before(&self, other: &MadeFor) -> bool {
        self.uid == other.uid && (&self.created, &self.claim) < (&other.created, &other.claim)
    }

    /// What of the pod counts for the claim: the pod says that it is its claim, or says nothing and none of `others` was made
    /// for it before. Anybody can write such a claim, and only one of them takes less for it.
    pub fn counted<'p>(
        &self,
        pod: &'p Consumer,
        others: impl IntoIterator<Item = impl Borrow<MadeFor>>,
    ) -> Option<&'p Amounts> {
        if pod.uid != self.uid || !(pod.claim.is_empty() || pod.claim == self.claim) {
            return None;
        }
        if pod.claim.is_empty() && others.into_iter().any(|other| other.borrow().is_before(self)) {
            return None;
        }
        Some(&pod.usage)
    }
}

// === impl Consumer ===

impl Consumer {
    /// A pod that takes that.
    pub fn of(pod: &Value, usage: Amounts) -> Consumer {
        let claim = &pod["status"]["extendedResourceClaimStatus"]["resourceClaimName"];
        Consumer {
            uid: meta::uid(pod).to_owned(),
            claim: claim.as_str().unwrap_or("").to_owned(),
            usage,
        }
    }
}

#[cfg(test)]
mod tests {
    use api::GroupResource;
    use serde_json::json;

    use super::*;

    fn claim(name: &str, created: &str) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {MADE_FOR_POD: "true"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]},
            "spec": {"devices": {"requests": [{"exactly": {"deviceClassName": "gpu", "count": 3}},
                {"exactly": {"deviceClassName": "gone", "count": 1}}]}}})
    }

    #[test]
    fn claims_take_by_name_what_their_pod_does_not() {
        let class = json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}});
        let classes = DeviceClasses::of([class, json!({"metadata": {"name": "tpu"}, "spec": {}})]);
        let resource = GroupResource {
            group: "resource.k8s.io".into(),
            resource: "resourceclaims".into(),
        };
        let by_class = json!({"count/resourceclaims.resource.k8s.io": "1", "gpu.deviceclass.resource.k8s.io/devices": "3",
            "gone.deviceclass.resource.k8s.io/devices": "1"});
        let (implicit, named) = (
            "requests.deviceclass.resource.kubernetes.io/gpu",
            "requests.example.com/gpu",
        );
        for (pod, more) in [
            (None, json!({implicit: "3", named: "3"})),
            (Some(json!({named: "3"})), json!({implicit: "3"})),
            (Some(json!({named: "2", implicit: "5"})), json!({named: "1"})),
        ] {
            let mut charge = Charge::of(&resource, &claim("c", "t"));
            classes.add_names(&mut charge, pod.as_ref().map(amounts::amounts).as_ref());
            let mut expect = amounts::amounts(&by_class);
            expect.extend(amounts::amounts(&more));
            assert_eq!(charge.usage, expect, "{pod:?}");
        }
    }

    #[test]
    fn a_pod_counts_for_one_claim() {
        let first = MadeFor::of(&claim("b", "2026-01-01T00:00:00Z")).unwrap();
        let second = MadeFor::of(&claim("a", "2026-01-01T00:00:01Z")).unwrap();
        let same = MadeFor::of(&claim("c", "2026-01-01T00:00:00Z")).unwrap();
        let pod = |uid: &str, claim: &str| {
            let pod = json!({"metadata": {"name": "p", "uid": uid},
                "status": {"extendedResourceClaimStatus": {"resourceClaimName": claim}}});
            Consumer::of(&pod, Amounts::new())
        };
        for (own, pod, others, expect) in [
            (
                &first,
                pod("u", ""),
                vec![second.clone(), same.clone(), first.clone()],
                true,
            ),
            (&second, pod("u", ""), vec![first.clone()], false),
            (&same, pod("u", ""), vec![first.clone()], false),
            (&second, pod("u", "a"), vec![first.clone()], true),
            (&first, pod("u", "a"), Vec::new(), false),
            (&first, pod("other", ""), Vec::new(), false),
        ] {
            assert_eq!(own.counted(&pod, others).is_some(), expect, "{own:?} {pod:?}");
        }
        let mut plain = claim("a", "t");
        plain["metadata"]["ownerReferences"][0]["kind"] = "Job".into();
        assert_eq!(MadeFor::of(&plain), None);
    }
}
