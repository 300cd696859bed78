//! Server-side apply: field ownership, merging of applied configurations, conflicts.
//!
//! [`apply`] merges a configuration into an object and [`update`] records what any other write changed; both keep
//! `metadata.managedFields`. They follow `k8s.io/apimachinery/pkg/util/managedfields` and
//! `sigs.k8s.io/structured-merge-diff` v6: the chain of upstream's managers (version check, last-applied annotation,
//! before-first-apply, cap of old updates, stripping of metadata) stands in this file, the algebra in the others.
//!
//! Objects are trees in normal form of the request's version; a configuration is as the client sent it, because the
//! fields that it names are what the client wants to own.

mod conflict;
mod element;
mod fields;
mod managers;
mod merge;
mod overlay;
mod set;
mod types;
mod update;
mod validate;

use std::borrow::Cow;
use std::sync::LazyLock;

pub use conflict::{ApplyError, Conflict};
pub use element::{PathElement, path_text};
pub use managers::{ManagerId, Managers, Operation, Owned, UPDATE_MANAGERS_MAX, ignore_time_changes, is_reset};
pub use overlay::overlay;
pub use set::FieldSet;
pub use update::Versions;

use element::go_json;
use fields::{compare, field_set};
use types::Type;
use update::{Typed, Updater};

use crate::schema::SchemaRef;
use crate::validation::ANNOTATIONS_SIZE_MAX;
use crate::{GroupVersionKind, Map, Value, meta};

/// The annotation of client-side apply.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Who owns what was there before the first apply of an object without managers.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose applies take over from client-side apply.
const KUBECTL: &str = "kubectl";

/// Fields that nobody owns: identity and what the server writes.
static UNOWNED: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&UNOWNED_FIELDS));
const UNOWNED_FIELDS: [&str; 12] = [
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];

/// Objects that nest deeper are not tracked and not applied: their fields stand four levels deeper in
/// `managedFields`, where a decoder still has to read them.
const TRACKED_DEPTH_MAX: usize = crate::codec::DEPTH_MAX - 8;

/// Who writes, where and when.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The kind and version that the request is for.
    pub kind: &'a GroupVersionKind,
    /// The schema of that version.
    pub schema: &'a SchemaRef,
    /// The field manager's name; empty is `unknown`.
    pub manager: &'a str,
    /// The subresource written through; empty for the object itself.
    pub subresource: &'a str,
    /// The time of the write as it stands in objects: RFC 3339 in UTC, whole seconds.
    pub now: &'a str,
    /// Fields that this endpoint resets, such as `status` on the main resource.
    pub reset: Option<&'a FieldSet>,
    /// Other versions of the kind; `None` when there is only one.
    pub versions: Option<&'a dyn Versions>,
}

impl<'a> Request<'a> {
    fn api_version(&self) -> String {
        match self.kind.group.is_empty() {
            true => self.kind.version.clone(),
            false => format!("{}/{}", self.kind.group, self.kind.version),
        }
    }

    fn typed<'v>(&self, value: Cow<'v, Value>) -> Typed<'v> {
        Typed {
            value,
            schema: self.schema.clone(),
            api_version: self.api_version(),
        }
    }

    fn updater(&self) -> Updater<'a> {
        Updater {
            versions: self.versions,
            reset: self.reset,
        }
    }

    fn id(&self, operation: Operation) -> ManagerId {
        ManagerId::new(self.manager, operation, &self.api_version(), self.subresource)
    }

    /// Go's zero value of the kind: what an object is compared with that is not there yet.
    fn zero(&self) -> Value {
        let mut zero = crate::normalize::zero(self.schema.node());
        zero["apiVersion"] = self.api_version().into();
        zero["kind"] = self.kind.kind.clone().into();
        zero
    }
}

