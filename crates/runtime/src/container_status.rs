//! Containers as CRI tells them.

use rpc::cri;

use crate::runtime::{Container, Runtime};

impl Runtime {
    /// A container as CRI tells it.
    pub(crate) fn container_status(&self, container: &Container) -> cri::ContainerStatus {
        let record = container.record.lock();
        let mut config = record.config.clone().unwrap_or_default();
        // A kubelet asks with the image's id and shows the name that it reads here.
        let tag = self
            .images
            .find(&record.image_id)
            .and_then(|image| image.tags.into_iter().next());
        if let (Some(image), Some(tag)) = (&mut config.image, tag) {
            image.image = tag;
        }
        cri::ContainerStatus {
            id: container.id.clone(),
            metadata: config.metadata,
            state: record.state,
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            exit_code: record.exit_code,
            image: config.image,
            image_ref: record.image_ref.clone(),
            reason: record.reason.clone(),
            message: record.message.clone(),
            labels: config.labels,
            annotations: config.annotations,
            mounts: config.mounts,
            log_path: record.log_path.clone(),
            resources: Some(cri::ContainerResources {
                linux: record.resources.clone(),
                windows: None,
            }),
            image_id: record.image_id.clone(),
            user: Some(cri::ContainerUser {
                linux: Some(cri::LinuxContainerUser {
                    uid: record.uid.into(),
                    gid: record.gid.into(),
                    supplemental_groups: record.groups.iter().map(|gid| i64::from(*gid)).collect(),
                }),
            }),
            stop_signal: config.stop_signal,
        }
    }

    /// The containers that fit a filter.
    pub fn list_containers(&self, filter: &cri::ContainerFilter) -> Vec<cri::Container> {
        let containers: Vec<_> = self.containers.lock().values().cloned().collect();
        let fits = |container: &cri::Container| {
            (filter.id.is_empty() || container.id.starts_with(&filter.id))
                && (filter.pod_sandbox_id.is_empty() || container.pod_sandbox_id.starts_with(&filter.pod_sandbox_id))
                && filter.state.as_ref().is_none_or(|state| state.state == container.state)
                && filter
                    .label_selector
                    .iter()
                    .all(|(key, value)| container.labels.get(key) == Some(value))
        };
        let listed = containers.iter().map(|container| {
            let record = container.record.lock();
            let config = record.config.clone().unwrap_or_default();
            cri::Container {
                id: container.id.clone(),
                pod_sandbox_id: record.sandbox_id.clone(),
                metadata: config.metadata,
                image: config.image,
                image_ref: record.image_ref.clone(),
                state: record.state,
                created_at: record.created_at,
                labels: config.labels,
                annotations: config.annotations,
                image_id: record.image_id.clone(),
            }
        });
        listed.filter(fits).collect()
    }
}
