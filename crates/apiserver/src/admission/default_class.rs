//! DefaultStorageClass and DefaultIngressClass: what names no class gets the one that is marked as the default.
//!
//! Source: `plugin/pkg/admission/storage/storageclass/setdefault` and `plugin/pkg/admission/network/defaultingressclass`.

use std::cmp::Reverse;

use api::{GroupResource, Status, Value, meta};
use futures::future::BoxFuture;

use crate::pipeline::{Operation, Plugin, Review, Step};

/// What gets a class, and from where.
pub struct DefaultClass {
    name: &'static str,
    group: &'static str,
    resource: &'static str,
    /// Where the class stands in the spec, and the annotation that was used before that field.
    field: &'static str,
    old_annotation: &'static str,
    class: (&'static str, &'static str),
    /// One of these, `true`, marks the default class.
    marks: &'static [&'static str],
}

impl DefaultClass {
    /// Claims get the default storage class.
    pub const STORAGE: DefaultClass = DefaultClass {
        name: "DefaultStorageClass",
        group: "",
        resource: "persistentvolumeclaims",
        field: "storageClassName",
        old_annotation: "volume.beta.kubernetes.io/storage-class",
        class: ("storage.k8s.io", "storageclasses"),
        marks: &[
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ],
    };

    /// Ingresses get the default ingress class.
    pub const INGRESS: DefaultClass = DefaultClass {
        name: "DefaultIngressClass",
        group: "networking.k8s.io",
        resource: "ingresses",
        field: "ingressClassName",
        old_annotation: "kubernetes.io/ingress.class",
        class: ("networking.k8s.io", "ingressclasses"),
        marks: &["ingressclass.kubernetes.io/is-default-class"],
    };

    fn admit(&self, review: &Review, object: &mut Value) {
        let says = object["spec"][self.field].is_string() || meta::annotation(object, self.old_annotation).is_some();
        if says {
            return;
        }
        let classes = GroupResource {
            group: self.class.0.into(),
            resource: self.class.1.into(),
        };
        let all = review.cluster.list(&classes, None);
        let marked = |class: &Value| {
            let mut marks = self.marks.iter();
            marks.any(|mark| meta::annotation(class, mark) == Some("true"))
        };
        // Of several the newest counts, and of those of one second the first by name.
        let newest = all
            .iter()
            .map(|class| class.value())
            .filter(marked)
            .min_by_key(|class| {
                let created = meta::text(class, "creationTimestamp").to_owned();
                (Reverse(created), meta::name(class).to_owned())
            });
        if let Some(class) = newest {
            object["spec"][self.field] = meta::name(&class).into();
        }
    }
}

impl Plugin for DefaultClass {
    fn name(&self) -> &'static str {
        self.name
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Admit
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(object) = object.as_mut()
            && review.is_about(self.group, self.resource, "")
        {
            self.admit(review, object);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::World;
    use super::*;

    #[test]
    fn the_newest_default_is_taken_where_none_is_named() {
        let class = |name: &str, created: &str, default: &str| {
            let mark = DefaultClass::STORAGE.marks[0];
            json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {mark: default}}})
        };
        let world = World::new(&[
            (
                "storageclasses.storage.k8s.io",
                class("old", "2026-01-01T00:00:00Z", "true"),
            ),
            (
                "storageclasses.storage.k8s.io",
                class("b", "2026-01-02T00:00:00Z", "true"),
            ),
            (
                "storageclasses.storage.k8s.io",
                class("a", "2026-01-02T00:00:00Z", "true"),
            ),
            (
                "storageclasses.storage.k8s.io",
                class("new", "2026-01-03T00:00:00Z", "false"),
            ),
        ]);
        let review = world.review(Operation::Create, "", "persistentvolumeclaims", "", "n", "a");
        let old = json!({DefaultClass::STORAGE.old_annotation: "x"});
        for (mut claim, expect) in [
            (json!({"spec": {}}), json!("a")),
            (json!({"spec": {"storageClassName": ""}}), json!("")),
            (json!({"spec": {"storageClassName": "old"}}), json!("old")),
            (json!({"metadata": {"annotations": old}, "spec": {}}), Value::Null),
        ] {
            DefaultClass::STORAGE.admit(&review, &mut claim);
            assert_eq!(claim["spec"]["storageClassName"], expect);
        }
        // No default, no class.
        let mut ingress = json!({"spec": {}});
        DefaultClass::INGRESS.admit(&review, &mut ingress);
        assert!(ingress["spec"]["ingressClassName"].is_null());
    }
}
