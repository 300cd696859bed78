//! A small API server in memory, for the tests of whoever uses a client.
//!
//! It keeps objects as trees, gives each write a revision, and does what the metadata asks for (uids, generations, graceful
//! deletion, finalizers, preconditions, namespaces that end); it neither defaults nor validates what a kind demands.
//! Tests can look at every request, make requests fail before or after they took effect, stop and end watches, and forget
//! history.

mod patching;
mod routing;
mod selecting;
mod state;
mod watching;

use std::sync::Arc;

use api::{Status, Value};
use base::{Clock, Random};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Body, Client, Resource, Transport, TransportError};
use state::State;

/// A request as the fake server saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The identity of the client, as given to [`FakeApi::client_as`].
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'static str,
    /// The plural with its group, such as `deployments.apps`.
    pub resource: String,
    /// Empty when there is none.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// Empty when there is none.
    pub subresource: String,
    /// The body; null when there was none.
    pub body: Value,
}

impl Seen {
    /// `verb resource[/subresource] namespace/name`, for assertions.
    pub fn line(&self) -> String {
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        format!(
            "{} {}{slash}{} {}/{}",
            self.verb, self.resource, self.subresource, self.namespace, self.name
        )
    }

    /// Whether it changes anything.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch")
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is refused with this answer.
    Refuse(Status),
    /// It is lost on its way: nothing happens, the client sees a broken connection.
    LoseRequest,
    /// It takes effect, but its answer is lost.
    LoseAnswer,
}

type Saboteur = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;

/// The fake server. Cheap to clone; clones are the same server.
#[derive(Clone)]
pub struct FakeApi {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    saboteur: Mutex<Option<Saboteur>>,
    /// Told after each change, with the revision.
    revision: watch::Sender<u64>,
    /// What watches may show, and how often they were ended.
    valve: watch::Sender<Valve>,
}

#[derive(Clone)]
struct Valve {
    /// Watches show nothing after this revision.
    limit: u64,
    /// The limit holds for this resource only; empty: for all.
    limited: String,
    /// Watches opened before the present number end.
    generation: u64,
    /// Watches refuse streaming lists.
    plain_lists: bool,
}

impl Default for FakeApi {
    fn default() -> Self {
        FakeApi::new()
    }
}

impl FakeApi {
    /// An empty server whose clock starts at 2026-01-01 and follows tokio's.
    pub fn new() -> FakeApi {
        let start = "2026-01-01T00:00:00Z".parse().expect("invariant: a valid time");
        FakeApi::with_clock(Clock::simulated(start))
    }

    /// An empty server with a clock of the test's.
    pub fn with_clock(clock: Clock) -> FakeApi {
        let shared = Shared {
            state: Mutex::new(State::new(clock, Random::seeded(1))),
            saboteur: Mutex::new(None),
            revision: watch::Sender::new(1),
            valve: watch::Sender::new(Valve {
                limit: u64::MAX,
                limited: String::new(),
                generation: 0,
                plain_lists: false,
            }),
        };
        FakeApi {
            shared: Arc::new(shared),
        }
    }

    /// The server's clock.
    pub fn clock(&self) -> Clock {
        self.shared.state.lock().clock.clone()
    }

    /// A client named `test`.
    pub fn client(&self) -> Client {
        self.client_as("test")
    }

    /// A client with this identity.
    pub fn client_as(&self, user: &str) -> Client {
        Client::new(Arc::new(FakeTransport {
            api: self.clone(),
            user: user.into(),
        }))
        .with_user_agent(user)
    }

    /// Serves one more resource (a custom one), with the usual verbs.
    pub fn serve(&self, resource: Resource) {
        self.shared.state.lock().serve(resource, state::VERBS);
    }

