//! What the quota controller keeps of each object: who it is and what it takes, and nothing else of it.

use api::{GroupResource, Value};
use client::kind::JsonError;
use client::{Meta, Metadata, Object, PartialObject};
use quota::{Amounts, Charge, Consumer, MadeFor};
use serde::Deserialize as _;

/// Something that counts in quotas.
pub(super) trait Counted: Object {
    /// What it takes of the resources that quotas limit; `None`: what every object of the resource takes.
    fn charge(&self) -> Option<&Charge>;

    /// Whether it takes devices, of which the names depend on more than on it.
    const TAKES_DEVICES: bool = false;

    /// The pod that it was made for.
    fn made_for(&self) -> Option<&MadeFor> {
        None
    }

    /// As a pod that claims are made for.
    fn pod(&self) -> Option<Consumer> {
        None
    }
}

/// An object that is measured when it is read.
pub(super) struct Measured<R> {
    metadata: Metadata,
    charge: Charge,
    /// Of a claim.
    made_for: Option<MadeFor>,
    /// Of a pod: the claim that it says was made for it.
    claim: Option<String>,
    resource: std::marker::PhantomData<fn() -> R>,
}

/// A resource whose objects have to be read to be measured.
pub(super) trait Measure: 'static {
    fn resource() -> GroupResource;

    /// Whether its objects are claims for devices, and whether they are pods.
    const IS_CLAIM: bool = false;
    const IS_POD: bool = false;
}

macro_rules! measure {
    ($name:ident, $group:literal, $plural:literal $(, $is:ident)?) => {
        pub(super) struct $name;

        impl Measure for $name {
            $(const $is: bool = true;)?

            fn resource() -> GroupResource {
                GroupResource {
                    group: $group.into(),
                    resource: $plural.into(),
                }
            }
        }
    };
}

measure!(Pods, "", "pods", IS_POD);
measure!(Services, "", "services");
measure!(Claims, "", "persistentvolumeclaims");
measure!(ResourceClaims, "resource.k8s.io", "resourceclaims", IS_CLAIM);

impl<R: Measure> Object for Measured<R> {
    fn decode(json: &[u8]) -> Result<Self, JsonError> {
        let object: Value = client::kind::from_slice(json)?;
        let charge = Charge::of(&R::resource(), &object);
        let metadata = object.get("metadata").cloned().unwrap_or_default();
        let made_for = R::IS_CLAIM.then(|| MadeFor::of(&object)).flatten();
        let pod = R::IS_POD.then(|| Consumer::of(&object, Amounts::new()));
        Ok(Measured {
            metadata: Metadata::deserialize(metadata)?,
            charge,
            made_for,
            claim: pod.map(|pod| pod.claim),
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

    const TAKES_DEVICES: bool = R::IS_CLAIM;

    fn made_for(&self) -> Option<&MadeFor> {
        self.made_for.as_ref()
    }

    fn pod(&self) -> Option<Consumer> {
        let claim = self.claim.clone()?;
        Some(Consumer {
            uid: self.metadata.uid().to_owned(),
            claim,
            usage: self.charge.usage.clone(),
        })
    }
}

/// Of other resources only the number counts.
impl Counted for PartialObject {
    fn charge(&self) -> Option<&Charge> {
        None
    }
}
