//! The Services and EndpointSlices of the cluster as views, and which Services changed since somebody looked.
//!
//! Service rules and DNS names are both functions of one Service and its slices. Keeping the slices by Service means that a
//! change of one endpoint costs one Service's work, however many there are.
//!
//! Invariant: a slice is listed under exactly one Service, the one its label named last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::views::{ObjectName, ServiceView, SliceView};

/// A Service with its slices, in the order of their names.
#[derive(Debug, Clone)]
pub struct ServiceWithSlices {
    /// The Service.
    pub service: Arc<ServiceView>,
    /// Its slices.
    pub slices: Vec<Arc<SliceView>>,
}

/// All Services and slices.
#[derive(Debug, Default)]
pub struct Catalog {
    services: HashMap<ObjectName, Arc<ServiceView>>,
    slices: HashMap<ObjectName, BTreeMap<String, Arc<SliceView>>>,
    service_of_slice: HashMap<ObjectName, ObjectName>,
    changed: BTreeSet<ObjectName>,
}

impl Catalog {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a new or changed Service; an equal one changes nothing.
    pub fn set_service(&mut self, service: ServiceView) {
        let name = service.name.clone();
        if self.services.get(&name).is_none_or(|known| **known != service) {
            self.services.insert(name.clone(), Arc::new(service));
            self.changed.insert(name);
        }
    }

    /// Forgets a Service.
    pub fn delete_service(&mut self, name: &ObjectName) {
        if self.services.remove(name).is_some() {
            self.changed.insert(name.clone());
        }
    }

    /// Takes a new or changed slice; an equal one changes nothing.
    pub fn set_slice(&mut self, slice: SliceView) {
        let owner = ObjectName::new(slice.name.namespace.clone(), slice.service.clone());
        if self
            .service_of_slice
            .get(&slice.name)
            .is_some_and(|known| *known != owner)
        {
            self.delete_slice(&slice.name.clone());
        }
        let listed = self.slices.entry(owner.clone()).or_default();
        if listed.get(&slice.name.name).is_some_and(|known| **known == slice) {
            return;
        }
        self.service_of_slice.insert(slice.name.clone(), owner.clone());
        listed.insert(slice.name.name.clone(), Arc::new(slice));
        self.changed.insert(owner);
    }

    /// Forgets a slice.
    pub fn delete_slice(&mut self, name: &ObjectName) {
        let Some(owner) = self.service_of_slice.remove(name) else {
            return;
        };
        if let Some(listed) = self.slices.get_mut(&owner) {
            listed.remove(&name.name);
            if listed.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.changed.insert(owner);
    }

    /// A Service as it is now; `None` when it is gone, whatever slices are left of it.
    pub fn get(&self, name: &ObjectName) -> Option<ServiceWithSlices> {
        let service = self.services.get(name)?.clone();
        let slices = self
            .slices
            .get(name)
            .map(|listed| listed.values().cloned().collect())
            .unwrap_or_default();
        Some(ServiceWithSlices { service, slices })
    }

    /// The names of all Services.
    pub fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.keys()
    }

    /// Takes the names of the Services that changed, appeared or went since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::ServiceKind;

    fn service(name: &str) -> ServiceView {
        ServiceView {
            name: ObjectName::new("a", name),
            kind: ServiceKind::Headless,
            ports: Vec::new(),
            external_addresses: Vec::new(),
            local_only: false,
            external_local_only: false,
            affinity_seconds: None,
            foreign_proxy: false,
            health_port: None,
        }
    }

    fn slice(name: &str, service: &str) -> SliceView {
        SliceView {
            name: ObjectName::new("a", name),
            service: service.to_owned(),
            endpoints: Vec::new(),
            ports: Vec::new(),
        }
    }

    fn changed(catalog: &mut Catalog) -> Vec<String> {
        catalog.take_changed().into_iter().map(|name| name.name).collect()
    }

    #[test]
    fn equal_objects_change_nothing() {
        let mut catalog = Catalog::new();
        catalog.set_service(service("x"));
        catalog.set_slice(slice("x-1", "x"));
        assert_eq!(changed(&mut catalog), ["x"]);
        catalog.set_service(service("x"));
        catalog.set_slice(slice("x-1", "x"));
        assert!(changed(&mut catalog).is_empty());
    }

    #[test]
    fn a_slice_that_moves_changes_both_services() {
        let mut catalog = Catalog::new();
        catalog.set_slice(slice("s", "x"));
        catalog.take_changed();
        catalog.set_slice(slice("s", "y"));
        assert_eq!(changed(&mut catalog), ["x", "y"]);
        catalog.set_service(service("x"));
        catalog.set_service(service("y"));
        assert_eq!(catalog.get(&ObjectName::new("a", "x")).unwrap().slices.len(), 0);
        assert_eq!(catalog.get(&ObjectName::new("a", "y")).unwrap().slices.len(), 1);
    }

    #[test]
    fn slices_wait_for_their_service() {
        let mut catalog = Catalog::new();
        catalog.set_slice(slice("s", "x"));
        assert!(catalog.get(&ObjectName::new("a", "x")).is_none());
        catalog.set_service(service("x"));
        assert_eq!(catalog.get(&ObjectName::new("a", "x")).unwrap().slices.len(), 1);
        catalog.delete_slice(&ObjectName::new("a", "s"));
        catalog.delete_slice(&ObjectName::new("a", "s"));
        assert_eq!(catalog.get(&ObjectName::new("a", "x")).unwrap().slices.len(), 0);
    }
}
