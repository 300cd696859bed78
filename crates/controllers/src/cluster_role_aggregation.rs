//! ClusterRole aggregation: a role with an aggregation rule holds the rules of all roles that its selectors name.
//! Source: `pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go`.

use api::selector::LabelSelector;
use api::{Value, meta};
use client::informer::{Informer, Selection};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Error, Patch, Resource};
use serde_json::json;

use crate::context::{Context, synced};

const WORKERS: usize = 2;
const CLUSTER_ROLES: Resource = Resource::new("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", false);

/// The rules that the role should hold, in the order of the names they come from, each once. `None`: it aggregates
/// nothing.
fn aggregated(role: &Value, all: &[&Value]) -> Option<Vec<Value>> {
    let selectors = role.get("aggregationRule")?.get("clusterRoleSelectors")?.as_array()?;
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors {
        // A selector that cannot be read selects nothing: the API server has validated it.
        let Ok(selector) = LabelSelector::from_object(selector) else {
            continue;
        };
        let mut sources: Vec<&&Value> = all
            .iter()
            .filter(|other| meta::name(other) != meta::name(role) && selector.matches_object(other))
            .collect();
        sources.sort_by_key(|source| meta::name(source));
        for rule in sources.iter().flat_map(|source| rules_of(source)) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Some(rules)
}

fn rules_of(role: &Value) -> &[Value] {
    role.get("rules")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let roles = context.informers.informer_of::<Value>(CLUSTER_ROLES, Selection::all());
    let queue = WorkQueue::<String>::new().named("ClusterRoleAggregator");
    context.watch(&roles, {
        let (queue, roles) = (queue.clone(), roles.clone());
        move |_| {
            // Any role may be a source of any that aggregates; there are few of the latter.
            let aggregating = roles
                .list()
                .into_iter()
                .filter(|role| role.get("aggregationRule").is_some());
            aggregating.for_each(|role| queue.add(meta::name(&role).to_owned()));
        }
    });
    let ready = vec![synced(&roles)];
    let shell = context.clone();
    context.work(queue, ready, WORKERS, move |name| {
        let (context, roles) = (shell.clone(), roles.clone());
        async move { sync(&context, &roles, &name).await }
    });
}

async fn sync(context: &Context, roles: &Informer<Value>, name: &str) -> Result<Next, Error> {
    let Some(role) = roles.get("", name) else {
        return Ok(Next::Wait);
    };
    let all = roles.list();
    let all: Vec<&Value> = all.iter().map(|role| &**role).collect();
    let Some(rules) = aggregated(&role, &all).filter(|rules| rules_of(&role) != rules.as_slice()) else {
        return Ok(Next::Wait);
    };
    let patch = json!({"metadata": {"resourceVersion": meta::resource_version(&role)}, "rules": rules});
    match context
        .client
        .patch(&CLUSTER_ROLES, "", name, None, &Patch::Merge, &patch)
        .await
    {
        Ok(written) => {
            roles.seen(meta::resource_version(&written)).await;
            Ok(Next::Wait)
        }
        Err(error) if error.is_not_found() => Ok(Next::Wait),
        Err(error) if error.is_conflict() => Ok(Next::Retry),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Bench;

    fn role(name: &str, label: &str, rules: Value) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {label: "true"}}, "rules": rules,
        })
    }

    fn aggregating(name: &str, label: &str) -> Value {
        let mut role = role(name, "none", json!([]));
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        role
    }

    #[test]
    fn rules_come_from_those_that_are_selected_each_once() {
        let (get, list) = (json!({"verbs": ["get"]}), json!({"verbs": ["list"]}));
        let (b, a) = (
            role("b", "to-view", json!([list, get])),
            role("a", "to-view", json!([get])),
        );
        let other = role("c", "to-edit", json!([{"verbs": ["*"]}]));
        let view = aggregating("view", "to-view");
        assert_eq!(aggregated(&view, &[&b, &a, &other, &view]), Some(vec![get, list]));
        assert_eq!(aggregated(&a, &[&b, &a]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_follows_its_sources() {
        let bench = Bench::new();
        bench.api.serve(CLUSTER_ROLES);
        bench.api.put(aggregating("view", "to-view"));
        bench.api.put(role("a", "to-view", json!([{"verbs": ["get"]}])));
        start(bench.context("clusterrole-aggregation-controller"));
        let rules = |bench: &Bench| {
            bench
                .api
                .get(&CLUSTER_ROLES, "", "view")
                .map(|role| role["rules"].clone())
        };
        bench.idle().await;
        assert_eq!(rules(&bench), Some(json!([{"verbs": ["get"]}])));
        bench.api.remove(&CLUSTER_ROLES, "", "a");
        bench.idle().await;
        assert_eq!(rules(&bench), Some(json!([])));
        bench.api.take_requests();
        bench.idle().await;
        assert_eq!(bench.api.take_writes(), Vec::<String>::new(), "idle means idle");
        bench.end().await;
    }
}
