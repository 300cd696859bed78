//! Images made from nothing: the demo image and those of tests.

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::ImageConfig;

/// What a path of an image is.
#[derive(Debug, Clone)]
pub enum FileKind {
    /// A regular file.
    Regular(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link.
    Link(String),
}

/// One path of an image.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// Without a leading slash.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Content.
    pub kind: FileKind,
}

/// An image in the making; the same input makes the same bytes.
#[derive(Debug, Clone)]
pub struct ImageBuild {
    name: String,
    config: ImageConfig,
    files: Vec<ImageFile>,
}

/// A docker-archive of one layer with these files (path, mode, content).
pub fn build_from_files(name: &str, entrypoint: &[&str], files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let build = ImageBuild::new(name).entrypoint(entrypoint.iter().copied());
    files
        .iter()
        .fold(build, |build, (path, mode, content)| build.file(path, *mode, content))
        .docker_archive()
}

/// A docker-archive of the demo and test program: serves HTTP on port 8080, and has a few small commands in `/bin`.
pub fn demo_image(name: &str) -> Vec<u8> {
    const COMMANDS: &[&str] = &[
        "cat", "date", "echo", "eat", "env", "exit", "false", "get", "hostname", "id", "ls", "mkdir", "orphan",
        "printenv", "probe", "pwd", "readlink", "resolve", "rm", "serve", "sh", "sleep", "spam", "stat", "stubborn",
        "tar", "touch", "true", "tty", "udp", "write",
    ];
    let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    let group = "root:x:0:\napp:x:1000:\nextra:x:2000:app\nnobody:x:65534:\n";
    let mut build = ImageBuild::new(name)
        .entrypoint(["/bin/demo"])
        .env("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .port("8080/tcp")
        .directory("etc", 0o755)
        .directory("tmp", 0o1777)
        .directory("root", 0o700)
        .file("etc/passwd", 0o644, passwd.as_bytes())
        .file("etc/group", 0o644, group.as_bytes())
        .file("bin/demo", 0o755, &crate::shim::executable_bytes());
    for command in COMMANDS {
        build = build.link(&format!("bin/{command}"), "demo");
    }
    build.docker_archive()
}

impl ImageBuild {
    /// Begins an image with a name.
    pub fn new(name: &str) -> ImageBuild {
        ImageBuild {
            name: name.to_owned(),
            config: ImageConfig::default(),
            files: Vec::new(),
        }
    }

    /// What containers of it run.
    pub fn entrypoint<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.config.entrypoint = words.into_iter().map(str::to_owned).collect();
        self
    }

    /// The entry point's default arguments.
    pub fn cmd<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.config.cmd = words.into_iter().map(str::to_owned).collect();
        self
    }

    /// Adds `KEY=value`.
    pub fn env(mut self, entry: &str) -> Self {
        self.config.env.push(entry.to_owned());
        self
    }

    /// Whom it runs as.
    pub fn user(mut self, user: &str) -> Self {
        self.config.user = user.to_owned();
        self
    }

    /// Where it starts.
    pub fn working_dir(mut self, path: &str) -> Self {
        self.config.working_dir = path.to_owned();
        self
    }

    /// A port that it serves, `8080/tcp`.
    pub fn port(mut self, port: &str) -> Self {
        self.config.exposed_ports.insert(port.to_owned(), json!({}));
        self
    }

    /// Adds a file.
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.add(path, mode, (0, 0), FileKind::Regular(content.to_vec()))
    }

    /// Adds a directory.
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.add(path, mode, (0, 0), FileKind::Directory)
    }

    /// Adds a symbolic link.
    pub fn link(self, path: &str, target: &str) -> Self {
        self.add(path, 0o777, (0, 0), FileKind::Link(target.to_owned()))
    }

    /// Adds anything.
    pub fn add(mut self, path: &str, mode: u32, owner: (u32, u32), kind: FileKind) -> Self {
        self.files.push(ImageFile {
            path: path.trim_start_matches('/').to_owned(),
            mode,
            owner,
            kind,
        });
        self
    }

    /// As `docker save` writes it.
    pub fn docker_archive(&self) -> Vec<u8> {
        let (layer, config) = (self.layer(), self.config());
        let (layer_name, config_name) = (format!("{}/layer.tar", hex(&layer)), format!("{}.json", hex(&config)));
        let manifest = json!([{"Config": config_name, "RepoTags": [self.name], "Layers": [layer_name]}]);
        archive(&[
            (&layer_name, &layer),
            (&config_name, &config),
            ("manifest.json", manifest.to_string().as_bytes()),
        ])
    }

    /// As an OCI image layout with a gzipped layer.
    pub fn oci_archive(&self) -> Vec<u8> {
        use std::io::Write;
        let config = self.config();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder
            .write_all(&self.layer())
            .expect("invariant: writing to memory does not fail");
        let layer = encoder.finish().expect("invariant: writing to memory does not fail");
        let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": format!("sha256:{}", hex(bytes)), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
        })
        .to_string();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": self.name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", hex(bytes));
        archive(&[
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            (&blob(&layer), &layer),
            (&blob(&config), &config),
            (&blob(manifest.as_bytes()), manifest.as_bytes()),
            ("index.json", index.as_bytes()),
        ])
    }

    fn config(&self) -> Vec<u8> {
        let document = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&self.layer()))]},
        });
        document.to_string().into_bytes()
    }

    fn layer(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        // Parents first, whatever the order of the files.
        let mut directories: BTreeMap<String, u32> = BTreeMap::new();
        for file in &self.files {
            let parents = file.path.match_indices('/').map(|(at, _)| &file.path[..at]);
            parents.for_each(|parent| {
                directories.entry(parent.to_owned()).or_insert(0o755);
            });
            if matches!(file.kind, FileKind::Directory) {
                directories.insert(file.path.clone(), file.mode);
            }
        }
        let mut append = |path: &str, mode: u32, owner: (u32, u32), kind: &FileKind| {
            let mut header = tar::Header::new_ustar();
            header.set_mode(mode);
            header.set_uid(owner.0.into());
            header.set_gid(owner.1.into());
            header.set_mtime(0);
            let content: &[u8] = match kind {
                FileKind::Regular(content) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    content
                }
                FileKind::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    &[]
                }
                FileKind::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header
                        .set_link_name(target)
                        .expect("invariant: links of built images are short");
                    &[]
                }
            };
            header.set_size(content.len() as u64);
            builder
                .append_data(&mut header, path, content)
                .expect("invariant: writing to memory does not fail");
        };
        for (path, mode) in &directories {
            append(&format!("{path}/"), *mode, (0, 0), &FileKind::Directory);
        }
        for file in self
            .files
            .iter()
            .filter(|file| !matches!(file.kind, FileKind::Directory))
        {
            append(&file.path, file.mode, file.owner, &file.kind);
        }
        builder
            .into_inner()
            .expect("invariant: writing to memory does not fail")
    }
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder
            .append_data(&mut header, name, *content)
            .expect("invariant: writing to memory does not fail");
    }
    builder
        .into_inner()
        .expect("invariant: writing to memory does not fail")
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
