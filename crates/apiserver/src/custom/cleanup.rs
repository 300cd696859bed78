//! What is left of a deleted definition: its objects are deleted, and it goes when they are gone.
//!
//! They are deleted where they are stored, in whatever version, and nobody is asked: no webhook, no policy and no server that
//! answers for the group version today keeps a definition that goes.
//!
//! Source: `apiextensions-apiserver/pkg/controller/finalizer/crd_finalizer.go`.

use std::sync::Arc;
use std::time::Duration;

use api::{GroupResource, Value, meta};
use base::Backoff;
use futures::{StreamExt, stream};
use kinds::apiextensions::CLEANUP_FINALIZER;
use kinds::apiextensions::conditions::{Condition, set};
use kinds::custom::is_true;

use super::controller::{definitions, write};
use crate::call::rfc3339;
use crate::cluster::{Cluster, Object};
use crate::registry::Kind;
use crate::server::Server;
use crate::verbs::delete::{COLLECTION_WORKERS, delete_unasked};

/// The pauses between attempts when objects cannot be deleted, or are kept.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long objects may take to go until that is told and tried again. Source: `deleteInstances`.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// Starts to remove the objects of a definition that is being deleted; once for each.
pub fn start(server: &Arc<Server>, name: &str, uid: &str) {
    if !server.cleaned.lock().insert(uid.to_owned()) {
        return;
    }
    let (server, name, uid) = (server.clone(), name.to_owned(), uid.to_owned());
    let spawning = server.shutdown.clone();
    spawning.spawn(async move {
        let end = server.shutdown.clone();
        let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        while let Some(false) = end.until(attempt(&server, &name, &uid)).await {
            if end.until(tokio::time::sleep(pauses.next_delay())).await.is_none() {
                break;
            }
        }
        server.cleaned.lock().remove(&uid);
    });
}

fn read(server: &Server, name: &str, uid: &str) -> Option<Arc<Object>> {
    let object = Cluster::get(&*server.storage, &definitions(), "", name)?;
    (object.uid() == uid && object.is_deleting()).then_some(object)
}

/// Whether the definition is gone, or another one.
async fn attempt(server: &Arc<Server>, name: &str, uid: &str) -> bool {
    let Some(object) = read(server, name, uid) else {
        return true;
    };
    let crd = object.value();
    let under_way = condition(
        "True",
        "InstanceDeletionInProgress",
        "CustomResource deletion is in progress",
    );
    tell(server, name, uid, &under_way, false).await;
    let resource = resource_of(&crd);
    let served = server.registry.load().kind(&resource).cloned();
    let outcome = match (served, is_true(&crd, "Established")) {
        (Some(kind), _) if kind.custom.is_none() => Ok(condition(
            "False",
            "OverlappingBuiltInResource",
            "instances overlap with built-in resources in storage",
        )),
        (_, false) => Ok(condition("False", "NeverEstablished", "resource was never established")),
        // Nobody knows what is stored of it: it must not come back with another definition of the name.
        (None, true) => Err(Failure::List("the resource is not served")),
        (Some(kind), true) => remove_all(server, &kind)
            .await
            .map(|()| condition("False", "InstanceDeletionCompleted", "removed all instances")),
    };
    match outcome {
        Ok(done) => tell(server, name, uid, &done, true).await,
        Err(failure) => {
            tell(server, name, uid, &failure.condition(), false).await;
            false
        }
    }
}

fn resource_of(crd: &Value) -> GroupResource {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    GroupResource {
        group: text(&crd["spec"]["group"]),
        resource: text(&crd["status"]["acceptedNames"]["plural"]),
    }
}

/// Why objects are still there.
enum Failure {
    /// They cannot be looked at, because of this.
    List(&'static str),
    /// A deletion failed.
    Delete(String),
    /// They are being deleted, but somebody's finalizers keep them; and why nobody waits any longer.
    Check(&'static str),
}

impl Failure {
    fn condition(&self) -> Condition {
        match self {
            Failure::List(why) => {
                let message = format!("could not list instances: {why}");
                condition("True", "InstanceDeletionFailed", &message)
            }
            Failure::Delete(why) => {
                let message = format!("could not issue all deletes: {why}");
                condition("True", "InstanceDeletionFailed", &message)
            }
            Failure::Check(why) => {
                let message = format!("could not confirm zero CustomResources remaining: {why}");
                condition("True", "InstanceDeletionCheck", &message)
            }
        }
    }
}

fn condition(status: &'static str, reason: &'static str, message: &str) -> Condition {
    Condition {
        kind: "Terminating",
        status,
        reason,
        message: message.to_owned(),
    }
}

/// Writes the condition, and with `done` takes the finalizer away. Whether the definition is gone then.
async fn tell(server: &Arc<Server>, name: &str, uid: &str, condition: &Condition, done: bool) -> bool {
    // Lost races are run again: each time somebody else's write won.
    while let Some(object) = read(server, name, uid) {
        let crd = object.value();
        let mut new = crd.clone();
        set(&mut new, condition, &rfc3339(server.clock.now()));
        if done && let Some(Value::Array(finalizers)) = new["metadata"].get_mut("finalizers") {
            finalizers.retain(|finalizer| finalizer != CLEANUP_FINALIZER);
            if finalizers.is_empty() {
                meta::metadata_mut(&mut new).remove("finalizers");
            }
        }
        if new == crd {
            return done;
        }
        let is_last = done && meta::finalizers(&new).next().is_none();
        match write(server, &object, &crd, new).await {
            Ok(Some(_)) => return done,
            Ok(None) if is_last && read(server, name, uid).is_none() => return true,
            Ok(None) => {}
            Err(status) => {
                tracing::warn!(name, %status.message, "the status of a definition was not written");
                return false;
            }
        }
    }
    true
}

/// Deletes all objects, and waits until they are gone.
async fn remove_all(server: &Arc<Server>, kind: &Arc<Kind>) -> Result<(), Failure> {
    let (storage, resource) = (&*server.storage, &kind.resource);
    let mut changes = Cluster::changes(storage, resource);
    delete_all(server, kind).await?;
    let gone = async {
        while !Cluster::list(storage, resource, None).is_empty() {
            changes.next().await.ok_or(Failure::Check("the server ends"))?;
            // What was created meanwhile.
            delete_all(server, kind).await?;
        }
        Ok(())
    };
    let late = Failure::Check("context deadline exceeded");
    tokio::time::timeout(CHECK_LIMIT, gone).await.unwrap_or(Err(late))
}

/// Deletes what is not being deleted: that waits for its finalizers, which are others' to take away.
async fn delete_all(server: &Arc<Server>, kind: &Arc<Kind>) -> Result<(), Failure> {
    let objects = Cluster::list(&*server.storage, &kind.resource, None).into_iter();
    let deletions = objects.filter(|object| !object.is_deleting()).map(|object| {
        let (server, kind) = (server.clone(), kind.clone());
        async move { delete_unasked(&server, &kind, object.namespace(), object.name()).await }
    });
    let mut running = stream::iter(deletions).buffer_unordered(COLLECTION_WORKERS);
    while let Some(outcome) = running.next().await {
        outcome.map_err(|status| Failure::Delete(status.message))?;
    }
    Ok(())
}
