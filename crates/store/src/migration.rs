//! Moving a cluster's state from one engine to another: `trireme migrate`.
//!
//! The source is read and nothing else; its clients are to be gone. Invariants:
//! - a target is opened by nobody before everything is in it and was compared with the source;
//! - whatever is interrupted can be begun again, and then ends as if it had not been;
//! - the target's revisions are above all that the source ever handed out, so that no client sees time run backwards;
//! - values and their stamps are moved as they are: what is sealed stays sealed.

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::embedded::{Embedded, EmbeddedOptions, ImportError, ImportedState, OpenError, revision_after};
use crate::engine::{Engine, EngineError, Record, Revision};
use crate::etcd::OpenEtcdError;
use crate::front::is_hidden;

/// Bytes read of a source at once.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// The history may be compacted while it is read; so often is begun again.
const READ_ATTEMPTS_MAX: usize = 5;

/// Why a state was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// There are keys already where the state is to go.
    #[error("there are keys in the etcd already, such as {0:?}")]
    NotEmpty(String),
    /// Another store is on its way to the same place.
    #[error("the migration of another store into this etcd was begun and is not finished")]
    AnotherStore,
    /// An earlier attempt is to be finished, and there was none.
    #[error("this etcd is not the one that the state was moved into")]
    NotThere,
    /// Somebody else writes to the target.
    #[error("another migration into this etcd has taken over")]
    TakenOver,
    /// The copy is not what was copied: somebody else writes to one of the two.
    #[error("the copy of {0:?} is not what was copied: something else writes to the etcd")]
    Different(String),
    /// The source changed while it was read.
    #[error("{0:?} was written meanwhile: a server is running on the source")]
    Written(String),
    /// More than the etcd takes at once.
    #[error("{key:?} has {bytes} bytes, more than the etcd takes in one request (--max-request-bytes)")]
    TooLarge {
        /// The largest key of what was refused.
        key: String,
        /// Its bytes.
        bytes: usize,
    },
    /// The target is full.
    #[error("the etcd's quota is used up (--quota-backend-bytes)")]
    Full,
    /// An engine that does not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An etcd that cannot be used.
    #[error(transparent)]
    Etcd(#[from] OpenEtcdError),
    /// An embedded store that cannot be made.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// An embedded store that was made and cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// All records of an engine at one revision.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The revision.
    pub revision: Revision,
    /// In key order, those of the API server.
    records: Arc<[Arc<Record>]>,
    /// The keys that are not.
    outside: Vec<Bytes>,
    /// What the keys begin with.
    root: Box<str>,
}

/// What is in a state, to be compared by people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Keys that stay.
    pub lasting: u64,
    /// Keys that expire by themselves: they are not in the sum.
    pub expiring: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// SHA-256 over the keys that stay, their values and stamps.
    pub sha256: [u8; 32],
}

/// A state that was moved into an embedded store.
#[derive(Clone, Copy, Debug)]
pub struct ToEmbedded {
    /// What was moved.
    pub digest: Digest,
    /// The source's revision.
    pub revision: Revision,
    /// What it is called from now on.
    pub new_revision: Revision,
}

impl Contents {
    /// Reads everything; what does not begin with `root` (as [`EtcdOptions::root`](crate::EtcdOptions)) is told apart.
    ///
    /// # Errors
    /// An engine that does not answer.
    pub async fn read(engine: &dyn Engine, root: &str) -> Result<Self, EngineError> {
        let root: Box<str> = format!("{}/", root.trim_end_matches('/')).into();
        let mut attempt = 0;
        loop {
            attempt += 1;
            match Self::read_once(engine, &root).await {
                Err(EngineError::Compacted { .. }) if attempt < READ_ATTEMPTS_MAX => {}
                result => return result,
            }
        }
    }

    async fn read_once(engine: &dyn Engine, root: &str) -> Result<Self, EngineError> {
        let mut reader = engine.state(None).await?;
        let (mut records, mut outside) = (Vec::new(), Vec::new());
        loop {
            let part = reader.next(PART_BYTES).await?;
            if part.is_empty() {
                break;
            }
            for record in part {
                if record.key.starts_with(root.as_bytes()) {
                    records.push(record);
                } else if !is_hidden(&record.key) {
                    outside.push(record.key.clone());
                }
            }
        }
        Ok(Self {
            revision: reader.revision(),
            records: records.into(),
            outside,
            root: root.into(),
        })
    }

    /// In key order.
    pub fn records(&self) -> &[Arc<Record>] {
        &self.records
    }

    /// Keys that an etcd has no place for below its prefix.
    pub fn outside(&self) -> &[Bytes] {
        &self.outside
    }

    /// Reads the same engine once more.
    ///
    /// # Errors
    /// `Written`, or an engine that does not answer.
    pub async fn check_unchanged(&self, engine: &dyn Engine) -> Result<(), MigrateError> {
        match self.difference(&Contents::read(engine, &self.root).await?) {
            Some(key) => Err(MigrateError::Written(text(&key))),
            None => Ok(()),
        }
    }

    /// What is in it.
    pub fn digest(&self) -> Digest {
        let (mut lasting, mut bytes, mut sum) = (0, 0, Sha256::new());
        let mut part = |part: &[u8]| {
            sum.update((part.len() as u64).to_le_bytes());
            sum.update(part);
        };
        for record in self.records.iter() {
            bytes += (record.key.len() + record.value.len()) as u64;
            if record.expires_at_ms.is_none() {
                lasting += 1;
                part(&record.key);
                part(&record.value);
                part(&record.stamp.sealing_key.to_le_bytes());
                part(&record.stamp.schema_epoch.to_le_bytes());
            }
        }
        Digest {
            lasting,
            expiring: self.records.len() as u64 - lasting,
            bytes,
            sha256: sum.finalize().into(),
        }
    }

