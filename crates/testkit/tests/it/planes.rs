//! One suite over both transports, and a power loss under the whole control plane.

use std::sync::Arc;

use apiserver::request::{SYSTEM_MASTERS, UserInfo};
use base::Random;
use base::disk::SimDisk;
use client::resource::resources::{
    CONFIG_MAPS, DEPLOYMENTS, PERSISTENT_VOLUME_CLAIMS, PODS, REPLICA_SETS, SERVICE_ACCOUNTS,
};
use client::{Client, DeleteParams, Event, ListParams, WatchParams};
use serde_json::{Value, json};
use testkit::{ControlPlane, engine_on};

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
        }},
    })
}

/// Whoever comes by whichever way: controllers follow, watches tell, and RBAC refuses with the same words.
async fn everything_works(admin: &Client, nobody: &Client, name: &str) {
    let selector = format!("app={name}");
    let params = WatchParams {
        label_selector: selector.clone(),
        ..WatchParams::default()
    };
    let mut pods = admin.watch_in::<Value>(&PODS, "default", &params).await.unwrap();
    admin
        .create_in(&DEPLOYMENTS, "default", &deployment(name))
        .await
        .unwrap();
    for _ in 0..2 {
        match pods.next().await.unwrap().unwrap() {
            Event::Added(pod) => assert!(api::meta::name(&pod).starts_with(name), "{pod:#}"),
            other => panic!("{other:?}"),
        }
    }
    let params = ListParams {
        label_selector: selector,
        ..ListParams::default()
    };
    let sets = admin.list_in::<Value>(&REPLICA_SETS, "default", &params).await.unwrap();
    assert_eq!(sets.items.len(), 1);
    let refused = nobody
        .create_in(&DEPLOYMENTS, "default", &deployment("other"))
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "deployments.apps is forbidden: User \"nobody\" cannot create resource \"deployments\" in API group \"apps\" in the \
         namespace \"default\""
    );
}

#[tokio::test]
async fn both_ways_lead_to_the_same_server() {
    let plane = ControlPlane::start().await.unwrap();
    let nobody = plane.client(UserInfo::new::<String>("nobody", []));
    everything_works(&plane.administrator(), &nobody, "by-call").await;
    let admin = plane.https("admin", Some(SYSTEM_MASTERS)).unwrap();
    let nobody = plane.https("nobody", None).unwrap();
    everything_works(&admin, &nobody, "by-https").await;
    plane.end().await;
}

/// What was acknowledged before the power went is there when it comes back, and the cluster goes on.
#[tokio::test]
async fn a_cluster_survives_a_power_loss() {
    let disk = SimDisk::new(Random::seeded(1));
    let plane = ControlPlane::start_over(engine_on(Arc::new(disk.clone())).await.unwrap())
        .await
        .unwrap();
    let admin = plane.administrator();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"k": "v"}});
    let kept = admin.create_in(&CONFIG_MAPS, "default", &object).await.unwrap();
    disk.crash();
    let lost = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "lost"}});
    assert!(admin.create_in(&CONFIG_MAPS, "default", &lost).await.is_err());
    plane.end().await;
    disk.power_loss();

    let plane = ControlPlane::start_over(engine_on(Arc::new(disk)).await.unwrap())
        .await
        .unwrap();
    let admin = plane.administrator();
    let found = admin.get_in::<Value>(&CONFIG_MAPS, "default", "kept").await.unwrap();
    assert_eq!(found["metadata"], kept["metadata"]);
    let nobody = plane.client(UserInfo::new::<String>("nobody", []));
    everything_works(&admin, &nobody, "after").await;
    plane.end().await;
}

/// A claim that a pod uses stays until the pod is gone, and only a bound one grows.
#[tokio::test]
async fn claims_in_use_wait() {
    let plane = ControlPlane::start().await.unwrap();
    let admin = plane.administrator();
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let mut made = admin
        .create_in(&PERSISTENT_VOLUME_CLAIMS, "default", &claim)
        .await
        .unwrap();
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    made["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
    let refused = admin
        .update(&PERSISTENT_VOLUME_CLAIMS, "default", "c", None, &made)
        .await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("spec is immutable after creation"), "{refused}");

    // A pod needs the account that a controller makes.
    let everything = WatchParams::default();
    let mut accounts = admin
        .watch_in::<Value>(&SERVICE_ACCOUNTS, "default", &everything)
        .await
        .unwrap();
    accounts.next().await.unwrap().unwrap();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n",
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    admin.create_in(&PODS, "default", &pod).await.unwrap();
    let now = DeleteParams {
        grace_seconds: Some(0),
        ..DeleteParams::default()
    };
    let mut claims = admin
        .watch_in::<Value>(&PERSISTENT_VOLUME_CLAIMS, "default", &WatchParams::default())
        .await
        .unwrap();
    admin
        .delete(&PERSISTENT_VOLUME_CLAIMS, "default", "c", &now)
        .await
        .unwrap();
    let waiting = admin
        .get_in::<Value>(&PERSISTENT_VOLUME_CLAIMS, "default", "c")
        .await
        .unwrap();
    assert!(api::meta::is_deleting(&waiting), "{waiting:#}");
    admin.delete(&PODS, "default", "p", &now).await.unwrap();
    while let Some(event) = claims.next().await {
        if matches!(event.unwrap(), Event::Deleted(_)) {
            break;
        }
    }
    let gone = admin.get_in::<Value>(&PERSISTENT_VOLUME_CLAIMS, "default", "c").await;
    assert!(gone.is_err_and(|error| error.is_not_found()));
    plane.end().await;
}
