//! What stands in the files of a volume: plain functions from objects and definitions.
//!
//! Source: `pkg/volume/{configmap,secret,downwardapi}` (`MakePayload`, `collectData`).

use std::collections::BTreeMap;

use client::k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use crate::env::{NodeFacts, pod_field, resource_field};

/// The longest path of a file in a volume. Source: `pkg/volume/util/atomic_writer.go`.
const PATH_BYTES_MAX: usize = 4096;
/// The longest name in such a path.
const NAME_BYTES_MAX: usize = 255;
/// The mode of files whose definition names none.
pub const MODE_DEFAULT: u32 = 0o644;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What stands in it.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Its owner; absent: root.
    pub owner: Option<u32>,
}

/// The files of a volume by their paths in it.
pub type Payload = BTreeMap<String, File>;

/// The mode of a definition. Only permissions count.
pub fn mode(wanted: Option<i32>, default: u32) -> u32 {
    wanted
        .and_then(|mode| u32::try_from(mode).ok())
        .map_or(default, |mode| mode & 0o7777)
}

/// The files of a ConfigMap; no object is an empty one.
///
/// # Errors
/// Upstream's text for a key that is not there.
pub fn of_config_map(
    items: &[KeyToPath],
    object: Option<&ConfigMap>,
    default_mode: u32,
    optional: bool,
) -> Result<Payload, String> {
    let data = object.and_then(|object| object.data.as_ref());
    let binary = object.and_then(|object| object.binary_data.as_ref());
    let texts = data
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_bytes()));
    let bytes = binary
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.0.as_slice()));
    select(
        items,
        texts.chain(bytes).collect(),
        default_mode,
        optional,
        "configmap references non-existent config key",
    )
}

/// The files of a Secret; no object is an empty one.
///
/// # Errors
/// Upstream's text for a key that is not there.
pub fn of_secret(
    items: &[KeyToPath],
    object: Option<&Secret>,
    default_mode: u32,
    optional: bool,
) -> Result<Payload, String> {
    let data = object.and_then(|object| object.data.as_ref());
    let bytes = data
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.0.as_slice()));
    select(
        items,
        bytes.collect(),
        default_mode,
        optional,
        "references non-existent secret key",
    )
}

fn select(
    items: &[KeyToPath],
    data: BTreeMap<&str, &[u8]>,
    default_mode: u32,
    optional: bool,
    missing: &str,
) -> Result<Payload, String> {
    let file = |data: &[u8], mode| File {
        data: data.to_vec(),
        mode,
        owner: None,
    };
    if items.is_empty() {
        return Ok(data
            .into_iter()
            .map(|(key, value)| (key.to_owned(), file(value, default_mode)))
            .collect());
    }
    let mut payload = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(value) => {
                payload.insert(item.path.clone(), file(value, mode(item.mode, default_mode)));
            }
            None if optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(payload)
}

/// The files of the downward API.
///
/// # Errors
/// Upstream's text for what cannot be shown.
pub fn of_downward_api(
    items: &[DownwardAPIVolumeFile],
    pod: &Pod,
    node: &NodeFacts,
    default_mode: u32,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => pod_field(pod, &field.field_path)?,
            (None, Some(selector)) => resource_field(selector, pod, None, node)?,
            (None, None) => String::new(),
        };
        let file = File {
            data: text.into_bytes(),
            mode: mode(item.mode, default_mode),
            owner: None,
        };
        payload.insert(item.path.clone(), file);
    }
    Ok(payload)
}

/// Whether every path stays in its volume and away from the writer's own names.
///
/// # Errors
/// In upstream's words.
pub fn validate(payload: &Payload) -> Result<(), String> {
    payload.keys().try_for_each(|path| validate_path(path))
}

fn validate_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("invalid path: must not be empty: \"\"".into());
    }
    if path.starts_with('/') {
        return Err(format!("invalid path: must be relative path: {path}"));
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(format!(
            "invalid path: must be less than or equal to {PATH_BYTES_MAX} characters"
        ));
    }
    for name in path.split('/') {
        if name == ".." {
            return Err(format!("invalid path: must not contain dot dot: {path}"));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(format!(
                "invalid path: filenames must be less than or equal to {NAME_BYTES_MAX} characters"
            ));
        }
        if matches!(name, "" | ".") || name.contains('\0') {
            return Err(format!("invalid path: {}", api::field::quote(path)));
        }
    }
    if path.starts_with("..") {
        return Err(format!("invalid path: must not start with dot dot: {path}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn words(payload: Result<Payload, String>) -> String {
        match payload {
            Err(why) => why,
            Ok(payload) => {
                let word = |(path, file): (String, File)| {
                    format!("{path}={}:{:o}", String::from_utf8_lossy(&file.data), file.mode)
                };
                payload.into_iter().map(word).collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn keys_become_files() {
        let config_map: ConfigMap =
            serde_json::from_value(json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "Mw=="}})).unwrap();
        let secret: Secret = serde_json::from_value(json!({"data": {"a": "MQ=="}})).unwrap();
        for (items, optional, expect_map, expect_secret) in [
            (json!([]), false, "a=1:644 b=2:644 c=3:644", "a=1:644"),
            (
                json!([{"key": "a", "path": "x/y", "mode": 256}]),
                false,
                "x/y=1:400",
                "x/y=1:400",
            ),
            (json!([{"key": "c", "path": "c"}]), true, "c=3:644", ""),
            (
                json!([{"key": "n", "path": "c"}]),
                false,
                "configmap references non-existent config key: n",
                "references non-existent secret key: n",
            ),
        ] {
            let items: Vec<KeyToPath> = serde_json::from_value::<Vec<Value>>(items)
                .unwrap()
                .into_iter()
                .map(|item| serde_json::from_value(item).unwrap())
                .collect();
            assert_eq!(
                words(of_config_map(&items, Some(&config_map), 0o644, optional)),
                expect_map
            );
            assert_eq!(words(of_secret(&items, Some(&secret), 0o644, optional)), expect_secret);
        }
        assert_eq!(words(of_config_map(&[], None, 0o644, true)), "");
    }

    #[test]
    fn paths_stay_inside() {
        for (path, fine) in [
            ("a", true),
            ("a/b.c", true),
            ("..a/b", false),
            ("a/..b", true),
            ("", false),
            ("/a", false),
            ("../a", false),
            ("a/../b", false),
            ("a//b", false),
            ("a/./b", false),
            ("..data", false),
        ] {
            assert_eq!(validate_path(path).is_ok(), fine, "{path}");
        }
        assert!(validate_path(&"x".repeat(256)).is_err());
        assert!(validate_path(&"x/".repeat(2100)).is_err());
    }
}