    /// The first key that a later look at the same state, or a copy of it, has otherwise. What has expired since may be
    /// missing there.
    fn difference(&self, later: &Contents) -> Option<Bytes> {
        self.difference_of(&later.records)
    }

    /// As [`Contents::difference`].
    pub(crate) fn difference_of(&self, later: &[Arc<Record>]) -> Option<Bytes> {
        let pairs = pairs(&self.records, later);
        pairs
            .into_iter()
            .find_map(|pair| match pair {
                (Some(here), Some(there)) => (!is_same(here, there)).then_some(here),
                (Some(here), None) => here.expires_at_ms.is_none().then_some(here),
                (None, there) => there,
            })
            .map(|record| record.key.clone())
    }
}

/// Whether two records hold the same, whenever they were written.
pub(crate) fn is_same(one: &Record, other: &Record) -> bool {
    one.value == other.value && one.stamp == other.stamp && one.expires_at_ms == other.expires_at_ms
}

type Pair<'a> = (Option<&'a Arc<Record>>, Option<&'a Arc<Record>>);

/// The records of two states side by side, by key.
pub(crate) fn pairs<'a>(one: &'a [Arc<Record>], other: &'a [Arc<Record>]) -> impl Iterator<Item = Pair<'a>> {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (one.peek(), other.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => one.key.cmp(&other.key),
        };
        Some(match order {
            Ordering::Less => (one.next(), None),
            Ordering::Equal => (one.next(), other.next()),
            Ordering::Greater => (None, other.next()),
        })
    })
}

/// Makes an embedded store of a state, compares the two, and leaves the store closed. `known` is the highest revision that
/// was handed out elsewhere: by the store that is replaced. On an error the directory may hold the beginning of a store:
/// remove it. Before the store is used, [`Contents::check_unchanged`] tells whether something was written to the source.
///
/// # Errors
/// See [`MigrateError`].
pub async fn to_embedded(
    contents: &Contents,
    target: EmbeddedOptions,
    known: Revision,
) -> Result<ToEmbedded, MigrateError> {
    let new_revision = revision_after(contents.revision.max(known), target.clock.now_ms());
    let state = ImportedState {
        revision: contents.revision,
        raise_by: new_revision - contents.revision,
    };
    let all = contents.records.clone();
    let records = (0..all.len()).map(move |index| io::Result::Ok(Record::clone(&all[index])));
    let new_revision = Embedded::import(target.clone(), state, records).await?;
    let made = Embedded::open(target).await?;
    let copy = Contents::read(&made, &contents.root).await;
    made.close().await;
    match contents.difference(&copy?) {
        Some(key) => Err(MigrateError::Different(text(&key))),
        None => Ok(ToEmbedded {
            digest: contents.digest(),
            revision: contents.revision,
            new_revision,
        }),
    }
}

/// A key in messages.
pub(crate) fn text(key: &Bytes) -> String {
    String::from_utf8_lossy(key).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::Stamp;

    fn contents(records: &[(&str, &str, u32, Option<i64>)]) -> Contents {
        let record = |(key, value, sealing_key, expires_at_ms): &(&str, &str, u32, Option<i64>)| {
            Arc::new(Record {
                key: Bytes::copy_from_slice(key.as_bytes()),
                value: Bytes::copy_from_slice(value.as_bytes()),
                create_revision: 1,
                mod_revision: 1,
                version: 1,
                stamp: Stamp {
                    sealing_key: *sealing_key,
                    schema_epoch: 1,
                },
                expires_at_ms: *expires_at_ms,
            })
        };
        Contents {
            revision: 1,
            records: records.iter().map(record).collect(),
            outside: Vec::new(),
            root: "".into(),
        }
    }

    #[test]
    fn what_is_different_is_found() {
        let source = [("a", "1", 0, None), ("b", "2", 7, None), ("c", "3", 0, Some(9))];
        let [a, b, c] = source;
        for (copy, different) in [
            (vec![a, b, c], None),
            // It has expired since.
            (vec![a, b], None),
            (vec![a, c], Some("b")),
            (vec![a, ("aa", "1", 0, None), b, c], Some("aa")),
            (vec![a, b, c, ("d", "1", 0, Some(9))], Some("d")),
            (vec![("a", "2", 0, None), b, c], Some("a")),
            // The same bytes under another key of encryption are other bytes.
            (vec![a, ("b", "2", 8, None), c], Some("b")),
            (vec![a, b, ("c", "3", 0, Some(8))], Some("c")),
            (vec![a, b, ("c", "3", 0, None)], Some("c")),
            (vec![], Some("a")),
        ] {
            let found = contents(&source).difference(&contents(&copy));
            assert_eq!(found.as_deref(), different.map(str::as_bytes), "{copy:?}");
        }
    }

    #[test]
    fn a_digest_is_of_what_stays() {
        let of = |records: &[_]| contents(records).digest();
        let whole = of(&[("a", "1", 0, None), ("c", "3", 0, Some(9))]);
        assert_eq!((whole.lasting, whole.expiring, whole.bytes), (1, 1, 4));
        assert_eq!(whole.sha256, of(&[("a", "1", 0, None)]).sha256);
        for other in [("a", "2", 0, None), ("a1", "", 0, None), ("a", "1", 1, None)] {
            assert_ne!(whole.sha256, of(&[other]).sha256, "{other:?}");
        }
    }
}
