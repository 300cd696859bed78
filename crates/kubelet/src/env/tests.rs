//! Environments as they come out, from definitions as they are written.

use serde_json::{Value, json};

use super::*;
use crate::volumes::objects::FixedObjects;

fn objects() -> FixedObjects {
    let mut objects = FixedObjects::default();
    let config_map = json!({"data": {"a": "1", "b.c": "2", "x=y": "3"}});
    objects.config_maps.insert(
        ("n".into(), "cm".into()),
        Arc::new(serde_json::from_value(config_map).unwrap()),
    );
    let secret = json!({"data": {"password": "c2VjcmV0", "a": "cw==", "bytes": "/w==", "zero": "AA=="}});
    objects.secrets.insert(
        ("n".into(), "s".into()),
        Arc::new(serde_json::from_value(secret).unwrap()),
    );
    objects
}

async fn run(container: Value) -> Result<Environment, EnvError> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [container]},
    }))
    .unwrap();
    let service = json!({
        "metadata": {"name": "db", "namespace": "n"}, "spec": {"clusterIP": "10.0.0.2", "ports": [{"port": 1}]},
    });
    let services = [Arc::new(serde_json::from_value(service).unwrap())];
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let node = NodeFacts::default();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("env"), "K='from a file'\nEMPTY=''\n").unwrap();
    std::fs::write(directory.path().join("broken"), "K").unwrap();
    let volume = Volume {
        path: directory.path().to_owned(),
        read_only: false,
    };
    let volumes = [("v".to_owned(), volume)].into();
    let input = Input {
        pod: &pod,
        container,
        node: &node,
        pod_ips: &["10.1.0.2".to_owned()],
        volumes: &volumes,
        services: &services,
    };
    environment(&input, &objects()).await
}

async fn check(env_from: Value, env: Value, expect: Result<&str, &str>) {
    let got = run(json!({"name": "c", "envFrom": env_from, "env": env})).await;
    let text = got.map(|environment| {
        let own = environment
            .variables
            .iter()
            .filter(|(name, _)| !name.starts_with("DB_"));
        own.map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" ")
    });
    assert_eq!(
        text.as_deref().map_err(ToString::to_string),
        expect.map_err(str::to_owned),
        "{env_from} {env}"
    );
}

#[tokio::test]
async fn variables() {
    let from = |kind: &str, name: &str| json!({kind: {"name": name}});
    let key = |kind: &str, name: &str, key: &str, optional: bool| json!([{"name": "V", "valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}]);
    let (maps, secrets) = ("configMapKeyRef", "secretKeyRef");
    check(
        json!([]),
        json!([{"name": "A", "value": "x"}, {"name": "B", "value": "$(A)$(C)$$(A)"}]),
        Ok("A=x B=x$(C)$(A)"),
    )
    .await;
    check(
        json!([]),
        json!([{"name": "A", "value": "$(DB_SERVICE_HOST)"}]),
        Ok("A=10.0.0.2"),
    )
    .await;
    check(
        json!([]),
        json!([{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]),
        Ok("A=12"),
    )
    .await;
    check(json!([]), json!([{"name": "A"}]), Ok("A=")).await;
    check(
        json!([from("configMapRef", "cm")]),
        json!([{"name": "a", "value": "own"}]),
        Ok("a=own b.c=2"),
    )
    .await;
    check(
        json!([{"prefix": "P_", "configMapRef": {"name": "cm"}}]),
        json!([]),
        Ok("P_a=1 P_b.c=2"),
    )
    .await;
    check(
        json!([from("configMapRef", "none")]),
        json!([]),
        Err("configmap \"none\" not found"),
    )
    .await;
    check(
        json!([{"configMapRef": {"name": "none", "optional": true}}]),
        json!([]),
        Ok(""),
    )
    .await;
    check(
        json!([from("secretRef", "none")]),
        json!([]),
        Err("secret \"none\" not found"),
    )
    .await;
    check(json!([]), key(maps, "cm", "a", false), Ok("V=1")).await;
    check(
        json!([]),
        key(maps, "cm", "x", false),
        Err("couldn't find key x in ConfigMap n/cm"),
    )
    .await;
    check(json!([]), key(maps, "cm", "x", true), Ok("")).await;
    check(json!([]), key(secrets, "s", "password", false), Ok("V=secret")).await;
    check(
        json!([]),
        key(secrets, "s", "x", false),
        Err("couldn't find key x in Secret n/s"),
    )
    .await;
    check(
        json!([]),
        key(secrets, "none", "x", false),
        Err("secret \"none\" not found"),
    )
    .await;
    check(json!([]), key(secrets, "none", "x", true), Ok("")).await;
    check(
        json!([]),
        key(secrets, "s", "bytes", false),
        Err("the value of environment variable V is not valid UTF-8"),
    )
    .await;
    check(
        json!([]),
        key(secrets, "s", "zero", false),
        Err("the value of environment variable V contains a zero byte"),
    )
    .await;
    let field = |path: &str| json!([{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}]);
    check(json!([]), field("status.podIP"), Ok("V=10.1.0.2")).await;
    check(json!([]), field("metadata.namespace"), Ok("V=n")).await;
    check(json!([]), field("spec.x"), Err("unsupported fieldPath: spec.x")).await;
}

#[tokio::test]
async fn names_that_cannot_be_are_told() {
    let environment = run(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "cm"}}]}))
        .await
        .unwrap();
    let expect = "Keys [x=y] from the EnvFrom configMap n/cm were skipped since they are considered invalid \
                  environment variable names.";
    assert_eq!(environment.skipped, [expect]);
    assert_eq!(environment.get("DB_SERVICE_HOST"), Some("10.0.0.2"));
    assert_eq!(environment.expand_all(&["$(a)-$(none)".to_owned()]), ["1-$(none)"]);
}

#[tokio::test]
async fn files_hold_variables() {
    let of = |path: &str, key: &str, optional: bool| {
        json!([{"name": "A", "valueFrom": {"fileKeyRef": {
            "volumeName": "v", "path": path, "key": key, "optional": optional,
        }}}])
    };
    let run = async |env: Value| {
        let environment = super::tests::run(json!({"name": "c", "env": env})).await;
        environment
            .map(|environment| environment.get("A").map(str::to_owned))
            .map_err(|error| error.to_string())
    };
    assert_eq!(run(of("env", "K", false)).await, Ok(Some("from a file".into())));
    assert_eq!(run(of("env", "NONE", true)).await, Ok(None));
    assert_eq!(run(of("env", "EMPTY", true)).await, Ok(None));
    let missing = run(of("env", "NONE", false)).await.unwrap_err();
    assert!(
        missing.starts_with("environment variable key \"NONE\" not found in file \"/") && missing.ends_with("/env\""),
        "{missing}"
    );
    for path in ["none", "broken"] {
        assert_eq!(
            run(of(path, "K", true)).await,
            Err("couldn't parse env file".into()),
            "{path}"
        );
    }
    let mut other = of("env", "K", true);
    other[0]["valueFrom"]["fileKeyRef"]["volumeName"] = "w".into();
    let expect = "cannot find the volume \"w\" referenced by FileKeyRef";
    assert_eq!(run(other).await, Err(expect.into()));
}
