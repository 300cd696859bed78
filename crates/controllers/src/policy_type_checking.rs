//! Checking the types of ValidatingAdmissionPolicies: expressions are compiled once more with the types of the objects that
//! a policy is about, and `status.typeChecking` tells what is wrong. Nothing depends on it.
//!
//! Source: `pkg/controller/validatingadmissionpolicystatus/controller.go` and
//! `k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go`.

use std::collections::BTreeSet;

use api::schema::{SchemaRef, resources};
use api::{GroupVersionKind, Value, meta};
use cel::admission::{Composition, Declared, Gives, STORED, compile_to, environment};
use cel::{Environment, Type};
use client::informer::{Informer, Selection};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Error, Patch, Resource};
use serde_json::json;

use crate::context::{Context, synced};

/// Upstream's `--concurrent-validating-admission-policy-status-syncs`.
const WORKERS: usize = 5;
/// A policy is checked against so many kinds.
const KINDS_MAX: usize = 10;
const POLICIES: Resource = Resource::new(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    false,
);

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let policies = context.informers.informer_of::<Value>(POLICIES, Selection::all());
    let queue = WorkQueue::<String>::new();
    context.watch(&policies, {
        let (queue, policies) = (queue.clone(), policies.clone());
        move |_| {
            // Few change, and those that were checked are passed over.
            let open = policies.list().into_iter().filter(|policy| !is_checked(policy));
            open.for_each(|policy| queue.add(meta::name(&policy).to_owned()));
        }
    });
    let ready = vec![synced(&policies)];
    let shell = context.clone();
    context.work(queue, ready, WORKERS, move |name| {
        let (context, policies) = (shell.clone(), policies.clone());
        async move { sync(&context, &policies, &name).await }
    });
}

async fn sync(context: &Context, policies: &Informer<Value>, name: &str) -> Result<Next, Error> {
    let Some(policy) = policies.get("", name).filter(|policy| !is_checked(policy)) else {
        return Ok(Next::Wait);
    };
    let warnings = match warnings(&policy["spec"]) {
        none if none.is_empty() => Value::Null,
        some => some.into(),
    };
    let patch = json!({
        "metadata": {"resourceVersion": meta::resource_version(&policy)},
        "status": {"observedGeneration": generation(&policy), "typeChecking": {"expressionWarnings": warnings}},
    });
    let status = Some("status");
    match context
        .client
        .patch(&POLICIES, "", name, status, &Patch::Merge, &patch)
        .await
    {
        Ok(written) => {
            policies.seen(meta::resource_version(&written)).await;
            Ok(Next::Wait)
        }
        Err(error) if error.is_not_found() => Ok(Next::Wait),
        Err(error) if error.is_conflict() => Ok(Next::Retry),
        Err(error) => Err(error),
    }
}

fn generation(policy: &Value) -> i64 {
    policy["metadata"]["generation"].as_i64().unwrap_or(0)
}

fn is_checked(policy: &Value) -> bool {
    let observed = policy["status"]["observedGeneration"].as_i64().unwrap_or(0);
    observed >= generation(policy)
}

/// What is wrong with a policy's validations: `ExpressionWarning`s.
fn warnings(spec: &Value) -> Vec<Value> {
    let kinds: Vec<(GroupVersionKind, Type)> = kinds(spec)
        .into_iter()
        .filter_map(|kind| {
            let schema = SchemaRef::builtin(&kind)?;
            Some((kind, Type::of_schema(&schema)))
        })
        .collect();
    let mut warnings = Vec::new();
    for (index, validation) in items(spec, "validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation[field].as_str().unwrap_or("");
            let of_kind = |(kind, object): &(GroupVersionKind, Type)| {
                let refusal = compile_to(&typed(spec, object), text, Gives::Anything).err()?;
                Some(format!(
                    "{}/{}, Kind={}: {refusal}\n",
                    kind.group, kind.version, kind.kind
                ))
            };
            let found: Vec<String> = match text {
                "" => Vec::new(),
                _ => kinds.iter().filter_map(of_kind).collect(),
            };
            if !found.is_empty() {
                let place = format!("spec.validations[{index}].{field}");
                warnings.push(json!({"fieldRef": place, "warning": found.join("\n")}));
            }
        }
    }
    warnings
}

