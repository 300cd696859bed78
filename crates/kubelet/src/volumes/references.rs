//! Which Secrets and ConfigMaps a pod names, anywhere in its definition.
//!
//! Source: `pkg/api/v1/pod/util.go` (`VisitPodSecretNames`, `VisitPodConfigmapNames`).

use client::k8s_openapi::api::core::v1::{Container, Pod};

use crate::plan::defined;

/// A Secret or a ConfigMap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sort {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// An object by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Which sort.
    pub sort: Sort,
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Everything the pod names, sorted, each once.
pub fn references(pod: &Pod) -> Vec<Reference> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let mut found = Vec::new();
    let mut add = |sort: Sort, name: &str| {
        // Validation lets empty names of pull secrets through.
        if !name.is_empty() {
            found.push(Reference {
                sort,
                namespace: namespace.clone(),
                name: name.to_owned(),
            });
        }
    };
    let Some(spec) = &pod.spec else { return Vec::new() };
    for secret in spec.image_pull_secrets.iter().flatten() {
        add(Sort::Secret, &secret.name);
    }
    for defined in defined(pod) {
        visit_container(&defined.container, &mut add);
    }
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.secret {
            add(Sort::Secret, source.secret_name.as_deref().unwrap_or(""));
        }
        if let Some(source) = &volume.config_map {
            add(Sort::ConfigMap, &source.name);
        }
        let sources = volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten());
        for source in sources {
            if let Some(secret) = &source.secret {
                add(Sort::Secret, &secret.name);
            }
            if let Some(config_map) = &source.config_map {
                add(Sort::ConfigMap, &config_map.name);
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn visit_container(container: &Container, add: &mut impl FnMut(Sort, &str)) {
    for source in container.env_from.iter().flatten() {
        if let Some(config_map) = &source.config_map_ref {
            add(Sort::ConfigMap, &config_map.name);
        }
        if let Some(secret) = &source.secret_ref {
            add(Sort::Secret, &secret.name);
        }
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.value_from.as_ref())
    {
        if let Some(config_map) = &source.config_map_key_ref {
            add(Sort::ConfigMap, &config_map.name);
        }
        if let Some(secret) = &source.secret_key_ref {
            add(Sort::Secret, &secret.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_place_counts() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {
                "imagePullSecrets": [{"name": "pull"}, {}],
                "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "c1"}}]}],
                "containers": [{"name": "a", "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c1", "key": "k"}}},
                ]}],
                "volumes": [
                    {"name": "1", "secret": {"secretName": "s3"}},
                    {"name": "2", "configMap": {"name": "c2"}},
                    {"name": "3", "projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c3"}}]}},
                    {"name": "4", "emptyDir": {}},
                ],
            },
        }))
        .unwrap();
        let names: Vec<String> = references(&pod).into_iter().map(|reference| reference.name).collect();
        assert_eq!(names, ["c1", "c2", "c3", "pull", "s1", "s2", "s3", "s4"]);
    }
}
