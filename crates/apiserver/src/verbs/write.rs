//! The stages of a write, the same for every verb: default, field manager, mutating admission, strategy, validation,
//! validating admission, store. All of them run again when the write lost its race.
//!
//! Invariant: what is committed was seen by every stage as it is, on the object that it replaces.

use std::sync::Arc;

use store::{Guard, Operation as StoreOperation, Put, Transaction};

use api::field::{Error, ErrorList, Path};
use api::normalize::{UnknownFields, normalize};
use api::{GroupResource, Reason, Status, StatusDetails, Value, meta, validation};
use kinds::row::WriteContext;

use crate::addresses::Reservation;
use crate::call::{Call, rfc3339};
use crate::cluster::{Object, to_stored};
use crate::managed;
use crate::options::WriteOptions;
use crate::pipeline::{Decision, Operation, Review, forbidden};
use crate::registry::{Kind, Served};
use crate::request::Attributes;
use crate::storage::{WriteError, stamp};

use super::read::scope;

/// How often a write runs again after it lost a race. A race is lost to another write that won, so progress is made by
/// somebody each time; past this the object is too contended to be written by this request.
const ATTEMPTS_MAX: usize = 64;
/// How often a generated name is drawn anew (upstream: `maxNameGenerationCreateAttempts`).
const NAME_ATTEMPTS_MAX: usize = 8;
/// Random characters of a generated name, and the longest prefix that leaves room for them (upstream: `names.go`).
const NAME_SUFFIX_LENGTH: usize = 5;
const NAME_PREFIX_BYTES_MAX: usize = 63 - NAME_SUFFIX_LENGTH;

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
    /// `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    pub options_kind: &'static str,
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
        let mut options = self.options.to_value(self.options_kind);
        if operation == Operation::Create {
            options["kind"] = "CreateOptions".into();
        }
        Review {
            operation,
            user: self.call.user.clone(),
            kind: kind.hub.clone(),
            resource: api::GroupVersionResource::new(&kind.row.group, &kind.row.hub, &kind.row.plural),
            subresource: self.subresource.into(),
            // A Namespace is in itself, for admission.
            namespace: self.call.attributes.namespace.clone(),
            name: name.into(),
            dry_run: self.options.dry_run,
            options,
            cluster: self.call.server.storage.clone(),
            warnings: Default::default(),
        }
    }

    /// Normal form and defaults of a hub object.
    fn settle(&self, object: &mut Value) -> Result<(), Status> {
        normalize(object, &self.kind().schema, UnknownFields::Ignore).map_err(Status::internal)?;
        self.kind().row.strategy.default(object);
        Ok(())
    }

    /// The mutating slot, with everything again afterwards that a mutation can spoil.
    async fn admit(&self, review: &Review, object: Value, old: Option<&Value>) -> Result<Value, Status> {
        if !self
            .call
            .server
            .admission
            .iter()
            .any(|plugin| plugin.handles(review.operation))
        {
            return Ok(object);
        }
        let before = object.clone();
        let mut slot = Some(object);
        run_admit(self.call, review, &mut slot, old).await?;
        let mut object = slot.ok_or_else(|| Status::internal("an admission plug-in removed the object"))?;
        if object != before {
            self.settle(&mut object)?;
        }
        dedup_owners(self.call, &mut object, true);
        Ok(object)
    }

    fn refuse(&self, object: &Value, errors: &[Error]) -> Result<(), Status> {
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&self.kind().group_kind(), meta::name(object), errors))
    }

    // ---- create ----

    /// Creates a hub object that was decoded and converted.
    pub async fn create(&self, mut object: Value) -> Result<Written, Status> {
        self.prepare_new(&mut object)?;
        managed::update(
            self.served,
            self.subresource,
            None,
            &mut object,
            &self.options.manager,
            &self.now(),
        )?;
        self.create_prepared(object).await
    }

    async fn create_prepared(&self, object: Value) -> Result<Written, Status> {
        let fresh = object;
        let generated = meta::name(&fresh).is_empty() && !meta::text(&fresh, "generateName").is_empty();
        let mut names = 0;
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                self.call.server.metrics.write_retries.inc();
            }
            match self.try_create(fresh.clone()).await {
                Ok(Some(written)) => return Ok(written),
                Ok(None) => {}
                Err(status) if generated && status.is(Reason::AlreadyExists) => {
                    names += 1;
                    if names == NAME_ATTEMPTS_MAX {
                        return Err(generate_name_conflict(status));
                    }
                }
                Err(status) => return Err(status),
            }
        }
        Err(Status::modified(&self.resource(), self.name))
    }

    /// What happens once: system fields wiped, the namespace of the path, defaults.
    fn prepare_new(&self, object: &mut Value) -> Result<(), Status> {
        if !meta::resource_version(object).is_empty() {
            return Err(Status::internal(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let metadata = meta::metadata_mut(object);
        for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            metadata.remove(field);
        }
        metadata.insert("creationTimestamp".into(), Value::Null);
        ensure_namespace(object, self.namespace())?;
        if !self.name.is_empty() {
            check_name(object, self.name)?;
        }
        self.settle(object)?;
        dedup_owners(self.call, object, false);
        Ok(())
    }

    /// One attempt. `None`: the namespace changed meanwhile, run again.
    async fn try_create(&self, object: Value) -> Result<Option<Written>, Status> {
        let (call, kind) = (self.call, self.kind());
        let guards = self.namespace_guard(&object)?;
        let mut review = self.review(Operation::Create, meta::name(&object));
        if review.namespace.is_empty() && self.is_namespaces() {
            review.namespace = meta::name(&object).to_owned();
        }
        let mut object = self.admit(&review, object, None).await?;

        let now = self.now();
        meta::set_text(&mut object, "creationTimestamp", &now);
        meta::set_text(&mut object, "uid", &call.server.random.uuid());
        let prefix = meta::text(&object, "generateName");
        if meta::name(&object).is_empty() && !prefix.is_empty() {
            let name = generate_name(prefix, &call.server.random);
            meta::set_text(&mut object, "name", &name);
        }
        let context = self.context(&now);
        let reservation = call
            .server
            .addresses
            .begin(kind, &mut object, None, self.options.dry_run)?;
        kind.row.strategy.prepare_for_create(&mut object, &context);
        if kind.row.has_generation {
            meta::metadata_mut(&mut object).insert("generation".into(), 1.into());
        }
        self.settle(&mut object)?;
        let mut errors = self.validate_meta(&object);
        errors.extend(kind.row.strategy.validate_create(&object, &context));
        self.refuse(&object, &errors)?;
        for warning in kind.row.strategy.warnings(&object, None, &context) {
            call.warn(warning);
        }
        kind.row.strategy.canonicalize(&mut object);
        review.name = meta::name(&object).to_owned();
        run_validate(call, &review, Some(&object), None).await?;

        let name = meta::name(&object).to_owned();
        let key = kind.key(self.namespace(), &name);
        if self.options.dry_run {
            if let Some(existing) = call.server.storage.get(kind, self.namespace(), &name)? {
                return Err(already_exists(&self.resource(), &name, &existing));
            }
            return Ok(Some(Written {
                object: self.as_object(&object, 0)?,
                created: true,
            }));
        }
        let mut transaction = Transaction {
            guards,
            operations: vec![self.put(&key, &object)],
        };
        transaction.guards.push(Guard::Absent(key.into()));
        let written = crate::commit::commit(&call.server, transaction, reservation).await;
        match written {
            Ok(committed) => {
                let object = committed
                    .object
                    .ok_or_else(|| Status::internal("the object that was written cannot be read"))?;
                Ok(Some(Written { object, created: true }))
            }
            Err(WriteError::Failed(status)) => Err(status),
            Err(WriteError::Raced) => match call.server.storage.get(kind, self.namespace(), &name)? {
                Some(existing) => Err(already_exists(&self.resource(), &name, &existing)),
                None => Ok(None),
            },
        }
    }

    /// The namespace must still be as admission sees it when the object is committed.
    fn namespace_guard(&self, object: &Value) -> Result<Vec<Guard>, Status> {
        let namespace = meta::namespace(object);
        if namespace.is_empty() {
            return Ok(Vec::new());
        }
        let namespaces = GroupResource {
            group: String::new(),
            resource: "namespaces".into(),
        };
        let Some(kind) = self.call.registry.kind(&namespaces) else {
            return Ok(Vec::new());
        };
        let key = kind.key("", namespace).into();
        Ok(match self.call.server.storage.get(kind, "", namespace)? {
            Some(found) => vec![Guard::ModRevision(key, found.revision())],
            // Admission decides what an absent namespace means; it must stay absent for that to hold.
            None => vec![Guard::Absent(key)],
        })
    }

    fn is_namespaces(&self) -> bool {
        is_namespaces(self.kind())
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
            user: &self.call.user.name,
            version: &self.served.gvr.version,
        }
    }

    fn as_object(&self, object: &Value, revision: u64) -> Result<Arc<Object>, Status> {
        let fields = self.kind().field_values(object);
        Object::from_value(object, revision, fields)
            .map(Arc::new)
            .map_err(Status::internal)
    }

    fn put(&self, key: &str, object: &Value) -> StoreOperation {
        let ttl = self
            .kind()
            .row
            .ttl_seconds
            .and_then(|seconds| i64::try_from(seconds).ok());
        StoreOperation::Put(Put {
            key: key.to_owned().into(),
            value: to_stored(object),
            expires_at_ms: ttl.map(|seconds| self.call.server.clock.now_ms() + seconds * 1000),
            stamp: stamp(),
        })
    }

    // ---- update ----

    /// Updates the object with what `make` says; creates it when it is absent and `allow_create`.
    pub async fn update(&self, make: Make<'_>, allow_create: bool) -> Result<Written, Status> {
        let (call, kind) = (self.call, self.kind());
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                call.server.metrics.write_retries.inc();
            }
            let live = call.server.storage.get(kind, self.namespace(), self.name)?;
            match live {
                None if !allow_create => return Err(Status::not_found(&self.resource(), self.name)),
                None => {
                    self.authorize_create()?;
                    let mut object = make(None)?;
                    let uid = meta::uid(&object);
                    if !uid.is_empty() {
                        return Err(self.uid_conflict_on_create(uid));
                    }
                    meta::set_text(&mut object, "resourceVersion", "");
                    self.prepare_new(&mut object)?;
                    // `make` has noted its manager where there was an object to compare with; an apply always has.
                    if meta::metadata(&object).is_some_and(|metadata| !metadata.contains_key("managedFields")) {
                        let (manager, now) = (&self.options.manager, self.now());
                        managed::update(self.served, self.subresource, None, &mut object, manager, &now)?;
                    }
                    match self.create_prepared(object).await {
                        Err(status) if status.is(Reason::AlreadyExists) => {}
                        other => return other,
                    }
                }
                Some(live) => {
                    if let Some(written) = self.try_update(&live, make).await? {
                        return Ok(written);
                    }
                }
            }
        }
        Err(Status::modified(&self.resource(), self.name))
    }

    fn uid_conflict_on_create(&self, uid: &str) -> Status {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        Status::conflict(&self.resource(), self.name, &why)
    }

    fn authorize_create(&self) -> Result<(), Status> {
        let attributes = Attributes {
            verb: "create".into(),
            ..self.call.attributes.clone()
        };
        match self.call.server.authorizer.authorize(&self.call.user, &attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                Err(forbidden(&self.call.user, &attributes, &reason))
            }
        }
    }

    /// One attempt. `None`: somebody was faster, run again.
    async fn try_update(&self, live: &Arc<Object>, make: Make<'_>) -> Result<Option<Written>, Status> {
        let (call, kind) = (self.call, self.kind());
        let old = live.value();
        let mut object = make(Some(&old))?;
        ensure_namespace(&mut object, self.namespace())?;
        check_name(&object, self.name)?;
        let uid = meta::uid(&object);
        if !uid.is_empty() && uid != live.uid() {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                live.uid()
            );
            return Err(Status::conflict(&self.resource(), self.name, &why));
        }
        if self.internal {
            return self.store_update(live, &old, object, Reservation::none()).await;
        }
        let review = self.review(Operation::Update, self.name);
        let mut object = self.admit(&review, object, Some(&old)).await?;
        self.check_version(&mut object, live)?;

        let now = self.now();
        let context = self.context(&now);
        let reservation = call
            .server
            .addresses
            .begin(kind, &mut object, Some(&old), self.options.dry_run)?;
        keep_field(&mut object, &old, "generation");
        kind.row.strategy.prepare_for_update(&mut object, &old, &context);
        keep_system_fields(&mut object, &old);
        self.settle(&mut object)?;
        if kind.row.has_generation && kind.row.strategy.generation_changed(&object, &old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            meta::metadata_mut(&mut object).insert("generation".into(), (generation + 1).into());
        }
        managed::ignore_times(&mut object, &old);
        let mut errors = self.validate_meta(&object);
        errors.extend(validation::object_meta_update(
            &object["metadata"],
            &old["metadata"],
            &Path::new("metadata"),
        ));
        errors.extend(kind.row.strategy.validate_update(&object, &old, &context));
        self.refuse(&object, &errors)?;
        for warning in kind.row.strategy.warnings(&object, Some(&old), &context) {
            call.warn(warning);
        }
        kind.row.strategy.canonicalize(&mut object);
        run_validate(call, &review, Some(&object), Some(&old)).await?;
        self.store_update(live, &old, object, reservation).await
    }

    /// The last stage of an update: nothing, a put, or a delete. `None`: somebody was faster, run again.
    async fn store_update(
        &self,
        live: &Arc<Object>,
        old: &Value,
        object: Value,
        reservation: Reservation,
    ) -> Result<Option<Written>, Status> {
        let (call, kind) = (self.call, self.kind());
        let key = kind.key(self.namespace(), self.name);
        let guard = Guard::ModRevision(key.clone().into(), live.revision());
        let gone = deletes_during_update(kind, &object, old);
        if self.options.dry_run {
            return Ok(Some(Written {
                object: self.as_object(&object, live.revision())?,
                created: false,
            }));
        }
        let operation = if gone {
            StoreOperation::Delete(key.into())
        } else if object == *old {
            // Nothing changed: nothing is written, and nobody is woken (D10).
            return Ok(Some(Written {
                object: live.clone(),
                created: false,
            }));
        } else {
            self.put(&key, &object)
        };
        let transaction = Transaction {
            guards: vec![guard],
            operations: vec![operation],
        };
        let reservation = match gone {
            true => Reservation::releasing(&call.server.addresses, kind, old, true),
            false => reservation,
        };
        match crate::commit::commit(&call.server, transaction, reservation).await {
            Ok(committed) => {
                let object = match committed.object {
                    Some(object) => object,
                    None => self.as_object(&object, committed.revision)?,
                };
                Ok(Some(Written { object, created: false }))
            }
            Err(WriteError::Raced) => Ok(None),
            Err(WriteError::Failed(status)) => Err(status),
        }
    }

    /// The version that the request saw has to be the one that is there.
    fn check_version(&self, object: &mut Value, live: &Object) -> Result<(), Status> {
        let current = live.revision().to_string();
        match meta::resource_version(object) {
            "" | "0" if self.kind().row.unconditional_update => {
                meta::set_text(object, "resourceVersion", &current);
                Ok(())
            }
            "" | "0" => {
                let path = Path::new("metadata").child("resourceVersion");
                let errors = [Error::invalid(&path, 0, "must be specified for an update")];
                let resource = self.resource();
                let kind = api::GroupKind {
                    group: resource.group,
                    kind: resource.resource,
                };
                Err(Status::invalid(&kind, self.name, &errors))
            }
            version if *version == *current => Ok(()),
            _ => Err(Status::modified(&self.resource(), self.name)),
        }
    }
}

