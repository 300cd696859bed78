//! DELETE of one object and of a collection: preconditions, grace, finalizers, propagation.
//!
//! Source: `k8s.io/apiserver/pkg/registry/generic/registry/store.go` and `pkg/registry/rest/delete.go`; for Namespaces
//! `k8s.io/kubernetes/pkg/registry/core/namespace/storage`.

use std::sync::Arc;

use futures::StreamExt;
use http::Response;
use serde_json::json;
use store::{Guard, Operation as StoreOperation, Transaction};

use api::{GroupResource, GroupVersionResource, Reason, Status, StatusDetails, Value, meta};
use client::Body;
use kinds::row::Propagation;

use crate::allocation::Reservation;
use crate::call::{Call, RequestBody, read_body, rfc3339};
use crate::cluster::Object;
use crate::custom;
use crate::decode;
use crate::options::{DeleteOptions, ListOptions};
use crate::pipeline::{Operation, Review};
use crate::registry::{Kind, Served};
use crate::respond;
use crate::server::Server;
use crate::storage::WriteError;

use super::read::{page, scope};
use super::write::{is_namespaces, run_admit, run_validate};

/// How many objects of a collection are deleted at once.
pub const COLLECTION_WORKERS: usize = 16;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What became of a deletion.
pub struct Deleted {
    /// The object as it was last.
    pub object: Arc<Object>,
    /// Whether it is gone.
    pub gone: bool,
    /// Whether the answer is a Status: it is gone, or its deletion is under way already.
    pub status: bool,
}

async fn options(call: &Call, body: RequestBody) -> Result<DeleteOptions, Status> {
    let bytes = read_body(body).await?;
    if bytes.is_empty() {
        return DeleteOptions::from_query(&call.query);
    }
    let mut options = DeleteOptions::from_value(&decode::delete_options(call, &bytes)?)?;
    // The query is the only place some clients put it.
    options.dry_run |= call.query.has("dryRun") && DeleteOptions::from_query(&call.query)?.dry_run;
    Ok(options)
}

/// DELETE.
pub async fn delete(call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let options = options(call, body).await?;
    let name = &call.attributes.name;
    let namespace = scope(&served.kind, &call.attributes.namespace);
    let deleted = delete_object(call, served, namespace, name, &options).await?;
    let code = if !deleted.gone && options.orphan_dependents == Some(false) {
        202
    } else {
        200
    };
    if !deleted.status || served.kind.row.delete.returns_object {
        return respond::object(call, served, &deleted.object, code);
    }
    let resource = served.resource();
    let mut status = Status::success(Some(StatusDetails {
        name: name.clone(),
        group: resource.group,
        kind: resource.resource,
        uid: deleted.object.uid().into(),
        ..StatusDetails::default()
    }));
    if code != 200 {
        status.code = code;
    }
    Ok(respond::success(call, &status))
}

/// DELETE of everything that is selected. Answers with what was there.
pub async fn delete_collection(
    call: &Arc<Call>,
    served: &Arc<Served>,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let options = options(call, body).await?;
    let list = ListOptions::parse(call, served, false)?;
    let page = page(call, served, &list).await?;
    let names: Vec<(String, String)> = page
        .objects
        .iter()
        .map(|object| (object.namespace().to_owned(), object.name().to_owned()))
        .collect();
    let deletions = names.into_iter().map(|(namespace, name)| {
        let (call, served, options) = (call.clone(), served.clone(), options.clone());
        async move { delete_object(&call, &served, &namespace, &name, &options).await }
    });
    let mut running = futures::stream::iter(deletions).buffer_unordered(COLLECTION_WORKERS);
    while let Some(outcome) = running.next().await {
        match outcome {
            Err(status) if !status.is(Reason::NotFound) => return Err(status),
            _ => {}
        }
    }
    respond::list::answer(call, served, page).await
}

