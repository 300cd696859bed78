//! The kubeconfig: made for the administrator, merged into the user's own, and taken out again.
//!
//! Nothing of the user's is lost: entries of other names stay as they are, and a file that cannot be read is not touched.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::errors::{CliError, Kind, Result};
use crate::layout::write_private;

/// Our name for cluster, user and context.
pub const NAME: &str = "trireme";
const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// What a client needs.
pub struct Access<'a> {
    /// `https://127.0.0.1:6443`.
    pub server: &'a str,
    /// The authority's certificate.
    pub ca_pem: &'a str,
    /// The client certificate.
    pub certificate_pem: &'a str,
    /// Its key: a secret.
    pub key_pem: &'a str,
}

/// A kubeconfig with this access alone.
pub fn make(access: &Access) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": NAME, "preferences": {},
        "clusters": [{"name": NAME, "cluster": {
            "server": access.server, "certificate-authority-data": BASE64.encode(access.ca_pem),
        }}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
        "users": [{"name": NAME, "user": {
            "client-certificate-data": BASE64.encode(access.certificate_pem),
            "client-key-data": BASE64.encode(access.key_pem),
        }}],
    })
}

/// The text of a kubeconfig: JSON is YAML, and nothing in it depends on how a YAML writer quotes.
pub fn to_text(config: &Value) -> Result<String> {
    serde_saphyr::to_string(config).map_err(CliError::internal)
}

/// Puts our entries into a kubeconfig and makes our context the current one.
pub fn merge(mut config: Value, ours: &Value) -> Value {
    if !config.is_object() {
        config = json!({"apiVersion": "v1", "kind": "Config", "preferences": {}});
    }
    for list in LISTS {
        let mut entries = config[list].as_array().cloned().unwrap_or_default();
        entries.retain(|entry| entry["name"] != NAME);
        entries.extend(ours[list].as_array().into_iter().flatten().cloned());
        config[list] = Value::Array(entries);
    }
    config["current-context"] = json!(NAME);
    config
}

/// Puts our access in the place of the one that is there, and changes nothing else. `None`: there is none any more.
pub fn refresh(mut config: Value, ours: &Value) -> Option<Value> {
    let mut found = false;
    for list in LISTS {
        for entry in config.get_mut(list)?.as_array_mut()? {
            if entry["name"] == NAME && list != "contexts" {
                *entry = ours[list][0].clone();
                found = true;
            }
        }
    }
    found.then_some(config)
}

/// Takes our entries out. `None`: there were none.
pub fn remove(mut config: Value) -> Option<Value> {
    let mut found = false;
    for list in LISTS {
        if let Some(entries) = config.get_mut(list).and_then(Value::as_array_mut) {
            let before = entries.len();
            entries.retain(|entry| entry["name"] != NAME);
            found |= entries.len() != before;
        }
    }
    if config["current-context"] == NAME {
        config["current-context"] = json!("");
        found = true;
    }
    found.then_some(config)
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
}

impl Owner {
    /// Finds the file as kubectl does: the first entry of `KUBECONFIG`, else `~/.kube/config`.
    pub fn find(variable: impl Fn(&str) -> Option<String>, home_of: impl Fn(u32) -> Option<PathBuf>) -> Owner {
        let number = |name: &str| variable(name).and_then(|text| text.parse().ok());
        let ids = number("SUDO_UID").zip(number("SUDO_GID")).filter(|(uid, _)| *uid != 0);
        let listed =
            variable("KUBECONFIG").and_then(|list| list.split(':').find(|entry| !entry.is_empty()).map(PathBuf::from));
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

/// Merges our access into the user's kubeconfig.
pub fn install(owner: &mut Owner, ours: &Value) -> Result {
    let config = merge(read(&owner.path)?, ours);
    if let Some(dir) = owner.path.parent().filter(|dir| !dir.exists()) {
        std::fs::create_dir_all(dir).map_err(|error| CliError::file(dir, &error))?;
        chown(dir, owner.ids)?;
        owner.made_directory = true;
    }
    write(owner, &config)
}

/// Renews our access in a kubeconfig that is our own to write.
pub fn refresh_file(path: &Path, ours: &Value) -> Result {
    let owner = Owner {
        path: path.to_owned(),
        ids: None,
        made_directory: false,
    };
    match refresh(read(path)?, ours) {
        Some(config) => write(&owner, &config),
        None => Ok(()),
    }
}

/// Takes our access out of the user's kubeconfig. A file that is empty afterwards, and that we made, is removed.
pub fn uninstall(owner: &Owner) -> Result {
    if !owner.path.exists() {
        return Ok(());
    }
    let Some(config) = remove(read(&owner.path)?) else {
        return Ok(());
    };
    let empty = LISTS
        .iter()
        .all(|list| config[*list].as_array().is_none_or(Vec::is_empty));
    if empty {
        std::fs::remove_file(&owner.path).map_err(|error| CliError::file(&owner.path, &error))?;
        if let Some(dir) = owner.path.parent().filter(|_| owner.made_directory) {
            // Not while somebody else keeps a file there, such as kubectl its cache.
            let _ = std::fs::remove_dir(dir);
        }
        return Ok(());
    }
    write(owner, &config)
}

fn read(path: &Path) -> Result<Value> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(CliError::file(path, &error)),
        Ok(text) if text.trim().is_empty() => Ok(Value::Null),
        Ok(text) => serde_saphyr::from_str(&text).map_err(|error| {
            CliError::new(Kind::Usage, "KUBECONFIG_BROKEN", format!("{}: {error}", path.display()))
                .hint("mend or move that file, or name another one: KUBECONFIG=FILE trireme up")
        }),
    }
}

