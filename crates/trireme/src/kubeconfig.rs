//! The kubeconfig: made for the administrator, merged into the user's own, and taken out again.
//!
//! Invariants: nothing of the user's is lost (entries of other names stay as they are, an entry of our name that leads to
//! another machine is not replaced, and a file that cannot be read is not touched); the file is read and written by a
//! process that is nobody but its owner, so that a link in somebody's home never leads further than they can go themselves.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::errors::{CliError, Context as _, Kind, Result, last_in};
use crate::layout::write_private;
use crate::supervisor::OWN_PROGRAM;

/// Our name for cluster, user and context.
pub const NAME: &str = "trireme";
const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// What a client needs.
pub struct Access<'a> {
    /// `https://127.0.0.1:6443`.
    pub server: &'a str,
    /// The name that its certificate must have, when that is not the server's address.
    pub server_name: Option<&'a str>,
    /// The authority's certificate.
    pub ca_pem: &'a str,
    /// The client certificate.
    pub certificate_pem: &'a str,
    /// Its key: a secret.
    pub key_pem: &'a str,
}

/// A kubeconfig with this access alone.
pub fn make(access: &Access) -> Value {
    let mut config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": NAME, "preferences": {},
        "clusters": [{"name": NAME, "cluster": {
            "server": access.server, "certificate-authority-data": BASE64.encode(access.ca_pem),
        }}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
        "users": [{"name": NAME, "user": {
            "client-certificate-data": BASE64.encode(access.certificate_pem),
            "client-key-data": BASE64.encode(access.key_pem),
        }}],
    });
    if let Some(name) = access.server_name {
        config["clusters"][0]["cluster"]["tls-server-name"] = name.into();
    }
    config
}

/// The text of a kubeconfig: JSON is YAML, and nothing in it depends on how a YAML writer quotes.
pub fn to_text(config: &Value) -> Result<String> {
    serde_saphyr::to_string(config).map_err(CliError::internal)
}

/// What happens to a user's kubeconfig.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edit {
    /// Our access is put in, and our context becomes the current one.
    Merge,
    /// Our access takes the place of the one that is there; nothing else changes.
    Refresh,
    /// Our access is taken out.
    Remove,
}

/// One edit, as it is told to the process that does it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// What.
    pub edit: Edit,
    /// Where.
    pub owner: Owner,
    /// The cluster's own kubeconfig.
    pub ours: Value,
}

/// Whose kubeconfig is written: the user behind sudo, else whoever runs us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The file.
    pub path: PathBuf,
    /// Owner and group of the file and of a directory that is made for it; `None`: our own.
    pub ids: Option<(u32, u32)>,
    /// Whether its directory was made for it, and goes with it.
    #[serde(default)]
    pub made_directory: bool,
    /// The context that was the current one before ours, and is again when ours goes.
    #[serde(default)]
    pub previous_context: Option<String>,
}

impl Owner {
    /// Finds the file as kubectl does: the first of `KUBECONFIG` that exists, else its last; without that
    /// `~/.kube/config`.
    pub fn find(
        variable: impl Fn(&str) -> Option<String>,
        home_of: impl Fn(u32) -> Option<PathBuf>,
        exists: impl Fn(&Path) -> bool,
    ) -> Owner {
        let number = |name: &str| variable(name).and_then(|text| text.parse().ok());
        let ids = number("SUDO_UID").zip(number("SUDO_GID")).filter(|(uid, _)| *uid != 0);
        let list = variable("KUBECONFIG").unwrap_or_default();
        let listed = || list.split(':').filter(|entry| !entry.is_empty()).map(PathBuf::from);
        let listed = listed().find(|path| exists(path)).or_else(|| listed().next_back());
        let home = || {
            let own = || variable("HOME").map(PathBuf::from);
            let behind = ids.and_then(|(uid, _)| home_of(uid));
            // Service managers and bare shells set no HOME.
            let ours = || home_of(rustix::process::geteuid().as_raw());
            behind.or_else(own).or_else(ours).unwrap_or_else(|| "/".into())
        };
        Owner {
            path: listed.unwrap_or_else(|| home().join(".kube/config")),
            ids,
            made_directory: false,
            previous_context: None,
        }
    }
}