/// Deletes one object, or starts its deletion.
pub async fn delete_object(
    call: &Call,
    served: &Arc<Served>,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    let kind = &served.kind;
    let storage = &call.server.storage;
    // A lost race is run again until the request's deadline, as every write.
    loop {
        let live = storage
            .get(kind, namespace, name)?
            .ok_or_else(|| Status::not_found(&served.resource(), name))?;
        let live = custom::shown_one(&call.server, served, live).await?;
        check_preconditions(kind, &live, options)?;
        let old = live.value();
        let review = review(call, kind, namespace, name, options);
        run_admit(call, &review, &mut None, Some(&old)).await?;
        run_validate(call, &review, None, Some(&old)).await?;
        let now = call.server.clock.now();
        let step = decide(kind, &old, options, now);
        let key = kind.key(namespace, name);
        let guard = Guard::ModRevision(key.clone().into(), live.revision());
        let operation = match &step {
            Step::Pending => {
                return Ok(Deleted {
                    object: live,
                    gone: false,
                    status: !is_namespaces(kind),
                });
            }
            Step::Now => StoreOperation::Delete(key.into()),
            Step::Mark(object) if *object == old => {
                return Ok(Deleted {
                    object: live,
                    gone: false,
                    status: false,
                });
            }
            Step::Mark(object) => {
                let stored = custom::stored(&call.server, kind, object).await?;
                storage.put(kind, &key, &stored, None)?
            }
        };
        let as_object = |object: &Value, revision: u64| {
            Object::from_value(object, revision, kind.field_values(object))
                .map(Arc::new)
                .map_err(Status::internal)
        };
        if options.dry_run {
            return Ok(match &step {
                Step::Mark(object) => Deleted {
                    object: as_object(object, live.revision())?,
                    gone: false,
                    status: false,
                },
                _ => Deleted {
                    object: live,
                    gone: true,
                    status: true,
                },
            });
        }
        let transaction = Transaction {
            guards: vec![guard],
            operations: vec![operation],
        };
        match crate::commit::commit(
            &call.server,
            transaction,
            Reservation::releasing(&call.server.allocator, kind, &old, matches!(step, Step::Now)),
        )
        .await
        {
            Ok(committed) => {
                return Ok(match &step {
                    Step::Mark(object) => Deleted {
                        object: as_object(object, committed.revision)?,
                        gone: false,
                        status: false,
                    },
                    _ => Deleted {
                        object: live,
                        gone: true,
                        status: true,
                    },
                });
            }
            Err(WriteError::Raced) => {
                call.server.metrics.write_retries.inc();
            }
            Err(WriteError::Failed(status) | WriteError::TooLarge(status)) => return Err(status),
        }
    }
}

/// Deletes one object, or starts its deletion, and asks nobody: its definition goes and takes it along.
///
/// # Errors
/// The store does not take it.
pub async fn delete_unasked(server: &Arc<Server>, kind: &Kind, namespace: &str, name: &str) -> Result<(), Status> {
    // A lost race is run again: each time somebody else's write won.
    while let Some(live) = server.storage.get(kind, namespace, name)? {
        let old = live.value();
        let key = kind.key(namespace, name);
        let operation = match decide(kind, &old, &DeleteOptions::default(), server.clock.now()) {
            Step::Now => StoreOperation::Delete(key.clone().into()),
            Step::Mark(object) if object != old => server.storage.put(kind, &key, &object, None)?,
            Step::Mark(_) | Step::Pending => return Ok(()),
        };
        let transaction = Transaction {
            guards: vec![Guard::ModRevision(key.into(), live.revision())],
            operations: vec![operation],
        };
        match crate::commit::commit(server, transaction, Reservation::none()).await {
            Ok(_) => return Ok(()),
            Err(WriteError::Raced) => {
                server.metrics.write_retries.inc();
            }
            Err(WriteError::Failed(status) | WriteError::TooLarge(status)) => return Err(status),
        }
    }
    Ok(())
}

fn review(call: &Call, kind: &Kind, namespace: &str, name: &str, options: &DeleteOptions) -> Review {
    let namespace = if is_namespaces(kind) { name } else { namespace };
    Review {
        operation: Operation::Delete,
        kind: kind.hub.clone(),
        resource: GroupVersionResource::new(&kind.row.group, &kind.row.hub, &kind.row.plural),
        subresource: String::new(),
        namespace: namespace.into(),
        name: name.into(),
        dry_run: options.dry_run,
        options: options.to_value(),
        ..Review::of(call)
    }
}

