//! What is served: an immutable index over the rows, replaced as a whole when a row is added or removed (D4).
//!
//! Requests take one [`Registry`] and keep it to their end, so a row that goes away never disappears under a request.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::schema::SchemaRef;
use api::sparse::Fields;
use api::{GroupKind, GroupResource, GroupVersionKind, GroupVersionResource, Value};
use kinds::custom::{JsonPath, Version};
use kinds::row::{ServedVersion, StorageKind, Subresource};

use crate::cluster::{Header, Texts};
use crate::custom::CustomKind;
use crate::verbs::watch::Frames;

/// One storage kind with what the server derives from its row.
pub struct Kind {
    /// The row.
    pub row: Arc<StorageKind>,
    /// The schema of the stored version.
    pub schema: SchemaRef,
    /// Every selectable field of any served version, in the order of [`crate::cluster::Header::fields`]; of a custom resource
    /// those of the kind's own version.
    pub fields: Vec<(Cow<'static, str>, ReadField)>,
    /// What of a stored object its header is made of.
    pub read: Fields,
    /// The kind of the stored version.
    pub hub: GroupVersionKind,
    /// The resource, whatever the version.
    pub resource: GroupResource,
    /// Every served version with its schema, as in the row.
    pub versions: Vec<(GroupVersionKind, SchemaRef)>,
    /// The definition of a custom resource. Such a kind has one of these for each of its versions, in which a request sees,
    /// defaults and judges objects; they are converted where they are read and written ([`crate::custom`]).
    pub custom: Option<Arc<CustomKind>>,
}

/// Reads a selectable field.
pub enum ReadField {
    /// Of a built-in kind.
    BuiltIn(fn(&Value) -> String),
    /// Of a custom resource.
    Path(JsonPath),
}

impl ReadField {
    fn read(&self, object: &Value) -> String {
        match self {
            ReadField::BuiltIn(read) => read(object),
            ReadField::Path(path) => Version::selected(path, object),
        }
    }
}

impl Kind {
    fn new(
        row: Arc<StorageKind>,
        schema: SchemaRef,
        versions: Vec<(GroupVersionKind, SchemaRef)>,
        custom: Option<Arc<CustomKind>>,
    ) -> Kind {
        let mut fields: Vec<(Cow<'static, str>, ReadField)> = Vec::new();
        for (name, read) in row.served.iter().flat_map(|version| version.selectable_fields) {
            if !fields.iter().any(|(known, _)| known == name) {
                fields.push((Cow::Borrowed(*name), ReadField::BuiltIn(*read)));
            }
        }
        let own = row.served.iter().filter(|version| version.version == row.hub);
        for version in own.filter_map(|version| version.custom.as_ref()) {
            let own = version.selectable.iter().cloned();
            fields.extend(own.map(|(name, path)| (Cow::Owned(name), ReadField::Path(path))));
        }
        Kind {
            hub: GroupVersionKind::new(&row.group, &row.hub, &row.kind),
            resource: GroupResource {
                group: row.group.clone().into(),
                resource: row.plural.clone().into(),
            },
            read: match row.read_fields {
                Some(paths) => Fields::of(Header::READ.iter().chain(paths).copied()),
                None => Fields::default(),
            },
            row,
            schema,
            fields,
            versions,
            custom,
        }
    }

    /// Whether a kind is this one, in whichever version where requests see one of their own.
    pub fn is_whole(&self, kind: &GroupVersionKind) -> bool {
        *kind == self.hub || (self.custom.is_some() && kind.group_kind() == self.hub.group_kind())
    }

    /// The values of the selectable fields of a hub object.
    pub fn field_values(&self, hub: &Value) -> Texts {
        self.fields.iter().map(|(_, field)| field.read(hub)).collect()
    }

    /// The kind whatever its version.
    pub fn group_kind(&self) -> GroupKind {
        self.hub.group_kind()
    }

    /// The key of one object. Several are made for each request, and joining is a fifth of formatting.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        match self.row.namespaced {
            true => [&*self.row.key_prefix, "/", namespace, "/", name].concat(),
            false => [&*self.row.key_prefix, "/", name].concat(),
        }
    }

    /// The prefix of all keys (with its slash), or of those in one namespace.
    pub fn prefix(&self, namespace: &str) -> String {
        match self.row.namespaced && !namespace.is_empty() {
            true => [&*self.row.key_prefix, "/", namespace, "/"].concat(),
            false => [&*self.row.key_prefix, "/"].concat(),
        }
    }
}

/// A kind in one of its served versions.
pub struct Served {
    /// The kind.
    pub kind: Arc<Kind>,
    /// Which of the row's served versions.
    index: usize,
    /// The schema of this version.
    pub schema: SchemaRef,
    /// The kind in this version.
    pub gvk: GroupVersionKind,
    /// The resource in this version.
    pub gvr: GroupVersionResource,
    /// Frames of its newest events.
    pub frames: Arc<Frames>,
}

impl Served {
    /// Which of the row's served versions this is.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The row of this version.
    pub fn version(&self) -> &ServedVersion {
        &self.kind.row.served[self.index]
    }

    /// A subresource by its name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.version()
            .subresources
            .iter()
            .find(|subresource| subresource.name == name)
    }

    /// Whether objects are served as they are stored.
    pub fn is_hub(&self) -> bool {
        self.version().conversion.is_none()
    }

    /// The resource as errors name it: upstream names the group of the request, not of the storage.
    pub fn resource(&self) -> GroupResource {
        self.gvr.group_resource()
    }

    /// Whether a verb is served on the main resource.
    pub fn allows(&self, verb: &str) -> bool {
        self.version().verbs.contains(&verb)
    }
}