/// Whether the kind is the core Namespace.
pub fn is_namespaces(kind: &Kind) -> bool {
    kind.row.group.is_empty() && kind.row.plural == "namespaces"
}

/// Runs the mutating slot of all plug-ins.
pub async fn run_admit(
    call: &Call,
    review: &Review,
    object: &mut Option<Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let mut result = Ok(());
    for plugin in call
        .server
        .admission
        .iter()
        .filter(|plugin| plugin.handles(review.operation))
    {
        result = plugin.admit(review, object, old).await;
        if result.is_err() {
            break;
        }
    }
    take_warnings(call, review);
    result
}

/// Runs the validating slot of all plug-ins.
pub async fn run_validate(
    call: &Call,
    review: &Review,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Status> {
    let mut result = Ok(());
    for plugin in call
        .server
        .admission
        .iter()
        .filter(|plugin| plugin.handles(review.operation))
    {
        result = plugin.validate(review, object, old).await;
        if result.is_err() {
            break;
        }
    }
    take_warnings(call, review);
    result
}

fn take_warnings(call: &Call, review: &Review) {
    for warning in std::mem::take(&mut *review.warnings.lock()) {
        call.warn(warning);
    }
}

/// The object's namespace is the request's; a different one in the body is refused.
pub fn ensure_namespace(object: &mut Value, namespace: &str) -> Result<(), Status> {
    let own = meta::namespace(object);
    if own == namespace {
        return Ok(());
    }
    if own.is_empty() || namespace.is_empty() {
        meta::set_text(object, "namespace", namespace);
        return Ok(());
    }
    let why = "the namespace of the provided object does not match the namespace sent on the request";
    Err(Status::bad_request(why))
}

pub fn check_name(object: &Value, name: &str) -> Result<(), Status> {
    let own = meta::name(object);
    if own == name {
        return Ok(());
    }
    if own.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    Err(Status::bad_request(format!(
        "the name of the object ({own}) does not match the name on the URL ({name})"
    )))
}

/// Removes repeated owners, with upstream's warnings.
fn dedup_owners(call: &Call, object: &mut Value, after_admission: bool) {
    let Some(Value::Array(owners)) = meta::metadata_mut(object).get_mut("ownerReferences") else {
        return;
    };
    let mut seen: Vec<Value> = Vec::with_capacity(owners.len());
    let mut repeated: Vec<String> = Vec::new();
    for owner in owners.drain(..) {
        if seen.contains(&owner) {
            repeated.push(owner["uid"].as_str().unwrap_or("").to_owned());
        } else {
            seen.push(owner);
        }
    }
    *owners = seen;
    if !repeated.is_empty() {
        let when = if after_admission {
            " after mutating admission happens"
        } else {
            ""
        };
        let uids = repeated.join(", ");
        call.warn(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"
        ));
    }
}

