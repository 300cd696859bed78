//! FlowSchemas and PriorityLevelConfigurations as they are in force: read once when they change, and only looked at by
//! requests.
//!
//! Invariant: there is always a level and a schema for every request. The two mandatory ones are imagined while their objects
//! are not there. Source: `cfgMeal` of `apf_controller.go`.

use std::sync::Arc;

use api::{Value, meta};
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::defaults;
use super::demand::Wanted;
use super::matching::Rule;
use super::queues::{Queues, Queuing};
use super::shares::{Seats, Shares, adjust, divide, target};
use super::shuffle::HAND_MAX;
use crate::metrics::{FlowMetrics, LevelMetrics, SchemaMetrics};
use crate::request::{Attributes, UserInfo};

/// No request takes more seats than this. Source: `maximumListSeatsLimit`.
const REQUEST_SEATS_MAX: usize = 10;
/// Nor more than this part of its level's.
const REQUEST_SEATS_PART: f64 = 0.15;
const EXEMPT: &str = "exempt";

/// A priority level in force.
pub(super) struct Level {
    pub name: String,
    pub uid: HeaderValue,
    pub shares: Shares,
    pub queuing: Queuing,
    pub seats: Seats,
    /// Survives changes of the configuration, with all who are in it.
    pub queues: Arc<Mutex<Queues>>,
}

impl Level {
    /// How many seats a request may take at most.
    pub fn request_seats_max(&self) -> usize {
        let nominal = self.seats.nominal;
        let part = (nominal as f64 * REQUEST_SEATS_PART).ceil() as usize;
        match self.queuing {
            Queuing::Queue { hand, .. } => part.min(nominal / hand.max(1)).clamp(1, REQUEST_SEATS_MAX),
            Queuing::Exempt | Queuing::Reject => REQUEST_SEATS_MAX,
        }
    }
}

/// What tells the flows of a schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

/// A FlowSchema in force.
pub(super) struct Schema {
    pub name: String,
    pub uid: HeaderValue,
    pub level: Arc<Level>,
    pub distinguisher: Distinguisher,
    pub metrics: SchemaMetrics,
    precedence: i64,
    rules: Vec<Rule>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Plan {
    /// In the order in which they are asked.
    schemas: Vec<Arc<Schema>>,
    levels: Vec<Arc<Level>>,
}

impl Plan {
    /// The plan that objects make. Levels that were there before keep who is in them.
    pub fn new(before: &Plan, schemas: &[Value], levels: &[Value], server: usize, metrics: &FlowMetrics) -> Plan {
        let now = Instant::now();
        let imagined = defaults::mandatory();
        let (imagined_levels, imagined_schemas): (Vec<&Value>, Vec<&Value>) = imagined
            .iter()
            .partition(|object| object["kind"] == "PriorityLevelConfiguration");
        let mut read: Vec<(&Value, Shares, Queuing)> = levels.iter().filter_map(read_level).collect();
        for level in imagined_levels {
            if !read.iter().any(|(own, ..)| meta::name(own) == meta::name(level)) {
                read.extend(read_level(level));
            }
        }
        let seats = divide(server, &read.iter().map(|(_, shares, _)| *shares).collect::<Vec<_>>());
        let levels: Vec<Arc<Level>> = read
            .into_iter()
            .zip(seats)
            .map(|((object, shares, queuing), seats)| {
                let name = meta::name(object).to_owned();
                let old = before.levels.iter().find(|level| level.name == name);
                let queues = match old {
                    Some(old) => {
                        old.queues.lock().reconfigure(queuing);
                        old.queues.clone()
                    }
                    None => {
                        let limit = seats.nominal - (seats.nominal - seats.min) / 2;
                        let mut queues = Queues::new(queuing, limit, now);
                        queues.tell(metrics.level_use(&name));
                        Arc::new(Mutex::new(queues))
                    }
                };
                Arc::new(Level {
                    uid: uid(object),
                    name,
                    shares,
                    queuing,
                    seats,
                    queues,
                })
            })
            .collect();
        let read = |object: &Value| read_schema(object, &levels, metrics);
        let mut schemas: Vec<Schema> = schemas.iter().filter_map(read).collect();
        for schema in imagined_schemas {
            if !schemas.iter().any(|own| own.name == meta::name(schema)) {
                schemas.extend(read(schema));
            }
        }
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        let plan = Plan {
            schemas: schemas.into_iter().map(Arc::new).collect(),
            levels,
        };
        plan.lend(metrics);
        plan
    }

