//! What a store is asked to change, and how it answers.
//!
//! A transaction is one revision: all of its guards hold at the moment before it, and all of its operations happen, or
//! none of them does.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::{Record, Revision};

/// Bytes of keys and values in one transaction. The API server takes bodies of 3 MiB; sealing and a second object in the
/// same transaction need some more.
pub const TRANSACTION_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Operations in one transaction: etcd's range deletes are one revision however many keys they take; the bytes are bounded
/// above.
pub const OPERATIONS_MAX: usize = 65_536;
/// Guards in one transaction.
pub const GUARDS_MAX: usize = 1024;
/// Bytes of a key. The longest of Kubernetes (group, resource, namespace and name) is under 1 KiB.
pub const KEY_BYTES_MAX: usize = 4096;

/// Guards and operations that become one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold.
    pub guards: Vec<Guard>,
    /// What changes. None: the transaction is a linearizable check of its guards.
    pub operations: Vec<Operation>,
}

/// A condition on one key, on any key of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The key has a value.
    Exists(Bytes),
    /// The key has none.
    Absent(Bytes),
    /// The key has a value and it was written by this revision.
    ModRevision(Bytes, Revision),
}

/// A change of one key. A transaction changes a key at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Creates or replaces.
    Put(Put),
    /// Removes; nothing happens when the key is absent.
    Delete(Bytes),
}

/// A value to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// The value, sealed or not: the store does not look inside.
    pub value: Bytes,
    /// Wall time (milliseconds since the epoch) at which the store deletes the key, as a revision of its own.
    pub expires_at_ms: Option<i64>,
    /// How the value was made.
    pub stamp: Stamp,
}

/// How a value was made; kept with it for whoever reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The key that sealed the value; 0: not sealed.
    pub sealing_key: u32,
    /// The schema epoch under which the value was normal.
    pub schema_epoch: u32,
}

impl Guard {
    /// The key it looks at.
    pub fn key(&self) -> &Bytes {
        match self {
            Guard::Exists(key) | Guard::Absent(key) | Guard::ModRevision(key, _) => key,
        }
    }

    /// Whether it holds when the key has this record.
    pub fn holds(&self, current: Option<&Record>) -> bool {
        match self {
            Guard::Exists(_) => current.is_some(),
            Guard::Absent(_) => current.is_none(),
            Guard::ModRevision(_, revision) => current.is_some_and(|record| record.mod_revision == *revision),
        }
    }
}

impl Operation {
    /// The key it changes.
    pub fn key(&self) -> &Bytes {
        match self {
            Operation::Put(put) => &put.key,
            Operation::Delete(key) => key,
        }
    }
}

impl Transaction {
    /// An empty one, to be built up.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a key that must be absent.
    pub fn create(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let key = key.into();
        Self::new().guard(Guard::Absent(key.clone())).put(key, value)
    }

    /// Replaces the value written by `revision`.
    pub fn update(key: impl Into<Bytes>, revision: Revision, value: impl Into<Bytes>) -> Self {
        let key = key.into();
        Self::new()
            .guard(Guard::ModRevision(key.clone(), revision))
            .put(key, value)
    }

    /// Deletes the value written by `revision`.
    pub fn delete(key: impl Into<Bytes>, revision: Revision) -> Self {
        let key = key.into();
        let guard = Guard::ModRevision(key.clone(), revision);
        Self {
            guards: vec![guard],
            operations: vec![Operation::Delete(key)],
        }
    }

    /// Adds a guard.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Adds a plain put.
    pub fn put(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let put = Put {
            key: key.into(),
            value: value.into(),
            expires_at_ms: None,
            stamp: Stamp::default(),
        };
        self.operation(Operation::Put(put))
    }