/// Reads `/etc/passwd` for a user's home.
pub fn home_of(uid: u32) -> Option<PathBuf> {
    let table = std::fs::read_to_string("/etc/passwd").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| PathBuf::from(fields.get(5).copied().unwrap_or("/")))
    })
}

/// Does an edit as the file's owner. Answers what is to be kept in mind for the next one.
///
/// # Errors
/// The file cannot be read or written, is no kubeconfig, or has an entry of our name that is another machine's.
pub fn edit(job: &Job) -> Result<Owner> {
    match job.owner.ids {
        Some((uid, gid)) if uid != rustix::process::geteuid().as_raw() => edit_as(job, uid, gid),
        _ => edit_here(job),
    }
}

fn edit_as(job: &Job, uid: u32, gid: u32) -> Result<Owner> {
    // By its own path our program may lie where that user cannot go.
    let mut child = Command::new(OWN_PROGRAM)
        .args(["kubeconfig", "--edit"])
        .uid(uid)
        .gid(gid)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing("starting the writer of the user's kubeconfig")?;
    let text = serde_json::to_vec(job).map_err(CliError::internal)?;
    if let Some(mut input) = child.stdin.take() {
        // One that ended early says why.
        let _ = input.write_all(&text);
    }
    let output = child.wait_with_output().doing("writing the user's kubeconfig")?;
    if output.status.success() {
        return serde_json::from_slice(&output.stdout).map_err(CliError::internal);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(match last_in(&said) {
        Some(("NO_PERMISSION", what, _)) => CliError::new(
            Kind::Machine,
            "NO_PERMISSION",
            format!("{what} (as user {uid}, who is behind sudo)"),
        )
        .hint("name a file of that user's: sudo KUBECONFIG=FILE trireme up; or none: --no-kubeconfig"),
        Some((id, what, hint)) => CliError::new(Kind::Machine, id.to_owned(), what).hint(hint),
        None => CliError::internal(format!("writing {}: {said}", job.owner.path.display())),
    })
}

/// Does an edit as whoever we are.
pub fn edit_here(job: &Job) -> Result<Owner> {
    let mut owner = job.owner.clone();
    // A link stays a link, as with kubectl.
    let path = std::fs::canonicalize(&owner.path).unwrap_or_else(|_| owner.path.clone());
    let config = read(&path)?;
    match job.edit {
        Edit::Merge => {
            if let Some(server) = foreign(&config, &job.ours) {
                let what = format!("{} has a cluster {NAME} already, at {server}", path.display());
                return Err(CliError::new(Kind::Usage, "KUBECONFIG_TAKEN", what)
                    .hint("name another file: KUBECONFIG=FILE trireme up; or leave yours alone: --no-kubeconfig"));
            }
            let current = config["current-context"].as_str().unwrap_or_default();
            if current != NAME {
                owner.previous_context = Some(current.to_owned()).filter(|name| !name.is_empty());
            }
            let merged = merge(config.clone(), &job.ours);
            if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
                std::fs::create_dir_all(dir).map_err(|error| CliError::file(dir, &error))?;
                owner.made_directory = true;
            }
            if merged != config || !is_closed(&path) {
                write(&path, &merged)?;
            }
        }
        Edit::Refresh => {
            if let Some(config) = refresh(config, &job.ours) {
                write(&path, &config)?;
            }
        }
        Edit::Remove => {
            let Some(config) = remove(config, &job.ours, owner.previous_context.as_deref()) else {
                return Ok(owner);
            };
            let is_empty = |list: &&str| config[*list].as_array().is_none_or(Vec::is_empty);
            if !LISTS.iter().all(is_empty) {
                write(&path, &config)?;
                return Ok(owner);
            }
            std::fs::remove_file(&path).map_err(|error| CliError::file(&path, &error))?;
            if let Some(dir) = path.parent().filter(|_| owner.made_directory) {
                // Not while somebody else keeps a file there, such as kubectl its cache.
                let _ = std::fs::remove_dir(dir);
            }
        }
    }
    Ok(owner)
}

