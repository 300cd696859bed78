//! The stages of a write, the same for every verb: default, field manager, mutating admission, strategy, validation,
//! validating admission, store. All of them run again when the write lost its race, as often as it does (upstream: `GuaranteedUpdate`): somebody else's write won each time, and the request's deadline is the bound. Only a
//! client that named the version it saw is told of a conflict.
//!
//! Invariant: what is committed was seen by every stage as it is, on the object that it replaces.

mod create;
mod metadata;
mod update;

use std::borrow::Cow;
use std::sync::Arc;

use store::{Guard, Operation as StoreOperation, Transaction};
use tokio::time::Instant;
use tracing::Instrument as _;

use api::codec::MediaType;
use api::field::{Error, ErrorList, Path};
use api::normalize::{UnknownFields, normalize};
use api::{GroupResource, Status, Value, meta, validation};
use kinds::row::WriteContext;

use crate::call::{Call, rfc3339};
use crate::cluster::Object;
use crate::metrics::Step;
use crate::options::WriteOptions;
use crate::pipeline::{Operation, Plugin, Review};
use crate::registry::{Kind, Served};

pub use metadata::{check_name, ensure_namespace};

use super::read::scope;
use super::{mutate, scale};
use metadata::dedup_owners;

/// One write, whatever its verb.
pub struct Write<'a> {
    /// The request.
    pub call: &'a Call,
    /// What is written.
    pub served: &'a Arc<Served>,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The object's name; empty for a create whose name is in the body.
    pub name: &'a str,
    /// The options.
    pub options: &'a WriteOptions,
    /// The write is the server's own consequence of a request that was admitted and checked by itself (a binding): no
    /// strategy, no validation, no admission of the object.
    pub internal: bool,
}

/// What a write came to.
pub struct Written {
    /// The object as it is now (of a dry run: as it would be).
    pub object: Arc<Object>,
    /// Whether it is new.
    pub created: bool,
}

/// What one attempt came to.
enum Attempt {
    /// It is done.
    Done(Written),
    /// Somebody was faster: once more.
    Raced,
    /// The store takes nothing that large.
    TooLarge(Status),
}

/// Makes the new hub object from the one that is there.
pub type Make<'a> = &'a (dyn Fn(Option<&Value>) -> Result<Value, Status> + Send + Sync);

impl Write<'_> {
    fn kind(&self) -> &Arc<Kind> {
        &self.served.kind
    }

    fn resource(&self) -> GroupResource {
        self.served.resource()
    }

    fn namespace(&self) -> &str {
        scope(self.kind(), &self.call.attributes.namespace)
    }

    fn now(&self) -> String {
        rfc3339(self.call.server.clock.now())
    }

    fn review(&self, operation: Operation, name: &str) -> Review {
        let kind = self.kind();
        // A patch is an update, or a create where there is nothing yet. Source: `patchToUpdateOptions` of
        // apiserver/pkg/endpoints/handlers/patch.go.
        let options = match operation {
            Operation::Create => "CreateOptions",
            _ => "UpdateOptions",
        };
        Review {
            operation,
            kind: match self.subresource {
                "scale" => scale::kind(),
                _ => kind.hub.clone(),
            },
            resource: api::GroupVersionResource::new(&kind.row.group, &kind.row.hub, &kind.row.plural),
            subresource: self.subresource.into(),
            name: name.into(),
            dry_run: self.options.dry_run,
            options: self.options.to_value(options),
            ..Review::of(self.call)
        }
    }

    /// Whether an object that is too large for the store is tried once more without saying who manages its fields, which can
    /// be more than they are. An apply is about just that. Source: `isTooLargeError` in the handlers of apiserver/pkg/endpoints.
    fn may_forget_managers(&self) -> bool {
        !self.internal && !matches!(mutate::patch_type(self.call), Ok(MediaType::ApplyYaml))
    }

    /// Normal form and defaults of a hub object.
    fn settle(&self, object: &mut Value) -> Result<(), Status> {
        normalize(object, &self.kind().schema, UnknownFields::Ignore).map_err(Status::internal)?;
        self.kind().row.set_defaults(object);
        Ok(())
    }

    /// What the mutating slot makes of an object, with everything again afterwards that a mutation can spoil.
    async fn admit(&self, review: &Review, object: Value, old: Option<&Value>) -> Result<Value, Status> {
        if !self
            .call
            .server
            .admission
            .iter()
            .any(|plugin| plugin.handles(review.operation) && plugin.has(Step::Admit))
        {
            return Ok(object);
        }
        let shown_old = old.map(|old| self.shown(old)).transpose()?;
        // Of `scale` it is the Scale that plug-ins see and may change.
        let scale = (self.subresource == "scale").then(|| scale::scale_in(self.served, &object));
        let (mut slot, whole) = match scale.transpose()? {
            Some(scale) => (Some(scale), Some(object)),
            None => (Some(object), None),
        };
        run_admit(self.call, review, &mut slot, shown_old.as_deref()).await?;
        let mut object = slot.ok_or_else(|| Status::internal("an admission plug-in removed the object"))?;
        if let Some(whole) = whole {
            object = match object == scale::scale_in(self.served, &whole)? {
                true => whole,
                false => scale::replicas_set_in(self.served, &whole, &object)?,
            };
        }
        self.settle(&mut object)?;
        dedup_owners(self.call, &mut object, true);
        Ok(object)
    }

    /// The object as admission sees it: of `scale` it is the Scale.
    fn shown<'v>(&self, object: &'v Value) -> Result<Cow<'v, Value>, Status> {
        match self.subresource {
            "scale" => scale::scale_in(self.served, object).map(Cow::Owned),
            _ => Ok(Cow::Borrowed(object)),
        }
    }

    fn refuse(&self, object: &Value, errors: &[Error]) -> Result<(), Status> {
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&self.kind().group_kind(), meta::name(object), errors))
    }

    fn validate_meta(&self, object: &Value) -> ErrorList {
        let row = &self.kind().row;
        validation::object_meta(
            &object["metadata"],
            row.namespaced,
            row.name_rule,
            &Path::new("metadata"),
        )
    }

    fn context<'a>(&'a self, now: &'a str) -> WriteContext<'a> {
        WriteContext {
            now,
            subresource: self.subresource,
            user: kinds::Writer {
                name: &self.call.user.name,
                uid: &self.call.user.uid,
                groups: &self.call.user.groups,
                extra: Some(&self.call.user.extra),
            },
            version: &self.served.gvr.version,
        }
    }

    fn as_object(&self, object: &Value, revision: u64) -> Result<Arc<Object>, Status> {
        let fields = self.kind().field_values(object);
        Object::from_value(object, revision, fields)
            .map(Arc::new)
            .map_err(Status::internal)
    }

    /// Adds to a transaction what plug-ins want to change with it.
    fn add_together(&self, review: &Review, transaction: &mut Transaction) -> Result<(), Status> {
        for (resource, seen, new) in review.together.lock().changes.drain(..) {
            let kind = self.call.registry.kind(&resource);
            let kind = kind.expect("invariant: plug-ins change objects of kinds that are served");
            let key = kind.key(seen.namespace(), seen.name());
            let put = self.call.server.storage.put(kind, &key, &new, None)?;
            transaction.guards.push(Guard::ModRevision(key.into(), seen.revision()));
            transaction.operations.push(put);
        }
        Ok(())
    }

    fn put(&self, key: &str, object: &Value) -> Result<StoreOperation, Status> {
        let ttl = self
            .kind()
            .row
            .ttl_seconds
            .and_then(|seconds| i64::try_from(seconds).ok());
        let expires_at_ms = ttl.map(|seconds| self.call.server.clock.now_ms() + seconds * 1000);
        self.call.server.storage.put(self.kind(), key, object, expires_at_ms)
    }
}

