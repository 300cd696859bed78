//! The objects of an informer with their indexes. Pure: it takes changes and says what they changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::IndexFn;
use crate::kind::Object;

/// Namespace and name.
type Key = (Arc<str>, Arc<str>);

/// What an object was and is; absent: it was or is not there.
pub(super) type Change<T> = (Option<Arc<T>>, Option<Arc<T>>);

pub(super) struct Store<T> {
    objects: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<T>>>,
    count: usize,
    indexes: Vec<Index<T>>,
}

struct Index<T> {
    name: &'static str,
    keys_of: IndexFn<T>,
    entries: HashMap<String, BTreeSet<Key>>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Store {
            objects: BTreeMap::new(),
            count: 0,
            indexes: Vec::new(),
        }
    }
}

impl<T: Object> Store<T> {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.objects.get(namespace)?.get(name).cloned()
    }

    pub(super) fn list(&self) -> Vec<Arc<T>> {
        self.objects.values().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(super) fn list_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.objects
            .get(namespace)
            .into_iter()
            .flat_map(BTreeMap::values)
            .cloned()
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn indexed(&self, name: &str, key: &str) -> Vec<Arc<T>> {
        let index = self.indexes.iter().find(|index| index.name == name);
        let keys = index.and_then(|index| index.entries.get(key));
        keys.into_iter()
            .flatten()
            .filter_map(|(namespace, name)| self.get(namespace, name))
            .collect()
    }

    pub(super) fn add_index(&mut self, name: &'static str, keys_of: IndexFn<T>) {
        if self.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index {
            name,
            keys_of,
            entries: HashMap::new(),
        };
        for (namespace, objects) in &self.objects {
            for (name, object) in objects {
                index.insert(object, (namespace.clone(), name.clone()));
            }
        }
        self.indexes.push(index);
    }

    /// Puts an object in; returns what was there.
    pub(super) fn insert(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        let meta = object.meta();
        let namespace = match self.objects.get_key_value(meta.namespace()) {
            Some((namespace, _)) => namespace.clone(),
            None => Arc::from(meta.namespace()),
        };
        let name: Arc<str> = Arc::from(meta.name());
        let old = self
            .objects
            .entry(namespace.clone())
            .or_default()
            .insert(name.clone(), object.clone());
        let key = (namespace, name);
        for index in &mut self.indexes {
            if let Some(old) = &old {
                index.remove(old, &key);
            }
            index.insert(&object, key.clone());
        }
        self.count += usize::from(old.is_none());
        old
    }

    /// Takes an object out; returns it.
    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let objects = self.objects.get_mut(namespace)?;
        let old = objects.remove(name)?;
        if objects.is_empty() {
            self.objects.remove(namespace);
        }
        let key = (Arc::from(namespace), Arc::from(name));
        self.indexes.iter_mut().for_each(|index| index.remove(&old, &key));
        self.count -= 1;
        Some(old)
    }

    /// Makes the store hold just these objects; returns what that changed. Equal revisions change nothing.
    pub(super) fn replace(&mut self, objects: Vec<Arc<T>>) -> Vec<Change<T>> {
        let mut changes = Vec::new();
        let kept: BTreeSet<Key> = objects
            .iter()
            .map(|object| (Arc::from(object.meta().namespace()), Arc::from(object.meta().name())))
            .collect();
        let present: Vec<Key> = self
            .objects
            .iter()
            .flat_map(|(ns, names)| names.keys().map(|name| (ns.clone(), name.clone())))
            .collect();
        for key in present.into_iter().filter(|key| !kept.contains(key)) {
            changes.push((self.remove(&key.0, &key.1), None));
        }
        for object in objects {
            let old = self.insert(object.clone());
            let same = old.as_ref().is_some_and(|old| super::is_same(&**old, &*object));
            if !same {
                changes.push((old, Some(object)));
            }
        }
        changes
    }
}

impl<T> Index<T> {
    fn insert(&mut self, object: &T, key: Key) {
        (self.keys_of)(object, &mut |text| match self.entries.get_mut(text) {
            Some(keys) => drop(keys.insert(key.clone())),
            None => drop(self.entries.insert(text.to_string(), BTreeSet::from([key.clone()]))),
        });
    }

    fn remove(&mut self, object: &T, key: &Key) {
        (self.keys_of)(object, &mut |text| {
            if let Some(keys) = self.entries.get_mut(text) {
                keys.remove(key);
                if keys.is_empty() {
                    self.entries.remove(text);
                }
            }
        });
    }
}
