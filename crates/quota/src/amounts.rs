//! Amounts by resource, and what a pod asks for as a whole.
//!
//! Sources: `PodRequests` and `PodLimits` of `k8s.io/component-helpers/resource/helpers.go`, and
//! `k8s.io/apiserver/pkg/quota/v1/resources.go`.

use std::collections::BTreeMap;

use api::Value;
use api::quantity::Quantity;

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// Which amounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// What is reserved.
    Requests,
    /// What is never passed.
    Limits,
}

impl List {
    /// Its name in `resources`.
    pub fn field(self) -> &'static str {
        match self {
            List::Requests => "requests",
            List::Limits => "limits",
        }
    }
}

/// Reads a list of amounts; what is none is left out.
pub fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, amount)| Some((name.clone(), Quantity::from_value(amount).ok()?)))
        .collect()
}

/// The containers and init containers of a pod.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let list = |field: &str| pod["spec"][field].as_array().into_iter().flatten();
    list("containers").chain(list("initContainers"))
}

/// The amounts of one container.
pub fn of_container(container: &Value, list: List) -> Amounts {
    amounts(&container["resources"][list.field()])
}

/// The amounts of a pod: what it says for itself as a whole, and for the rest those of its containers.
pub fn of_pod(pod: &Value, list: List) -> Amounts {
    let mut total = of_containers(&pod["spec"], list);
    total.extend(amounts(&pod["spec"]["resources"][list.field()]));
    total
}

/// The amounts of a pod's containers: they and its sidecars together, or what starting it takes when that is more.
pub fn of_containers(spec: &Value, list: List) -> Amounts {
    let field = |name: &str| spec[name].as_array().into_iter().flatten();
    let mut total = Amounts::new();
    for container in field("containers") {
        add(&mut total, &of_container(container, list));
    }
    let (mut sidecars, mut start) = (Amounts::new(), Amounts::new());
    for container in field("initContainers") {
        let mut own = of_container(container, list);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        at_least(&mut start, &own);
    }
    at_least(&mut total, &start);
    total
}

/// Adds amounts to a sum.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        match total.get_mut(name) {
            Some(sum) => sum.add(amount),
            None => {
                total.insert(name.clone(), amount.clone());
            }
        }
    }
}

/// What was `new` more than `old`: nothing where it is less, and nothing of what only `old` had.
pub fn increase(new: &Amounts, old: &Amounts) -> Amounts {
    let more = new.iter().filter_map(|(name, amount)| {
        let mut more = amount.clone();
        if let Some(before) = old.get(name) {
            more.sub(before);
        }
        (more.sign() > 0).then(|| (name.clone(), more))
    });
    more.collect()
}

fn at_least(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        if total.get(name).is_none_or(|own| own < amount) {
            total.insert(name.clone(), amount.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_sidecars_and_the_start_count() {
        let of = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        for (containers, init, expect) in [
            (json!([of("1"), of("500m")]), json!([]), "1500m"),
            (json!([of("1")]), json!([of("3"), of("2")]), "3"),
            (json!([of("1")]), json!([sidecar("1"), of("500m")]), "2"),
            (json!([of("1")]), json!([sidecar("1"), of("3")]), "4"),
            (json!([of("1")]), json!([of("3"), sidecar("1")]), "3"),
        ] {
            let pod = json!({"spec": {"containers": containers, "initContainers": init}});
            let total = of_pod(&pod, List::Requests);
            assert_eq!(total["cpu"].to_string(), expect, "{pod}");
            assert!(of_pod(&pod, List::Limits).is_empty());
        }
        let whole = json!({"spec": {"containers": [of("1")], "resources": {"requests": {"cpu": "5"}}}});
        assert_eq!(of_pod(&whole, List::Requests)["cpu"].to_string(), "5");
    }

    #[test]
    fn only_what_is_more_counts() {
        let of = |list: Value| amounts(&list);
        let more = increase(
            &of(json!({"cpu": "3", "memory": "1Gi", "pods": "1"})),
            &of(json!({"cpu": "1", "memory": "2Gi", "x": "1"})),
        );
        assert_eq!(more, of(json!({"cpu": "2", "pods": "1"})));
    }
}
