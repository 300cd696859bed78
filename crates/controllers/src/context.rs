//! What every controller's shell works with.

use std::collections::HashMap;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::time::Duration;

use base::{Clock, Random, Shutdown};
use client::events::Recorder;
use client::informer::{Delta, Informer, SharedInformers};
use client::queue::{Key, WorkQueue};
use client::worker::{Next, run};
use client::{Client, Object};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Config;

/// Namespace and name of an object; the key of most queues.
pub(crate) type Name = (String, String);

/// A controller's identity and its share of what the process has once.
#[derive(Clone)]
pub(crate) struct Context {
    pub client: Client,
    pub informers: SharedInformers,
    pub recorder: Recorder,
    pub clock: Clock,
    pub random: Random,
    pub shutdown: Shutdown,
}

impl Context {
    pub(crate) fn new(
        config: &Config,
        account: &str,
        component: &str,
        informers: SharedInformers,
        shutdown: Shutdown,
    ) -> Context {
        let client = (config.client_for)(account).with_user_agent(component);
        let recorder = Recorder::start(client.clone(), component, "", config.clock.clone(), &shutdown);
        Context {
            client,
            informers,
            recorder,
            clock: config.clock.clone(),
            random: config.random.fork(),
            shutdown,
        }
    }

    /// Calls `on_news` for everything that happens to the informer's objects, the initial ones included.
    pub(crate) fn watch<T: Object>(&self, informer: &Informer<T>, mut on_news: impl FnMut(Delta<T>) + Send + 'static) {
        let mut events = informer.subscribe();
        let stop = self.shutdown.clone();
        self.shutdown.spawn(async move {
            while let Some(Some(delta)) = stop.until(events.next()).await {
                on_news(delta);
            }
        });
    }

    /// Works on the queue's keys once all `ready` are.
    pub(crate) fn work<K, F, Fut, E>(
        &self,
        queue: WorkQueue<K>,
        ready: Vec<BoxFuture<'static, bool>>,
        workers: usize,
        work: F,
    ) where
        K: Key + Debug,
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Next, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let stop = self.shutdown.clone();
        self.shutdown.spawn(async move {
            let all = futures::future::join_all(ready);
            if stop
                .until(all)
                .await
                .is_some_and(|synced| synced.into_iter().all(|synced| synced))
            {
                run(queue, workers, stop, work).await;
            }
        });
    }

    /// The time as the API writes it.
    pub(crate) fn now_text(&self) -> String {
        crate::context::time_text(self.clock.now())
    }
}

/// A time as `metav1.Time` is written.
pub(crate) fn time_text(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Waits for an informer in a list of several.
pub(crate) fn synced<T: Object>(informer: &Informer<T>) -> BoxFuture<'static, bool> {
    let informer = informer.clone();
    Box::pin(async move { informer.synced().await })
}

/// The time between two writes for an object, for each thing it counts: a write about a hundred pods costs a hundred times
/// one about one, so when the pods change one after the other, each hundredth of them may be told with the next ones.
const PACE_A_DEPENDENT: Duration = Duration::from_millis(1);
/// And no longer than this, however many there are.
const PACE_MAX: Duration = Duration::from_millis(500);

/// Spaces out writes that only count things. The first one is made at once.
#[derive(Default)]
pub(crate) struct Pace {
    last: Mutex<HashMap<Name, Instant>>,
}

impl Pace {
    /// How long to wait before the next write for the key; `None`: write now.
    pub(crate) fn wait(&self, key: &Name, dependents: usize) -> Option<Duration> {
        let now = Instant::now();
        let pace = (PACE_A_DEPENDENT * u32::try_from(dependents).unwrap_or(u32::MAX)).min(PACE_MAX);
        let mut last = self.last.lock();
        match last.get(key) {
            Some(at) if *at + pace > now => Some(*at + pace - now),
            _ => {
                last.insert(key.clone(), now);
                None
            }
        }
    }

    /// The object is gone.
    pub(crate) fn forget(&self, key: &Name) {
        self.last.lock().remove(key);
    }
}

/// The key of an object.
pub(crate) fn name_of<T: Object>(object: &T) -> Name {
    (object.meta().namespace().to_string(), object.meta().name().to_string())
}
