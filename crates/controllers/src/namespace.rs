//! The namespace controller: a namespace that is deleted takes everything in it along, and says how far it is.
//!
//! Source: `pkg/controller/namespace/deletion/namespaced_resources_deleter.go`. Pods go first, so that nothing they need
//! disappears under them.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Value;
use client::discovery::{Discovered, ServedResource};
use client::informer::{Delta, Informer};
use client::k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{DeleteParams, Error, ListParams, Meta, PartialObject, Patch, Propagation, resources};
use jiff::Timestamp;
use serde_json::json;

use crate::context::{Context, synced, time_text};
use crate::views::Pod;

const WORKERS: usize = 8;
/// What holds a namespace until this controller is done with it.
const FINALIZER: &str = "kubernetes";
/// What is left is looked at again after this long, and then after growing times: finalizers are other programs' work.
const RETRY_INITIAL: Duration = Duration::from_millis(50);
/// Source: upstream's estimate for objects with finalizers (15 s), halved as its loop does.
const RETRY_MAX: Duration = Duration::from_secs(8);

/// What was found when everything was asked to go.
#[derive(Clone, Debug, Default, PartialEq)]
struct Findings {
    /// Groups whose resources could not be told.
    discovery_failures: Vec<(String, String)>,
    /// Errors of deleting.
    delete_errors: Vec<String>,
    /// Objects that are still there, by `plural.group`.
    remaining: BTreeMap<String, usize>,
    /// Finalizers of objects that are still there.
    finalizers: BTreeMap<String, usize>,
}

impl Findings {
    fn is_done(&self) -> bool {
        *self == Findings::default()
    }

    /// The conditions that tell it: type, status, reason, message.
    fn conditions(&self) -> [(&'static str, bool, &'static str, String); 5] {
        let counted = |counts: &BTreeMap<String, usize>, word: &str| {
            let parts: Vec<String> = counts
                .iter()
                .map(|(what, count)| format!("{what} {word} {count} resource instances"))
                .collect();
            parts.join(", ")
        };
        let discovery = match self.discovery_failures.len() {
            0 => (
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".into(),
            ),
            count => {
                let failures = self.discovery_failures.iter();
                let mut parts: Vec<String> = failures.map(|(group, why)| format!("{group}: {why}")).collect();
                parts.sort();
                let text = format!(
                    "Discovery failed for some groups, {count} failing: unable to retrieve the complete list of server APIs: {}",
                    parts.join(", ")
                );
                ("NamespaceDeletionDiscoveryFailure", true, "DiscoveryFailed", text)
            }
        };
        let parsing = (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".into(),
        );
        let deletion = match self.delete_errors.len() {
            0 => {
                let text = "All content successfully deleted, may be waiting on finalization";
                ("NamespaceDeletionContentFailure", false, "ContentDeleted", text.into())
            }
            count => {
                let text = format!(
                    "Failed to delete all resource types, {count} remaining: {}",
                    self.delete_errors.join(", ")
                );
                ("NamespaceDeletionContentFailure", true, "ContentDeletionFailed", text)
            }
        };
        let content = match self.remaining.is_empty() {
            true => (
                "NamespaceContentRemaining",
                false,
                "ContentRemoved",
                "All content successfully removed".into(),
            ),
            false => {
                let text = format!("Some resources are remaining: {}", counted(&self.remaining, "has"));
                ("NamespaceContentRemaining", true, "SomeResourcesRemain", text)
            }
        };
        let finalizers = match self.finalizers.is_empty() {
            true => {
                let text = "All content-preserving finalizers finished";
                (
                    "NamespaceFinalizersRemaining",
                    false,
                    "ContentHasNoFinalizers",
                    text.into(),
                )
            }
            false => {
                let counts = counted(&self.finalizers, "in");
                let text = format!("Some content in the namespace has finalizers remaining: {counts}");
                ("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", text)
            }
        };
        [discovery, parsing, deletion, content, finalizers]
    }
}

