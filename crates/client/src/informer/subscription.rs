//! The news for one subscriber of an informer: at most one entry an object, in the order in which they first changed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::store::Change;
use crate::kind::Object;

/// One piece of news.
#[derive(Debug)]
pub enum Delta<T> {
    /// An object is there that was not.
    Added(Arc<T>),
    /// It changed, possibly several times since the last news of it. Same uid: a deleted and recreated object comes as
    /// deleted and added.
    Updated {
        /// As the subscriber last heard of it.
        old: Arc<T>,
        /// As it is.
        new: Arc<T>,
    },
    /// It is gone; its last known state. May come for an object that came and went between two looks.
    Deleted(Arc<T>),
    /// Everything that was there at the start has been told. Comes once.
    Synced,
}

impl<T> Delta<T> {
    /// The object as it is, or last was; `None` for [`Delta::Synced`].
    pub fn object(&self) -> Option<&Arc<T>> {
        match self {
            Delta::Added(object) | Delta::Updated { new: object, .. } | Delta::Deleted(object) => Some(object),
            Delta::Synced => None,
        }
    }
}

type Key = (Arc<str>, Arc<str>);

enum Slot {
    Object(Key),
    Synced,
}

struct Waiting<T> {
    order: VecDeque<Slot>,
    changes: HashMap<Key, Pending<T>>,
    /// The second half of a change that is told in two.
    next: Option<Delta<T>>,
    synced: bool,
    ended: bool,
}

/// What the subscriber last heard (`told`), what is (`now`), and the last state of what is not.
struct Pending<T> {
    told: Option<Arc<T>>,
    now: Option<Arc<T>>,
    last: Option<Arc<T>>,
}

pub(super) struct Subscription<T> {
    waiting: Mutex<Waiting<T>>,
    news: Notify,
}

impl<T: Object> Subscription<T> {
    pub(super) fn new(objects: Vec<Arc<T>>, synced: bool, ended: bool) -> Self {
        let waiting = Waiting {
            order: VecDeque::new(),
            changes: HashMap::new(),
            next: None,
            synced: false,
            ended,
        };
        let subscription = Subscription {
            waiting: Mutex::new(waiting),
            news: Notify::new(),
        };
        for object in objects {
            subscription.change(None, Some(object));
        }
        if synced {
            subscription.sync();
        }
        subscription
    }

    pub(super) fn change(&self, old: Option<Arc<T>>, new: Option<Arc<T>>) {
        let Some(meta) = new.as_ref().or(old.as_ref()).map(|object| object.meta()) else {
            return;
        };
        let key: Key = (Arc::from(meta.namespace()), Arc::from(meta.name()));
        let mut waiting = self.waiting.lock();
        let Waiting { order, changes, .. } = &mut *waiting;
        match changes.get_mut(&key) {
            Some(pending) => {
                pending.last = new.clone().or(old);
                pending.now = new;
            }
            None => {
                order.push_back(Slot::Object(key.clone()));
                changes.insert(
                    key,
                    Pending {
                        told: old.clone(),
                        last: new.clone().or(old),
                        now: new,
                    },
                );
            }
        }
        drop(waiting);
        self.news.notify_one();
    }

    pub(super) fn sync(&self) {
        let mut waiting = self.waiting.lock();
        if !waiting.synced {
            waiting.synced = true;
            waiting.order.push_back(Slot::Synced);
            drop(waiting);
            self.news.notify_one();
        }
    }

    pub(super) fn end(&self) {
        self.waiting.lock().ended = true;
        self.news.notify_one();
    }

    /// The next news; `Err(ended)` when there is none.
    fn take(&self) -> Result<Delta<T>, bool> {
        let mut waiting = self.waiting.lock();
        if let Some(delta) = waiting.next.take() {
            return Ok(delta);
        }
        let key = match waiting.order.pop_front() {
            None => return Err(waiting.ended),
            Some(Slot::Synced) => return Ok(Delta::Synced),
            Some(Slot::Object(key)) => key,
        };
        let pending: Pending<T> = waiting
            .changes
            .remove(&key)
            .expect("invariant: each slot has its change");
        let (change, last): (Change<T>, _) = ((pending.told, pending.now), pending.last);
        Ok(match change {
            (Some(old), Some(new)) if old.meta().uid() == new.meta().uid() => Delta::Updated { old, new },
            (Some(old), Some(new)) => {
                waiting.next = Some(Delta::Added(new));
                Delta::Deleted(old)
            }
            (None, Some(new)) => Delta::Added(new),
            (told, None) => Delta::Deleted(last.or(told).expect("invariant: a change is of an object")),
        })
    }
}

/// The news of an informer, for one subscriber. Dropping it ends the subscription.
pub struct Events<T> {
    subscription: Arc<Subscription<T>>,
}

impl<T: Object> Events<T> {
    pub(super) fn new(subscription: Arc<Subscription<T>>) -> Self {
        Events { subscription }
    }

    /// The next news; `None` when the informer ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Delta<T>> {
        loop {
            let news = self.subscription.news.notified();
            match self.subscription.take() {
                Ok(delta) => return Some(delta),
                Err(true) => return None,
                Err(false) => news.await,
            }
        }
    }

    /// The next news if it is there already.
    pub fn try_next(&mut self) -> Option<Delta<T>> {
        self.subscription.take().ok()
    }
}
