//! What a pod's worker tells: the status to the API, pauses and last words to people.

use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::Pod;
use client::resources;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::worker::{Failure, Input, START_RETRY, Worker};
use super::{container_reference, full_name};
use crate::config::identity;
use crate::observed::{Observed, Run};
use crate::plan::{Facts, defined};
use crate::status::{Known, Waiting};

/// A status that was not written is written again after this long.
const STATUS_RETRY: Duration = Duration::from_secs(1);
/// The longest last word of a container, in bytes. Source: `k8s.io/cri-api` and `kuberuntime_manager.go`.
const LAST_WORD_BYTES_MAX: u64 = 4096;

impl Worker {
    /// A pull that failed backs off. Source: `image_manager.go` and `kuberuntime_container.go` (`startContainer`), which say it at the next look.
    pub(super) fn tell_pull_pause(&self, name: &str) {
        let all = defined(&self.pod);
        let Some(defined) = all.iter().find(|d| d.container.name == name) else {
            return;
        };
        let about = container_reference(&self.pod, name);
        let image = defined.container.image.as_deref().unwrap_or_default();
        let text = format!("Back-off pulling image \"{image}\"");
        self.shared.recorder.normal(about.clone(), "BackOff", text);
        self.shared.recorder.warning(about, "Failed", "Error: ImagePullBackOff");
    }

    pub(super) fn tell_pauses(&mut self, facts: &Facts, observed: &Observed) {
        for (name, pause) in &facts.pauses {
            let Some(run) = observed.latest(name).filter(|run| run.is_over()) else {
                continue;
            };
            if self.failures.get(name).is_some_and(|failure| !failure.ran())
                || !self.told.insert((name.clone(), pause.seconds, run.attempt))
            {
                continue;
            }
            let text = format!(
                "Back-off restarting failed container {name} in pod {}",
                full_name(&self.pod)
            );
            self.shared
                .recorder
                .warning(container_reference(&self.pod, name), "BackOff", text);
        }
        self.told
            .retain(|(name, _, attempt)| observed.latest(name).is_some_and(|run| run.attempt == *attempt));
    }

    pub(super) fn read_last_words(&mut self, observed: &Observed) {
        for run in observed.all_runs().filter(|run| run.is_over()) {
            if !self.last_words.contains_key(&run.id) {
                let all = defined(&self.pod);
                let container = all.iter().find(|d| d.container.name == run.name).map(|d| &d.container);
                let fallback = container.and_then(|c| c.termination_message_policy.as_deref());
                let words = last_words(run, fallback == Some("FallbackToLogsOnError"));
                self.last_words.insert(run.id.clone(), words);
            }
        }
        self.last_words
            .retain(|id, _| observed.all_runs().any(|run| run.id == *id));
    }

    /// Writes the status when it is not what the API has. Answers when to try again.
    pub(super) async fn write_status(&mut self, observed: &Observed, facts: &Facts, ending: bool) -> Option<Instant> {
        let mut known = Known {
            host_ips: self.shared.host_ips.read().clone(),
            pauses: facts.pauses.clone(),
            last_words: self.last_words.clone(),
            ending,
            resize: self.told_resize(),
            verdict: self
                .verdict
                .as_ref()
                .map(|own| (own.reason.clone(), own.message.clone())),
            ..Known::default()
        };
        self.verdicts.tell_status(&self.pod, observed, &mut known);
        for (name, failure) in &self.failures {
            // What was made and failed to run backs off as what crashes does, and is told so.
            if !(failure.ran() && facts.pauses.contains_key(name)) {
                known.waiting.insert(name.clone(), self.words(name, failure));
            }
        }
        let status = crate::status::status(&self.pod, observed, &known, self.shared.clock.now());
        // Others write to it too (the node controller takes readiness away): what the API has counts, not what we wrote.
        if self.api_has(&status) {
            return None;
        }
        let (namespace, name, uid) = identity(&self.pod);
        // Whether an earlier status goes back too is a matter of milliseconds, and no part of the story.
        if status["phase"] == "Running" {
            tracing::trace!(target: "walk", pod = name, "the status goes back");
        }
        let patch = json!({"metadata": {"uid": uid}, "status": whole_addresses(status)});
        let patched = self
            .shared
            .client
            .patch_status(&resources::PODS, namespace, name, &patch)
            .await;
        match patched {
            // The informer's news of it comes later, and must not look like somebody else's change until then.
            Ok(pod) => match serde_json::from_value::<Pod>(pod) {
                Ok(pod) => self.take(Input::Pod(Arc::new(pod))),
                Err(error) => tracing::warn!(pod = %full_name(&self.pod), %error, "the API answered with no pod"),
            },
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                tracing::warn!(pod = %full_name(&self.pod), %error, "the status was not written");
                return Some(Instant::now() + STATUS_RETRY);
            }
        }
        None
    }

    /// A failed pull backs off after its first failure was told.
    fn words(&self, name: &str, failure: &Failure) -> Waiting {
        let waits = failure.until > Instant::now() && !self.busy.contains(name);
        if failure.waiting.reason != "ErrImagePull" || !waits || failure.delay <= START_RETRY {
            return failure.waiting.clone();
        }
        let all = defined(&self.pod);
        let image = all
            .iter()
            .find(|d| d.container.name == name)
            .and_then(|d| d.container.image.clone());
        Waiting {
            reason: "ImagePullBackOff".into(),
            message: format!(
                "Back-off pulling image \"{}\": ErrImagePull: {}",
                image.unwrap_or_default(),
                failure.waiting.message
            ),
        }
    }

    /// Whether the API's status says all that ours says: its own further fields do not count.
    fn api_has(&self, status: &Value) -> bool {
        let Some(theirs) = self
            .pod
            .status
            .as_ref()
            .and_then(|status| serde_json::to_value(status).ok())
        else {
            return false;
        };
        covers(&theirs, status)
    }
}