    /// How many requests may wait at once, in all queues.
    pub fn places(&self) -> usize {
        let places = |level: &Arc<Level>| match level.queuing {
            Queuing::Queue { queues, length_max, .. } => queues * length_max,
            Queuing::Exempt | Queuing::Reject => 0,
        };
        self.levels.iter().map(places).sum()
    }

    /// All levels.
    pub fn levels(&self) -> &[Arc<Level>] {
        &self.levels
    }

    /// Gives each level seats for the next period, by what it wanted in the last one.
    pub fn lend(&self, metrics: &FlowMetrics) {
        let now = Instant::now();
        let wanted: Vec<_> = self
            .levels
            .iter()
            .map(|level| (level.shares, level.seats, level.queues.lock().wanted(now)))
            .collect();
        for ((level, seats), wanted) in self.levels.iter().zip(adjust(&wanted)).zip(&wanted) {
            let mut queues = level.queues.lock();
            if queues.limit() != seats {
                queues.set_limit(seats, now);
            }
            drop(queues);
            let Seats { nominal, min, max } = level.seats;
            let Wanted {
                most,
                average,
                deviation,
                smoothed,
            } = wanted.2;
            let told = LevelMetrics {
                limits: [nominal, min, max, seats],
                demand: [most, average, deviation, smoothed],
                target: target(wanted),
            };
            metrics.level(&level.name, told);
        }
    }