/// What expressions have when objects are of that type, with the policy's variables.
fn typed(spec: &Value, object: &Type) -> Environment {
    let params = param_kind(spec);
    let declared = Declared {
        params: params.is_some(),
        authorizer: true,
        patches: false,
    };
    let mut base = environment(STORED, declared)
        .with("object", object.clone())
        .with("oldObject", object.clone());
    if let Some(schema) = params.and_then(|kind| SchemaRef::builtin(&kind)) {
        base = base.with("params", Type::of_schema(&schema));
    }
    let mut composed = Composition::default();
    for variable in items(spec, "variables") {
        let text = |field: &str| variable[field].as_str().unwrap_or("");
        let program = compile_to(&composed.declare(base.clone()), text("expression"), Gives::Anything);
        composed.add(text("name"), program.as_ref().ok());
    }
    composed.declare(base)
}

fn param_kind(spec: &Value) -> Option<GroupVersionKind> {
    let named = spec.get("paramKind")?;
    let (api_version, kind) = (named["apiVersion"].as_str()?, named["kind"].as_str()?);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Some(GroupVersionKind::new(group, version, kind))
}

/// The kinds that the rules name, without those that name all of something.
fn kinds(spec: &Value) -> BTreeSet<GroupVersionKind> {
    let mut kinds = BTreeSet::new();
    for rule in items(&spec["matchConstraints"], "resourceRules") {
        let (groups, versions) = (exact(rule, "apiGroups"), exact(rule, "apiVersions"));
        let (Some(groups), Some(versions)) = (groups, versions) else {
            continue;
        };
        let named = items(rule, "resources").iter().filter_map(Value::as_str);
        let named: BTreeSet<&str> = named.filter(|name| !name.contains(['*', '/'])).collect();
        let rows = resources().iter().filter(|row| {
            let (group, version) = (&*row.group_version.group, &*row.group_version.version);
            groups.contains(group) && versions.contains(version) && named.contains(row.plural)
        });
        for row in rows {
            kinds.insert(row.group_version.kind(&row.kind));
            if kinds.len() == KINDS_MAX {
                return kinds;
            }
        }
    }
    kinds
}

/// The words of a list, unless one of them stands for all.
fn exact<'v>(rule: &'v Value, list: &str) -> Option<BTreeSet<&'v str>> {
    let words = items(rule, list).iter().filter_map(Value::as_str);
    words.map(|word| (!word.contains('*')).then_some(word)).collect()
}

fn items<'v>(of: &'v Value, list: &str) -> &'v [Value] {
    of[list].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Bench;

    fn spec(resource: &str, expression: &str) -> Value {
        json!({
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": [resource],
                "operations": ["*"]}]},
            "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
            "validations": [{"expression": expression, "messageExpression": "'x'"}],
        })
    }

    #[test]
    fn expressions_are_checked_against_the_kinds_that_rules_name() {
        for (resource, expression, expect) in [
            ("deployments", "object.spec.replicas > 1 && variables.replicas > 1", ""),
            (
                "deployments",
                "object.spec.replicas > '1'",
                "found no matching overload",
            ),
            ("deployments", "variables.replicas > '1'", "found no matching overload"),
            ("deployments", "object.foo > 1", "undefined field 'foo'"),
            ("*", "object.foo > 1", ""),
            ("deployments/scale", "object.foo > 1", ""),
        ] {
            let found = warnings(&spec(resource, expression));
            match expect {
                "" => assert_eq!(found, Vec::<Value>::new(), "{expression}"),
                expect => {
                    assert_eq!(found[0]["fieldRef"], "spec.validations[0].expression");
                    let warning = found[0]["warning"].as_str().unwrap();
                    assert!(
                        warning.starts_with("apps/v1, Kind=Deployment: compilation failed: ERROR: <input>:1:"),
                        "{warning}"
                    );
                    assert!(warning.contains(expect), "{warning}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_is_told_once_a_generation() {
        let bench = Bench::new();
        bench.api.serve(POLICIES);
        bench.api.put(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "p", "generation": 1}, "spec": spec("deployments", "object.foo > 1"),
        }));
        start(bench.context("validatingadmissionpolicy-status-controller"));
        bench.idle().await;
        let status = bench.api.get(&POLICIES, "", "p").unwrap()["status"].clone();
        assert_eq!(status["observedGeneration"], 1);
        assert!(status["typeChecking"]["expressionWarnings"].is_array(), "{status}");
        bench.api.take_requests();
        bench.idle().await;
        assert_eq!(bench.api.take_writes(), Vec::<String>::new(), "idle means idle");
        bench.end().await;
    }
}
