//! What an update or an apply does to the managers, and what an apply does to the object.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/merge/update.go`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::conflict::{ApplyError, conflicts_of};
use super::element::equal;
use super::fields::{Comparison, compare, field_set};
use super::managers::{ManagerId, Managers, Owned};
use super::merge::{merge, reconcile, remove, with_named_fields};
use super::set::FieldSet;
use super::types::Type;
use crate::Value;
use crate::schema::SchemaRef;

/// Other served versions of the kind: managers own fields in the version they wrote.
pub trait Versions {
    /// The object in another version with that version's schema; `None` when it is not served (any more). Entries
    /// of managers in such versions are dropped.
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, SchemaRef)>;
}

/// An object, its version and its schema.
#[derive(Clone)]
pub(super) struct Typed<'a> {
    pub(super) value: Cow<'a, Value>,
    pub(super) schema: SchemaRef,
    pub(super) api_version: String,
}

impl Typed<'_> {
    fn ty(&self) -> Type<'_> {
        Type::Node(self.schema.node())
    }

    fn with(&self, value: Value) -> Typed<'static> {
        Typed {
            value: Cow::Owned(value),
            schema: self.schema.clone(),
            api_version: self.api_version.clone(),
        }
    }

    fn fields(&self) -> FieldSet {
        field_set(&self.value, self.ty())
    }

    fn named(&self, set: &FieldSet) -> FieldSet {
        with_named_fields(set, Some(self.ty()))
    }

    fn without(&self, set: &FieldSet) -> Typed<'static> {
        self.with(remove(&self.value, set, self.ty()))
    }
}

/// The rules of one request.
pub(super) struct Updater<'a> {
    pub(super) versions: Option<&'a dyn Versions>,
    /// Fields that this endpoint does not let anybody write; nobody comes to own them here.
    pub(super) reset: Option<&'a FieldSet>,
}

