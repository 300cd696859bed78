//! What kube-rs programs do beyond the walks: typed objects, server-side apply, subresources, a reflector, a controller with
//! finalizers, events, conditions that are waited for, a token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::reflector;
use kube::runtime::wait::{Condition, await_condition, conditions};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use crate::place::{Place, client_of, in_time, kubeconfig, place, refusal};

/// Waits until an object is as it should be; what it is then, if it is there.
async fn until<T>(api: &Api<T>, name: &str, condition: impl Condition<T>) -> Option<T>
where
    T: Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + kube::Resource + 'static,
{
    in_time(name, await_condition(api.clone(), name, condition))
        .await
        .unwrap()
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn config_map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    typed(json!({"metadata": {"name": name}, "data": data.iter().copied().collect::<BTreeMap<_, _>>()}))
}

pub async fn the_server_tells_its_version() {
    let place = place("kube-version").await;
    let version = place.client.apiserver_version().await.unwrap();
    assert_eq!((&*version.major, &*version.minor), ("1", "36"));
}

pub async fn objects_are_applied_with_owners_and_conflicts() {
    let place = place("kube-apply").await;
    let maps: Api<ConfigMap> = Api::namespaced(place.client.clone(), &place.namespace);
    let apply = |manager: &str| PatchParams::apply(manager);
    let object = |value: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"k": value},
        }))
    };
    let created = maps.patch("settings", &apply("one"), &object("1")).await.unwrap();
    assert_eq!(created.data.unwrap()["k"], "1");
    // The same again is no change.
    let again = maps.patch("settings", &apply("one"), &object("1")).await.unwrap();
    assert_eq!(again.metadata.resource_version, created.metadata.resource_version);
    let status = refusal(maps.patch("settings", &apply("two"), &object("2")).await);
    assert!(status.is_conflict(), "{status:?}");
    assert!(status.message.contains("conflict with \"one\""), "{status:?}");
    let forced = maps
        .patch("settings", &apply("two").force(), &object("2"))
        .await
        .unwrap();
    let managers: Vec<_> = forced.managed_fields().iter().map(|own| own.manager.clone()).collect();
    assert_eq!(managers, [Some("two".to_owned())]);
    let dry = maps
        .patch("settings", &apply("two").dry_run(), &object("3"))
        .await
        .unwrap();
    assert_eq!(dry.data.unwrap()["k"], "3");
    assert_eq!(maps.get("settings").await.unwrap().data.unwrap()["k"], "2");
    let metadata = maps.get_metadata("settings").await.unwrap();
    assert_eq!(metadata.name_any(), "settings");
    let list = maps.list_metadata(&ListParams::default()).await.unwrap();
    assert!(list.items.iter().any(|item| item.name_any() == "settings"));
}

pub async fn an_entry_is_made_changed_and_deleted_with_a_precondition() {
    let place = place("kube-entry").await;
    let maps: Api<ConfigMap> = Api::namespaced(place.client.clone(), &place.namespace);
    let mut entry = maps
        .entry("counter")
        .await
        .unwrap()
        .or_insert(|| config_map("counter", &[]));
    entry
        .get_mut()
        .data
        .get_or_insert_default()
        .insert("count".into(), "1".into());
    entry.commit(&PostParams::default()).await.unwrap();
    let mut entry = maps.entry("counter").await.unwrap();
    entry
        .get_mut()
        .unwrap()
        .data
        .get_or_insert_default()
        .insert("count".into(), "2".into());
    let kube::api::entry::Entry::Occupied(mut entry) = entry else {
        panic!("it is there");
    };
    entry.commit(&PostParams::default()).await.unwrap();
    let counter = maps.get("counter").await.unwrap();
    assert_eq!(counter.data.as_ref().unwrap()["count"], "2");

    let with = |uid: &str| {
        DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.into()),
            resource_version: None,
        })
    };
    let status = refusal(maps.delete("counter", &with("another")).await);
    assert!(status.is_conflict(), "{status:?}");
    let uid = counter.uid().unwrap();
    maps.delete("counter", &with(&uid)).await.unwrap();
    until(&maps, "counter", conditions::is_deleted(&uid)).await;
}

pub async fn a_deployment_runs_is_scaled_and_its_pod_evicted() {
    let place = place("kube-deployment").await;
    let deployments: Api<Deployment> = Api::namespaced(place.client.clone(), &place.namespace);
    let pods: Api<Pod> = Api::namespaced(place.client.clone(), &place.namespace);
    let deployment: Deployment = typed(json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "example.com/web:1"}]},
        }},
    }));
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    until(&deployments, "web", conditions::is_deployment_completed()).await;
    let scale = deployments.get_scale("web").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(1));
    let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let scale = deployments
        .patch_scale("web", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(2));
    let scaled = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.and_then(|status| status.ready_replicas) == Some(2)
    };
    until(&deployments, "web", scaled).await;

    let list = pods.list(&ListParams::default().labels("app=web")).await.unwrap();
    let pod = &list.items[0];
    let status = pods.evict(&pod.name_any(), &EvictParams::default()).await.unwrap();
    assert!(status.is_success(), "{status:?}");
    until(&pods, &pod.name_any(), conditions::is_deleted(&pod.uid().unwrap())).await;
}