/// The conditions after what was found; `None` when they say it already.
fn next_conditions(namespace: &Namespace, findings: &Findings, now: Timestamp) -> Option<Vec<Value>> {
    let empty = Vec::new();
    let current = namespace
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .unwrap_or(&empty);
    let find = |kind: &str| current.iter().find(|condition| condition.type_ == kind);
    let mut changed = false;
    let mut conditions: Vec<Value> = current
        .iter()
        .filter(|condition| !findings.conditions().iter().any(|(kind, ..)| *kind == condition.type_))
        .map(|condition| serde_json::to_value(condition).expect("invariant: a condition is a tree"))
        .collect();
    for (kind, status, reason, message) in findings.conditions() {
        let status = if status { "True" } else { "False" };
        let same = |current: &&NamespaceCondition| {
            current.status == status
                && current.reason.as_deref() == Some(reason)
                && current.message.as_deref() == Some(message.as_str())
        };
        if let Some(current) = find(kind).filter(same) {
            conditions.push(serde_json::to_value(current).expect("invariant: a condition is a tree"));
            continue;
        }
        changed = true;
        let since = find(kind).filter(|current| current.status == status);
        let since = since
            .and_then(|current| current.last_transition_time.as_ref())
            .map_or(now, |time| time.0);
        conditions.push(json!({
            "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time_text(since),
        }));
    }
    changed.then_some(conditions)
}

/// What has to be deleted in a namespace, pods first.
fn content(found: &Discovered) -> Vec<ServedResource> {
    let wanted = found.preferred(&["delete"]);
    let mut content: Vec<ServedResource> = found
        .resources
        .iter()
        .filter(|served| {
            served.resource.namespaced && served.supports(&["delete"]) && wanted.contains(&served.resource)
        })
        .cloned()
        .collect();
    content.sort_by_key(|served| served.resource != resources::PODS);
    content
}

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let namespaces = context.informers.informer::<Namespace>();
    let pods = context.informers.informer::<Pod>();
    let queue = WorkQueue::<String>::with_retry(RETRY_INITIAL, RETRY_MAX).named("namespace");
    context.watch(&namespaces, {
        let queue = queue.clone();
        move |delta| match delta {
            Delta::Added(namespace) | Delta::Updated { new: namespace, .. } if namespace.metadata.is_deleting() => {
                queue.add(namespace.metadata.name().to_string());
            }
            _ => {}
        }
    });
    context.watch(&pods, {
        let (queue, namespaces) = (queue.clone(), namespaces.clone());
        // The last pod's end is what a namespace mostly waits for.
        move |delta| {
            if let Delta::Deleted(pod) = delta
                && namespaces
                    .get("", pod.metadata.namespace())
                    .is_some_and(|home| home.metadata.is_deleting())
            {
                queue.add(pod.metadata.namespace().to_string());
            }
        }
    });
    let ready = vec![synced(&namespaces), synced(&pods)];
    let shell = context.clone();
    context.work(queue, ready, WORKERS, move |name| {
        let (context, namespaces) = (shell.clone(), namespaces.clone());
        async move { sync(&context, &namespaces, &name).await }
    });
}

async fn sync(context: &Context, namespaces: &Informer<Namespace>, name: &str) -> Result<Next, Error> {
    let Some(seen) = namespaces.get("", name) else {
        return Ok(Next::Wait);
    };
    if !seen.metadata.is_deleting() || finalizers(&seen).is_empty() {
        return Ok(Next::Wait);
    }
    let findings = empty(context, name).await?;
    // The copy may lag behind the conditions written a moment ago.
    let namespace = match context.client.get::<Namespace>("", name).await {
        Ok(namespace) if namespace.metadata.uid == seen.metadata.uid => namespace,
        Ok(_) => return Ok(Next::Wait),
        Err(error) if error.is_not_found() => return Ok(Next::Wait),
        Err(error) => return Err(error),
    };
    if findings.is_done() {
        return finalize(context, &namespace).await;
    }
    if let Some(conditions) = next_conditions(&namespace, &findings, context.clock.now()) {
        let edit = json!({
            "metadata": {"resourceVersion": namespace.metadata.resource_version()},
            "status": {"phase": "Terminating", "conditions": conditions},
        });
        let client = &context.client;
        match client
            .patch(&resources::NAMESPACES, "", name, Some("status"), &Patch::Merge, &edit)
            .await
        {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(Next::Wait),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Next::Retry)
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_deref())
        .unwrap_or(&[])
}