impl Updater<'_> {
    /// The managers after `new` has replaced `old`, written by `workflow`.
    pub(super) fn update(&self, old: &Typed<'_>, new: &Typed<'_>, managers: &mut Managers, workflow: &ManagerId) {
        self.reconcile(old, managers);
        let compared = self
            .take(old, new, managers, workflow, true)
            .expect("invariant: force has no conflicts");
        let changed = compared.changed();
        let set = match managers.fields.get(workflow) {
            Some(owned) => owned.set.difference(&compared.removed).union(&changed),
            None => changed,
        };
        self.own(managers, workflow, set, &new.api_version);
    }

    /// The live object with the configuration merged in and fields removed that are no longer applied; `None` when
    /// that changes nothing.
    pub(super) fn apply(
        &self,
        live: &Typed<'_>,
        config: &Typed<'_>,
        managers: &mut Managers,
        workflow: &ManagerId,
        force: bool,
    ) -> Result<Option<Value>, ApplyError> {
        self.reconcile(live, managers);
        let merged = live.with(merge(&live.value, &config.value, live.ty()));
        let last = managers.fields.get(workflow).cloned();
        let set = self.allowed(config.fields());
        let api_version = config.api_version.clone();
        managers.fields.insert(workflow.clone(), Owned { set, api_version });
        let pruned = self.prune(merged, managers, last, workflow);
        self.take(live, &pruned, managers, workflow, force)?;
        Ok((!equal(&live.value, &pruned.value)).then(|| pruned.value.into_owned()))
    }

    fn allowed(&self, set: FieldSet) -> FieldSet {
        match self.reset {
            Some(reset) => set.recursive_difference(reset),
            None => set,
        }
    }

    fn own(&self, managers: &mut Managers, id: &ManagerId, set: FieldSet, api_version: &str) {
        let set = self.allowed(set);
        if set.is_empty() {
            managers.fields.remove(id);
        } else {
            let api_version = api_version.into();
            managers.fields.insert(id.clone(), Owned { set, api_version });
        }
    }

    fn convert<'a, 't>(&self, typed: &'a Typed<'t>, api_version: &str) -> Option<Cow<'a, Typed<'t>>> {
        if typed.api_version == api_version {
            return Some(Cow::Borrowed(typed));
        }
        let (value, schema) = self.versions?.convert(&typed.value, api_version)?;
        Some(Cow::Owned(Typed {
            value: Cow::Owned(value),
            schema,
            api_version: api_version.into(),
        }))
    }

    /// Takes fields that change away from all others; without force that is a conflict.
    fn take(
        &self,
        old: &Typed<'_>,
        new: &Typed<'_>,
        managers: &mut Managers,
        workflow: &ManagerId,
        force: bool,
    ) -> Result<Comparison, ApplyError> {
        let comparison = compare(&old.value, &new.value, new.ty()).without(self.reset);
        let mut by_version: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        by_version.insert(new.api_version.clone(), Some(comparison));
        let mut conflicts: BTreeMap<ManagerId, FieldSet> = BTreeMap::new();
        for (id, owned) in managers.fields.iter().filter(|(id, _)| *id != workflow) {
            let version = &owned.api_version;
            let compared = by_version.entry(version.clone()).or_insert_with(|| {
                let (old, new) = (self.convert(old, version)?, self.convert(new, version)?);
                Some(compare(&old.value, &new.value, new.ty()).without(self.reset))
            });
            if let Some(compared) = compared {
                let taken = owned.set.intersection(&compared.changed());
                if !taken.is_empty() {
                    conflicts.insert(id.clone(), taken);
                }
            }
        }
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts_of(&conflicts)));
        }
        managers.fields.retain(|id, owned| {
            if id != workflow {
                match by_version.get(&owned.api_version) {
                    Some(Some(compared)) => {
                        if let Some(taken) = conflicts.get(id) {
                            owned.set.subtract(taken);
                        }
                        owned.set.subtract(&compared.removed);
                    }
                    // The version is gone.
                    _ => return false,
                }
            }
            !owned.set.is_empty()
        });
        let comparison = by_version.remove(&new.api_version).flatten();
        Ok(comparison.expect("invariant: it was put there first"))
    }

    /// Owned sets follow fields that became atomic; entries in versions that are gone are dropped.
    fn reconcile(&self, live: &Typed<'_>, managers: &mut Managers) {
        let mut by_version: BTreeMap<String, Option<Cow<'_, Typed<'_>>>> = BTreeMap::new();
        managers.fields.retain(|_, owned| {
            let version = &owned.api_version;
            let typed = by_version
                .entry(version.clone())
                .or_insert_with(|| self.convert(live, version));
            if let Some(typed) = typed {
                owned.set = reconcile(&owned.set, typed.ty());
            }
            typed.is_some()
        });
    }

    /// Removes what the manager applied last time and not now, unless somebody else owns it.
    fn prune(
        &self,
        merged: Typed<'static>,
        managers: &Managers,
        last: Option<Owned>,
        workflow: &ManagerId,
    ) -> Typed<'static> {
        let Some(last) = last.filter(|last| !last.set.is_empty()) else {
            return merged;
        };
        let now = managers.fields.get(workflow);
        let same = |now: &&Owned| now.api_version == last.api_version && last.api_version == merged.api_version;
        if now
            .filter(same)
            .is_some_and(|now| last.set.difference(&now.set).is_empty())
        {
            // It applies all of it again: whatever is removed below would be put back.
            return merged;
        }
        self.without_dropped(&merged, managers, &last).unwrap_or(merged)
    }

    /// The object without what was applied last time and is owned by nobody now, in its own version; `None` when one of
    /// the versions is not served any more.
    fn without_dropped(&self, merged: &Typed<'static>, managers: &Managers, last: &Owned) -> Option<Typed<'static>> {
        let base = self.convert(merged, &last.api_version)?;
        let last_named = base.named(&last.set);
        let pruned = base.without(&last_named);
        let pruned = self.add_back_owned(&base, pruned, managers);
        // What was not applied last time is none of this manager's to remove.
        let pruned = self.convert(&pruned, &last.api_version)?;
        let pruned_set = pruned.named(&pruned.fields());
        let base_set = base.named(&base.fields());
        let gone = base_set.difference(&pruned_set).intersection(&last_named);
        let result = base.without(&gone);
        if result.api_version == merged.api_version {
            return Some(result);
        }
        self.convert(&result, &merged.api_version).map(Cow::into_owned)
    }

    /// Puts back what was pruned although some manager owns it.
    fn add_back_owned(&self, merged: &Typed<'static>, pruned: Typed<'static>, managers: &Managers) -> Typed<'static> {
        let mut by_version: BTreeMap<&str, FieldSet> = BTreeMap::new();
        for owned in managers.fields.values() {
            let set = by_version.entry(&owned.api_version).or_default();
            *set = set.union(&owned.set);
        }
        let first = pruned.api_version.clone();
        let mut versions: Vec<&str> = by_version.keys().copied().collect();
        // The version of the pruned object first: what others need for their conversion may have been pruned.
        versions.sort_by_key(|version| *version != first);
        let (mut merged, mut pruned) = (Cow::Borrowed(merged), pruned);
        for version in versions {
            let Some(pruned_here) = self.convert(&pruned, version) else {
                continue;
            };
            let Some(merged_here) = self.convert(&merged, version) else {
                continue;
            };
            let kept = pruned_here.named(&pruned_here.fields());
            let owned = merged_here.named(&by_version[version]);
            let all = merged_here.named(&merged_here.fields());
            pruned = merged_here.without(&all.difference(&kept.union(&owned)));
            if let Cow::Owned(converted) = merged_here {
                merged = Cow::Owned(converted);
            }
        }
        pruned
    }
}
