//! Tells when the tokens of Secrets were last used, and since when that is told: what cleans up after tokens that nobody uses
//! goes by both.
//!
//! The first is a label of the Secret, written at most once a day by a task of its own: nobody waits for it. The second is the
//! config map `kube-system/kube-apiserver-legacy-service-account-token-tracking`.
//!
//! Source: `patchSecretWithLastUsedDate` of `pkg/serviceaccount/legacy.go`, and `pkg/controlplane/controller/legacytokentracking`.
//! Different from upstream: the label follows the request, which waits for it there.

use std::sync::Arc;
use std::time::Duration;

use api::{GroupResource, Value, meta};
use base::{Clock, Shutdown};
use client::queue::WorkQueue;
use client::worker::{Next, run};
use client::{Client, Error, Patch, resources};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::{Change, Cluster};

/// The label of a Secret: the day, in UTC.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// The field of the config map: the day, in UTC.
const SINCE: &str = "since";
/// The config map is made once in this time: a server beside this one that does not track would take it away each time.
const CREATION_PERIOD: Duration = Duration::from_secs(30 * 60);
/// How many Secrets are labelled at a time.
const WORKERS: usize = 4;

/// A Secret whose token was used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Used {
    namespace: String,
    name: String,
    uid: String,
}

/// The Secrets that have to be labelled: at most all there are. Clones are the same.
#[derive(Clone)]
pub struct UsedSecrets(WorkQueue<Used>);

// === impl UsedSecrets ===

impl Default for UsedSecrets {
    fn default() -> UsedSecrets {
        UsedSecrets(WorkQueue::new())
    }
}

impl UsedSecrets {
    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The token of a Secret was used just now.
    pub(super) fn used(&self, secret: &Value, now: Timestamp) {
        if !is_told(secret, now) {
            self.0.add(Used {
                namespace: meta::namespace(secret).to_owned(),
                name: meta::name(secret).to_owned(),
                uid: meta::text(secret, "uid").to_owned(),
            });
        }
    }
}

fn day(now: Timestamp) -> String {
    now.strftime("%Y-%m-%d").to_string()
}

fn is_day(text: &str) -> bool {
    let date: Option<Date> = text.parse().ok();
    date.is_some_and(|date| date.to_string() == text)
}

/// Whether the Secret says that its token was used today. The clock of another server may have a new day already.
fn is_told(secret: &Value, now: Timestamp) -> bool {
    let told = secret["metadata"]["labels"][LAST_USED].as_str().unwrap_or("");
    let tomorrow = now.saturating_add(SignedDuration::from_hours(24));
    told == day(now) || tomorrow.is_ok_and(|tomorrow| told == day(tomorrow))
}

fn core(resource: &str) -> GroupResource {
    GroupResource {
        group: String::new(),
        resource: resource.into(),
    }
}

struct Tracking {
    cluster: Arc<dyn Cluster>,
    client: Client,
    clock: Clock,
    /// When the config map was made last.
    made: Mutex<Option<Instant>>,
}

impl Tracking {
    /// Writes the label. What fails is tried again when the token is used again.
    async fn label(&self, used: Used) -> Result<Next, Error> {
        let now = self.clock.now();
        let found = self.cluster.get(&core("secrets"), &used.namespace, &used.name);
        let wanted = found.is_some_and(|secret| secret.uid() == used.uid && !is_told(&secret.value(), now));
        if !wanted {
            return Ok(Next::Wait);
        }
        let body = json!({"metadata": {"uid": used.uid, "labels": {LAST_USED: day(now)}}});
        let (resource, Used { namespace, name, .. }) = (resources::SECRETS, &used);
        let patch = self
            .client
            .patch(&resource, namespace, name, None, &Patch::Merge, &body);
        if let Err(error) = patch.await {
            tracing::error!(%error, "Failed to label legacy service account token {namespace}/{name} with last-used date");
        }
        Ok(Next::Wait)
    }

