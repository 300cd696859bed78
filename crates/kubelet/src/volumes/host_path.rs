//! Whether a path of the node is what a hostPath volume wants there.
//!
//! Source: `pkg/volume/hostpath/host_path.go`.

use std::fs::{DirBuilder, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Checks the path, and makes it where the type says so. An empty type checks nothing and makes a directory.
///
/// # Errors
/// In upstream's words.
pub fn check(path: &Path, kind: &str) -> Result<(), String> {
    let shown = path.display();
    let exists = path.exists();
    match kind {
        "" => {
            if !exists {
                // Every runtime of upstream makes the directory, and people count on it. Where it cannot be made, the
                // runtime tells, and only if a container mounts it.
                let _ = DirBuilder::new().recursive(true).mode(0o755).create(path);
            }
            return Ok(());
        }
        "DirectoryOrCreate" if !exists => {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
            return made.map_err(|error| format!("mkdir {shown}: {error}"));
        }
        "FileOrCreate" if !exists => {
            let made = OpenOptions::new().create(true).append(true).mode(0o644).open(path);
            return made.map(drop).map_err(|error| format!("open {shown}: {error}"));
        }
        _ => {}
    }
    let (wanted, words) = match kind {
        "Directory" | "DirectoryOrCreate" => ("Directory", "directory"),
        "File" | "FileOrCreate" => ("File", "file"),
        "Socket" => ("Socket", "socket file"),
        "CharDevice" => ("CharDevice", "character device"),
        "BlockDevice" => ("BlockDevice", "block device"),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    let found = match std::fs::metadata(path) {
        Ok(metadata) => type_of(&metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("hostPath type check failed: {shown} is not a {words}"));
        }
        Err(error) => return Err(format!("hostPath type check failed: {shown} is not a {words}: {error}")),
    };
    if found == wanted {
        Ok(())
    } else {
        Err(format!("hostPath type check failed: {shown} is not a {words}"))
    }
}

fn type_of(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "Directory"
    } else if kind.is_file() {
        "File"
    } else if kind.is_socket() {
        "Socket"
    } else if kind.is_char_device() {
        "CharDevice"
    } else if kind.is_block_device() {
        "BlockDevice"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("dir")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink(path("dir"), path("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for (name, kind, fine) in [
            ("none", "Directory", false),
            ("made", "", true),
            ("made", "Directory", true),
            ("dir", "Directory", true),
            ("link", "Directory", true),
            ("file", "Directory", false),
            ("file", "File", true),
            ("dir", "FileOrCreate", false),
            ("file", "DirectoryOrCreate", false),
            ("socket", "Socket", true),
            ("file", "Socket", false),
            ("file", "BlockDevice", false),
            ("new/dir", "DirectoryOrCreate", true),
            ("new/dir", "Directory", true),
            ("new/file", "FileOrCreate", true),
            ("new/file", "File", true),
            ("no/parent", "FileOrCreate", false),
            ("dir", "Nonsense", false),
        ] {
            assert_eq!(check(&path(name), kind).is_ok(), fine, "{name} {kind}");
        }
        assert!(check(Path::new("/dev/null"), "CharDevice").is_ok());
        let why = check(&path("none"), "Directory").unwrap_err();
        assert_eq!(
            why,
            format!(
                "hostPath type check failed: {} is not a directory",
                path("none").display()
            )
        );
    }
}
