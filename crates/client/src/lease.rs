//! Leader election over a Lease: at most one of several processes acts.
//!
//! The protocol is upstream's (client-go `tools/leaderelection`): whoever holds the lease renews it; others wait until they
//! have seen it unchanged for its whole duration *by their own clock*, so that clocks need not agree. A single server elects
//! nobody and never comes here.

use std::future::Future;
use std::time::Duration;

use api::Value;
use base::{Clock, Random, Shutdown};
use serde_json::json;
use tokio::time::Instant;

use crate::{Client, Error, Patch, Result, metrics, resources};

/// Which lease, and how patient. Durations as upstream's defaults.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// The lease's namespace, such as `kube-system`.
    pub namespace: String,
    /// The lease's name.
    pub name: String,
    /// This process among those that want to lead.
    pub identity: String,
    /// How long others wait after the last renewal they saw.
    pub lease_duration: Duration,
    /// A leader that could not renew for so long stops leading.
    pub renew_deadline: Duration,
    /// Between two attempts.
    pub retry_period: Duration,
}

impl LeaderConfig {
    /// With upstream's durations.
    pub fn new(namespace: &str, name: &str, identity: &str) -> LeaderConfig {
        LeaderConfig {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// What to do about the lease as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Create,
    Renew,
    TakeOver,
    Wait,
}

fn decide(lease: Option<&Value>, unchanged_for: Duration, config: &LeaderConfig) -> Verdict {
    let Some(lease) = lease else { return Verdict::Create };
    let holder = lease
        .pointer("/spec/holderIdentity")
        .and_then(Value::as_str)
        .unwrap_or("");
    let seconds = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_u64);
    let duration = seconds.map_or(config.lease_duration, Duration::from_secs);
    if holder == config.identity {
        Verdict::Renew
    } else if holder.is_empty() || unchanged_for >= duration {
        Verdict::TakeOver
    } else {
        Verdict::Wait
    }
}

/// Waits for leadership, then runs `lead` until it ends, leadership is lost or `shutdown` triggers; the handle given to
/// `lead` is triggered in the latter cases. Returns after that, whatever the reason; the lease is given back when possible.
pub async fn run_as_leader<F, Fut>(
    client: Client,
    config: LeaderConfig,
    clock: Clock,
    random: Random,
    shutdown: Shutdown,
    lead: F,
) where
    F: FnOnce(Shutdown) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut elector = Elector {
        client,
        config,
        clock,
        random,
        seen: None,
    };
    loop {
        match shutdown.until(elector.attempt()).await {
            None => return,
            Some(Ok(true)) => break,
            Some(Ok(false)) => {}
            Some(Err(error)) => tracing::warn!(lease = elector.config.name, %error, "leader election failed"),
        }
        let pause = elector.pause();
        if shutdown.until(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
    metrics::of_process().leads(&elector.config.name, true);
    tracing::info!(
        lease = elector.config.name,
        identity = elector.config.identity,
        "leading"
    );
    let term = shutdown.child();
    let mut work = term.spawn(lead(term.clone()));
    let mut renewed = Instant::now();
    loop {
        tokio::select! {
            _ = &mut work => break,
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(elector.config.retry_period) => {}
        }
        let deadline = renewed + elector.config.renew_deadline;
        match tokio::time::timeout_at(deadline, elector.attempt()).await {
            Ok(Ok(true)) => renewed = Instant::now(),
            Ok(Ok(false)) => {
                tracing::warn!(lease = elector.config.name, "somebody else leads now");
                break;
            }
            Ok(Err(error)) => tracing::warn!(lease = elector.config.name, %error, "renewing the lease failed"),
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            tracing::warn!(lease = elector.config.name, "the lease could not be renewed in time");
            break;
        }
    }
    metrics::of_process().leads(&elector.config.name, false);
    term.finish().await;
    elector.release().await;
}

struct Elector {
    client: Client,
    config: LeaderConfig,
    clock: Clock,
    random: Random,
    /// The lease's revision as last seen, and since when.
    seen: Option<(String, Instant)>,
}

impl Elector {
    /// One look at the lease; whether this process holds it afterwards.
    async fn attempt(&mut self) -> Result<bool> {
        let LeaderConfig { namespace, name, .. } = &self.config;
        let lease: Option<Value> = match self.client.get_in(&resources::LEASES, namespace, name).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let revision = lease
            .as_ref()
            .map(|lease| api::meta::resource_version(lease).to_string())
            .unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == revision => *since,
            _ => {
                let now = Instant::now();
                self.seen = Some((revision.clone(), now));
                now
            }
        };
        let now = micro_time(&self.clock);
        let verdict = decide(lease.as_ref(), since.elapsed(), &self.config);
        let seconds = self.config.lease_duration.as_secs();
        let mut spec = json!({
            "holderIdentity": self.config.identity, "leaseDurationSeconds": seconds, "renewTime": now,
        });
        let outcome = match verdict {
            Verdict::Wait => return Ok(false),
            Verdict::Create => {
                spec["acquireTime"] = now.into();
                spec["leaseTransitions"] = 0.into();
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": name, "namespace": namespace}, "spec": spec,
                });
                self.client.create_in(&resources::LEASES, namespace, &lease).await
            }
            Verdict::Renew => self.edit(&revision, spec).await,
            Verdict::TakeOver => {
                let transitions = lease
                    .as_ref()
                    .and_then(|lease| lease.pointer("/spec/leaseTransitions")?.as_u64());
                spec["acquireTime"] = now.into();
                spec["leaseTransitions"] = (transitions.unwrap_or(0) + 1).into();
                self.edit(&revision, spec).await
            }
        };
        match outcome {
            Ok(lease) => {
                self.seen = Some((api::meta::resource_version(&lease).to_string(), Instant::now()));
                Ok(true)
            }
            Err(Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn edit(&self, revision: &str, spec: Value) -> Result<Value> {
        let LeaderConfig { namespace, name, .. } = &self.config;
        let body = json!({"metadata": {"resourceVersion": revision}, "spec": spec});
        self.client
            .patch(&resources::LEASES, namespace, name, None, &Patch::Merge, &body)
            .await
    }

    /// Gives the lease back, so that the next one need not wait.
    async fn release(&self) {
        let Some((revision, _)) = &self.seen else { return };
        let spec = json!({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(&self.clock)});
        if let Err(error) = self.edit(revision, spec).await {
            tracing::debug!(%error, "the lease was not given back");
        }
    }

    /// The time until the next attempt; not the same for all who wait.
    fn pause(&self) -> Duration {
        self.config.retry_period.mul_f64(1.0 + 0.2 * self.random.unit())
    }
}

/// The time as a `MicroTime`: always six decimals, in UTC.
pub fn micro_time(clock: &Clock) -> String {
    clock.now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
