//! Creating: what a new object gets from the server, names that are generated, and the namespace that has to stay alive.

use store::{Guard, Transaction};

use api::{GroupResource, Reason, Status, StatusDetails, Value, meta};

use super::metadata::{check_name, dedup_owners, ensure_namespace, forget_managers, generate_name};
use super::{Attempt, Write, Written, is_namespaces, run_validate};
use crate::cluster::Object;
use crate::custom;
use crate::managed;
use crate::pipeline::Operation;
use crate::storage::WriteError;

/// How often a generated name is drawn anew (upstream: `maxNameGenerationCreateAttempts`).
const NAME_ATTEMPTS_MAX: usize = 8;

impl Write<'_> {
    /// Creates the hub object that `make` decodes and converts. It is made again for each attempt: nearly always there is one,
    /// for which a copy would be made in vain.
    pub async fn create(&self, make: &(dyn Fn() -> Result<Value, Status> + Send + Sync)) -> Result<Written, Status> {
        let (mut names, mut forgets) = (0, false);
        loop {
            let mut object = make()?;
            self.prepare_new(&mut object)?;
            self.note_creator(&mut object)?;
            if forgets {
                forget_managers(&mut object);
            }
            let generated = meta::name(&object).is_empty() && !meta::text(&object, "generateName").is_empty();
            match self.try_create(object).await {
                Ok(Attempt::Done(written)) => return Ok(written),
                Ok(Attempt::Raced) => {}
                Ok(Attempt::TooLarge(status)) if forgets || !self.may_forget_managers() => return Err(status),
                Ok(Attempt::TooLarge(_)) => forgets = true,
                Err(status) if generated && status.is(Reason::AlreadyExists) => {
                    names += 1;
                    if names == NAME_ATTEMPTS_MAX {
                        return Err(generate_name_conflict(status));
                    }
                }
                Err(status) => return Err(status),
            }
            self.call.server.metrics.write_retries.inc();
        }
    }

    /// Notes who manages the fields of a new object.
    pub(super) fn note_creator(&self, object: &mut Value) -> Result<(), Status> {
        let (manager, now) = (&self.options.manager, self.now());
        managed::update(self.served, self.subresource, None, object, manager, &now)
    }

    /// What happens before admission: system fields wiped, the namespace of the path, defaults.
    pub(super) fn prepare_new(&self, object: &mut Value) -> Result<(), Status> {
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

    /// One attempt. Raced: the namespace changed meanwhile.
    pub(super) async fn try_create(&self, object: Value) -> Result<Attempt, Status> {
        let (call, kind) = (self.call, self.kind());
        if kind.custom.as_ref().is_some_and(|custom| custom.definition.terminating) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::forbidden(&self.resource(), meta::name(&object), why));
        }
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
            .allocator
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
            return Ok(Attempt::Done(Written {
                object: self.as_object(&object, 0)?,
                created: true,
            }));
        }
        let stored = custom::stored(&call.server, kind, &object).await?;
        let mut transaction = Transaction {
            guards,
            operations: vec![self.put(&key, &stored)?],
        };
        transaction.guards.push(Guard::Absent(key.into()));
        self.add_together(&review, &mut transaction)?;
        let written = crate::commit::commit(&call.server, transaction, reservation).await;
        match written {
            Ok(committed) => {
                let object = committed
                    .object
                    .ok_or_else(|| Status::internal("the object that was written cannot be read"))?;
                let object = custom::shown_one(&call.server, self.served, object).await?;
                Ok(Attempt::Done(Written { object, created: true }))
            }
            Err(WriteError::TooLarge(status)) => Ok(Attempt::TooLarge(status)),
            Err(WriteError::Failed(status)) => Err(status),
            Err(WriteError::Raced) => match call.server.storage.get(kind, self.namespace(), &name)? {
                Some(existing) => Err(already_exists(&self.resource(), &name, &existing)),
                None => Ok(Attempt::Raced),
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
