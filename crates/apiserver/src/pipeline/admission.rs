//! The admission slots: asynchronous steps between decoding and storing a write, with the old and the new object.
//!
//! Every write passes them, DELETE, CONNECT, subresources and each item of a deletecollection too, and passes them again
//! when it lost its race. The plug-ins themselves live in `src/admission`.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::time::Instant;

use api::{GroupResource, GroupVersionKind, GroupVersionResource, Status, Value};

use super::Reinvocation;
use crate::audit::Level;
use crate::call::Call;
use crate::cluster::{Cluster, Object};
use crate::custom::Conversions;
use crate::dial::ServiceDialer;
use crate::metrics::{DynamicMetrics, Step};
use crate::registry::Registry;
use crate::request::UserInfo;
use crate::transport::Own;

/// What is done to the object, in upstream's words for admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A new object, or a subresource that is created (binding, eviction, token).
    Create,
    /// A changed object (PUT, PATCH, apply on an existing one).
    Update,
    /// A deletion; there is an old object and no new one.
    Delete,
    /// `exec`, `attach`, `portforward`, `proxy`; the object is the options of the connection.
    Connect,
}

impl Operation {
    /// The word in an AdmissionReview.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// One write as a plug-in sees it. Objects are hub objects in normal form (see `kinds::row::StorageKind::hub`).
pub struct Review {
    /// What is done.
    pub operation: Operation,
    /// The verb of the request: an update may be a patch.
    pub verb: String,
    /// By whom (after impersonation).
    pub user: Arc<UserInfo>,
    /// The kind of the object (for a subresource with a body of its own, the body's kind).
    pub kind: GroupVersionKind,
    /// The resource as the hub knows it.
    pub resource: GroupVersionResource,
    /// The resource as the request named it: in another version, or in another group even.
    pub requested: GroupVersionResource,
    /// The subresource, or empty.
    pub subresource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The name; empty for a create whose name is still to be generated.
    pub name: String,
    /// Whether nothing will be stored: plug-ins must have no effect of their own.
    pub dry_run: bool,
    /// The options of the request (`CreateOptions`, `DeleteOptions`, ...).
    pub options: Value,
    /// Reads of the cluster's state, from memory.
    pub cluster: Arc<dyn Cluster>,
    /// What is served, for this request to its end.
    pub registry: Arc<Registry>,
    /// What policies and webhooks decide is counted here.
    pub metrics: Arc<DynamicMetrics>,
    /// The way to pods, for whoever asks one of them.
    pub services: Option<Arc<dyn ServiceDialer>>,
    /// The client's trace, for whoever is asked.
    pub trace: Option<HeaderValue>,
    /// When the request has to be answered, if ever.
    pub deadline: Option<Instant>,
    /// Texts for the `Warning` header.
    pub warnings: Mutex<Vec<String>>,
    /// Annotations for the audit log.
    pub annotations: Mutex<Vec<Annotation>>,
    /// What a plug-in wants written together with the object.
    pub together: Mutex<Together>,
    /// Whether the mutating slot runs once more.
    pub reinvocation: Mutex<Reinvocation>,
    /// The objects in other versions, for whoever wants them so.
    pub conversions: Conversions,
}

/// A note for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// How much the log must be told of the request to be told this.
    pub level: Level,
}

/// Other objects that change with the one that is written: all of them in one transaction, or none. Only creates and
/// updates take them along.
#[derive(Default)]
pub struct Together {
    /// Each object as the plug-in saw it, and what it becomes. When one of them changed meanwhile, the write and its
    /// admission run again.
    pub changes: Vec<(GroupResource, Arc<Object>, Value)>,
    /// Kept until the write is done: whoever would change the same objects waits instead of losing the race.
    pub turn: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Review {
    /// What all reviews of a request have in common: a create of the resource that it names, by whoever sends it, without
    /// a name, options and dry run.
    pub fn of(call: &Call) -> Review {
        let attributes = &call.attributes;
        Review {
            operation: Operation::Create,
            verb: attributes.verb.clone(),
            user: call.user.clone(),
            kind: GroupVersionKind::default(),
            resource: call.requested(),
            requested: call.requested(),
            subresource: attributes.subresource.clone(),
            namespace: attributes.namespace.clone(),
            name: String::new(),
            dry_run: false,
            options: Value::Null,
            cluster: call.server.storage.clone(),
            registry: call.registry.clone(),
            metrics: call.server.metrics.dynamic.clone(),
            services: call.server.services.clone(),
            trace: call.trace.clone(),
            deadline: call.deadline,
            warnings: Mutex::default(),
            annotations: Mutex::default(),
            together: Mutex::default(),
            reinvocation: Mutex::default(),
            conversions: Conversions::of(&call.server),
        }
    }

    /// Whether this is about that resource of that group, and that subresource (empty: the main resource).
    pub fn is_about(&self, group: &str, resource: &str, subresource: &str) -> bool {
        self.resource.group == group && self.resource.resource == resource && self.subresource == subresource
    }

    /// The kind of the object as the request named it.
    pub fn requested_kind(&self) -> GroupVersionKind {
        let gvr = &self.requested;
        match self.registry.find(&gvr.group, &gvr.version, &gvr.resource) {
            Some(served) if served.kind.hub == self.kind => served.gvk.clone(),
            _ => self.kind.clone(),
        }
    }

    /// Adds a text for the `Warning` header.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().push(text.into());
    }

    /// Adds an annotation for the audit log.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.annotate_at(Level::Metadata, key, value);
    }

    /// Adds one that the log is only told with so much of the request. What is there already stays as it is.
    pub fn annotate_at(&self, level: Level, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        let mut annotations = self.annotations.lock();
        if annotations.iter().all(|annotation| annotation.key != key) {
            annotations.push(Annotation { key, value, level });
        }
    }

    /// The 403 that upstream's plug-ins answer (`admission.NewForbidden`): `pods "x" is forbidden: why`.
    pub fn forbidden(&self, why: &str) -> Status {
        let resource = self.resource.group_resource();
        Status::forbidden(&resource, &self.name, why)
    }
}

/// One admission plug-in. Plug-ins run in their configured order: first all `admit`, later all `validate`.
pub trait Plugin: Send + Sync {
    /// The name, as upstream's flag knows it.
    fn name(&self) -> &'static str;

    /// Told once, when the server is there: how the plug-in asks it itself.
    fn started(&self, _own: &Own) {}

    /// Whether the plug-in has that slot: one that has not is not asked there, and not counted.
    fn has(&self, _step: Step) -> bool {
        true
    }

    /// Whether the plug-in wants to see that operation at all.
    fn handles(&self, _operation: Operation) -> bool {
        true
    }

    /// The mutating slot. `object` is `None` on deletion. The object is normalized and defaulted again afterwards when
    /// it was changed.
    fn admit<'a>(
        &'a self,
        _review: &'a Review,
        _object: &'a mut Option<Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The validating slot.
    fn validate<'a>(
        &'a self,
        _review: &'a Review,
        _object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
