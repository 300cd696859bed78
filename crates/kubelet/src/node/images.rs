//! The images that a node has, as its status tells them: the scheduler prefers nodes that have a pod's image.
//!
//! Source: `pkg/kubelet/nodestatus/setters.go` (`Images`).

use rpc::cri;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cri::Cri;

/// How many images are told of, the largest first. Source: the kubelet's `nodeStatusMaxImages`.
const IMAGES_MAX: usize = 50;
/// How many names an image is told with. Source: `MaxNamesPerImageInNodeStatus`.
const NAMES_MAX: usize = 5;

/// Where the images of a node are learnt.
pub struct Images {
    /// The runtime.
    pub cri: Cri,
    /// Tells when they changed.
    pub changes: watch::Receiver<u64>,
}

// === impl Images ===

impl Images {
    /// For the node's status; `None` when the runtime does not answer.
    pub(super) async fn told(&self) -> Option<Value> {
        match self.cri.images().await {
            Ok(images) => Some(told(images)),
            Err(error) => {
                tracing::warn!(%error, "the node's images were not listed");
                None
            }
        }
    }
}

fn told(mut images: Vec<cri::Image>) -> Value {
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let told = images.into_iter().take(IMAGES_MAX).map(|image| {
        let names = image.repo_digests.into_iter().chain(image.repo_tags);
        json!({"names": names.take(NAMES_MAX).collect::<Vec<_>>(), "sizeBytes": image.size})
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_images_come_first_with_few_names() {
        let image = |id: usize, size, tags: usize| cri::Image {
            id: id.to_string(),
            size,
            repo_digests: vec![format!("{id}@sha256:0")],
            repo_tags: (0..tags).map(|tag| format!("{id}:{tag}")).collect(),
            ..cri::Image::default()
        };
        assert_eq!(
            told(vec![image(1, 5, 1), image(2, 9, 9)]),
            json!([
                {"names": ["2@sha256:0", "2:0", "2:1", "2:2", "2:3"], "sizeBytes": 9},
                {"names": ["1@sha256:0", "1:0"], "sizeBytes": 5},
            ])
        );
        let many = (0..60).map(|id| image(id, 1, 0)).collect();
        assert_eq!(told(many).as_array().unwrap().len(), IMAGES_MAX);
    }
}