/// The lists of addresses merge by address in a patch: a pod with a new sandbox would keep its old one.
fn whole_addresses(mut status: Value) -> Value {
    for field in ["podIPs", "hostIPs"] {
        if let Some(list) = status.get_mut(field).and_then(Value::as_array_mut) {
            list.insert(0, json!({"$patch": "replace"}));
        }
    }
    status
}

/// Whether `theirs` says everything that `ours` says; `null` says that something is absent.
fn covers(theirs: &Value, ours: &Value) -> bool {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => ours.iter().all(|(key, own)| match theirs.get(key) {
            Some(value) => covers(value, own),
            None => own.is_null() || *own == json!({}) || *own == json!(""),
        }),
        (Value::Array(theirs), Value::Array(ours)) if ours.iter().all(|own| own["type"].is_string()) => {
            ours.iter().all(|own| {
                theirs
                    .iter()
                    .any(|value| value["type"] == own["type"] && covers(value, own))
            })
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(theirs, ours)| covers(theirs, ours))
        }
        (theirs, ours) => theirs == ours,
    }
}

fn last_words(run: &Run, fall_back: bool) -> String {
    use std::io::Read as _;
    let read = |path: &str| {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(LAST_WORD_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let own = run.termination_log.as_deref().and_then(read).unwrap_or_default();
    if !own.is_empty() || !fall_back || run.exit_code == 0 {
        return own;
    }
    // The end of the log: what stands behind time, stream and tag of each line.
    const TAIL_BYTES: u64 = 2048;
    let tail = |path: &str| {
        use std::io::{Seek as _, SeekFrom};
        let mut file = std::fs::File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let lines = tail(&run.log_path).unwrap_or_default();
    let words: Vec<&str> = lines.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    words.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_replace_those_of_an_older_sandbox() {
        let status = whole_addresses(json!({"podIPs": [{"ip": "10.244.0.5"}], "phase": "Running"}));
        assert_eq!(
            status,
            json!({"podIPs": [{"$patch": "replace"}, {"ip": "10.244.0.5"}], "phase": "Running"})
        );
    }

    #[test]
    fn only_what_is_ours_is_compared() {
        for (theirs, ours, expect) in [
            (json!({"a": 1, "b": 2}), json!({"a": 1}), true),
            (json!({"a": 1}), json!({"a": 2}), false),
            (json!({}), json!({"a": null, "b": {}, "c": ""}), true),
            (json!({}), json!({"a": false}), false),
            (
                json!([{"type": "Other"}, {"type": "Ready", "status": "True", "reason": "x"}]),
                json!([{"type": "Ready", "status": "True"}]),
                true,
            ),
            (json!([{"name": "a"}]), json!([{"name": "a"}, {"name": "b"}]), false),
        ] {
            assert_eq!(covers(&theirs, &ours), expect, "{theirs} {ours}");
        }
    }
}
