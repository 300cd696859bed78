//! Reading image archives: `docker save`'s format and OCI image layouts, as one tar, possibly compressed.
//!
//! Nothing in an archive is believed: blobs of an OCI layout must have the digests they are named by, and every layer must
//! unpack from the diff id that the configuration names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Image, ImageConfig, ImageError, at, layer, layer_directory, reference, remove_tree};

/// Longest manifest or configuration: registries refuse more than 4 MiB.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Most files in an archive; an image has at most a few hundred layers.
const MEMBERS_MAX: usize = 100_000;
/// Deepest nesting of OCI indexes: an index of platforms inside the layout's own.
const INDEX_DEPTH_MAX: usize = 3;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Unpacks the layers of every image in the archive below `store` and describes the images.
pub(super) fn import(store: &Path, archive: &Path) -> Result<Vec<Image>, ImageError> {
    let mut archive = Archive::open(store, archive)?;
    let images = if archive.members.contains_key("manifest.json") {
        docker_images(&mut archive)?
    } else if archive.members.contains_key("index.json") {
        oci_images(&mut archive)?
    } else {
        return Err(ImageError::Archive(
            "neither manifest.json (docker save) nor index.json (OCI layout) is in it".into(),
        ));
    };
    if images.is_empty() {
        return Err(ImageError::Archive(
            "it has no image for this machine (linux/amd64)".into(),
        ));
    }
    images
        .into_iter()
        .map(|found| unpack(store, &mut archive, found))
        .collect()
}

/// An image as an archive describes it.
struct Found {
    tags: Vec<String>,
    manifest_digest: Option<String>,
    config: Vec<u8>,
    /// Members with the layers, the bottom one first.
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    config: Option<ImageConfig>,
    rootfs: RootFs,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "super::null_default")]
    diff_ids: Vec<String>,
}

fn unpack(store: &Path, archive: &mut Archive, found: Found) -> Result<Image, ImageError> {
    let config: Configuration = parse(&found.config, "the image's configuration")?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != found.layers.len() {
        let text = format!(
            "{} layers, but the configuration names {}",
            found.layers.len(),
            diff_ids.len()
        );
        return Err(ImageError::Archive(text));
    }
    for (name, value, ours) in [
        ("os", &config.os, "linux"),
        ("architecture", &config.architecture, "amd64"),
    ] {
        if !value.is_empty() && value != ours {
            return Err(ImageError::Archive(format!(
                "its {name} is {value}, this machine's is {ours}"
            )));
        }
    }
    let mut size_bytes = 0;
    for (member, diff_id) in found.layers.iter().zip(&diff_ids) {
        size_bytes += unpack_layer(store, archive, member, diff_id)?;
    }
    let id = digest_of(&found.config);
    let blob = store.join("blobs/sha256").join(&id["sha256:".len()..]);
    crate::files::replace_synced(&blob, &found.config).map_err(at(&blob))?;
    let tags = found
        .tags
        .iter()
        .map(|tag| reference::normalize(tag).map_err(ImageError::Name));
    let tags: Vec<String> = tags.collect::<Result<_, _>>()?;
    let digest = found.manifest_digest.unwrap_or_else(|| id.clone());
    let repositories: BTreeSet<&str> = tags.iter().map(|tag| reference::repository(tag)).collect();
    let digests = repositories
        .iter()
        .map(|repository| format!("{repository}@{digest}"))
        .collect();
    let tags = tags.into_iter().filter(|tag| !tag.contains('@')).collect();
    Ok(Image {
        id,
        tags,
        digests,
        layers: diff_ids,
        size_bytes,
        pinned: false,
        config: config.config.unwrap_or_default(),
    })
}