/// Puts our entries into a kubeconfig and makes our context the current one.
fn merge(mut config: Value, ours: &Value) -> Value {
    if config.is_null() {
        config = json!({"apiVersion": "v1", "kind": "Config", "preferences": {}});
    }
    for list in LISTS {
        let mut entries = config[list].as_array().cloned().unwrap_or_default();
        let new = &ours[list][0];
        match entries.iter_mut().find(|entry| entry["name"] == NAME) {
            // The namespace that was chosen for our context stays.
            Some(entry) if list == "contexts" => {
                entry["context"]["cluster"] = json!(NAME);
                entry["context"]["user"] = json!(NAME);
            }
            Some(entry) => *entry = new.clone(),
            None => entries.push(new.clone()),
        }
        config[list] = Value::Array(entries);
    }
    config["current-context"] = json!(NAME);
    config
}

/// Puts our access in the place of the one that is there, and changes nothing else. `None`: there is none of ours.
fn refresh(mut config: Value, ours: &Value) -> Option<Value> {
    if !is_ours(&config, ours) {
        return None;
    }
    for list in ["clusters", "users"] {
        for entry in config.get_mut(list)?.as_array_mut()? {
            if entry["name"] == NAME {
                *entry = ours[list][0].clone();
            }
        }
    }
    Some(config)
}

/// Takes our entries out; the context of before is the current one again. `None`: there were none of ours.
fn remove(mut config: Value, ours: &Value, previous: Option<&str>) -> Option<Value> {
    if entry(&config, "clusters").is_some() && !is_ours(&config, ours) {
        return None;
    }
    let mut found = false;
    for list in LISTS {
        if let Some(entries) = config.get_mut(list).and_then(Value::as_array_mut) {
            let before = entries.len();
            entries.retain(|entry| entry["name"] != NAME);
            found |= entries.len() != before;
        }
    }
    if config["current-context"] == NAME {
        let contexts = config["contexts"].as_array().into_iter().flatten();
        let mut names = contexts.filter_map(|context| context["name"].as_str());
        let still_there = previous.filter(|previous| names.any(|name| name == *previous));
        config["current-context"] = json!(still_there.unwrap_or_default());
        found = true;
    }
    found.then_some(config)
}

/// The entry of our name.
fn entry<'a>(config: &'a Value, list: &str) -> Option<&'a Value> {
    let mut entries = config[list].as_array()?.iter();
    entries.find(|entry| entry["name"] == NAME)
}

/// Whether the entries of our name are this cluster's: another one of this machine may have taken the name since.
pub fn is_ours(config: &Value, ours: &Value) -> bool {
    let field = |of: &Value, name: &str| Some(entry(of, "clusters")?["cluster"][name].clone()).filter(Value::is_string);
    let same = |name: &str| field(config, name).is_some_and(|value| Some(value) == field(ours, name));
    // Without its kubeconfig nobody knows: what leads to this machine can only be one that was here.
    let lost = entry(ours, "clusters").is_none();
    same("certificate-authority-data") || same("server") || (lost && foreign(config, ours).is_none())
}

/// The server of a cluster of our name that is not on this machine.
fn foreign(config: &Value, ours: &Value) -> Option<String> {
    let server = entry(config, "clusters")?["cluster"]["server"].as_str()?;
    let here = ["https://127.0.0.1:", "https://localhost:", "https://[::1]:"];
    let is_here = here.iter().any(|prefix| server.starts_with(prefix));
    let same = entry(ours, "clusters").is_some_and(|ours| ours["cluster"]["server"] == server);
    (!is_here && !same).then(|| server.to_owned())
}