    /// Adds an operation.
    pub fn operation(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// Bytes of its keys and values.
    pub fn size(&self) -> usize {
        let guards: usize = self.guards.iter().map(|guard| guard.key().len()).sum();
        let operation = |operation: &Operation| match operation {
            Operation::Put(put) => put.key.len() + put.value.len(),
            Operation::Delete(key) => key.len(),
        };
        guards + self.operations.iter().map(operation).sum::<usize>()
    }

    /// What every engine checks before it looks at a transaction.
    ///
    /// # Errors
    /// `TooLarge` and `Invalid`.
    pub fn check(&self) -> Result<(), CommitError> {
        let size = self.size();
        if size > TRANSACTION_BYTES_MAX {
            return Err(CommitError::TooLarge {
                size,
                limit: TRANSACTION_BYTES_MAX,
            });
        }
        if self.operations.len() > OPERATIONS_MAX || self.guards.len() > GUARDS_MAX {
            return Err(CommitError::Invalid("too many operations or guards in one transaction"));
        }
        let keys = self
            .guards
            .iter()
            .map(Guard::key)
            .chain(self.operations.iter().map(Operation::key));
        for key in keys {
            if key.is_empty() || key.len() > KEY_BYTES_MAX {
                return Err(CommitError::Invalid("a key is empty or too long"));
            }
        }
        let mut keys: Vec<_> = self.operations.iter().map(Operation::key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(CommitError::Invalid("a transaction changes a key twice"));
        }
        Ok(())
    }
}

/// A transaction that happened and is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its revision; when it changed nothing (no operation, or only deletes of absent keys), the store's revision at
    /// which its guards were found to hold.
    pub revision: Revision,
    /// Whether that revision is the transaction's own.
    pub changed: bool,
}

/// Why a transaction was not acknowledged. All but `UnknownOutcome` promise that it did not and will not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// A guard did not hold; what it found is durable.
    #[error("a guard on {:?} did not hold at revision {revision}", String::from_utf8_lossy(key))]
    GuardFailed {
        /// The key of the first guard that did not hold.
        key: Bytes,
        /// What that key had.
        current: Option<Arc<Record>>,
        /// The store's revision at which this was found.
        revision: Revision,
    },
    /// It may have happened, or may not. Read to find out.
    #[error("the outcome of the write is unknown: {0}")]
    UnknownOutcome(Arc<str>),
    /// The store cannot write now.
    #[error("the store is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// The disk is (nearly) full; deletes still work until it is entirely so.
    #[error("the store's disk is full")]
    Full,
    /// More bytes than one transaction may have.
    #[error("the transaction has {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// [`TRANSACTION_BYTES_MAX`].
        limit: usize,
    },
    /// Not a transaction.
    #[error("invalid transaction: {0}")]
    Invalid(&'static str),
    /// Too many transactions wait; try again later.
    #[error("too many writes are waiting for the disk")]
    Overloaded,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(mod_revision: Revision) -> Record {
        Record {
            key: Bytes::from_static(b"k"),
            value: Bytes::new(),
            create_revision: 1,
            mod_revision,
            version: 1,
            stamp: Stamp::default(),
            expires_at_ms: None,
        }
    }

    #[test]
    fn guards_hold_or_not() {
        let key = Bytes::from_static(b"k");
        let found = record(7);
        for (guard, when_present, when_absent) in [
            (Guard::Exists(key.clone()), true, false),
            (Guard::Absent(key.clone()), false, true),
            (Guard::ModRevision(key.clone(), 7), true, false),
            (Guard::ModRevision(key.clone(), 6), false, false),
        ] {
            assert_eq!(guard.holds(Some(&found)), when_present, "{guard:?}");
            assert_eq!(guard.holds(None), when_absent, "{guard:?}");
        }
    }

    #[test]
    fn bad_transactions_are_refused() {
        let refused = |transaction: Transaction| transaction.check().err().map(|error| error.to_string());
        assert_eq!(refused(Transaction::create("a", "1")), None);
        assert_eq!(refused(Transaction::new()), None);
        let twice = Transaction::create("a", "1").operation(Operation::Delete("a".into()));
        assert_eq!(
            refused(twice).unwrap(),
            "invalid transaction: a transaction changes a key twice"
        );
        assert!(
            refused(Transaction::create("", "1"))
                .unwrap()
                .contains("empty or too long")
        );
        assert!(
            refused(Transaction::create(vec![b'a'; KEY_BYTES_MAX + 1], "1"))
                .unwrap()
                .contains("too long")
        );
        let large = Transaction::create("a", vec![0; TRANSACTION_BYTES_MAX]);
        assert!(matches!(large.check(), Err(CommitError::TooLarge { .. })));
        let many = (0..=OPERATIONS_MAX).fold(Transaction::new(), |many, index| many.put(format!("{index}"), ""));
        assert!(refused(many).unwrap().contains("too many"));
    }
}