/// Unpacks one layer unless it is there; returns its size.
fn unpack_layer(store: &Path, archive: &mut Archive, member: &str, diff_id: &str) -> Result<u64, ImageError> {
    if reference::hex_digest(diff_id).is_none() {
        return Err(ImageError::Archive(format!("{diff_id:?} is not a digest")));
    }
    let target = layer_directory(store, diff_id);
    let size_file = target.join("size");
    if let Some(size) = std::fs::read_to_string(&size_file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
    {
        return Ok(size);
    }
    let part = store.join("tmp").join(diff_id.trim_start_matches("sha256:"));
    remove_tree(&part)?;
    let fs = part.join("fs");
    std::fs::create_dir_all(&fs).map_err(at(&fs))?;
    let expected_blob = member.strip_prefix("blobs/sha256/").map(|hex| format!("sha256:{hex}"));
    let mut compressed = Hashing::new(archive.member(member)?);
    let mut magic = [0u8; 4];
    let length = read_up_to(&mut compressed, &mut magic).map_err(at(&archive.path))?;
    let rest = (&magic[..length]).chain(&mut compressed);
    let reader: Box<dyn Read> = if magic.starts_with(GZIP_MAGIC) {
        Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(rest)))
    } else if magic == ZSTD_MAGIC {
        Box::new(zstd::stream::read::Decoder::new(rest).map_err(at(&archive.path))?)
    } else {
        Box::new(rest)
    };
    let mut plain = Hashing::new(BufReader::with_capacity(1 << 16, reader));
    let bytes = layer::unpack(&mut plain, &fs).map_err(at(&fs))?;
    // The digest is of all bytes, those behind the tar's end too.
    io::copy(&mut plain, &mut io::sink()).map_err(at(&fs))?;
    let actual = plain.digest();
    drop(plain);
    if actual != diff_id {
        remove_tree(&part)?;
        return Err(ImageError::Archive(format!(
            "layer {member} is {actual}, not {diff_id}"
        )));
    }
    io::copy(&mut compressed, &mut io::sink()).map_err(at(&fs))?;
    if expected_blob.is_some_and(|expected| expected != compressed.digest()) {
        remove_tree(&part)?;
        return Err(ImageError::Archive(format!(
            "blob {member} does not have the digest in its name"
        )));
    }
    std::fs::write(part.join("size"), bytes.to_string()).map_err(at(&part))?;
    remove_tree(&target)?;
    std::fs::rename(&part, &target).map_err(at(&target))?;
    Ok(bytes)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default, deserialize_with = "super::null_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "super::null_default")]
    layers: Vec<String>,
}

fn docker_images(archive: &mut Archive) -> Result<Vec<Found>, ImageError> {
    let manifests: Vec<DockerManifest> = parse(&archive.document("manifest.json")?, "manifest.json")?;
    manifests
        .into_iter()
        .map(|manifest| {
            let config = archive.document(&manifest.config)?;
            Ok(Found {
                tags: manifest.repo_tags,
                manifest_digest: None,
                config,
                layers: manifest.layers,
            })
        })
        .collect()
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default, rename = "mediaType")]
    media_type: String,
    #[serde(default, deserialize_with = "super::null_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "super::null_default")]
    layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "super::null_default")]
    manifests: Vec<Descriptor>,
}

fn oci_images(archive: &mut Archive) -> Result<Vec<Found>, ImageError> {
    let index: Manifest = parse(&archive.document("index.json")?, "index.json")?;
    let mut found = Vec::new();
    for descriptor in index.manifests {
        // containerd's exporter gives the full name, others only the tag.
        let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        let tags = names
            .iter()
            .find_map(|name| descriptor.annotations.get(*name))
            .cloned()
            .into_iter()
            .collect();
        oci_image(archive, &descriptor, tags, 0, &mut found)?;
    }
    Ok(found)
}

fn oci_image(
    archive: &mut Archive,
    descriptor: &Descriptor,
    tags: Vec<String>,
    depth: usize,
    found: &mut Vec<Found>,
) -> Result<(), ImageError> {
    let ours = |platform: &Platform| platform.os == "linux" && platform.architecture == "amd64";
    if depth > INDEX_DEPTH_MAX || descriptor.platform.as_ref().is_some_and(|platform| !ours(platform)) {
        return Ok(());
    }
    if descriptor.annotations.contains_key("vnd.docker.reference.type") {
        // Attestations stand beside images in the same index.
        return Ok(());
    }
    let bytes = archive.blob(&descriptor.digest)?;
    let manifest: Manifest = parse(&bytes, &descriptor.media_type)?;
    for child in &manifest.manifests {
        oci_image(archive, child, tags.clone(), depth + 1, found)?;
    }
    if let Some(config) = &manifest.config {
        let config = archive.blob(&config.digest)?;
        let layers = manifest
            .layers
            .iter()
            .map(|layer| blob_member(&layer.digest))
            .collect::<Result<_, _>>()?;
        found.push(Found {
            tags,
            manifest_digest: Some(descriptor.digest.clone()),
            config,
            layers,
        });
    }
    Ok(())
}

