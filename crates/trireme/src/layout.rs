//! Where a cluster keeps its files. Nobody else puts a path together.
//!
//! As root these are the directories of the design (`/var/lib/trireme`, `/run/trireme`); without root they lie under the
//! XDG ones; with `--dir` everything lies below that directory, which is how tests keep clusters apart.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::errors::{CliError, Kind, Result};

/// Where the cluster of the machine keeps its state.
const SYSTEM_DATA: &str = "/var/lib/trireme";

/// The directories of one cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    data: PathBuf,
    run: PathBuf,
}

// === impl Layout ===

impl Layout {
    /// The directories for this user, or below `dir`. `variable` reads the environment.
    pub fn find(dir: Option<&Path>, is_root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Layout> {
        if let Some(dir) = dir {
            let dir = std::path::absolute(dir).map_err(|error| CliError::file(dir, &error))?;
            return Ok(Layout {
                data: dir.join("data"),
                run: dir.join("run"),
            });
        }
        if is_root {
            return Ok(Layout {
                data: SYSTEM_DATA.into(),
                run: "/run/trireme".into(),
            });
        }
        let home = variable("HOME").unwrap_or_else(|| "/".into());
        let data = variable("XDG_DATA_HOME")
            .unwrap_or_else(|| home.join(".local/share"))
            .join("trireme");
        let run = variable("XDG_RUNTIME_DIR").map_or_else(|| data.join("run"), |dir| dir.join("trireme"));
        Ok(Layout { data, run })
    }

    /// The control group below which the node's pods live: one of its own for each cluster, so that clusters can be kept
    /// apart by `--dir`.
    pub fn cgroup_root(&self) -> PathBuf {
        self.cgroup("/trireme")
    }

    /// The control group of the control plane: beside the node's, so that neither is counted, or ended, with the other.
    pub fn server_cgroup_root(&self) -> PathBuf {
        self.cgroup("/trireme-server")
    }

    fn cgroup(&self, name: &str) -> PathBuf {
        if self.data == Path::new(SYSTEM_DATA) {
            return name.into();
        }
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.data.as_os_str().as_encoded_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        format!("{name}-{:08x}", hash & 0xffff_ffff).into()
    }

    /// The flags by which another process of ours finds the same directories.
    pub fn flags(&self) -> Vec<String> {
        match self.own_directory() {
            Some(dir) => vec!["--dir".into(), dir.display().to_string()],
            None => Vec::new(),
        }
    }

    /// A command line for people that means this cluster, such as `trireme --dir /x up`.
    pub fn command(&self, words: &str) -> String {
        match self.own_directory() {
            Some(dir) => format!("trireme --dir {} {words}", quoted(dir)),
            None => format!("trireme {words}"),
        }
    }

    /// The directory of `--dir`, when that is where everything lies.
    fn own_directory(&self) -> Option<&Path> {
        let parent = self.data.parent()?;
        (parent.join("data") == self.data && parent.join("run") == self.run).then_some(parent)
    }

    /// What survives `down`: the state of the cluster.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What a reboot may take: sockets and process files.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The store's directory.
    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// Where the state is, when it was ever moved.
    pub fn state_home(&self) -> PathBuf {
        self.data.join("state-home.json")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    /// Settings that `up` was called with, for the next `up` and for `status`.
    pub fn settings(&self) -> PathBuf {
        self.data.join("settings.json")
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data.join("admin.kubeconfig")
    }

    /// Logs of the daemons.
    pub fn log(&self, daemon: &str) -> PathBuf {
        self.data.join("log").join(format!("{daemon}.log"))
    }

    /// The process file of a daemon.
    pub fn process(&self, daemon: &str) -> PathBuf {
        self.run.join(format!("{daemon}.process"))
    }

    /// The socket on which the API is served to nodes on this machine, whatever network they are in.
    pub fn api_socket(&self) -> PathBuf {
        self.run.join("api.sock")
    }

    /// A node's own state.
    pub fn node_data(&self, node: &str) -> PathBuf {
        self.data.join("nodes").join(node)
    }

    /// A node's sockets.
    pub fn node_run(&self, node: &str) -> PathBuf {
        self.run.join("nodes").join(node)
    }

    /// The socket on which a node takes images and tells its state.
    pub fn node_socket(&self, node: &str) -> PathBuf {
        self.node_run(node).join("node.sock")
    }

    /// Makes the directories, closed to others. Answers those that were made above them, for [`crate::commands`]' `reset`.
    ///
    /// # Errors
    /// The machine refuses, or what is there is somebody else's: nothing of it is touched.
    pub fn create(&self) -> Result<Vec<PathBuf>> {
        if !self.is_ours() {
            for dir in [&self.data, &self.run] {
                if holds_anything(dir)? {
                    let what = format!("{} has files in it that are not a cluster's", dir.display());
                    return Err(CliError::new(Kind::Usage, "NOT_A_CLUSTER", what)
                        .hint("name another directory: trireme --dir DIR; or move away what is there"));
                }
            }
        }
        let above = [&self.data, &self.run]
            .into_iter()
            .flat_map(|dir| dir.ancestors().skip(1).filter(|dir| !dir.exists()));
        let mut above: Vec<PathBuf> = above.map(Path::to_owned).collect();
        above.sort();
        above.dedup();
        for dir in [&self.data, &self.run, &self.pki(), &self.data.join("log")] {
            make_private_dir(dir)?;
        }
        Ok(above)
    }

    /// Whether a cluster was made here: nothing else is ever removed or filled.
    pub fn is_ours(&self) -> bool {
        // The first is made by every command that makes anything, the second stays when somebody removed the data.
        self.pki().is_dir() || self.run.join("server.lock").is_file()
    }
}

/// Whether a directory is there and has something in it.
fn holds_anything(dir: &Path) -> Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CliError::file(dir, &error)),
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Makes a directory (and what is above it) that only its owner can enter.
pub fn make_private_dir(dir: &Path) -> Result {
    let fail = |error: std::io::Error| CliError::file(dir, &error);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(fail)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(fail)
}

/// Writes a file that only its owner can read, whole or not at all: beside it first, synced, then renamed.
pub fn write_private(path: &Path, contents: &[u8]) -> Result {
    use std::io::Write as _;
    let fail = |error: std::io::Error| CliError::file(path, &error);
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(fail)?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(fail)?;
    std::fs::rename(&beside, path).map_err(fail)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_place() {
        let none = |_: &str| None;
        let xdg = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/7".into());
        let home = |name: &str| (name == "HOME").then(|| "/home/jane".into());
        for (layout, data, run) in [
            (Layout::find(None, true, none), "/var/lib/trireme", "/run/trireme"),
            (
                Layout::find(None, false, home),
                "/home/jane/.local/share/trireme",
                "/home/jane/.local/share/trireme/run",
            ),
            (
                Layout::find(None, false, xdg),
                "/.local/share/trireme",
                "/run/user/7/trireme",
            ),
            (Layout::find(Some(Path::new("/x")), true, none), "/x/data", "/x/run"),
        ] {
            let layout = layout.unwrap();
            assert_eq!((layout.data(), layout.run()), (Path::new(data), Path::new(run)));
        }
    }

    #[test]
    fn advice_names_the_cluster_it_is_about() {
        let layout = |dir: Option<&str>| Layout::find(dir.map(Path::new), true, |_| None).unwrap();
        for (dir, expect) in [
            (None, "trireme up"),
            (Some("/x"), "trireme --dir /x up"),
            (Some("/my x's"), r"trireme --dir '/my x'\''s' up"),
        ] {
            assert_eq!(layout(dir).command("up"), expect);
        }
    }

    #[test]
    fn other_peoples_directories_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::find(Some(&dir.path().join("made/for/it")), true, |_| None).unwrap();
        assert!(!layout.is_ours());
        let made = layout.create().unwrap();
        assert_eq!(
            made,
            [
                dir.path().join("made"),
                dir.path().join("made/for"),
                dir.path().join("made/for/it")
            ]
        );
        assert!(layout.is_ours());
        assert_eq!(layout.create().unwrap(), [""; 0].map(PathBuf::from));
        for theirs in ["data", "run"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join(theirs)).unwrap();
            std::fs::write(dir.path().join(theirs).join("thesis"), "").unwrap();
            let layout = Layout::find(Some(dir.path()), true, |_| None).unwrap();
            assert!(!layout.is_ours());
            assert_eq!(layout.create().unwrap_err().id, "NOT_A_CLUSTER");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn secrets_are_written_whole_and_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