fn check_preconditions(kind: &Kind, live: &Object, options: &DeleteOptions) -> Result<(), Status> {
    // Upstream names the kind where other conflicts name the resource.
    let resource = GroupResource {
        group: kind.hub.group.clone(),
        resource: kind.hub.kind.clone(),
    };
    if let Some(uid) = &options.uid
        && **uid != *live.uid()
    {
        let found = live.uid();
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({found}). The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&resource, live.name(), &why));
    }
    if let Some(version) = &options.resource_version {
        let found = live.revision().to_string();
        if *version != found {
            let why = format!(
                "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({found}). The object might have been modified"
            );
            return Err(Status::conflict(&resource, live.name(), &why));
        }
    }
    Ok(())
}

/// What a deletion does to an object.
#[derive(Debug, PartialEq)]
enum Step {
    /// It goes now.
    Now,
    /// It stays, marked like this.
    Mark(Value),
    /// Its deletion is under way; nothing to do.
    Pending,
}

/// Pure: from an object and what was asked to what happens.
fn decide(kind: &Kind, old: &Value, options: &DeleteOptions, now: jiff::Timestamp) -> Step {
    let mut object = old.clone();
    if is_namespaces(kind) {
        return decide_namespace(kind, object, options, now);
    }
    if kind.resource == custom::definitions() && !meta::is_deleting(&object) {
        return decide_definition(object, options, now);
    }
    let graceful = match kind.row.delete.graceful {
        false => Grace::None,
        true => grace(kind, &mut object, options, now),
    };
    if graceful == Grace::Pending {
        return Step::Pending;
    }
    set_finalizers(kind, &mut object, options);
    let kept = meta::finalizers(&object).next().is_some();
    match graceful {
        Grace::Seconds(seconds) if kept || seconds > 0 => Step::Mark(object),
        _ if kept => {
            mark(&mut object, now);
            Step::Mark(object)
        }
        _ => Step::Now,
    }
}

/// A CustomResourceDefinition is kept by a finalizer of its own until its objects are gone.
///
/// Source: `apiextensions-apiserver/pkg/registry/customresourcedefinition/etcd.go`.
fn decide_definition(mut object: Value, options: &DeleteOptions, now: jiff::Timestamp) -> Step {
    let now_text = rfc3339(now);
    mark(&mut object, now);
    let keeps_dependents = options.orphan_dependents == Some(true);
    let metadata = meta::metadata_mut(&mut object);
    let finalizers = metadata.entry("finalizers").or_insert(Value::Null);
    if !finalizers.is_array() {
        *finalizers = json!([]);
    }
    if let Some(finalizers) = finalizers.as_array_mut() {
        let own = Value::from(kinds::apiextensions::CLEANUP_FINALIZER);
        if !finalizers.contains(&own) {
            finalizers.push(own);
        }
        if keeps_dependents && !finalizers.iter().any(|finalizer| finalizer == ORPHAN) {
            finalizers.push(ORPHAN.into());
        }
    }
    let condition = kinds::apiextensions::conditions::Condition {
        kind: "Terminating",
        status: "True",
        reason: "InstanceDeletionPending",
        message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon".into(),
    };
    kinds::apiextensions::conditions::set(&mut object, &condition, &now_text);
    Step::Mark(object)
}

/// A Namespace is marked first, and goes when the namespace controller has emptied it.
fn decide_namespace(kind: &Kind, mut object: Value, options: &DeleteOptions, now: jiff::Timestamp) -> Step {
    if !meta::is_deleting(&object) {
        meta::set_text(&mut object, "deletionTimestamp", &rfc3339(now));
        object["status"]["phase"] = "Terminating".into();
        set_finalizers(kind, &mut object, options);
        return Step::Mark(object);
    }
    let content = object["spec"]["finalizers"]
        .as_array()
        .is_some_and(|finalizers| !finalizers.is_empty());
    if content || meta::finalizers(&object).next().is_some() {
        Step::Pending
    } else {
        Step::Now
    }
}