    /// Serves a resource with just these verbs.
    pub fn serve_verbs(&self, resource: Resource, verbs: &'static [&'static str]) {
        self.shared.state.lock().serve(resource, verbs);
    }

    /// Stops serving a resource; its objects are gone.
    pub fn stop_serving(&self, resource: &Resource) {
        self.shared.state.lock().stop_serving(resource);
    }

    /// Creates an object (its `apiVersion` and `kind` say where) and returns it as stored. Missing namespaces are no
    /// obstacle.
    ///
    /// # Panics
    /// When the kind is not served or the name is taken.
    pub fn put(&self, object: Value) -> Value {
        let stored = self
            .shared
            .state
            .lock()
            .put(object)
            .unwrap_or_else(|status| panic!("put: {status}"));
        self.announce();
        stored
    }

    /// Reads an object.
    pub fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        self.shared.state.lock().get(resource, namespace, name)
    }

    /// All objects of a resource, ordered by namespace and name.
    pub fn list(&self, resource: &Resource) -> Vec<Value> {
        self.shared.state.lock().list(resource, "")
    }

    /// Changes an object as if somebody wrote it, status and all.
    ///
    /// # Panics
    /// When there is no such object.
    pub fn edit(&self, resource: &Resource, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Value {
        let stored = self.shared.state.lock().edit(resource, namespace, name, change);
        self.announce();
        stored
    }

    /// Takes an object away at once, whatever its finalizers. False when it was not there.
    pub fn remove(&self, resource: &Resource, namespace: &str, name: &str) -> bool {
        let removed = self.shared.state.lock().remove(resource, namespace, name);
        self.announce();
        removed
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// The requests since the last call, in order.
    pub fn take_requests(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.state.lock().requests)
    }

    /// The writes since the last call to this or [`FakeApi::take_requests`], as lines; events left out.
    pub fn take_writes(&self) -> Vec<String> {
        let requests = self.take_requests();
        requests
            .iter()
            .filter(|seen| seen.is_write() && seen.resource != "events")
            .map(Seen::line)
            .collect()
    }

    /// Asks this closure about every request from now on.
    pub fn sabotage(&self, saboteur: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        *self.shared.saboteur.lock() = Some(Box::new(saboteur));
    }

    /// Ends the sabotage.
    pub fn behave(&self) {
        *self.shared.saboteur.lock() = None;
    }

    /// Watches show nothing that happens from now on: whoever reads through them reads the past.
    pub fn freeze_watches(&self) {
        let revision = self.revision();
        self.shared
            .valve
            .send_modify(|valve| (valve.limit, valve.limited) = (revision, String::new()));
    }

    /// The same for one resource.
    pub fn freeze_watches_of(&self, resource: &Resource) {
        let revision = self.revision();
        self.shared
            .valve
            .send_modify(|valve| (valve.limit, valve.limited) = (revision, resource.to_string()));
    }

    /// Watches show everything again.
    pub fn thaw_watches(&self) {
        self.shared.valve.send_modify(|valve| valve.limit = u64::MAX);
    }

    /// Ends all watches that are open.
    pub fn end_watches(&self) {
        self.shared.valve.send_modify(|valve| valve.generation += 1);
    }

    /// Refuses streaming lists from now on, as servers before 1.32 do.
    pub fn refuse_streaming_lists(&self) {
        self.shared.valve.send_modify(|valve| valve.plain_lists = true);
    }

    /// Forgets all history: to resume a watch from before gives 410.
    pub fn compact(&self) {
        self.shared.state.lock().compact();
    }

    /// Returns when `enough` says yes, looking again after each change.
    pub async fn until(&self, enough: impl Fn(&FakeApi) -> bool) {
        let mut revision = self.shared.revision.subscribe();
        loop {
            revision.borrow_and_update();
            if enough(self) {
                return;
            }
            revision.changed().await.expect("invariant: the sender is in self");
        }
    }

    fn announce(&self) {
        let revision = self.shared.state.lock().revision;
        self.shared.revision.send_replace(revision);
    }

    fn fault(&self, seen: &Seen) -> Option<Fault> {
        self.shared.saboteur.lock().as_mut().and_then(|saboteur| saboteur(seen))
    }
}

struct FakeTransport {
    api: FakeApi,
    user: String,
}

impl Transport for FakeTransport {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let answer = routing::answer(&self.api, &self.user, request);
        Box::pin(async move {
            // A request is a task switch at least, as with a real server.
            tokio::task::yield_now().await;
            answer
        })
    }
}

#[cfg(test)]
mod tests;
