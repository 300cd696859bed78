//! What a kind is to the API server: one row of data, and a strategy of plain functions (D4).
//!
//! Generic verbs work on rows alone. A custom resource is a row made at run time, so nothing here is `'static` only.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::field::ErrorList;
use api::{Status, Value};

/// A name that is known at compile time or made from a custom resource definition.
pub type Text = Cow<'static, str>;

/// What is stored under one key prefix, in one version.
pub struct StorageKind {
    /// The group of the stored version.
    pub group: Text,
    /// The version that is stored: the hub of all conversions.
    pub hub: Text,
    /// The kind, such as `Pod`.
    pub kind: Text,
    /// The plural in paths, such as `pods`.
    pub plural: Text,
    /// The singular, such as `pod`.
    pub singular: Text,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Where objects are stored, exactly as upstream lays out etcd, without the trailing slash: `/registry/pods`,
    /// `/registry/services/specs`, `/registry/minions`, `/registry/deployments`, `/registry/apps...`.
    pub key_prefix: Text,
    /// Defaulting, validation and what happens around a write.
    pub strategy: Arc<dyn Strategy>,
    /// The rule for `metadata.name`; with `true` the name is a prefix (generateName).
    pub name_rule: fn(name: &str, prefix: bool) -> Vec<String>,
    /// What DELETE does.
    pub delete: DeletePolicy,
    /// After how many seconds an object goes by itself (Events: 3600).
    pub ttl_seconds: Option<u64>,
    /// Whether PUT of an absent object creates it (upstream's AllowCreateOnUpdate).
    pub create_on_update: bool,
    /// Whether PUT without a resourceVersion is taken (upstream's AllowUnconditionalUpdate).
    pub unconditional_update: bool,
    /// Whether `metadata.generation` is kept: set to 1 at creation, raised when `generation_changed` says so.
    pub has_generation: bool,
    /// The field of the object whose value wakes watchers that selected by it (a pod's `spec.nodeName`).
    pub trigger: Option<fn(&Value) -> Option<String>>,
    /// What `trigger` and all selectable fields read: paths, so that the rest of a stored object is walked over when it is
    /// loaded. `None`: they may read anything.
    pub read_fields: Option<&'static [&'static str]>,
    /// Every version in which the kind is served, in the order of discovery's preference.
    pub served: Vec<ServedVersion>,
}

impl StorageKind {
    /// Sets what the object leaves open, as its strategy says. Idempotent.
    pub fn set_defaults(&self, object: &mut Value) {
        tracing::trace!(target: "walk", "defaults");
        self.strategy.default(object);
    }

    /// Whether a field selector may name a field; otherwise why not, in upstream's words (`AddFieldLabelConversionFunc` of
    /// each group). A kind without fields of its own takes both names, also where it has no namespace.
    pub fn check_field(&self, version: &ServedVersion, field: &str) -> Result<(), String> {
        let own = version.selectable_fields;
        let known = match field {
            "metadata.name" => true,
            "metadata.namespace" => self.namespaced || own.is_empty(),
            field => version.selects(field),
        };
        if known {
            return Ok(());
        }
        let quoted = api::field::quote(field);
        Err(match &*self.kind {
            _ if own.is_empty() && version.custom.is_none() => {
                format!("{quoted} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            }
            "Job" => format!("field label {quoted} not supported for Job"),
            "ResourceSlice" => {
                let (group, version) = (&version.group, &version.version);
                format!("field label not supported for {group}/{version}, Kind=ResourceSlice: {field}")
            }
            _ => format!("field label not supported: {field}"),
        })
    }
}

/// What DELETE does to objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletePolicy {
    /// What happens to dependents when the request does not say.
    pub default_propagation: Propagation,
    /// Whether a deletion may wait for a grace period (pods).
    pub graceful: bool,
    /// Whether the answer is the deleted object in place of a Status.
    pub returns_object: bool,
}

/// Upstream's deletion propagation policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents keep living.
    Orphan,
    /// The garbage collector deletes dependents afterwards.
    Background,
    /// The object goes last.
    Foreground,
}