/// Merges an applied configuration into the live object (null when it is to be created) and returns the new object
/// with its `managedFields`. The caller normalizes, defaults and validates it.
pub fn apply(live: &Value, config: &Value, request: &Request<'_>, force: bool) -> Result<Value, ApplyError> {
    let gvk = meta::gvk(config);
    if gvk != *request.kind {
        return Err(ApplyError::BadRequest(format!("invalid object type: {gvk}")));
    }
    if !config["metadata"]["managedFields"].is_null() {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    let live = if live.is_null() {
        Cow::Owned(request.zero())
    } else {
        Cow::Borrowed(live)
    };
    let managers = || {
        let managers = Managers::decode(&live["metadata"]["managedFields"]);
        managers.map_err(|why| ApplyError::Internal(format!("failed to decode managed fields: {why}")))
    };
    let mut new = match apply_once(&live, config, request, managers()?, force) {
        Err(ApplyError::Conflicts(conflicts)) if request.manager == KUBECTL => {
            // kubectl takes over what its client-side apply has written, and nobody changed since.
            let ours = last_applied_fields(&live, request);
            let left: Vec<Conflict> = match ours {
                Some(ours) => conflicts
                    .into_iter()
                    .filter(|conflict| !ours.contains(&conflict.path))
                    .collect(),
                None => conflicts,
            };
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(left));
            }
            apply_once(&live, config, request, managers()?, true)?
        }
        other => other?,
    };
    if request.manager == KUBECTL && meta::annotation(&new, LAST_APPLIED).is_some_and(|text| !text.is_empty()) {
        set_last_applied(&mut new, config);
    }
    Ok(new)
}

/// Records in `new.metadata.managedFields` what a create (`live` is null), an update or a patch changed. Managers
/// that a client wrote itself are taken when they can be read; through a subresource only the live ones count.
pub fn update(live: &Value, new: &mut Value, request: &Request<'_>) {
    let given = new
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("managedFields"))
        .map(Value::take)
        .unwrap_or_default();
    let of_live = &live["metadata"]["managedFields"];
    if !live.is_null() && (given.is_null() || given == *of_live) && equal_but_managers(live, new) {
        // Nothing changes, so nobody comes to own anything: the entries stay as they are, unread.
        match of_live {
            Value::Null => remove_managed_fields(new),
            entries => new["metadata"]["managedFields"] = entries.clone(),
        }
        return;
    }
    let of_live = || Managers::decode(of_live).unwrap_or_default();
    let managers = if !request.subresource.is_empty() {
        of_live()
    } else if is_reset(&given) {
        Managers::default()
    } else {
        match Managers::decode(&given) {
            Ok(managers) if !managers.is_empty() => managers,
            _ => of_live(),
        }
    };
    remove_managed_fields(new);
    // An object that lost its managers stays without until somebody applies to it.
    if managers.is_empty() && !meta::uid(live).is_empty() {
        return;
    }
    let live = if live.is_null() {
        Cow::Owned(request.zero())
    } else {
        Cow::Borrowed(live)
    };
    let managers = record_update(&live, new, request, managers, request.manager);
    set_managed_fields(new, &managers);
}

/// The managers after an update. A time changes only when its manager changed something.
fn record_update(live: &Value, new: &Value, request: &Request<'_>, mut managers: Managers, manager: &str) -> Managers {
    let (live, new) = (request.typed(Cow::Borrowed(live)), request.typed(Cow::Borrowed(new)));
    let ty = Type::Node(request.schema.node());
    let readable = |object: &Value| {
        crate::patch::depth(object) <= TRACKED_DEPTH_MAX && validate::validate(object, ty, true).is_ok()
    };
    if !readable(&live.value) || !readable(&new.value) {
        // Upstream gives up tracking when it cannot read the object by its schema.
        return Managers::default();
    }
    // A stand-in, so that the writer's earlier entry keeps what this write does not touch.
    let current = ManagerId::new("current-operation", Operation::Update, "", "");
    request.updater().update(&live, &new, &mut managers, &current);
    strip(&mut managers, &current);
    if let Some(mut owned) = managers.fields.remove(&current) {
        let id = Request { manager, ..*request }.id(Operation::Update);
        if let Some(before) = managers.fields.get(&id) {
            owned.set = owned.set.union(&before.set);
        }
        managers.fields.insert(id.clone(), owned);
        managers.times.insert(id, request.now.into());
    }
    managers.cap_updates();
    managers
}

