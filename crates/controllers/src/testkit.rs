//! A bench for the shells: the fake API server, shared informers and a controller's context, in paused time.

use std::time::Duration;

use api::Value;
use base::{Random, Shutdown};
use client::informer::SharedInformers;
use client::testing::FakeApi;
use client::{Resource, resources};
use serde_json::json;

use crate::Config;
use crate::context::Context;

pub(crate) struct Bench {
    pub api: FakeApi,
    pub shutdown: Shutdown,
    config: Config,
    informers: SharedInformers,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench::on(FakeApi::new())
    }

    /// Controllers started anew over what is in the server: after a crash, say.
    pub(crate) fn on(api: FakeApi) -> Bench {
        let shutdown = Shutdown::new();
        let maker = api.clone();
        let client_for = Box::new(move |name: &str| maker.client_as(name));
        let mut config = Config::new(client_for, api.client_as("informers"), api.clock(), "PEM".into());
        config.random = Random::seeded(7);
        let informers =
            SharedInformers::new(config.informers_client.clone(), shutdown.clone()).with_random(Random::seeded(3));
        Bench {
            api,
            shutdown,
            config,
            informers,
        }
    }

    pub(crate) fn context(&self, name: &str) -> Context {
        Context::new(&self.config, name, name, self.informers.clone(), self.shutdown.clone())
    }

    /// Returns when `enough` says yes; fails after an hour of paused time.
    pub(crate) async fn until(&self, enough: impl Fn(&FakeApi) -> bool) {
        let waiting = tokio::time::timeout(Duration::from_secs(3600), self.api.until(enough));
        waiting
            .await
            .unwrap_or_else(|_| panic!("never; requests: {:#?}", self.lines()));
    }

    /// Lets everything that can happen happen: two seconds in which whatever is ready runs.
    pub(crate) async fn idle(&self) {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    fn lines(&self) -> Vec<String> {
        self.api
            .take_requests()
            .iter()
            .map(|seen| format!("{} {}", seen.line(), seen.body))
            .collect()
    }

    pub(crate) fn namespace(&self, name: &str) -> Value {
        self.api
            .put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
    }

    pub(crate) fn set_status(&self, resource: &Resource, namespace: &str, name: &str, status: Value) {
        self.api.edit(resource, namespace, name, |object| {
            for (key, value) in status.as_object().expect("a map").clone() {
                object["status"][key] = value;
            }
        });
    }

    /// Makes a pod run and be ready, as its kubelet would.
    pub(crate) fn run_pod(&self, namespace: &str, name: &str, ip: &str) {
        let now = crate::context::time_text(self.api.clock().now());
        let status = json!({
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
        });
        self.set_status(&resources::PODS, namespace, name, status);
    }

    pub(crate) fn pod_names(&self) -> Vec<String> {
        self.api
            .list(&resources::PODS)
            .iter()
            .map(|pod| api::meta::name(pod).to_string())
            .collect()
    }

    /// Reasons and messages of the events so far.
    pub(crate) fn events(&self) -> Vec<String> {
        let mut events = self.api.list(&resources::EVENTS);
        events.sort_by_key(|event| api::meta::resource_version(event).parse::<u64>().unwrap_or(0));
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or("").to_string();
        events
            .iter()
            .map(|event| format!("{}: {}", text(event, "reason"), text(event, "message")))
            .collect()
    }

    pub(crate) async fn end(self) {
        self.shutdown.finish().await;
    }
}
