//! How a built-in kind writes its row: the defaults are what most kinds have, each call names one exception.

use std::sync::Arc;

use api::Value;

use crate::names;
use crate::print;
use crate::row::{
    Columns, Conversion, DeletePolicy, Propagation, ServedVersion, StorageKind, Strategy, Subresource, SubresourceRole,
};

const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const READ_WRITE: &[&str] = &["get", "patch", "update"];

/// Everything in upstream's etcd layout lives below this key.
const ROOT: &str = "/registry/";

/// A row in the making.
pub struct Row(StorageKind);

impl Row {
    /// A namespaced kind, served in the version it is stored in.
    pub fn namespaced(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Row {
        Row(StorageKind {
            group: group.into(),
            hub: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase().into(),
            namespaced: true,
            key_prefix: format!("{ROOT}{plural}").into(),
            strategy: Arc::new(crate::generic::Plain),
            name_rule: names::subdomain,
            delete: DeletePolicy {
                default_propagation: Propagation::Background,
                graceful: false,
                returns_object: false,
            },
            ttl_seconds: None,
            create_on_update: false,
            unconditional_update: true,
            has_generation: false,
            trigger: None,
            read_fields: Some(&[]),
            served: vec![ServedVersion {
                group: group.into(),
                version: version.into(),
                conversion: None,
                verbs: ALL_VERBS,
                subresources: Vec::new(),
                selectable_fields: &[],
                short_names: &[],
                categories: &[],
                columns: Some(print::CREATED_AT),
                custom: None,
            }],
        })
    }

    /// A kind without namespaces.
    pub fn cluster(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Row {
        let mut row = Row::namespaced(group, version, kind, plural);
        row.0.namespaced = false;
        row
    }

    /// The finished row.
    pub fn build(self) -> StorageKind {
        self.0
    }

    fn hub(mut self, edit: impl FnOnce(&mut ServedVersion)) -> Row {
        edit(&mut self.0.served[0]);
        self
    }

    /// The kind's own rules.
    pub fn strategy(mut self, strategy: impl Strategy + 'static) -> Row {
        self.0.strategy = Arc::new(strategy);
        self
    }

    /// Where upstream stores it, below `/registry/`, when that is not the plural.
    pub fn stored_under(mut self, key: &str) -> Row {
        self.0.key_prefix = format!("{ROOT}{key}").into();
        self
    }

    /// The rule for names, when it is not a DNS subdomain.
    pub fn named(mut self, rule: fn(&str, bool) -> Vec<String>) -> Row {
        self.0.name_rule = rule;
        self
    }

    /// DELETE leaves dependents alone when the request does not say otherwise.
    pub fn orphans(mut self) -> Row {
        self.0.delete.default_propagation = Propagation::Orphan;
        self
    }

    /// DELETE may wait for a grace period.
    pub fn graceful(mut self) -> Row {
        self.0.delete.graceful = true;
        self
    }

    /// DELETE answers with the object.
    pub fn returns_deleted(mut self) -> Row {
        self.0.delete.returns_object = true;
        self
    }

    /// Objects go by themselves.
    pub fn expires_after(mut self, seconds: u64) -> Row {
        self.0.ttl_seconds = Some(seconds);
        self
    }

    /// PUT of an absent object creates it.
    pub fn created_by_put(mut self) -> Row {
        self.0.create_on_update = true;
        self
    }

    /// PUT must name a resourceVersion.
    pub fn conditional_update(mut self) -> Row {
        self.0.unconditional_update = false;
        self
    }

    /// `metadata.generation` is kept.
    pub fn generation(mut self) -> Row {
        self.0.has_generation = true;
        self
    }

    /// The field that watchers are woken by.
    pub fn trigger(mut self, field: fn(&Value) -> Option<String>) -> Row {
        self.0.trigger = Some(field);
        self.0.read_fields = None;
        self
    }

    /// The verbs, when they are not all of them.
    pub fn verbs(self, verbs: &'static [&'static str]) -> Row {
        self.hub(|served| served.verbs = verbs)
    }

    /// Short names for kubectl.
    pub fn short(self, names: &'static [&'static str]) -> Row {
        self.hub(|served| served.short_names = names)
    }

    /// Part of `kubectl get all`.
    pub fn in_all(self) -> Row {
        self.categories(&["all"])
    }

    /// The categories.
    pub fn categories(self, categories: &'static [&'static str]) -> Row {
        self.hub(|served| served.categories = categories)
    }

    /// What `kubectl get` prints.
    pub fn columns(self, columns: Columns) -> Row {
        self.hub(|served| served.columns = Some(columns))
    }

    /// What a field selector may name. Read of the whole object, unless [`Row::reads`] says what of it.
    pub fn fields(mut self, fields: &'static [(&'static str, fn(&Value) -> String)]) -> Row {
        self.0.read_fields = None;
        self.hub(|served| served.selectable_fields = fields)
    }

    /// All that the trigger and the selectable fields read. Stands behind them.
    pub fn reads(mut self, paths: &'static [&'static str]) -> Row {
        self.0.read_fields = Some(paths);
        self
    }

    /// The `status` subresource.
    pub fn status(self) -> Row {
        self.view("status")
    }

    /// A subresource that shows the object itself.
    pub fn view(self, name: &'static str) -> Row {
        self.view_with(name, READ_WRITE)
    }

    /// A subresource that shows the object itself, with verbs of its own.
    pub fn view_with(self, name: &'static str, verbs: &'static [&'static str]) -> Row {
        self.subresource(Subresource {
            name,
            kind: None,
            verbs,
            role: SubresourceRole::View,
        })
    }

    /// The `scale` subresource.
    pub fn scale(self) -> Row {
        self.subresource(Subresource {
            name: "scale",
            kind: Some(("autoscaling", "v1", "Scale")),
            verbs: READ_WRITE,
            role: SubresourceRole::Scale,
        })
    }

    /// A subresource with a handler of the API server's own.
    pub fn handler(
        self,
        name: &'static str,
        kind: Option<(&'static str, &'static str, &'static str)>,
        verbs: &'static [&'static str],
    ) -> Row {
        self.subresource(Subresource {
            name,
            kind,
            verbs,
            role: SubresourceRole::Handler,
        })
    }

    fn subresource(self, subresource: Subresource) -> Row {
        self.hub(|served| served.subresources.push(subresource))
    }

    /// One more served version, described like the hub but for what `edit` changes. `preferred` puts it first in
    /// discovery.
    pub fn also_served(
        mut self,
        group: &'static str,
        version: &'static str,
        conversion: Conversion,
        edit: impl FnOnce(&mut ServedVersion),
    ) -> Row {
        let hub = &self.0.served[0];
        let mut served = ServedVersion {
            group: group.into(),
            version: version.into(),
            conversion: Some(conversion),
            verbs: hub.verbs,
            subresources: hub
                .subresources
                .iter()
                .map(|s| Subresource {
                    name: s.name,
                    kind: s.kind,
                    verbs: s.verbs,
                    role: s.role,
                })
                .collect(),
            selectable_fields: hub.selectable_fields,
            short_names: hub.short_names,
            categories: hub.categories,
            columns: None,
            custom: None,
        };
        edit(&mut served);
        self.0.served.push(served);
        self
    }
}
