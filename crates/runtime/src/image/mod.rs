//! Images: imported archives, unpacked once a layer, kept until nobody refers to them.
//!
//! On disk, below `images/`: `index.json` (what there is), `blobs/sha256/` (configurations), `layers/<diff id>/` (each
//! layer unpacked on its own, deletions as overlayfs whiteouts) and `tmp/`. A layer's directory appears by a rename when it
//! is complete and verified, and the index is replaced by a rename, so a crash leaves garbage but no half image; garbage is
//! swept at start.

mod build;
mod import;
mod layer;
pub mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use layer::{make_directory_in_root, read_in_root};

pub use build::{FileKind, ImageBuild, ImageFile, build_from_files, demo_image};

/// Why something about an image did not work.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A name that is none.
    #[error("{0}")]
    Name(String),
    /// Not here, and nowhere to get it from.
    #[error(
        "image {0:?} is not on this node, and pulling from registries is not possible yet: import it (trireme image import FILE)"
    )]
    NotFound(String),
    /// An archive that is not what it should be.
    #[error("the archive is not a usable image: {0}")]
    Archive(String),
    /// Containers use it.
    #[error("image {0} is used by a container")]
    InUse(String),
    /// The disk.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// An image on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:...` of its configuration.
    pub id: String,
    /// Normalised names with tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Normalised names with digests.
    #[serde(default)]
    pub digests: Vec<String>,
    /// Diff ids of its layers, the bottom one first.
    pub layers: Vec<String>,
    /// Bytes of the unpacked layers.
    pub size_bytes: u64,
    /// Not collected as garbage.
    #[serde(default)]
    pub pinned: bool,
    /// What a container of it runs as.
    pub config: ImageConfig,
}

/// The part of an image's configuration that containers inherit; names as in the OCI image specification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user`, `uid`, `user:group`, ...
    pub user: String,
    /// `KEY=value`.
    #[serde(deserialize_with = "null_default")]
    pub env: Vec<String>,
    /// What `command` replaces.
    #[serde(deserialize_with = "null_default")]
    pub entrypoint: Vec<String>,
    /// What `args` replaces.
    #[serde(deserialize_with = "null_default")]
    pub cmd: Vec<String>,
    /// Where it starts.
    pub working_dir: String,
    /// `SIGTERM` or a number.
    pub stop_signal: String,
    /// Ports that it says it serves.
    #[serde(deserialize_with = "null_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Labels.
    #[serde(deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// Directories that ought to be volumes.
    #[serde(deserialize_with = "null_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
}

/// Go programs write `null` for what is empty.
fn null_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// All images of a node.
#[derive(Debug)]
pub struct ImageStore {
    directory: PathBuf,
    images: Mutex<BTreeMap<String, Image>>,
    /// One import or removal at a time: they create and sweep the same layers.
    changing: Mutex<()>,
    /// Counts the changes of the list.
    changes: watch::Sender<u64>,
}

