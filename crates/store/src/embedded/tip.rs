//! The state that a batch leaves while it is being made: what is durable, and over it what the batch has changed so far.
//!
//! Over it and not in a version of the map: most keys change once a batch, and the nodes of a map that is read copy-on-write
//! would be copied for each, with a reference counted for every record in them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::memory::written;
use crate::engine::{Change, Record, Revision};
use crate::map::Map;
use crate::transaction::Operation;

pub(super) struct Tip {
    durable: Map<Arc<Record>>,
    /// What changed; none: deleted.
    changed: HashMap<Bytes, Option<Arc<Record>>>,
}

impl Tip {
    pub(super) fn new(durable: Map<Arc<Record>>) -> Self {
        Self {
            durable,
            changed: HashMap::new(),
        }
    }

    /// What a key has.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<Record>> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.durable.get(key),
        }
    }

    /// Whether an operation changes anything: deleting an absent key does not.
    pub(super) fn is_changed_by(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Put(_) => true,
            Operation::Delete(key) => self.get(key).is_some(),
        }
    }

    /// What a revision's operations make of it. Deletes of absent keys are nothing.
    pub(super) fn evolve(&mut self, revision: Revision, operations: &[Operation]) -> Vec<Change> {
        let mut changes = Vec::with_capacity(operations.len());
        for operation in operations {
            let before = self.get(operation.key()).cloned();
            let after = match operation {
                Operation::Put(put) => Some(written(put, before.as_ref(), revision)),
                Operation::Delete(_) => None,
            };
            // The record's own key, which holds on to nothing larger.
            let Some(key) = after.as_ref().or(before.as_ref()).map(|record| record.key.clone()) else {
                continue;
            };
            self.changed.insert(key.clone(), after.clone());
            changes.push(Change { key, before, after });
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::evolve;
    use super::*;
    use crate::transaction::Transaction;

    /// Whatever is done, it is what the map would become.
    #[test]
    fn it_is_what_the_map_becomes() {
        let put = |key: &str, value: &str| Transaction::new().put(key.to_owned(), value.to_owned()).operations;
        let delete = |key: &str| vec![Operation::Delete(Bytes::copy_from_slice(key.as_bytes()))];
        let mut map = Map::new();
        evolve(&mut map, 1, &put("a", "1"));
        evolve(&mut map, 2, &put("b", "2"));
        let mut tip = Tip::new(map.clone());
        let steps = [
            put("a", "3"),
            put("c", "4"),
            delete("b"),
            delete("b"),
            delete("never"),
            put("b", "5"),
            [put("d", "6"), delete("c")].concat(),
            put("a", "7"),
        ];
        for (revision, operations) in (3..).zip(&steps) {
            let real = operations.iter().any(|operation| tip.is_changed_by(operation));
            let changes = tip.evolve(revision, operations);
            assert_eq!(real, !changes.is_empty());
            assert_eq!(
                format!("{changes:?}"),
                format!("{:?}", evolve(&mut map, revision, operations))
            );
            for key in ["a", "b", "c", "d", "never"] {
                assert_eq!(tip.get(key.as_bytes()), map.get(key.as_bytes()), "{key} at {revision}");
            }
        }
    }
}