#[derive(Debug, PartialEq)]
enum Grace {
    /// Goes at once.
    None,
    /// Is marked to go after this many seconds.
    Seconds(i64),
    /// Is going already, and not sooner than asked for.
    Pending,
}

/// The grace period (upstream: `rest.BeforeDelete`). Marks the object.
fn grace(kind: &Kind, object: &mut Value, options: &DeleteOptions, now: jiff::Timestamp) -> Grace {
    let requested = options.grace_period_seconds;
    if !meta::is_deleting(object) {
        let Some(seconds) = kind.row.strategy.grace_period_seconds(object, requested) else {
            return Grace::None;
        };
        let seconds = if seconds < 0 { 1 } else { seconds };
        set_deletion(object, after(now, seconds), seconds);
        raise_generation(object);
        return Grace::Seconds(seconds);
    }
    // Only a shorter period may follow. Without a period the object is to go at once: a deletion was cut short here.
    let current = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if current == 0 {
        return Grace::None;
    }
    let Some(mut seconds) = requested.filter(|seconds| *seconds < current) else {
        return Grace::Pending;
    };
    let due: Option<jiff::Timestamp> = meta::text(object, "deletionTimestamp").parse().ok();
    let mut due = due.map_or(now, |due| after(due, seconds - current));
    if due < now {
        due = now;
        if seconds != 0 {
            seconds = 1;
        }
    }
    set_deletion(object, due, seconds);
    Grace::Seconds(seconds)
}

fn after(time: jiff::Timestamp, seconds: i64) -> jiff::Timestamp {
    time.checked_add(jiff::SignedDuration::from_secs(seconds))
        .unwrap_or(jiff::Timestamp::MAX)
}

fn set_deletion(object: &mut Value, due: jiff::Timestamp, seconds: i64) {
    meta::set_text(object, "deletionTimestamp", &rfc3339(due));
    meta::metadata_mut(object).insert("deletionGracePeriodSeconds".into(), seconds.into());
}

fn raise_generation(object: &mut Value) {
    if let Some(generation) = object["metadata"]["generation"]
        .as_i64()
        .filter(|generation| *generation > 0)
    {
        meta::metadata_mut(object).insert("generation".into(), (generation + 1).into());
    }
}

/// Marks an object that only its finalizers keep (upstream: `markAsDeleting`).
fn mark(object: &mut Value, now: jiff::Timestamp) {
    if !meta::is_deleting(object) {
        raise_generation(object);
    }
    let due: Option<jiff::Timestamp> = meta::text(object, "deletionTimestamp").parse().ok();
    let due = due.filter(|due| *due <= now).unwrap_or(now);
    set_deletion(object, due, 0);
}

/// The finalizers for the garbage collector, as the options, the object or the kind's default say.
fn set_finalizers(kind: &Kind, object: &mut Value, options: &DeleteOptions) {
    let has = |name: &str| meta::finalizers(object).any(|own| own == name);
    let policy = match (options.orphan_dependents, options.propagation) {
        (Some(true), _) => Propagation::Orphan,
        (Some(false), _) => Propagation::Background,
        (None, Some(policy)) => policy,
        (None, None) if has(ORPHAN) => Propagation::Orphan,
        (None, None) if has(FOREGROUND) => Propagation::Foreground,
        (None, None) => kind.row.delete.default_propagation,
    };
    let mut finalizers: Vec<String> = meta::finalizers(object)
        .filter(|name| !matches!(*name, ORPHAN | FOREGROUND))
        .map(str::to_owned)
        .collect();
    match policy {
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Background => {}
    }
    let mut before: Vec<&str> = meta::finalizers(object).collect();
    let mut now: Vec<&str> = finalizers.iter().map(String::as_str).collect();
    before.sort_unstable();
    now.sort_unstable();
    if before == now {
        return;
    }
    let metadata = meta::metadata_mut(object);
    match finalizers.is_empty() {
        true => metadata.remove("finalizers"),
        false => metadata.insert("finalizers".into(), json!(finalizers)),
    };
}
