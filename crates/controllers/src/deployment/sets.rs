//! What a deployment's controller asks of its replica sets: revisions, equality of templates, sums, limits. Pure.
//!
//! Source of the rules: `pkg/controller/deployment/util/deployment_util.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Value;
use client::Meta;

use crate::views::{Deployment, ReplicaSet};

/// The revision of a set, and of a deployment the newest of its sets.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Revisions a set had before it was rolled back to.
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The deployment's replicas when the set was last scaled.
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with the surge.
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// The label that tells the pods of one set from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// Annotations of a deployment that its sets do not take over.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

pub(super) type Set = Arc<ReplicaSet>;

pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub(super) fn sum<'a>(sets: impl IntoIterator<Item = &'a Set>, of: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(|set| of(set)).sum()
}

pub(super) fn annotation<'a>(annotations: &'a Option<BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    annotations.as_ref()?.get(key).map(String::as_str)
}

/// The set's revision; zero when it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    annotation(&set.metadata.annotations, REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

pub(super) fn number_annotation(set: &ReplicaSet, key: &str) -> Option<i32> {
    annotation(&set.metadata.annotations, key)?.parse().ok()
}

/// Oldest first; of the same second, by name.
pub(super) fn by_age(sets: &mut [Set]) {
    sets.sort_by(|a, b| {
        let created = |set: &Set| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        created(a)
            .cmp(&created(b))
            .then_with(|| a.metadata.name().cmp(b.metadata.name()))
    });
}

/// Whether both templates make the same pods; the hash label is not theirs.
pub(super) fn same_template(a: &Value, b: &Value) -> bool {
    without_hash(a) == without_hash(b)
}

fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
        if labels.is_empty()
            && let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("labels");
        }
    }
    template
}

/// The deployment's set of the present template: the oldest, when an old version of this program made several.
pub(super) fn current(deployment: &Deployment, sets: &[Set]) -> Option<Set> {
    let mut sets = sets.to_vec();
    by_age(&mut sets);
    sets.into_iter()
        .find(|set| same_template(&set.spec.template, &deployment.spec.template))
}

/// The annotations a set takes over.
pub(super) fn copied_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let annotations = deployment.metadata.annotations.iter().flatten();
    annotations
        .filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    deployment.spec.strategy.kind != "Recreate"
}

/// `maxSurge` and `maxUnavailable` as numbers. They are never both zero: then nothing could move.
pub(super) fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let rolling = deployment.spec.strategy.rolling_update.as_ref();
    let total = wanted(deployment);
    let surge = rolling
        .and_then(|rolling| rolling.max_surge.as_ref())
        .map_or(0, |surge| surge.of(total, true));
    let unavailable = rolling
        .and_then(|rolling| rolling.max_unavailable.as_ref())
        .map_or(0, |number| number.of(total, false));
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

/// Pods beyond the wanted number that may be there.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) {
        fenceposts(deployment).0
    } else {
        0
    }
}

/// Pods of the wanted number that may be unavailable.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if !is_rolling(deployment) || wanted(deployment) == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(wanted(deployment))
}

/// How large the present set may be now. `total` is the sum of all sets. Source: `NewRSNewReplicas`.
pub(super) fn current_size(deployment: &Deployment, total: i32, current: i32) -> i32 {
    if !is_rolling(deployment) {
        return wanted(deployment);
    }
    let room = wanted(deployment) + max_surge(deployment) - total;
    if room <= 0 {
        current
    } else {
        current + room.min(wanted(deployment) - current)
    }
}