fn write(owner: &Owner, config: &Value) -> Result {
    let kept = std::fs::metadata(&owner.path).ok();
    write_private(&owner.path, to_text(config)?.as_bytes())?;
    // A file that was there keeps its owner.
    chown(&owner.path, kept.map(|kept| (kept.uid(), kept.gid())).or(owner.ids))?;
    let closed = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&owner.path, closed).map_err(|error| CliError::file(&owner.path, &error))
}

fn chown(path: &Path, ids: Option<(u32, u32)>) -> Result {
    let Some((uid, gid)) = ids else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(|error| CliError::file(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Value {
        make(&Access {
            server: "https://127.0.0.1:6443",
            ca_pem: "ca",
            certificate_pem: "crt",
            key_pem: "key",
        })
    }

    #[test]
    fn others_entries_stay_as_they_are() {
        let theirs = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "prod", "preferences": {"colors": true},
            "clusters": [{"name": "prod", "cluster": {"server": "https://p"}}],
            "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me"}}],
            "users": [{"name": "me", "user": {"token": "t"}}],
        });
        let merged = merge(theirs.clone(), &ours());
        assert_eq!(merged["current-context"], NAME);
        assert_eq!(merged["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(merge(merged.clone(), &ours()), merged, "merging twice changes nothing");
        let mut back = theirs;
        back["current-context"] = json!("");
        assert_eq!(remove(merged), Some(back.clone()));
        assert_eq!(remove(back), None);
    }

    #[test]
    fn renewing_changes_our_access_alone() {
        let theirs = json!({"apiVersion": "v1", "kind": "Config", "current-context": "prod", "preferences": {},
            "clusters": [{"name": "prod", "cluster": {}}], "contexts": [{"name": "prod", "context": {"namespace": "x"}}],
            "users": [{"name": "me", "user": {}}]});
        let mut merged = merge(theirs.clone(), &ours());
        merged["current-context"] = json!("prod");
        merged["contexts"][1]["context"]["namespace"] = json!("mine");
        let mut new = ours();
        new["users"][0]["user"]["client-key-data"] = json!("another");
        let refreshed = refresh(merged.clone(), &new).unwrap();
        merged["users"][1]["user"]["client-key-data"] = json!("another");
        assert_eq!(refreshed, merged);
        assert_eq!(refresh(theirs, &new), None, "whoever took it out does not get it back");
    }

    #[test]
    fn the_user_behind_sudo_owns_the_file() {
        let home = |uid| (uid == 1000).then(|| PathBuf::from("/home/jane"));
        let with = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Owner::find(
                move |name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()),
                home,
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
            (&[("HOME", "/root"), ("KUBECONFIG", ":/a:/b")], "/a", None),
        ] {
            let found = with(variables);
            assert_eq!((found.path, found.ids), (path.into(), ids), "{variables:?}");
        }
    }

    #[test]
    fn installing_and_removing_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut owner = Owner {
            path: dir.path().join(".kube/config"),
            ids: None,
            made_directory: false,
        };
        install(&mut owner, &ours()).unwrap();
        assert!(owner.made_directory);
        assert_eq!(
            std::fs::metadata(&owner.path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(read(&owner.path).unwrap()["users"][0]["name"], NAME);
        uninstall(&owner).unwrap();
        assert!(!owner.path.parent().unwrap().exists());
        std::fs::create_dir(owner.path.parent().unwrap()).unwrap();
        std::fs::write(&owner.path, "{broken: [").unwrap();
        assert_eq!(install(&mut owner, &ours()).unwrap_err().id, "KUBECONFIG_BROKEN");
        assert_eq!(std::fs::read_to_string(&owner.path).unwrap(), "{broken: [");
    }
}
