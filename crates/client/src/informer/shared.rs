//! The informers that the components of a process share: one watch for each (view, resource, selection).

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use base::{Random, Shutdown};
use parking_lot::Mutex;

use super::{Informer, Selection};
use crate::kind::{Kind, Object};
use crate::{Client, Resource};

type Key = (TypeId, Resource, Selection);

/// Makes informers and hands the same one to everybody who asks for the same. Cheap to clone.
#[derive(Clone)]
pub struct SharedInformers {
    client: Client,
    random: Random,
    shutdown: Shutdown,
    informers: Arc<Mutex<HashMap<Key, Box<dyn Any + Send + Sync>>>>,
}

impl SharedInformers {
    /// Informers that read through this client and end with `shutdown`.
    pub fn new(client: Client, shutdown: Shutdown) -> SharedInformers {
        SharedInformers {
            client,
            random: Random::real(),
            shutdown,
            informers: Arc::default(),
        }
    }

    /// Draws the jitter of reconnects from here (a simulation's seed).
    pub fn with_random(mut self, random: Random) -> SharedInformers {
        self.random = random;
        self
    }

    /// The informer of all objects of a kind; started when nobody asked for it before.
    pub fn informer<T: Kind>(&self) -> Informer<T> {
        self.informer_of(T::RESOURCE, Selection::all())
    }

    /// The informer of the objects of a kind that are selected.
    pub fn selected<T: Kind>(&self, selection: Selection) -> Informer<T> {
        self.informer_of(T::RESOURCE, selection)
    }

    /// The informer of a resource known only now.
    pub fn informer_of<T: Object>(&self, resource: Resource, selection: Selection) -> Informer<T> {
        let key = (TypeId::of::<T>(), resource.clone(), selection.clone());
        let mut informers = self.informers.lock();
        let informer = informers.entry(key).or_insert_with(|| {
            let (client, random, shutdown) = (self.client.clone(), self.random.fork(), self.shutdown.clone());
            Box::new(Informer::<T>::start(client, resource, selection, random, shutdown))
        });
        informer
            .downcast_ref::<Informer<T>>()
            .expect("invariant: the key holds the type")
            .clone()
    }

    /// The client they read through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What ends them.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}