/// Asks everything in the namespace to go, and looks what is still there.
async fn empty(context: &Context, namespace: &str) -> Result<Findings, Error> {
    let found = context.client.discover().await?;
    let mut findings = Findings {
        discovery_failures: found.failed.clone(),
        ..Default::default()
    };
    let content = content(&found);
    let (pods, rest) = content.split_at(
        content
            .iter()
            .take_while(|served| served.resource == resources::PODS)
            .count(),
    );
    for served in pods {
        delete_all(context, namespace, served, &mut findings).await;
    }
    if !findings.remaining.is_empty() || !findings.delete_errors.is_empty() {
        return Ok(findings);
    }
    let (parts, _) = crate::parallel::all(rest, |served| async move {
        let mut part = Findings::default();
        delete_all(context, namespace, served, &mut part).await;
        Ok::<_, Error>(part)
    })
    .await;
    for part in parts {
        findings.delete_errors.extend(part.delete_errors);
        findings.remaining.extend(part.remaining);
        for (finalizer, count) in part.finalizers {
            *findings.finalizers.entry(finalizer).or_default() += count;
        }
    }
    findings.delete_errors.sort();
    Ok(findings)
}

async fn delete_all(context: &Context, namespace: &str, served: &ServedResource, findings: &mut Findings) {
    let resource = &served.resource;
    let client = &context.client;
    let how = DeleteParams::default().propagation(Propagation::Background);
    let can_list = served.supports(&["list"]);
    let everything = ListParams::default();
    let listing = || client.list_in::<PartialObject>(resource, namespace, &everything);
    // Most resources are empty: one look is cheaper than a deletion that finds nothing.
    let before = match can_list {
        true => match listing().await {
            Ok(list) if list.items.is_empty() => return,
            Ok(list) => list.items,
            Err(error) if is_gone(&error) => return,
            Err(error) => return findings.delete_errors.push(error.to_string()),
        },
        false => Vec::new(),
    };
    let outcome = if served.supports(&["deletecollection"]) {
        client
            .delete_collection(resource, namespace, &how, &ListParams::default())
            .await
    } else {
        let each = crate::parallel::all(&before, |object| async {
            match client.delete(resource, namespace, object.metadata.name(), &how).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        });
        each.await.1.map_or(Ok(()), Err)
    };
    match outcome {
        Ok(()) => {}
        Err(error) if is_gone(&error) => return,
        Err(error) => findings.delete_errors.push(error.to_string()),
    }
    if !can_list {
        return;
    }
    match listing().await {
        Ok(list) if list.items.is_empty() => {}
        Ok(list) => {
            let name = format!("{}.{}", resource.plural, resource.group);
            findings.remaining.insert(name, list.items.len());
            for finalizer in list
                .items
                .iter()
                .flat_map(|object| object.metadata.finalizers.iter().flatten())
            {
                *findings.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
        }
        Err(error) if is_gone(&error) => {}
        Err(error) => findings.delete_errors.push(error.to_string()),
    }
}

/// The resource is served no more, or never took this verb.
fn is_gone(error: &Error) -> bool {
    error.is_not_found() || error.is_method_not_supported()
}

/// Lets the namespace go.
async fn finalize(context: &Context, namespace: &Namespace) -> Result<Next, Error> {
    let name = namespace.metadata.name();
    let kept: Vec<&String> = finalizers(namespace)
        .iter()
        .filter(|finalizer| *finalizer != FINALIZER)
        .collect();
    // This subresource takes only a whole object; read as a tree, nothing in it is lost.
    let mut whole: Value = context.client.get_in(&resources::NAMESPACES, "", name).await?;
    whole["spec"]["finalizers"] = json!(kept);
    match context
        .client
        .update(&resources::NAMESPACES, "", name, Some("finalize"), &whole)
        .await
    {
        Ok(_) => Ok(Next::Wait),
        Err(error) if error.is_not_found() => Ok(Next::Wait),
        Err(error) if error.is_conflict() => Ok(Next::Retry),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use client::testing::FakeApi;

    use super::*;
    use crate::testkit::Bench;

    #[test]
    fn conditions_tell_what_is_left() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let findings = Findings {
            remaining: [("pods.".to_string(), 3), ("things.example.com".to_string(), 1)].into(),
            finalizers: [("example.com/hold".to_string(), 1)].into(),
            ..Default::default()
        };
        let namespace = Namespace::default();
        let conditions = next_conditions(&namespace, &findings, now).unwrap();
        let lines: Vec<String> = conditions
            .iter()
            .map(|one| {
                format!(
                    "{} {}",
                    one["status"].as_str().unwrap(),
                    one["message"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                "False All resources successfully discovered",
                "False All legacy kube types successfully parsed",
                "False All content successfully deleted, may be waiting on finalization",
                "True Some resources are remaining: pods. has 3 resource instances, things.example.com has 1 resource instances",
                "True Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
            ]
        );
        let again: Namespace = serde_json::from_value(json!({"status": {"conditions": conditions}})).unwrap();
        assert_eq!(next_conditions(&again, &findings, now), None);
    }

    fn delete(api: &FakeApi, name: &str) -> impl Future<Output = ()> {
        let client = api.client();
        let name = name.to_string();
        async move {
            client
                .delete(&resources::NAMESPACES, "", &name, &DeleteParams::default())
                .await
                .unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn everything_goes_and_then_the_namespace() {
        let bench = Bench::new();
        start(bench.context("namespace-controller"));
        for home in ["a", "other"] {
            bench.namespace(home);
            for (kind, version) in [("ConfigMap", "v1"), ("Deployment", "apps/v1"), ("Pod", "v1")] {
                bench.api.put(json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x", "namespace": home}, "spec": {}}));
            }
        }
        delete(&bench.api, "a").await;
        bench
            .until(|api| api.get(&resources::NAMESPACES, "", "a").is_none())
            .await;
        for resource in [resources::CONFIG_MAPS, resources::DEPLOYMENTS, resources::PODS] {
            let homes: Vec<String> = bench
                .api
                .list(&resource)
                .iter()
                .map(|object| api::meta::namespace(object).to_string())
                .collect();
            assert_eq!(homes, ["other"], "{resource}");
        }
        bench.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_pods_and_finalizers_and_says_so() {
        let bench = Bench::new();
        start(bench.context("namespace-controller"));
        bench.namespace("a");
        bench.api.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": "n"}}));
        bench.api.put(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "held", "namespace": "a", "finalizers": ["example.com/hold"]}}));
        delete(&bench.api, "a").await;
        bench.idle().await;
        let message = |bench: &Bench, kind: &str| {
            let namespace = bench.api.get(&resources::NAMESPACES, "", "a").unwrap();
            let conditions = namespace["status"]["conditions"].as_array().unwrap().clone();
            let one = conditions.into_iter().find(|one| one["type"] == kind).unwrap();
            one["message"].as_str().unwrap().to_string()
        };
        assert_eq!(
            message(&bench, "NamespaceContentRemaining"),
            "Some resources are remaining: pods. has 1 resource instances"
        );
        assert!(
            !api::meta::is_deleting(&bench.api.get(&resources::CONFIG_MAPS, "a", "held").unwrap()),
            "pods go first"
        );
        bench.api.remove(&resources::PODS, "a", "p");
        bench.idle().await;
        assert_eq!(
            message(&bench, "NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
        bench.api.edit(&resources::CONFIG_MAPS, "a", "held", |map| {
            map["metadata"].as_object_mut().unwrap().remove("finalizers");
        });
        bench
            .until(|api| api.get(&resources::NAMESPACES, "", "a").is_none())
            .await;
        bench.end().await;
    }
}