fn generate_name(prefix: &str, random: &base::Random) -> String {
    let mut end = prefix.len().min(NAME_PREFIX_BYTES_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &prefix[..end], random.suffix(NAME_SUFFIX_LENGTH))
}

fn already_exists(resource: &GroupResource, name: &str, existing: &Object) -> Status {
    let mut status = Status::already_exists(resource, name);
    if existing.is_deleting() {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}

fn generate_name_conflict(mut status: Status) -> Status {
    status.message = format!(
        "{}, the server was not able to generate a unique name for the object",
        status.message
    );
    status
        .details
        .get_or_insert_with(StatusDetails::default)
        .retry_after_seconds = 1;
    status
}

/// What an update can never change.
fn keep_system_fields(object: &mut Value, old: &Value) {
    if meta::uid(object).is_empty() {
        keep_field(object, old, "uid");
    }
    if !meta::text(old, "creationTimestamp").is_empty() {
        keep_field(object, old, "creationTimestamp");
    }
    if meta::is_deleting(old) {
        keep_field(object, old, "deletionTimestamp");
    }
    if !old["metadata"]["deletionGracePeriodSeconds"].is_null()
        && object["metadata"]["deletionGracePeriodSeconds"].is_null()
    {
        keep_field(object, old, "deletionGracePeriodSeconds");
    }
}

fn keep_field(object: &mut Value, old: &Value, field: &str) {
    let metadata = meta::metadata_mut(object);
    match old["metadata"].get(field) {
        Some(value) => {
            metadata.insert(field.into(), value.clone());
        }
        None => {
            metadata.remove(field);
        }
    }
}

/// Whether this update takes the last thing away that kept a deleted object (upstream: ShouldDeleteDuringUpdate).
fn deletes_during_update(kind: &Kind, object: &Value, old: &Value) -> bool {
    if meta::finalizers(object).next().is_some() || !meta::is_deleting(old) {
        return false;
    }
    let content = object["spec"]["finalizers"]
        .as_array()
        .is_some_and(|finalizers| !finalizers.is_empty());
    if is_namespaces(kind) && content {
        return false;
    }
    old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let random = base::Random::seeded(1);
        let name = generate_name("web-", &random);
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generate_name(&"x".repeat(300), &random).len(), 63);
    }

    #[test]
    fn names_and_namespaces_must_agree() {
        let mut object = json!({"metadata": {"name": "a", "namespace": "n"}});
        assert!(ensure_namespace(&mut object, "n").is_ok() && check_name(&object, "a").is_ok());
        assert_eq!(ensure_namespace(&mut object, "m").unwrap_err().code, 400);
        assert_eq!(
            check_name(&object, "b").unwrap_err().message,
            "the name of the object (a) does not match the name on the URL (b)"
        );
        let mut object = json!({"metadata": {}});
        ensure_namespace(&mut object, "n").unwrap();
        assert_eq!(meta::namespace(&object), "n");
        ensure_namespace(&mut object, "").unwrap();
        assert_eq!(meta::namespace(&object), "");
    }

    #[test]
    fn an_update_never_changes_system_fields() {
        let old = json!({"metadata": {"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-02T00:00:00Z", "deletionGracePeriodSeconds": 30}});
        let mut object = json!({"metadata": {"creationTimestamp": "2030-01-01T00:00:00Z"}});
        keep_system_fields(&mut object, &old);
        assert_eq!(object, old);
    }
}