fn blob_member(digest: &str) -> Result<String, ImageError> {
    let hex = reference::hex_digest(digest);
    Ok(format!(
        "blobs/sha256/{}",
        hex.ok_or_else(|| ImageError::Archive(format!("{digest:?} is not a digest")))?
    ))
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|err| ImageError::Archive(format!("{what}: {err}")))
}

fn digest_of(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

fn hex(digest: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in digest {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The outer tar with the places of its members.
struct Archive {
    path: PathBuf,
    file: File,
    members: BTreeMap<String, (u64, u64)>,
}

impl Archive {
    fn open(store: &Path, path: &Path) -> Result<Archive, ImageError> {
        let mut file = File::open(path).map_err(at(path))?;
        let mut magic = [0u8; 4];
        let length = read_up_to(&mut file, &mut magic).map_err(at(path))?;
        file.seek(SeekFrom::Start(0)).map_err(at(path))?;
        if magic[..length].starts_with(GZIP_MAGIC) || magic[..length] == *ZSTD_MAGIC {
            // Members are wanted in an order that is not the archive's: a plain copy without a name.
            let mut plain = tempfile_in(&store.join("tmp")).map_err(at(path))?;
            let mut reader: Box<dyn Read> = if magic.starts_with(GZIP_MAGIC) {
                Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file)))
            } else {
                Box::new(zstd::stream::read::Decoder::new(file).map_err(at(path))?)
            };
            io::copy(&mut reader, &mut plain).map_err(at(path))?;
            file = plain;
            file.seek(SeekFrom::Start(0)).map_err(at(path))?;
        }
        let mut members = BTreeMap::new();
        let mut links = Vec::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek().map_err(at(path))? {
            let entry = entry.map_err(|err| ImageError::Archive(format!("not a tar: {err}")))?;
            let name = entry
                .path()
                .map_err(at(path))?
                .to_string_lossy()
                .trim_start_matches("./")
                .to_owned();
            if entry.header().entry_type().is_symlink() {
                // Older docker versions save a layer that two images share as a link.
                if let Ok(Some(target)) = entry.link_name() {
                    links.push((name, target.to_string_lossy().trim_start_matches("../").to_owned()));
                }
                continue;
            }
            members.insert(name, (entry.raw_file_position(), entry.size()));
            if members.len() > MEMBERS_MAX {
                return Err(ImageError::Archive("it has too many files".into()));
            }
        }
        for (name, target) in links {
            if let Some(place) = members.get(&target).copied() {
                members.insert(name, place);
            }
        }
        Ok(Archive {
            path: path.to_owned(),
            file,
            members,
        })
    }

    fn member(&self, name: &str) -> Result<io::Take<File>, ImageError> {
        let place = self.members.get(name.trim_start_matches("./"));
        let (position, size) = *place.ok_or_else(|| ImageError::Archive(format!("{name} is missing")))?;
        let mut file = self.file.try_clone().map_err(at(&self.path))?;
        file.seek(SeekFrom::Start(position)).map_err(at(&self.path))?;
        Ok(file.take(size))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let member = self.member(name)?;
        if member.limit() > DOCUMENT_BYTES_MAX {
            return Err(ImageError::Archive(format!("{name} is too large")));
        }
        let mut bytes = Vec::new();
        let mut member = member;
        member.read_to_end(&mut bytes).map_err(at(&self.path))?;
        Ok(bytes)
    }

    /// A document of an OCI layout, whose name is its digest.
    fn blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let bytes = self.document(&blob_member(digest)?)?;
        if digest_of(&bytes) != digest {
            return Err(ImageError::Archive(format!(
                "blob {digest} does not have the digest in its name"
            )));
        }
        Ok(bytes)
    }
}

/// A file without a name: it is gone with its last descriptor.
fn tempfile_in(directory: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(
        directory,
        flags,
        Mode::from_raw_mode(0o600),
    )?))
}

