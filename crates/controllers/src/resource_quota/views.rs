//! What the quota controller keeps of each object: who it is and what it takes, and nothing else of it.

use api::{GroupResource, Value};
use client::kind::JsonError;
use client::{Meta, Metadata, Object, PartialObject};
use quota::Charge;
use serde::Deserialize as _;

/// Something that counts in quotas.
pub(super) trait Counted: Object {
    /// What it takes of the resources that quotas limit; `None`: what every object of the resource takes.
    fn charge(&self) -> Option<&Charge>;
}

/// An object that is measured when it is read.
pub(super) struct Measured<R> {
    metadata: Metadata,
    charge: Charge,
    resource: std::marker::PhantomData<fn() -> R>,
}

/// A resource whose objects have to be read to be measured.
pub(super) trait Measure: 'static {
    fn resource() -> GroupResource;
}

macro_rules! measure {
    ($name:ident, $group:literal, $plural:literal) => {
        pub(super) struct $name;

        impl Measure for $name {
            fn resource() -> GroupResource {
                GroupResource {
                    group: $group.into(),
                    resource: $plural.into(),
                }
            }
        }
    };
}

measure!(Pods, "", "pods");
measure!(Services, "", "services");
measure!(Claims, "", "persistentvolumeclaims");
measure!(ResourceClaims, "resource.k8s.io", "resourceclaims");

impl<R: Measure> Object for Measured<R> {
    fn decode(json: &[u8]) -> Result<Self, JsonError> {
        let object: Value = client::kind::from_slice(json)?;
        let charge = Charge::of(&R::resource(), &object);
        let metadata = object.get("metadata").cloned().unwrap_or_default();
        Ok(Measured {
            metadata: Metadata::deserialize(metadata)?,
            charge,
            resource: std::marker::PhantomData,
        })
    }

    fn meta(&self) -> &dyn Meta {
        &self.metadata
    }
}

impl<R: Measure> Counted for Measured<R> {
    fn charge(&self) -> Option<&Charge> {
        Some(&self.charge)
    }
}

/// Of other resources only the number counts.
impl Counted for PartialObject {
    fn charge(&self) -> Option<&Charge> {
        None
    }
}
