//! Keeps what was made of a resource's objects up to date, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{GroupResource, Value};

use super::GROUP;
use crate::cluster::{Change, Changes, Cluster};

/// Follows a resource of the group.
pub fn changes(cluster: &dyn Cluster, resource: &str) -> Box<dyn Changes> {
    cluster.changes(&GroupResource {
        group: GROUP.into(),
        resource: resource.into(),
    })
}

/// Brings a map up to date with what was committed; whether anything changed.
pub fn follow<V>(changes: &mut dyn Changes, map: &mut BTreeMap<String, Arc<V>>, read: impl Fn(&Value) -> V) -> bool {
    let mut changed = false;
    while let Some(change) = changes.try_next() {
        changed = true;
        let (gone, there) = match change {
            Change::Reset(all) => {
                map.clear();
                (None, all)
            }
            Change::Changed { old, new } => (old, new.into_iter().collect()),
        };
        if let Some(gone) = gone {
            map.remove(gone.name());
        }
        for object in there {
            map.insert(object.name().to_owned(), Arc::new(read(&object.value())));
        }
    }
    changed
}