/// Passes bytes through and hashes them.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Hashing<R> {
        Hashing {
            inner,
            hash: Sha256::new(),
        }
    }

    fn digest(&self) -> String {
        hex(self.hash.clone().finalize().as_slice())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::{ImageBuild, ImageStore, build_from_files};
    use super::*;

    fn store() -> (tempfile::TempDir, ImageStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&dir.path().join("images")).unwrap();
        (dir, store)
    }

    fn import_bytes(store: &ImageStore, bytes: &[u8]) -> Result<Vec<Image>, ImageError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        store.import(file.path())
    }

    #[test]
    fn both_formats_plain_and_compressed() {
        let build = ImageBuild::new("demo:1")
            .entrypoint(["/bin/x"])
            .file("bin/x", 0o755, b"program");
        let (docker, oci) = (build.docker_archive(), build.oci_archive());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&oci).unwrap();
        let zstd = zstd::encode_all(docker.as_slice(), 1).unwrap();
        for (name, bytes) in [
            ("docker", docker),
            ("oci", oci),
            ("gzip", gzip.finish().unwrap()),
            ("zstd", zstd),
        ] {
            let (_dir, store) = store();
            let images = import_bytes(&store, &bytes).unwrap_or_else(|err| panic!("{name}: {err}"));
            assert_eq!(images.len(), 1, "{name}");
            let image = store.find("demo:1").unwrap_or_else(|| panic!("{name}"));
            assert_eq!(image.config.entrypoint, ["/bin/x"], "{name}");
            assert!(store.find(&image.id).is_some() && store.find(&image.id[7..15]).is_some());
            let program = store.layer_directories(&image.layers)[0].join("bin/x");
            assert_eq!(std::fs::read(program).unwrap(), b"program", "{name}");
        }
    }

    #[test]
    fn an_import_answers_with_the_names_of_its_archive() {
        let (_dir, store) = store();
        let archive = |name: &str| build_from_files(name, &["/a"], &[("a", 0o755, b"1")]);
        for name in ["localhost/demo:1", "localhost/demo:2"] {
            assert_eq!(import_bytes(&store, &archive(name)).unwrap()[0].tags, [name]);
        }
        let both = store.find("localhost/demo:1").unwrap().tags;
        assert_eq!(both, ["localhost/demo:1", "localhost/demo:2"]);
    }

    #[test]
    fn a_name_moves_and_garbage_goes() {
        let (_dir, store) = store();
        let first = import_bytes(&store, &build_from_files("demo:1", &["/a"], &[("a", 0o755, b"1")])).unwrap();
        let second = import_bytes(&store, &build_from_files("demo:1", &["/a"], &[("a", 0o755, b"2")])).unwrap();
        assert_eq!(store.find("demo:1").unwrap().id, second[0].id);
        assert!(store.find(&first[0].id).unwrap().tags.is_empty());
        let directory = store.layer_directories(&first[0].layers).remove(0);
        store
            .remove(&first[0].id, &first[0].layers.iter().cloned().collect())
            .unwrap();
        assert!(directory.exists(), "a container still uses it");
        store.collect_garbage(&BTreeSet::new()).unwrap();
        assert!(!directory.exists());
        let reopened = ImageStore::open(&store.directory).unwrap();
        assert_eq!(reopened.list(), store.list());
        assert_eq!(reopened.list().len(), 1);
    }

    #[test]
    fn what_is_not_an_image_leaves_nothing() {
        let (_dir, store) = store();
        let good = ImageBuild::new("demo:1").file("x", 0o644, b"content").docker_archive();
        // Changes one byte of the layer's content.
        let position = good.windows(7).position(|window| window == b"content").unwrap();
        let mut bad = good.clone();
        bad[position] = b'C';
        let error = import_bytes(&store, &bad).unwrap_err().to_string();
        assert!(error.contains("layer"), "{error}");
        assert!(import_bytes(&store, b"nonsense").is_err());
        assert!(import_bytes(&store, &good[..good.len() / 2]).is_err());
        assert!(import_bytes(&store, b"").is_err());
        assert!(store.list().is_empty());
        assert_eq!(std::fs::read_dir(store.directory.join("layers")).unwrap().count(), 0);
    }
}