/// Whether the kind is the core Namespace.
pub fn is_namespaces(kind: &Kind) -> bool {
    kind.row.group.is_empty() && kind.row.plural == "namespaces"
}

/// One way through the plug-ins of a step, and how long each of them took: the clock is read once between two of them.
struct Passage<'a> {
    call: &'a Call,
    step: Step,
    operation: Operation,
    began: Instant,
    last: Instant,
}

impl<'a> Passage<'a> {
    fn new(call: &'a Call, step: Step, operation: Operation) -> Passage<'a> {
        let now = Instant::now();
        Passage {
            call,
            step,
            operation,
            began: now,
            last: now,
        }
    }

    /// The plug-ins that want to see the operation in this step, and their places.
    fn plugins(&self) -> impl Iterator<Item = (usize, &'a Arc<dyn Plugin>)> + use<'a> {
        let (operation, step) = (self.operation, self.step);
        let all = self.call.server.admission.iter().enumerate();
        all.filter(move |(_, plugin)| plugin.handles(operation) && plugin.has(step))
    }

    fn span(&self, plugin: &Arc<dyn Plugin>) -> tracing::Span {
        tracing::trace_span!(target: "otel", "Admission", "type" = self.step.as_str(), plugin = plugin.name())
    }

    fn decided(&mut self, at: usize, rejected: bool) {
        let now = Instant::now();
        let metrics = &self.call.server.metrics.admission;
        metrics.decided(at, self.step, self.operation, rejected, now - self.last);
        self.last = now;
    }

    fn end(self, rejected: bool) {
        let metrics = &self.call.server.metrics.admission;
        metrics.passed(self.step, self.operation, rejected, self.last - self.began);
    }
}

/// Runs the mutating slot of all plug-ins.
pub async fn run_admit(
    call: &Call,
    review: &Review,
    object: &mut Option<Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    tracing::trace!(target: "walk", "mutating admission");
    let mut passage = Passage::new(call, Step::Admit, review.operation);
    let mut result = admit_once(&mut passage, review, object, old).await;
    // What policies changed, the plug-ins before them have not seen.
    if result.is_ok() && review.reinvocation.lock().again() {
        result = admit_once(&mut passage, review, object, old).await;
    }
    passage.end(result.is_err());
    take_warnings(call, review);
    result
}

/// One run through the mutating slot of all plug-ins.
async fn admit_once(
    passage: &mut Passage<'_>,
    review: &Review,
    object: &mut Option<Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    for (at, plugin) in passage.plugins() {
        let result = plugin.admit(review, object, old).instrument(passage.span(plugin)).await;
        passage.decided(at, result.is_err());
        result?;
    }
    Ok(())
}

/// Runs the validating slot of all plug-ins.
pub async fn run_validate(
    call: &Call,
    review: &Review,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    tracing::trace!(target: "walk", "validating admission");
    let mut passage = Passage::new(call, Step::Validate, review.operation);
    let mut result = Ok(());
    for (at, plugin) in passage.plugins() {
        result = plugin
            .validate(review, object, old)
            .instrument(passage.span(plugin))
            .await;
        passage.decided(at, result.is_err());
        if result.is_err() {
            break;
        }
    }
    passage.end(result.is_err());
    take_warnings(call, review);
    result
}

/// What plug-ins tell beside their verdict.
fn take_warnings(call: &Call, review: &Review) {
    for annotation in std::mem::take(&mut *review.annotations.lock()) {
        if let Some(trail) = &call.audit {
            trail.annotate_at(annotation.level, &annotation.key, &annotation.value);
        }
    }
    for warning in std::mem::take(&mut *review.warnings.lock()) {
        call.warn(warning);
    }
}
