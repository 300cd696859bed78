//! Encryption at rest: values of chosen resources are sealed before they reach the store, and opened when they are read
//! (D5). The store, its snapshots, backups and the etcd front see sealed values only.
//!
//! Two things seal. An [`Encryption`] is what an `EncryptionConfiguration` says, in upstream's storage format; it decides for
//! every resource that it names. What it does not name is sealed with the keys of a local file if its [`Sealer`] says so.
//! Both always open what they sealed (`docs/decisions/0005-the-configuration-decides-over-the-local-keys.md`).
//!
//! Invariant: an object remembers what sealed it as a [`Mark`]; it is stale when a write would now leave another one. The
//! configuration may be replaced at any time: marks keep their meaning.

mod ciphers;
mod config;
mod keys;
mod kms;
mod providers;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::GroupResource;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::{SealingMetrics, Transformation};

pub use config::{ConfigError, EncryptionConfig};
pub use keys::{KEY_BYTES, KeysError, OpenError, Sealer};
pub use providers::Encryption;

/// What sealed a value: a key of a provider, or nothing. Comparable only within one [`Sealing`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(u32);

/// Everything that seals and opens.
#[derive(Default)]
pub struct Sealing {
    local: Option<Sealer>,
    configured: ArcSwapOption<Encryption>,
    /// Marks by what they stand for. There is one for each key that was ever seen: few.
    marks: Mutex<HashMap<Box<str>, u32>>,
    /// Resources of which something did not open.
    unopened: Mutex<BTreeSet<GroupResource>>,
    /// Told when what did not open may do so now.
    again: Notify,
    metrics: SealingMetrics,
}

/// A value as it is to be stored.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The bytes.
    pub value: Bytes,
    /// The number of the local key that sealed them; 0: none did.
    pub local_key: u32,
}

impl Sealing {
    /// What is sealed without a configuration, and the configuration if there is one.
    pub fn new(local: Option<Sealer>, configured: Option<Encryption>) -> Sealing {
        Sealing {
            local,
            configured: ArcSwapOption::from_pointee(configured),
            ..Sealing::default()
        }
    }

    /// Another configuration from now on. What did not open under the old one is tried again.
    pub fn replace(&self, configured: Encryption) {
        self.configured.store(Some(Arc::new(configured)));
        self.again.notify_one();
    }

    /// What is sealed and opened is counted here.
    pub fn metrics(&self) -> &SealingMetrics {
        &self.metrics
    }

    /// The configuration.
    pub fn configured(&self) -> Option<Arc<Encryption>> {
        self.configured.load_full()
    }

    /// What is wrong with the key services of the configuration.
    ///
    /// # Errors
    /// All that is.
    pub fn health(&self) -> Result<(), String> {
        self.configured
            .load()
            .as_ref()
            .map_or(Ok(()), |configured| configured.health())
    }

    /// Seals a value of a resource that is stored under this key.
    ///
    /// # Errors
    /// The key service has not answered for too long.
    pub fn seal(&self, resource: &GroupResource, store_key: &[u8], value: Bytes) -> Result<Sealed, String> {
        let began = Instant::now();
        let sealed = self.try_seal(resource, store_key, value);
        let by = match &sealed {
            Ok(sealed) => prefix_of(&sealed.value, sealed.local_key),
            // The provider did not get so far as to say.
            Err(_) => Some("unknown".to_owned()),
        };
        if let Some(by) = by {
            let way = Transformation::ToStorage;
            self.metrics
                .transformed(resource, way, by, sealed.is_ok(), began.elapsed());
        }
        sealed
    }

    fn try_seal(&self, resource: &GroupResource, store_key: &[u8], value: Bytes) -> Result<Sealed, String> {
        if let Some(configured) = &*self.configured.load()
            && let Some(rule) = configured.rule(resource)
        {
            let value = rule.seal(store_key, value)?;
            return Ok(Sealed { value, local_key: 0 });
        }
        let local = self.local.as_ref().map(|local| (local, local.key_of(resource)));
        Ok(match local.filter(|(_, key)| *key > 0) {
            Some((local, local_key)) => Sealed {
                value: local.seal(store_key, &value),
                local_key,
            },
            None => Sealed { value, local_key: 0 },
        })
    }