    /// Keeps the config map.
    async fn keep(&self) -> Result<Next, Error> {
        let live = self.cluster.get(&core("configmaps"), NAMESPACE, NAME);
        let since = json!({SINCE: day(self.clock.now())});
        let Some(live) = live.map(|live| live.value()) else {
            return self.make(since).await;
        };
        if live["data"][SINCE].as_str().is_some_and(is_day) {
            return Ok(Next::Wait);
        }
        let body = json!({"metadata": {"resourceVersion": meta::resource_version(&live)}, "data": since});
        let maps = resources::CONFIG_MAPS;
        let patch = self.client.patch(&maps, NAMESPACE, NAME, None, &Patch::Merge, &body);
        match patch.await {
            Ok(_) => Ok(Next::Wait),
            // Whoever changed it is heard.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Next::Wait),
            Err(error) => Err(error),
        }
    }

    async fn make(&self, since: Value) -> Result<Next, Error> {
        let before = *self.made.lock();
        let left = before.map(|made| CREATION_PERIOD.saturating_sub(made.elapsed()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            return Ok(Next::After(left));
        }
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": NAMESPACE}, "data": since,
        });
        match self.client.create_in(&resources::CONFIG_MAPS, NAMESPACE, &map).await {
            Ok(_) => {}
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        *self.made.lock() = Some(Instant::now());
        Ok(Next::Wait)
    }
}

/// Starts both. The client is the server itself.
pub(crate) fn maintain(
    cluster: Arc<dyn Cluster>,
    used: &UsedSecrets,
    client: &Client,
    clock: Clock,
    shutdown: &Shutdown,
) {
    let mut changes = cluster.changes(&core("configmaps"));
    let tracking = Arc::new(Tracking {
        cluster,
        client: client.clone(),
        clock,
        made: Mutex::new(None),
    });
    let queue = WorkQueue::<()>::new().named("legacy_token_tracking_controller");
    let (stop, news) = (shutdown.clone(), queue.clone());
    shutdown.spawn(async move {
        while let Some(Some(change)) = stop.until(changes.next()).await {
            let is_it = |namespace: &str, name: &str| (namespace, name) == (NAMESPACE, NAME);
            let ours = match &change {
                Change::Reset(_) => true,
                Change::Changed { old, new } => new
                    .as_ref()
                    .or(old.as_ref())
                    .is_some_and(|one| is_it(one.namespace(), one.name())),
            };
            if ours {
                news.add(());
            }
        }
    });
    let (keeper, stop) = (tracking.clone(), shutdown.clone());
    shutdown.spawn(run(queue, 1, stop, move |()| {
        let keeper = keeper.clone();
        async move { keeper.keep().await }
    }));
    let stop = shutdown.clone();
    shutdown.spawn(run(used.0.clone(), WORKERS, stop, move |secret| {
        let tracking = tracking.clone();
        async move { tracking.label(secret).await }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_labelled_once_a_day() {
        let now: Timestamp = "2030-12-31T23:59:59Z".parse().unwrap();
        let used = UsedSecrets::default();
        for (label, expect) in [
            (None, 1),
            (Some("2030-12-30"), 1),
            (Some("2030-12-31"), 0),
            (Some("2031-01-01"), 0),
            (Some("2031-01-02"), 1),
        ] {
            let name = format!("of-{}", label.unwrap_or("none"));
            let secret =
                json!({"metadata": {"name": name, "namespace": "n", "uid": "u", "labels": {LAST_USED: label}}});
            let before = used.len();
            used.used(&secret, now);
            used.used(&secret, now);
            assert_eq!(used.len() - before, expect, "{label:?}");
        }
    }

    #[test]
    fn days_are_written_as_go_writes_them() {
        for (text, expect) in [
            ("2030-01-02", true),
            ("2030-1-2", false),
            ("20300102", false),
            ("2030-02-30", false),
            ("2030-01-02T00:00:00Z", false),
            ("", false),
        ] {
            assert_eq!(is_day(text), expect, "{text}");
        }
        assert_eq!(day("2030-01-02T23:00:00Z".parse().unwrap()), "2030-01-02");
    }
}
