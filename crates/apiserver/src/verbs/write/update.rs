//! Updating: the new object is made from the one that is there, and made again when that one has changed.

use std::sync::Arc;

use store::{Guard, Operation as StoreOperation, Transaction};

use api::field::{Error, Path};
use api::{Reason, Status, Value, meta, validation};

use super::metadata::{
    check_name, deletes_during_update, ensure_namespace, forget_managers, keep_field, keep_system_fields,
};
use super::{Attempt, Make, Write, Written, run_validate};
use crate::allocation::Reservation;
use crate::cluster::Object;
use crate::custom;
use crate::managed;
use crate::metrics::shared;
use crate::pipeline::{Operation, Review, must_allow};
use crate::request::Attributes;
use crate::storage::WriteError;

impl Write<'_> {
    /// Updates the object with what `make` says; creates it when it is absent and `allow_create`.
    pub async fn update(&self, make: Make<'_>, allow_create: bool) -> Result<Written, Status> {
        let (call, kind) = (self.call, self.kind());
        let mut forgets = false;
        loop {
            let live = call.server.storage.get(kind, self.namespace(), self.name)?;
            let attempt = match live {
                None if !allow_create => return Err(Status::not_found(&self.resource(), self.name)),
                None => {
                    self.authorize_create().await?;
                    let mut object = custom::asking(&call.server, kind, || make(None)).await?;
                    let uid = meta::uid(&object);
                    if !uid.is_empty() {
                        return Err(self.uid_conflict_on_create(uid));
                    }
                    meta::set_text(&mut object, "resourceVersion", "");
                    self.prepare_new(&mut object)?;
                    // `make` has noted its manager where there was an object to compare with; an apply always has.
                    if meta::metadata(&object).is_some_and(|metadata| !metadata.contains_key("managedFields")) {
                        self.note_creator(&mut object)?;
                    }
                    if forgets {
                        forget_managers(&mut object);
                    }
                    match self.try_create(object).await {
                        Err(status) if status.is(Reason::AlreadyExists) => Attempt::Raced,
                        other => other?,
                    }
                }
                Some(live) => {
                    let live = custom::shown_one(&call.server, self.served, live).await?;
                    self.try_update(&live, make, forgets).await?
                }
            };
            match attempt {
                Attempt::Done(written) => return Ok(written),
                Attempt::Raced => {}
                Attempt::TooLarge(status) if forgets || !self.may_forget_managers() => return Err(status),
                Attempt::TooLarge(_) => forgets = true,
            }
            call.server.metrics.write_retries.inc();
        }
    }

    fn uid_conflict_on_create(&self, uid: &str) -> Status {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        Status::conflict(&self.resource(), self.name, &why)
    }

    async fn authorize_create(&self) -> Result<(), Status> {
        let attributes = Attributes {
            verb: "create".into(),
            ..self.call.attributes.clone()
        };
        let (server, user) = (&self.call.server, &self.call.user);
        let decision = server.authorizer.authorize(user, &attributes).await;
        must_allow(decision, user, &attributes).map(drop)
    }

    /// One attempt; `forgets`: without telling who manages the fields.
    async fn try_update(&self, live: &Arc<Object>, make: Make<'_>, forgets: bool) -> Result<Attempt, Status> {
        let (call, kind) = (self.call, self.kind());
        let old = live.value();
        let mut object = custom::asking(&call.server, kind, || make(Some(&old))).await?;
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
            return self.store_update(live, &old, object, Reservation::none(), None).await;
        }
        let review = self.review(Operation::Update, self.name);
        let mut object = self.admit(&review, object, Some(&old)).await?;
        if forgets {
            forget_managers(&mut object);
        }
        self.check_version(&mut object, live)?;

        let now = self.now();
        let context = self.context(&now);
        keep_field(&mut object, &old, "generation");
        kind.row.strategy.prepare_for_update(&mut object, &old, &context);
        // After it: what the client did not repeat is there again, and what the new type does not need is gone.
        let reservation = call
            .server
            .allocator
            .begin(kind, &mut object, Some(&old), self.options.dry_run)?;
        keep_system_fields(&mut object, &old);
        self.settle(&mut object)?;
        // A status says which generation it saw; it never makes one.
        let of_spec = context.subresource != "status";
        if of_spec && kind.row.has_generation && kind.row.strategy.generation_changed(&object, &old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            meta::metadata_mut(&mut object).insert("generation".into(), (generation + 1).into());
        }
        managed::ignore_times(&mut object, &old);
        tracing::trace!(target: "walk", "validation");
        let mut errors = self.validate_meta(&object);
        errors.extend(validation::object_meta_update(
            &object["metadata"],
            &old["metadata"],
            &Path::new("metadata"),
        ));
        let (own, forgiven) = kind.row.strategy.judge_update(&object, &old, &context);
        errors.extend(own);
        forgiven.into_iter().for_each(|warning| call.warn(warning));
        self.refuse(&object, &errors)?;
        for warning in kind.row.strategy.warnings(&object, Some(&old), &context) {
            call.warn(warning);
        }
        kind.row.strategy.canonicalize(&mut object);
        self.judge(&review, &object, &old).await?;
        self.store_update(live, &old, object, reservation, Some(&review)).await
    }

    /// The validating slot.
    async fn judge(&self, review: &Review, object: &Value, old: &Value) -> Result<(), Status> {
        let (object, old) = (self.shown(object)?, self.shown(old)?);
        run_validate(self.call, review, Some(&object), Some(&old)).await
    }

    /// The last stage of an update: nothing, a put, or a delete.
    async fn store_update(
        &self,
        live: &Arc<Object>,
        old: &Value,
        object: Value,
        reservation: Reservation,
        review: Option<&Review>,
    ) -> Result<Attempt, Status> {
        let (call, kind) = (self.call, self.kind());
        let key = kind.key(self.namespace(), self.name);
        let guard = Guard::ModRevision(key.clone().into(), live.revision());
        let gone = deletes_during_update(kind, &object, old);
        if self.options.dry_run {
            return Ok(Attempt::Done(Written {
                object: self.as_object(&object, live.revision())?,
                created: false,
            }));
        }
        let operation = if gone {
            StoreOperation::Delete(key.into())
        } else if object == *old && !live.is_stale(call.server.storage.seal_mark(kind)) {
            // Nothing changed: nothing is written, and nobody is woken (D10). With other servers on the store, the store
            // says whether that is still so.
            if call.server.storage.is_shared() {
                match call.server.storage.commit(Transaction::new().guard(guard)).await {
                    Ok(_) => {}
                    Err(WriteError::Raced) => return Ok(Attempt::Raced),
                    Err(WriteError::Failed(status) | WriteError::TooLarge(status)) => return Err(status),
                }
            }
            return Ok(Attempt::Done(Written {
                object: live.clone(),
                created: false,
            }));
        } else {
            let stored = custom::stored(&call.server, kind, &object).await?;
            self.put(&key, &stored)?
        };
        let mut transaction = Transaction {
            guards: vec![guard],
            operations: vec![operation],
        };
        if let Some(review) = review.filter(|_| !gone) {
            self.add_together(review, &mut transaction)?;
        }
        let reservation = match gone {
            true => Reservation::releasing(&call.server.allocator, kind, old, true),
            false => reservation,
        };
        match crate::commit::commit(&call.server, transaction, reservation).await {
            Ok(committed) => {
                if kind.resource.resource == "certificatesigningrequests"
                    && kind.resource.group == "certificates.k8s.io"
                {
                    shared().certificate_requests.updated(old, &object);
                }
                let object = match committed.object {
                    Some(object) => custom::shown_one(&call.server, self.served, object).await?,
                    None => self.as_object(&object, committed.revision)?,
                };
                Ok(Attempt::Done(Written { object, created: false }))
            }
            Err(WriteError::Raced) => Ok(Attempt::Raced),
            Err(WriteError::TooLarge(status)) => Ok(Attempt::TooLarge(status)),
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