impl ImageStore {
    /// Opens or creates the store and sweeps what a crash left.
    pub fn open(directory: &Path) -> Result<ImageStore, ImageError> {
        for name in ["blobs/sha256", "layers", "tmp"] {
            let path = directory.join(name);
            std::fs::create_dir_all(&path).map_err(at(&path))?;
        }
        let index = directory.join("index.json");
        let images: Vec<Image> = match std::fs::read(&index) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|err| ImageError::Archive(err.to_string()))?,
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(err) => return Err(ImageError::Io(index, err)),
        };
        let images = images.into_iter().map(|image| (image.id.clone(), image)).collect();
        let store = ImageStore {
            directory: directory.to_owned(),
            images: Mutex::new(images),
            changing: Mutex::new(()),
            changes: watch::Sender::new(0),
        };
        let tmp = store.directory.join("tmp");
        for entry in std::fs::read_dir(&tmp).map_err(at(&tmp))?.flatten() {
            remove_tree(&entry.path())?;
        }
        Ok(store)
    }

    /// Imports a docker-archive or OCI-layout tar (plain, gzip or zstd); returns the images with their new names. Blocks.
    pub fn import(&self, archive: &Path) -> Result<Vec<Image>, ImageError> {
        let _changing = self.changing.lock();
        let imported = import::import(&self.directory, archive)?;
        let mut images = self.images.lock();
        let mut result = Vec::new();
        for image in imported {
            for other in images.values_mut() {
                // A name belongs to the last image that was given it.
                other.tags.retain(|tag| !image.tags.contains(tag));
            }
            let entry = images.entry(image.id.clone()).or_insert_with(|| Image {
                tags: Vec::new(),
                ..image.clone()
            });
            for (known, new) in [(&mut entry.tags, &image.tags), (&mut entry.digests, &image.digests)] {
                known.extend(new.iter().cloned());
                known.sort();
                known.dedup();
            }
            result.push(image);
        }
        self.save(&images)?;
        Ok(result)
    }

    /// Tells when the list of images changed; CRI has no event for that.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Image> {
        self.images.lock().values().cloned().collect()
    }

    /// Finds an image by name, digest, or id (whole, or the first digits of one only).
    pub fn find(&self, name: &str) -> Option<Image> {
        let images = self.images.lock();
        let id = name.strip_prefix("sha256:").unwrap_or(name);
        if let Some(image) = images.get(&format!("sha256:{id}")) {
            return Some(image.clone());
        }
        if let Ok(full) = reference::normalize(name) {
            let named = |image: &&Image| {
                image.tags.contains(&full)
                    || image.digests.contains(&full)
                    || full.split_once('@').is_some_and(|(_, digest)| {
                        let with_digest = format!("{}@{digest}", reference::repository(&full));
                        image.digests.contains(&with_digest)
                    })
            };
            if let Some(image) = images.values().find(named) {
                return Some(image.clone());
            }
        }
        if id.len() < 4 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut found = images
            .values()
            .filter(|image| image.id["sha256:".len()..].starts_with(id));
        match (found.next(), found.next()) {
            (Some(image), None) => Some(image.clone()),
            _ => None,
        }
    }

    /// Removes an image and the layers that nobody else uses. `used` are the layers of containers. Blocks.
    pub fn remove(&self, name: &str, used: &BTreeSet<String>) -> Result<(), ImageError> {
        let _changing = self.changing.lock();
        let Some(image) = self.find(name) else {
            return Ok(());
        };
        let mut images = self.images.lock();
        images.remove(&image.id);
        self.save(&images)?;
        drop(images);
        self.sweep(used)
    }

    /// Removes layers and blobs that no image has and no container uses. Blocks.
    pub fn collect_garbage(&self, used: &BTreeSet<String>) -> Result<(), ImageError> {
        let _changing = self.changing.lock();
        self.sweep(used)
    }

    fn sweep(&self, used: &BTreeSet<String>) -> Result<(), ImageError> {
        let (mut layers, mut blobs) = (used.clone(), BTreeSet::new());
        for image in self.images.lock().values() {
            layers.extend(image.layers.iter().cloned());
            blobs.insert(image.id.clone());
        }
        for (name, keep) in [("layers", &layers), ("blobs/sha256", &blobs)] {
            let directory = self.directory.join(name);
            for entry in std::fs::read_dir(&directory).map_err(at(&directory))?.flatten() {
                let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
                if !keep.contains(&digest) {
                    remove_tree(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Directories of an image's layers, the topmost first as overlayfs wants them.
    pub fn layer_directories(&self, layers: &[String]) -> Vec<PathBuf> {
        layers
            .iter()
            .rev()
            .map(|layer| layer_directory(&self.directory, layer).join("fs"))
            .collect()
    }

    /// Bytes used by all layers, and the directory they are in.
    pub fn usage(&self) -> (PathBuf, u64) {
        let mut seen = BTreeSet::new();
        let images = self.images.lock();
        let mut total = 0;
        for image in images.values() {
            if image.layers.iter().any(|layer| seen.insert(layer.clone())) {
                total += image.size_bytes;
            }
        }
        (self.directory.clone(), total)
    }

    fn save(&self, images: &BTreeMap<String, Image>) -> Result<(), ImageError> {
        let list: Vec<&Image> = images.values().collect();
        let bytes = serde_json::to_vec_pretty(&list).expect("invariant: the index is plain data");
        let path = self.directory.join("index.json");
        crate::files::replace_synced(&path, &bytes).map_err(at(&path))?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// Where a layer is unpacked.
fn layer_directory(store: &Path, diff_id: &str) -> PathBuf {
    store
        .join("layers")
        .join(diff_id.strip_prefix("sha256:").unwrap_or(diff_id))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |err| ImageError::Io(path, err)
}

fn remove_tree(path: &Path) -> Result<(), ImageError> {
    crate::files::remove_tree(path).map_err(at(path))
}