/// Reads a kubeconfig; null when there is none.
pub fn read(path: &Path) -> Result<Value> {
    let broken = |why: &dyn std::fmt::Display| {
        CliError::new(Kind::Usage, "KUBECONFIG_BROKEN", format!("{}: {why}", path.display()))
            .hint("mend or move that file, or name another one: KUBECONFIG=FILE trireme up")
    };
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Err(broken(&error)),
        Err(error) => return Err(CliError::file(path, &error)),
        Ok(text) if text.trim().is_empty() => return Ok(Value::Null),
        Ok(text) => text,
    };
    // Of the reader's words only the first line: the others show what is in the file, which has secrets.
    let config: Value = serde_saphyr::from_str(&text)
        .map_err(|error| broken(&error.to_string().lines().next().unwrap_or("it is not YAML").to_owned()))?;
    let kind_fits = config["kind"].is_null() || config["kind"] == "Config";
    let lists_fit = LISTS
        .iter()
        .all(|list| config[*list].is_null() || config[*list].is_array());
    match config {
        Value::Null => Ok(config),
        Value::Object(_) if kind_fits && lists_fit => Ok(config),
        _ => Err(broken(&"it is YAML, but no kubeconfig")),
    }
}

fn is_closed(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o777 == 0o600)
}

fn write(path: &Path, config: &Value) -> Result {
    write_private(path, to_text(config)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Value {
        make(&Access {
            server: "https://127.0.0.1:6443",
            server_name: None,
            ca_pem: "ca",
            certificate_pem: "crt",
            key_pem: "key",
        })
    }

    fn job(edit: Edit, path: &Path) -> Job {
        let owner = Owner {
            path: path.to_owned(),
            ids: None,
            made_directory: false,
            previous_context: None,
        };
        Job {
            edit,
            owner,
            ours: ours(),
        }
    }

    fn theirs() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "prod", "preferences": {"colors": true},
            "clusters": [{"name": "prod", "cluster": {"server": "https://p"}}],
            "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me"}}],
            "users": [{"name": "me", "user": {"token": "t"}}],
        })
    }

    #[test]
    fn others_entries_stay_as_they_are() {
        let merged = merge(theirs(), &ours());
        assert_eq!(merged["current-context"], NAME);
        assert_eq!(merged["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(merge(merged.clone(), &ours()), merged, "merging twice changes nothing");
        for (previous, current) in [(None, ""), (Some("prod"), "prod"), (Some("gone since"), "")] {
            let mut back = theirs();
            back["current-context"] = json!(current);
            assert_eq!(remove(merged.clone(), &ours(), previous), Some(back.clone()));
            assert_eq!(remove(back, &ours(), previous), None);
        }
        let mut elsewhere = merged.clone();
        elsewhere["current-context"] = json!("prod");
        assert_eq!(
            remove(elsewhere, &ours(), None),
            Some(theirs()),
            "what the user chose since stays"
        );
        let mut namespaced = merged;
        namespaced["contexts"][1]["context"]["namespace"] = json!("mine");
        assert_eq!(merge(namespaced.clone(), &ours()), namespaced);
    }

    #[test]
    fn renewing_changes_our_access_alone() {
        let mut merged = merge(theirs(), &ours());
        merged["current-context"] = json!("prod");
        merged["contexts"][1]["context"]["namespace"] = json!("mine");
        let mut new = ours();
        new["users"][0]["user"]["client-key-data"] = json!("another");
        let refreshed = refresh(merged.clone(), &new).unwrap();
        merged["users"][1]["user"]["client-key-data"] = json!("another");
        assert_eq!(refreshed, merged);
        assert_eq!(
            refresh(theirs(), &new),
            None,
            "whoever took it out does not get it back"
        );
    }

    #[test]
    fn an_entry_of_our_name_may_be_another_clusters() {
        let cluster = |server: &str, ca: &str| {
            let mut config = merge(theirs(), &ours());
            config["clusters"][1]["cluster"] = json!({"server": server, "certificate-authority-data": ca});
            config
        };
        let (same_ca, port) = (BASE64.encode("ca"), "https://127.0.0.1:6443");
        for (config, is_mine, is_foreign) in [
            (cluster(port, "other"), true, false),
            (cluster("https://127.0.0.1:7000", &same_ca), true, false),
            (cluster("https://127.0.0.1:7000", "other"), false, false),
            (cluster("https://10.0.0.1:6443", "other"), false, true),
            (theirs(), false, false),
        ] {
            assert_eq!(is_ours(&config, &ours()), is_mine, "{config}");
            assert_eq!(foreign(&config, &ours()).is_some(), is_foreign, "{config}");
            assert_eq!(refresh(config.clone(), &ours()).is_some(), is_mine, "{config}");
            assert_eq!(remove(config.clone(), &ours(), None).is_some(), is_mine, "{config}");
        }
    }

    #[test]
    fn the_user_behind_sudo_owns_the_file() {
        let home = |uid| (uid == 1000).then(|| PathBuf::from("/home/jane"));
        let with = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Owner::find(
                move |name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()),
                home,
                |path| path == Path::new("/there") || path == Path::new("/there too"),
            )
        };
        for (variables, path, ids) in [
            (&[("HOME", "/root")][..], "/root/.kube/config", None),
            (
                &[("HOME", "/root"), ("SUDO_UID", "1000"), ("SUDO_GID", "1001")],
                "/home/jane/.kube/config",
                Some((1000, 1001)),
            ),
            (
                &[("HOME", "/root"), ("SUDO_UID", "0"), ("SUDO_GID", "0")],
                "/root/.kube/config",
                None,
            ),
            (&[("HOME", "/root"), ("KUBECONFIG", ":/a")], "/a", None),
            (&[("KUBECONFIG", "/a:/there:/there too")], "/there", None),
            (&[("KUBECONFIG", "/a:/b:")], "/b", None),
        ] {
            let found = with(variables);
            assert_eq!((found.path, found.ids), (path.into(), ids), "{variables:?}");
        }
    }

    #[test]
    fn installing_and_removing_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".kube/config");
        let owner = edit(&job(Edit::Merge, &path)).unwrap();
        assert!(owner.made_directory);
        assert!(is_closed(&path));
        assert_eq!(read(&path).unwrap()["users"][0]["name"], NAME);
        edit(&Job {
            owner,
            ..job(Edit::Remove, &path)
        })
        .unwrap();
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn the_context_of_before_comes_back_and_links_stay_links() {
        let dir = tempfile::tempdir().unwrap();
        let (path, real) = (dir.path().join("config"), dir.path().join("in my dotfiles"));
        std::fs::write(&real, theirs().to_string()).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        let owner = edit(&job(Edit::Merge, &path)).unwrap();
        assert_eq!(owner.previous_context.as_deref(), Some("prod"));
        let again = edit(&Job {
            owner: owner.clone(),
            ..job(Edit::Merge, &path)
        });
        assert_eq!(
            again.unwrap(),
            owner,
            "a second time our own context is not the one of before"
        );
        assert_eq!(read(&path).unwrap()["current-context"], NAME);
        edit(&Job {
            owner,
            ..job(Edit::Remove, &path)
        })
        .unwrap();
        assert_eq!(read(&real).unwrap(), theirs());
        assert!(path.is_symlink());
    }

    #[test]
    fn what_cannot_be_understood_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let mut elsewhere = merge(theirs(), &ours());
        elsewhere["clusters"][1]["cluster"]["server"] = json!("https://10.0.0.1:6443");
        for (text, id) in [
            ("{broken: [", "KUBECONFIG_BROKEN"),
            ("just words", "KUBECONFIG_BROKEN"),
            ("- a\n- list", "KUBECONFIG_BROKEN"),
            ("{kind: Pod}", "KUBECONFIG_BROKEN"),
            ("{clusters: {a: b}}", "KUBECONFIG_BROKEN"),
            (&elsewhere.to_string(), "KUBECONFIG_TAKEN"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(edit(&job(Edit::Merge, &path)).unwrap_err().id, id, "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert_eq!(edit(&job(Edit::Merge, &path)).unwrap_err().id, "KUBECONFIG_BROKEN");
        assert_eq!(edit(&job(Edit::Merge, dir.path())).unwrap_err().id, "FILE");
    }
}