/// A kind in one served group version.
pub struct ServedVersion {
    /// The group in the path.
    pub group: Text,
    /// The version in the path.
    pub version: Text,
    /// Conversion to and from the hub; `None` when this version is the hub.
    pub conversion: Option<Conversion>,
    /// The verbs of the main resource, as discovery words them.
    pub verbs: &'static [&'static str],
    /// The subresources.
    pub subresources: Vec<Subresource>,
    /// Fields that a field selector may name besides `metadata.name` and `metadata.namespace`, with how to read them
    /// from a *hub* object.
    pub selectable_fields: &'static [(&'static str, fn(&Value) -> String)],
    /// Short names for kubectl.
    pub short_names: &'static [&'static str],
    /// Categories, such as `all`.
    pub categories: &'static [&'static str],
    /// Columns of `kubectl get`. `None`: name and age only.
    pub columns: Option<Columns>,
    /// What a custom resource says of itself, where a built-in kind has the constants above.
    pub custom: Option<Arc<crate::custom::Version>>,
}

impl ServedVersion {
    /// Short names for kubectl.
    pub fn short_names(&self) -> Vec<&str> {
        match &self.custom {
            Some(custom) => custom.short_names.iter().map(String::as_str).collect(),
            None => self.short_names.to_vec(),
        }
    }

    /// Categories, such as `all`.
    pub fn categories(&self) -> Vec<&str> {
        match &self.custom {
            Some(custom) => custom.categories.iter().map(String::as_str).collect(),
            None => self.categories.to_vec(),
        }
    }

    /// Whether a field selector may name a field, besides those that all kinds have.
    pub fn selects(&self, field: &str) -> bool {
        match &self.custom {
            Some(custom) => custom.selectable.iter().any(|(name, _)| name == field),
            None => self.selectable_fields.iter().any(|(name, _)| *name == field),
        }
    }
}

/// A pure conversion between a served version and the hub. `apiVersion` and `kind` are set by the caller.
#[derive(Clone, Copy)]
pub struct Conversion {
    /// From this served version to the hub.
    pub to_hub: fn(Value) -> Result<Value, Status>,
    /// From the hub to this served version.
    pub from_hub: fn(Value) -> Result<Value, Status>,
}

/// A subresource of a served version.
pub struct Subresource {
    /// The last part of the path: `status`, `scale`, `binding`.
    pub name: &'static str,
    /// The kind of the body, when it is another one than the resource's: `autoscaling/v1 Scale`.
    pub kind: Option<(&'static str, &'static str, &'static str)>,
    /// The verbs, as discovery words them (`connect` of upstream's list becomes `create` and `get`).
    pub verbs: &'static [&'static str],
    /// How it is served.
    pub role: SubresourceRole,
}

/// How a subresource is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubresourceRole {
    /// The same object, through the strategy with this subresource's name: `status`, `finalize`,
    /// `ephemeralcontainers`, `resize`, `approval`.
    View,
    /// `autoscaling/v1 Scale` over `spec.replicas`, `status.replicas` and `status.selector`/`spec.selector`.
    Scale,
    /// A handler of the API server's own, looked up by resource and name: `binding`, `eviction`, `log`, `exec`,
    /// `attach`, `portforward`, `proxy`, `token`.
    Handler,
}

/// The printed columns of a kind (`meta.k8s.io` Table).
pub struct Columns {
    /// The definitions, `Name` first.
    pub definitions: &'static [Column],
    /// The cells of one object of the *served* version.
    pub cells: fn(&Value, &PrintContext) -> Vec<Value>,
}

/// One column definition.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// `string`, `integer`, ...
    pub kind: &'static str,
    /// `name` for the name, else empty.
    pub format: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// What it tells.
    pub description: &'static str,
}