/// Everything that is served at one moment.
pub struct Registry {
    /// Raised with every change; part of the key of everything that is derived from the rows.
    pub epoch: u64,
    served: Vec<Arc<Served>>,
    /// By the plural: few groups share one. The parts are shared with the registry before, of which this is mostly a copy.
    by_plural: HashMap<Arc<str>, Arc<Vec<Arc<Served>>>>,
    kinds: BTreeMap<Arc<GroupResource>, Arc<Kind>>,
}

/// Why a row cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is no schema for that version.
    #[error("no schema for {0}")]
    NoSchema(GroupVersionKind),
    /// The resource is served already.
    #[error("{0} is served already")]
    Duplicate(GroupResource),
}

impl Registry {
    /// An index over rows with schemas that `schema` knows.
    pub fn new(
        rows: Vec<Arc<StorageKind>>,
        schema: impl Fn(&GroupVersionKind) -> Option<SchemaRef>,
    ) -> Result<Registry, RegistryError> {
        let mut registry = Registry {
            epoch: 1,
            served: vec![],
            by_plural: HashMap::new(),
            kinds: BTreeMap::new(),
        };
        for row in rows {
            registry.insert(row, &schema)?;
        }
        Ok(registry)
    }

    /// The same with one row more.
    pub fn with(
        &self,
        row: Arc<StorageKind>,
        schema: impl Fn(&GroupVersionKind) -> Option<SchemaRef>,
    ) -> Result<Registry, RegistryError> {
        let mut registry = self.copy();
        registry.insert(row, &schema)?;
        Ok(registry)
    }

    /// The same without the row of that resource.
    pub fn without(&self, resource: &GroupResource) -> Registry {
        let mut registry = self.copy();
        registry.remove(resource);
        registry
    }

    /// The same with some custom resources more, or as they are now.
    pub fn with_customs<'c>(
        &self,
        customs: impl IntoIterator<Item = &'c Arc<CustomKind>>,
    ) -> Result<Registry, RegistryError> {
        let mut registry = self.copy();
        for custom in customs {
            let definition = &custom.definition;
            let resource = definition.resource();
            match registry.kinds.get(&resource) {
                Some(kind) if kind.custom.is_none() => return Err(RegistryError::Duplicate(resource)),
                Some(_) => registry.remove(&resource),
                None => {}
            }
            let versions = definition.versions.iter();
            let versions: Vec<_> = versions
                .map(|version| (version.gvk.clone(), version.schema.clone()))
                .collect();
            for (index, version) in definition.versions.iter().enumerate() {
                let row = Arc::new(definition.row(index));
                let kind = Kind::new(row, version.schema.clone(), versions.clone(), Some(custom.clone()));
                let kind = Arc::new(kind);
                if index == definition.storage {
                    registry.kinds.insert(Arc::new(resource.clone()), kind.clone());
                }
                if version.served {
                    registry.serve(kind, index);
                }
            }
        }
        Ok(registry)
    }

    fn remove(&mut self, resource: &GroupResource) {
        self.kinds.remove(resource);
        self.served.retain(|served| served.kind.resource != *resource);
        if let Some(same) = self.by_plural.get_mut(&*resource.resource) {
            Arc::make_mut(same).retain(|served| served.kind.resource != *resource);
            if same.is_empty() {
                self.by_plural.remove(&*resource.resource);
            }
        }
    }

    fn serve(&mut self, kind: Arc<Kind>, index: usize) {
        let (gvk, schema) = kind.versions[index].clone();
        let gvr = GroupVersionResource::new(&gvk.group, &gvk.version, &kind.row.plural);
        let served = Served {
            kind,
            index,
            schema,
            gvk,
            gvr,
            frames: Arc::default(),
        };
        let served = Arc::new(served);
        let same = self.by_plural.entry(served.gvr.resource.as_str().into()).or_default();
        Arc::make_mut(same).push(served.clone());
        self.served.push(served);
    }

    fn copy(&self) -> Registry {
        Registry {
            epoch: self.epoch + 1,
            served: self.served.clone(),
            by_plural: self.by_plural.clone(),
            kinds: self.kinds.clone(),
        }
    }

    fn insert(
        &mut self,
        row: Arc<StorageKind>,
        schema: &impl Fn(&GroupVersionKind) -> Option<SchemaRef>,
    ) -> Result<(), RegistryError> {
        let find = |gvk: GroupVersionKind| schema(&gvk).ok_or(RegistryError::NoSchema(gvk));
        let hub = find(GroupVersionKind::new(&row.group, &row.hub, &row.kind))?;
        let versions = row.served.iter().map(|version| {
            let gvk = GroupVersionKind::new(&version.group, &version.version, &row.kind);
            Ok((gvk.clone(), find(gvk)?))
        });
        let versions: Vec<_> = versions.collect::<Result<_, RegistryError>>()?;
        let kind = Arc::new(Kind::new(row, hub, versions, None));
        if self.kinds.contains_key(&kind.resource) {
            return Err(RegistryError::Duplicate(kind.resource.clone()));
        }
        for index in 0..kind.versions.len() {
            self.serve(kind.clone(), index);
        }
        self.kinds.insert(Arc::new(kind.resource.clone()), kind);
        Ok(())
    }

    /// A resource in a version.
    pub fn find(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Served>> {
        let same = self.by_plural.get(resource)?;
        same.iter()
            .find(|served| served.gvr.version == version && served.gvr.group == group)
    }

    /// A storage kind by its resource.
    pub fn kind(&self, resource: &GroupResource) -> Option<&Arc<Kind>> {
        self.kinds.get(resource)
    }

    /// All storage kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }

    /// Everything that is served.
    pub fn served(&self) -> &[Arc<Served>] {
        &self.served
    }
}