    /// The schema of a request.
    pub fn classify(&self, user: &UserInfo, request: &Attributes) -> Arc<Schema> {
        let found = self
            .schemas
            .iter()
            .find(|schema| schema.rules.iter().any(|rule| rule.matches(user, request)));
        // The last one is about everybody, unless somebody is in none of the two groups of all.
        let schema = found.or(self.schemas.last());
        schema
            .expect("invariant: the mandatory schemas are always there")
            .clone()
    }
}

fn uid(object: &Value) -> HeaderValue {
    HeaderValue::from_str(meta::uid(object)).unwrap_or(HeaderValue::from_static(""))
}

/// `None`: the object contradicts itself, and counts as absent.
fn read_level(object: &Value) -> Option<(&Value, Shares, Queuing)> {
    let spec = &object["spec"];
    let exempt = spec["type"] == "Exempt";
    if exempt != (meta::name(object) == EXEMPT) {
        return None;
    }
    let part = &spec[if exempt { "exempt" } else { "limited" }];
    let number = |value: &Value| value.as_u64().and_then(|value| u32::try_from(value).ok());
    if !part.is_object() && !exempt {
        return None;
    }
    let shares = Shares {
        nominal: number(&part["nominalConcurrencyShares"]).unwrap_or(if exempt { 0 } else { 30 }),
        lendable_percent: number(&part["lendablePercent"]).unwrap_or(0),
        borrowing_percent: number(&part["borrowingLimitPercent"]),
        exempt,
    };
    let response = &part["limitResponse"];
    let queuing = match response["type"].as_str() {
        _ if exempt => Queuing::Exempt,
        Some("Queue") => {
            let count = |field: &str, default: usize| {
                let value = response["queuing"][field]
                    .as_u64()
                    .and_then(|value| usize::try_from(value).ok());
                value.filter(|value| *value > 0).unwrap_or(default)
            };
            let queues = count("queues", 64);
            Queuing::Queue {
                queues,
                hand: count("handSize", 8).min(queues).min(HAND_MAX),
                length_max: count("queueLengthLimit", 50),
            }
        }
        _ => Queuing::Reject,
    };
    Some((object, shares, queuing))
}

/// `None`: its level is not there.
fn read_schema(object: &Value, levels: &[Arc<Level>], metrics: &FlowMetrics) -> Option<Schema> {
    let spec = &object["spec"];
    let level = spec["priorityLevelConfiguration"]["name"].as_str()?;
    let level = levels.iter().find(|own| own.name == level)?.clone();
    let name = meta::name(object).to_owned();
    Some(Schema {
        uid: uid(object),
        metrics: metrics.schema(&level.name, &name),
        level,
        distinguisher: match spec["distinguisherMethod"]["type"].as_str() {
            Some("ByUser") => Distinguisher::User,
            Some("ByNamespace") => Distinguisher::Namespace,
            _ => Distinguisher::Nothing,
        },
        precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
        rules: spec["rules"].as_array().into_iter().flatten().map(Rule::of).collect(),
        name,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(verb: &str, group: &str, resource: &str, namespace: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            namespace: namespace.into(),
            is_resource: true,
            ..Attributes::default()
        }
    }

    fn objects() -> (Vec<Value>, Vec<Value>) {
        let all = defaults::mandatory().into_iter().chain(defaults::suggested());
        all.partition(|object| object["kind"] == "FlowSchema")
    }

    #[tokio::test]
    async fn the_defaults_sort_requests_as_upstreams_do() {
        let (schemas, levels) = objects();
        let plan = Plan::new(&Plan::default(), &schemas, &levels, 600, &FlowMetrics::default());
        let lease = || request("update", "coordination.k8s.io", "leases", "kube-system");
        let pods = || request("list", "", "pods", "default");
        let probe = Attributes {
            verb: "get".into(),
            path: "/readyz".into(),
            ..Attributes::default()
        };
        let account = |name: &str| format!("system:serviceaccount:{name}");
        for (user, groups, request, schema, level) in [
            ("admin".into(), vec!["system:masters"], pods(), "exempt", "exempt"),
            ("jane".into(), vec![], probe, "probes", "exempt"),
            ("jane".into(), vec![], pods(), "global-default", "global-default"),
            (
                "system:kube-scheduler".into(),
                vec![],
                lease(),
                "system-leader-election",
                "leader-election",
            ),
            (
                "system:kube-scheduler".into(),
                vec![],
                pods(),
                "kube-scheduler",
                "workload-high",
            ),
            (
                "system:node:a".into(),
                vec!["system:nodes"],
                lease(),
                "system-node-high",
                "node-high",
            ),
            (
                "system:node:a".into(),
                vec!["system:nodes"],
                pods(),
                "system-nodes",
                "system",
            ),
            (
                account("kube-system:x"),
                vec!["system:serviceaccounts"],
                pods(),
                "kube-system-service-accounts",
                "workload-high",
            ),
            (
                account("a:x"),
                vec!["system:serviceaccounts"],
                pods(),
                "service-accounts",
                "workload-low",
            ),
        ] {
            let found = plan.classify(&UserInfo::new(user.clone(), groups), &request);
            assert_eq!(
                (&*found.name, &*found.level.name),
                (schema, level),
                "{user} {request:?}"
            );
        }
        let seats: Vec<(&str, usize, usize)> = plan
            .levels
            .iter()
            .map(|level| (&*level.name, level.seats.nominal, level.request_seats_max()))
            .collect();
        assert!(
            seats.contains(&("workload-low", 245, 10)) && seats.contains(&("leader-election", 25, 4)),
            "{seats:?}"
        );
    }

    #[tokio::test]
    async fn the_mandatory_ones_are_there_without_objects() {
        let metrics = FlowMetrics::default();
        let plan = Plan::new(&Plan::default(), &[], &[], 10, &metrics);
        let pods = request("get", "", "pods", "a");
        assert_eq!(plan.classify(&UserInfo::new("jane", ["x"]), &pods).name, "catch-all");
        assert_eq!(
            plan.classify(&UserInfo::new("a", ["system:masters"]), &pods).name,
            "exempt"
        );
        // A schema whose level is missing counts for nothing; a level keeps its queues over a change.
        let own = json!({"kind": "FlowSchema", "metadata": {"name": "own"}, "spec": {
            "priorityLevelConfiguration": {"name": "slow"}, "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "jane"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]}]}});
        let level = |queues: usize| {
            json!({"kind": "PriorityLevelConfiguration", "metadata": {"name": "slow"}, "spec": {
            "type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {"queues": queues}}}}})
        };
        let jane = UserInfo::new("jane", ["x"]);
        let without = Plan::new(&plan, std::slice::from_ref(&own), &[], 10, &metrics);
        assert_eq!(without.classify(&jane, &pods).name, "catch-all");
        let with = Plan::new(&without, std::slice::from_ref(&own), &[level(2)], 10, &metrics);
        let after = Plan::new(&with, &[own], &[level(4)], 10, &metrics);
        let (a, b) = (with.classify(&jane, &pods), after.classify(&jane, &pods));
        assert_eq!(a.name, "own");
        assert!(Arc::ptr_eq(&a.level.queues, &b.level.queues));
    }
}