/// What cells may depend on besides the object.
pub struct PrintContext {
    /// Now, in seconds since 1970, for ages.
    pub now_seconds: i64,
}

/// What a strategy may know of the request. Time and randomness are handed in (D7, D12).
pub struct WriteContext<'a> {
    /// Now, formatted as `metav1.Time`: `2026-01-02T03:04:05Z`.
    pub now: &'a str,
    /// The subresource that is written; empty for the main resource.
    pub subresource: &'a str,
    /// Who writes.
    pub user: Writer<'a>,
    /// The version that the request spoke, for rules that differ by version: `v1`, or with its group where that is not
    /// the hub's (`events.k8s.io/v1`).
    pub version: &'a str,
}

/// Who writes: upstream's `user.Info`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writer<'a> {
    /// The unique name.
    pub name: &'a str,
    /// A unique id, or empty.
    pub uid: &'a str,
    /// The groups.
    pub groups: &'a [String],
    /// More facts, such as the credential's id.
    pub extra: Option<&'a BTreeMap<String, Vec<String>>>,
}

impl<'a> Writer<'a> {
    /// Somebody of whom only the name is known.
    pub fn named(name: &'a str) -> Writer<'a> {
        Writer {
            name,
            ..Writer::default()
        }
    }
}

/// A resource's own rules. Objects are hub objects in normal form; all functions are pure.
///
/// The order around a write: `default`, `prepare_*`, mutating admission (then `default` again), `validate_*`,
/// `canonicalize`.
pub trait Strategy: Send + Sync {
    /// Sets what the user left out. Idempotent; also applied to objects read from the store.
    fn default(&self, _object: &mut Value) {}

    /// Resets what a creator may not set (status), and starts counters.
    fn prepare_for_create(&self, _object: &mut Value, _context: &WriteContext) {}

    /// Resets what this request may not change: `status` on the main resource, everything else on `status`.
    /// Whether `spec` changed (generation) is decided by [`Strategy::generation_changed`].
    fn prepare_for_update(&self, _object: &mut Value, _old: &Value, _context: &WriteContext) {}

    /// Whether the update raises `metadata.generation`. By default: `spec` differs.
    fn generation_changed(&self, object: &Value, old: &Value) -> bool {
        object.get("spec") != old.get("spec")
    }

    /// The broken rules of a new object (metadata is validated by the caller).
    fn validate_create(&self, _object: &Value, _context: &WriteContext) -> ErrorList {
        ErrorList::new()
    }

    /// The broken rules of an update (metadata is validated by the caller).
    fn validate_update(&self, _object: &Value, _old: &Value, _context: &WriteContext) -> ErrorList {
        ErrorList::new()
    }

    /// As [`Strategy::validate_update`], with texts for the `Warning` header: what is wrong but was so before, and is forgiven.
    fn judge_update(&self, object: &Value, old: &Value, context: &WriteContext) -> (ErrorList, Vec<String>) {
        (self.validate_update(object, old, context), Vec::new())
    }

    /// The fields that a write through this endpoint resets, so that nobody comes to own them by it (upstream:
    /// GetResetFields). By default `status` on the resource itself, when that is written apart, and `spec` on `status`.
    fn reset_fields(&self, _subresource: &str) -> Option<&'static [&'static str]> {
        None
    }

    /// Texts for the `Warning` header.
    fn warnings(&self, _object: &Value, _old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        Vec::new()
    }

    /// Brings an accepted object into its final shape.
    fn canonicalize(&self, _object: &mut Value) {}

    /// The grace period in seconds of a deletion, from the object and what the request asked for; `None` deletes at
    /// once. Only asked for kinds with [`DeletePolicy::graceful`].
    fn grace_period_seconds(&self, _object: &Value, requested: Option<i64>) -> Option<i64> {
        requested
    }

    /// Whether this resource's own rules are complete (see `docs/kinds.md`).
    fn is_deep(&self) -> bool {
        false
    }
}