    /// Opens a stored value; says also what had sealed it.
    ///
    /// # Errors
    /// Why it does not open; it is tried again when that may have changed.
    pub fn open(
        &self,
        resource: &GroupResource,
        store_key: &[u8],
        value: &Bytes,
        local_key: u32,
    ) -> Result<(Bytes, Mark), String> {
        let began = Instant::now();
        let opened = self.try_open(resource, store_key, value, local_key);
        if let Some(by) = prefix_of(value, local_key) {
            let way = Transformation::FromStorage;
            self.metrics
                .transformed(resource, way, by, opened.is_ok(), began.elapsed());
        }
        if opened.is_err() {
            self.unopened.lock().insert(resource.clone());
        }
        opened
    }

    fn try_open(
        &self,
        resource: &GroupResource,
        store_key: &[u8],
        value: &Bytes,
        local_key: u32,
    ) -> Result<(Bytes, Mark), String> {
        if local_key > 0 {
            let local = self.local.as_ref().ok_or(OpenError::NoKey(local_key));
            let opened = local.and_then(|local| local.open(local_key, store_key, value));
            return Ok((opened.map_err(|error| error.to_string())?, self.local_mark(local_key)));
        }
        let configured = self.configured.load();
        match configured.as_ref().and_then(|configured| configured.rule(resource)) {
            Some(rule) => {
                let (opened, by) = rule.open(store_key, value)?;
                Ok((opened, self.mark(&by)))
            }
            None if value.starts_with(providers::PREFIX) => Err(providers::IDENTITY_OF_SEALED.into()),
            None => Ok((value.clone(), Mark::default())),
        }
    }

    /// The mark of what is written of a resource now.
    pub fn mark_of(&self, resource: &GroupResource) -> Mark {
        if let Some(configured) = &*self.configured.load()
            && let Some(rule) = configured.rule(resource)
        {
            return self.mark(&rule.writer());
        }
        self.local_mark(self.local.as_ref().map_or(0, |local| local.key_of(resource)))
    }

    fn local_mark(&self, key: u32) -> Mark {
        match key {
            0 => Mark::default(),
            key => self.mark(&format!("local:{key}")),
        }
    }

    /// The mark of a text; the empty one stands for what is not sealed.
    fn mark(&self, by: &str) -> Mark {
        if by.is_empty() {
            return Mark::default();
        }
        let mut marks = self.marks.lock();
        if let Some(mark) = marks.get(by) {
            return Mark(*mark);
        }
        let mark = u32::try_from(marks.len() + 1).expect("invariant: there are few keys");
        marks.insert(by.into(), mark);
        Mark(mark)
    }

    /// Returns when something that did not open may do so now; the resources it is of are handed out once.
    pub(crate) async fn reopened(&self) -> BTreeSet<GroupResource> {
        loop {
            let configured = self.configured.load_full();
            let recovered = async {
                match &configured {
                    Some(configured) => configured.recovered().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.again.notified() => {}
                () = recovered => {}
            }
            let unopened = std::mem::take(&mut *self.unopened.lock());
            if !unopened.is_empty() {
                return unopened;
            }
        }
    }
}

/// What a sealed value begins with, up to the name of a key; `None`: nothing sealed it.
fn prefix_of(value: &[u8], local_key: u32) -> Option<String> {
    if local_key > 0 {
        return Some("trireme:local:".into());
    }
    value.starts_with(providers::PREFIX).then_some(())?;
    // `k8s:enc:aescbc:v1:`; a key service has a name, too: `k8s:enc:kms:v2:NAME:`.
    let parts = if value.starts_with(b"k8s:enc:kms:") { 5 } else { 4 };
    let colons = value.iter().enumerate().filter(|(_, byte)| **byte == b':');
    let end = colons.map(|(at, _)| at + 1).nth(parts - 1)?;
    Some(String::from_utf8_lossy(&value[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_no_key_in_them() {
        for (value, local_key, expect) in [
            (&b"k8s:enc:aescbc:v1:key1:abc"[..], 0, Some("k8s:enc:aescbc:v1:")),
            (b"k8s:enc:kms:v2:mine:abc", 0, Some("k8s:enc:kms:v2:mine:")),
            (b"k8s:enc:x", 0, None),
            (b"{}", 0, None),
            (b"abc", 3, Some("trireme:local:")),
        ] {
            assert_eq!(prefix_of(value, local_key).as_deref(), expect);
        }
    }
}
