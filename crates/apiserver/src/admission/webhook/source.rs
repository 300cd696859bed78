//! The webhooks of all configurations of one kind, as the replica has them, in the order in which they are asked: that of the
//! configurations' names, and within one that in which they are written.
//!
//! Invariant: `all` is what the configurations say, or `None` after they changed.
//!
//! Source: `k8s.io/apiserver/pkg/admission/configuration`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::{Value, meta};
use cel::admission::Gives;
use parking_lot::Mutex;

use super::client::{Client, Clients};
use super::is_exempt;
use crate::admission::dynamic::evaluate::Conditioned;
use crate::admission::dynamic::expression::{Compiler, Expression};
use crate::admission::dynamic::follow::{changes, follow};
use crate::admission::dynamic::items;
use crate::cluster::{Changes, Cluster};
use crate::pipeline::Review;

/// The deadline of a question when nobody says: upstream's of its client. Stored webhooks always say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// One webhook.
pub struct Webhook {
    /// The configuration that it is of.
    pub configuration: String,
    /// Its name, which others of other configurations may have, too.
    pub name: String,
    /// What tells it from all others.
    pub key: String,
    /// What is written of it.
    pub spec: Value,
    conditions: Vec<Expression>,
    /// Made by the first who asks it.
    client: OnceLock<Result<Arc<Client>, String>>,
}

/// All webhooks, in their order.
pub type Webhooks = Arc<[Arc<Webhook>]>;

/// The webhooks of one kind.
pub struct Source {
    resource: &'static str,
    state: Mutex<Option<State>>,
}

struct State {
    changes: Box<dyn Changes>,
    by_name: BTreeMap<String, Arc<Vec<Arc<Webhook>>>>,
    all: Option<Webhooks>,
}

// === impl Source ===

impl Source {
    /// Of the configurations with this plural.
    pub fn new(resource: &'static str) -> Source {
        Source {
            resource,
            state: Mutex::new(None),
        }
    }

    /// Every webhook that may be about a request; `None` when there is none, as with most requests of most clusters.
    pub fn webhooks_for(&self, review: &Review) -> Option<Webhooks> {
        let all = self.webhooks(&*review.cluster);
        (!all.is_empty() && !is_exempt(review)).then_some(all)
    }

    fn webhooks(&self, cluster: &dyn Cluster) -> Webhooks {
        let mut state = self.state.lock();
        let state = state.get_or_insert_with(|| State {
            changes: changes(cluster, self.resource),
            by_name: BTreeMap::new(),
            all: None,
        });
        if follow(&mut *state.changes, &mut state.by_name, Webhook::all_of) {
            state.all = None;
        }
        let all = state.all.take();
        let all = all.unwrap_or_else(|| state.by_name.values().flat_map(|of| of.iter().cloned()).collect());
        state.all = Some(all.clone());
        all
    }
}

// === impl Webhook ===

impl Webhook {
    fn all_of(configuration: &Value) -> Vec<Arc<Webhook>> {
        let name = meta::name(configuration);
        // Old configurations may have two of the same name.
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let all = items(configuration, "webhooks").iter().map(|spec| {
            let own = spec["name"].as_str().unwrap_or("");
            let count = seen.entry(own).or_default();
            let key = format!("{name}/{own}/{count}");
            *count += 1;
            let compile = |condition: &Value| {
                Compiler::default().compile(&condition["expression"], Compiler::AUTHORIZED, Gives::Bool)
            };
            Arc::new(Webhook {
                configuration: name.to_owned(),
                name: own.to_owned(),
                key,
                spec: spec.clone(),
                conditions: items(spec, "matchConditions").iter().map(compile).collect(),
                client: OnceLock::new(),
            })
        });
        all.collect()
    }

    /// Whether a request is refused when the webhook cannot be asked.
    pub fn fails(&self) -> bool {
        self.spec["failurePolicy"] != "Ignore"
    }

    /// Whether it asks to be called again when something changed after it.
    pub fn is_reinvocable(&self) -> bool {
        self.spec["reinvocationPolicy"] == "IfNeeded"
    }

    /// Whether a dry run may be told it.
    pub fn takes_dry_runs(&self) -> bool {
        matches!(self.spec["sideEffects"].as_str(), Some("None" | "NoneOnDryRun"))
    }

    /// How long it may take.
    pub fn timeout(&self) -> Duration {
        let seconds = self.spec["timeoutSeconds"].as_u64();
        seconds.map_or(TIMEOUT_DEFAULT, Duration::from_secs)
    }

    /// Its match conditions, of a plug-in of this step.
    pub fn conditioned(&self, step: &'static str) -> Conditioned<'_> {
        Conditioned {
            name: &self.name,
            kind: "webhook",
            step,
            conditions: &self.conditions,
            variables: &[],
            fails: self.fails(),
        }
    }

    /// What reaches it.
    ///
    /// # Errors
    /// Its certificates or its place cannot be used.
    pub fn client(&self, clients: &Clients, review: &Review) -> Result<Arc<Client>, String> {
        let made = || clients.client(&self.spec["clientConfig"], &review.cluster, review.services.as_ref());
        self.client.get_or_init(made).clone()
    }
}