pub async fn a_reflector_follows_what_changes() {
    let place = place("kube-reflector").await;
    let maps: Api<ConfigMap> = Api::namespaced(place.client.clone(), &place.namespace);
    for number in 0..3 {
        let map = config_map(&format!("map-{number}"), &[("n", "0")]);
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    // Both ways of a first list: pages and a watch, and one watch with everything in it.
    for config in [
        watcher::Config::default().page_size(2),
        watcher::Config::default().streaming_lists(),
    ] {
        let (reader, writer) = reflector::store();
        let config = config.fields("metadata.name!=kube-root-ca.crt");
        let mut events = Box::pin(reflector::reflector(writer, watcher(maps.clone(), config)).applied_objects());
        let mut told = 0;
        while told < 3 {
            in_time("an object", events.next()).await.unwrap().unwrap();
            told += 1;
        }
        let patch = Patch::Merge(json!({"data": {"n": "1", "more": null}}));
        maps.patch("map-1", &PatchParams::default(), &patch).await.unwrap();
        maps.patch(
            "map-1",
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"more": "x"}})),
        )
        .await
        .unwrap();
        loop {
            let seen = in_time("a change", events.next()).await.unwrap().unwrap();
            if seen.data.as_ref().is_some_and(|data| data.contains_key("more")) {
                break;
            }
        }
        assert_eq!(reader.len(), 3);
        let key = reflector::ObjectRef::new("map-1").within(&place.namespace);
        assert_eq!(reader.get(&key).unwrap().data.as_ref().unwrap()["n"], "1");
    }
}

/// A controller that keeps a copy of each ConfigMap with a label, and takes it away when the first one is deleted.
pub async fn a_controller_reconciles_and_finalizes() {
    const FINALIZER: &str = "e2e.example.com/copies";
    let place = place("kube-controller").await;
    let maps: Api<ConfigMap> = Api::namespaced(place.client.clone(), &place.namespace);
    let reconcile = |map: Arc<ConfigMap>, maps: Arc<Api<ConfigMap>>| async move {
        let copy = format!("{}-copy", map.name_any());
        finalizer(&maps, FINALIZER, map, |event| async {
            match event {
                Finalizer::Apply(map) => {
                    let object = json!({
                        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": copy}, "data": map.data,
                    });
                    maps.patch(&copy, &PatchParams::apply("copies").force(), &Patch::Apply(object))
                        .await?;
                }
                Finalizer::Cleanup(_) => {
                    maps.delete(&copy, &DeleteParams::default()).await?;
                }
            }
            Ok::<_, kube::Error>(Action::await_change())
        })
        .await
    };
    let config = watcher::Config::default().labels("copied=yes");
    // A conflict, say: the next try begins with what is there then.
    let again = |_, error: &_, _| {
        eprintln!("reconciled again: {error}");
        Action::requeue(Duration::from_secs(1))
    };
    let controller = Controller::new(maps.clone(), config).run(reconcile, again, Arc::new(maps.clone()));
    let running = tokio::spawn(controller.for_each(|_| async {}));

    let mut map = config_map("settings", &[("k", "1")]);
    map.labels_mut().insert("copied".into(), "yes".into());
    maps.create(&PostParams::default(), &map).await.unwrap();
    let has = |value: &'static str| {
        move |map: Option<&ConfigMap>| {
            let data = map.and_then(|map| map.data.as_ref());
            data.is_some_and(|data| data["k"] == value)
        }
    };
    until(&maps, "settings-copy", has("1")).await;
    let patch = Patch::Merge(json!({"data": {"k": "2"}}));
    maps.patch("settings", &PatchParams::default(), &patch).await.unwrap();
    let copy = until(&maps, "settings-copy", has("2")).await.unwrap();
    let settings = maps.get("settings").await.unwrap();
    assert_eq!(settings.finalizers(), [FINALIZER]);
    maps.delete("settings", &DeleteParams::default()).await.unwrap();
    for object in [&settings, &copy] {
        let gone = conditions::is_deleted(object.meta().uid.as_deref().unwrap());
        until(&maps, &object.name_any(), gone).await;
    }
    running.abort();
}

pub async fn events_are_published_as_a_series() {
    let place = place("kube-events").await;
    let maps: Api<ConfigMap> = Api::namespaced(place.client.clone(), &place.namespace);
    let map = maps
        .create(&PostParams::default(), &config_map("subject", &[]))
        .await
        .unwrap();
    let reporter = Reporter {
        controller: "conformance".into(),
        instance: Some("one".into()),
    };
    let recorder = Recorder::new(place.client.clone(), reporter);
    let event = Event {
        type_: EventType::Normal,
        reason: "Looked".into(),
        note: Some("It was looked at".into()),
        action: "Looking".into(),
        secondary: None,
    };
    for _ in 0..2 {
        recorder.publish(&event, &map.object_ref(&())).await.unwrap();
    }
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(place.client, &place.namespace);
    let list = events
        .list(&ListParams::default().fields("reason=Looked"))
        .await
        .unwrap();
    assert_eq!(list.items.len(), 1);
    assert_eq!(list.items[0].series.as_ref().unwrap().count, 2);
}

pub async fn an_account_s_token_is_a_client_s_identity() {
    let place = place("kube-token").await;
    let accounts: Api<ServiceAccount> = Api::namespaced(place.client.clone(), &place.namespace);
    let request = TokenRequest::default();
    let answer = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await
        .unwrap();
    let token = answer.status.unwrap().token;
    let mut config = kubeconfig();
    config.auth_infos[0].auth_info = Some(typed(json!({"token": token})));
    let client = client_of(config).await;
    let own = Place {
        client: client.clone(),
        namespace: place.namespace.clone(),
    };
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = own
        .post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
        .await
        .unwrap();
    let name = format!("system:serviceaccount:{}:default", place.namespace);
    assert_eq!(answer["status"]["userInfo"]["username"], *name);
    let maps: Api<ConfigMap> = Api::namespaced(client, &place.namespace);
    let status = refusal(maps.list(&ListParams::default()).await);
    assert!(status.is_forbidden(), "{status:?}");
}