fn apply_once(
    live: &Value,
    config: &Value,
    request: &Request<'_>,
    mut managers: Managers,
    force: bool,
) -> Result<Value, ApplyError> {
    if managers.is_empty() {
        managers = record_update(&request.zero(), live, request, managers, BEFORE_FIRST_APPLY);
    }
    let ty = Type::Node(request.schema.node());
    let typed = |what: &str, object: &Value, duplicates: bool| {
        let result = match crate::patch::depth(object) {
            0..=TRACKED_DEPTH_MAX => validate::validate(object, ty, duplicates),
            _ => Err("exceeded max depth".into()),
        };
        result.map_err(|why| {
            let (namespace, name, kind) = (meta::namespace(object), meta::name(object), request.kind);
            ApplyError::Internal(format!(
                "failed to create typed {what} object ({namespace}/{name}; {kind}): {why}"
            ))
        })
    };
    typed("patch", config, false)?;
    typed("live", live, true)?;
    let id = request.id(Operation::Apply);
    let (typed_live, config) = (request.typed(Cow::Borrowed(live)), request.typed(Cow::Borrowed(config)));
    let changed = request
        .updater()
        .apply(&typed_live, &config, &mut managers, &id, force)?;
    strip(&mut managers, &id);
    let mut new = match changed {
        Some(new) => {
            managers.times.insert(id, request.now.into());
            new
        }
        None => live.clone(),
    };
    set_managed_fields(&mut new, &managers);
    Ok(new)
}

/// Takes away what nobody owns.
fn strip(managers: &mut Managers, id: &ManagerId) {
    let Some(owned) = managers.fields.get_mut(id) else {
        return;
    };
    owned.set.subtract(&UNOWNED);
    if owned.set.is_empty() {
        managers.fields.remove(id);
    }
}

/// The fields of the last client-side apply that still have the value it gave them.
fn last_applied_fields(live: &Value, request: &Request<'_>) -> Option<FieldSet> {
    let text = meta::annotation(live, LAST_APPLIED).filter(|text| !text.is_empty())?;
    let last: Value = serde_json::from_str(text).ok()?;
    if last["apiVersion"].as_str()? != request.api_version() {
        return None;
    }
    let ty = Type::Node(request.schema.node());
    validate::validate(&last, ty, false).ok()?;
    validate::validate(live, ty, false).ok()?;
    let compared = compare(&last, live, ty);
    let set = field_set(&last, ty).difference(&compared.modified);
    Some(set.difference(&compared.added).difference(&compared.removed))
}

/// Keeps the annotation of client-side apply in step, so that people can go back to it. Too long a one is dropped.
fn set_last_applied(new: &mut Value, config: &Value) {
    let mut config = config.clone();
    let annotations = config
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("annotations"));
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty()
            && let Some(metadata) = config["metadata"].as_object_mut()
        {
            metadata.remove("annotations");
        }
    }
    let text = format!("{}\n", go_json(&config));
    let Some(annotations) = new["metadata"]["annotations"].as_object_mut() else {
        return;
    };
    annotations.insert(LAST_APPLIED.into(), text.into());
    let size = |(key, value): (&String, &Value)| key.len() + value.as_str().unwrap_or_default().len();
    if annotations.iter().map(size).sum::<usize>() > ANNOTATIONS_SIZE_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

/// Whether two objects are equal, `managedFields` aside.
fn equal_but_managers(a: &Value, b: &Value) -> bool {
    let same = |skip: &str, a: &Map, b: &Map, nested: &dyn Fn(&Value, &Value) -> bool| {
        let others = |map: &'_ Map| map.iter().filter(|(key, _)| *key != skip).count();
        others(a) == others(b)
            && a.iter().all(|(key, value)| key == skip || b.get(key) == Some(value))
            && nested(a.get(skip).unwrap_or(&Value::Null), b.get(skip).unwrap_or(&Value::Null))
    };
    let (Value::Object(a), Value::Object(b)) = (a, b) else {
        return false;
    };
    same("metadata", a, b, &|a, b| match (a, b) {
        (Value::Object(a), Value::Object(b)) => same("managedFields", a, b, &|_, _| true),
        _ => a == b,
    })
}

fn set_managed_fields(object: &mut Value, managers: &Managers) {
    match managers.encode() {
        Value::Null => remove_managed_fields(object),
        entries => {
            meta::metadata_mut(object).insert("managedFields".into(), entries);
        }
    }
}

fn remove_managed_fields(object: &mut Value) {
    meta::metadata_mut(object).remove("managedFields");
}

#[cfg(test)]
mod tests;
