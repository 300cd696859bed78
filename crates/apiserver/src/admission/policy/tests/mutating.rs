//! What mutating policies make of a new pod.

use super::*;

/// What mutating policies make of a pod, with a chain that runs again when they ask for it.
async fn mutate(policies: &[Value]) -> Result<Value, api::Status> {
    let group = "mutatingadmission";
    let world = world(policy(json!({})), binding(json!({"policyName": "none"})), group);
    for (index, spec) in policies.iter().enumerate() {
        let name = format!("p{index}");
        let mut policy = policy(spec.clone());
        policy["metadata"]["name"] = name.clone().into();
        let mut binding = binding(json!({"policyName": name.clone()}));
        binding["metadata"]["name"] = name.into();
        world.put(&format!("{group}policies.admissionregistration.k8s.io"), policy);
        world.put(&format!("{group}policybindings.admissionregistration.k8s.io"), binding);
    }
    let plugin = MutatingPolicies::new(Arc::new(Slow));
    let review = review(&world, Operation::Create);
    let mut object = Some(pod());
    // Plug-ins before may leave this behind when they look for a list.
    object.as_mut().unwrap()["spec"]["initContainers"] = Value::Null;
    plugin.admit(&review, &mut object, None).await?;
    if review.reinvocation.lock().again() {
        plugin.admit(&review, &mut object, None).await?;
    }
    Ok(object.unwrap())
}

fn configuration(expression: &str) -> Value {
    json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]})
}

fn patch(expression: &str) -> Value {
    json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]})
}

#[tokio::test]
async fn objects_are_changed() {
    for (policy, place, expect) in [
        (
            configuration("Object{metadata: Object.metadata{labels: {'x': object.metadata.name}}}"),
            "/metadata/labels",
            json!({"app": "web", "x": "a"}),
        ),
        (
            configuration("Object{spec: Object.spec{containers: [Object.spec.containers{name: 'd', image: 'j'}]}}"),
            "/spec/containers/1/name",
            json!("d"),
        ),
        (
            patch("[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"),
            "/metadata/labels/a~1b",
            json!("c"),
        ),
        (
            configuration(
                "Object{metadata: Object.metadata{labels: {'x': string(object.spec.?initContainers.orValue([]).size())}}}",
            ),
            "/metadata/labels/x",
            json!("0"),
        ),
        (
            patch("[JSONPatch{op: 'replace', path: '/spec/containers/0/image', value: variables.image}]"),
            "/spec/containers/0/image",
            json!("i:latest"),
        ),
        (
            patch(
                "[JSONPatch{op: 'test', path: '/metadata/name', value: 'other'}, JSONPatch{op: 'remove', path: '/metadata/labels'}]",
            ),
            "/metadata/labels/app",
            json!("web"),
        ),
        (
            patch(
                "[JSONPatch{op: 'add', path: '/spec/containers/-', value: Object.spec.containers{name: 'e', image: 'k'}}]",
            ),
            "/spec/containers/1/name",
            json!("e"),
        ),
    ] {
        let mut policy = policy;
        policy["variables"] = json!([{"name": "image", "expression": "object.spec.containers[0].image + ':latest'"}]);
        let found = mutate(&[policy.clone()]).await;
        let found = found.unwrap_or_else(|status| panic!("{policy}: {}", status.message));
        assert_eq!(found.pointer(place), Some(&expect), "{policy}");
    }
}

#[tokio::test]
async fn failures_of_mutations_refuse() {
    for (policy, message) in [
        (
            configuration("Object{spec: Object.spec{nodeSelector: {'a': 'b'}}}"),
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.nodeSelector",
        ),
        (
            configuration("Object{spec: Object.wrong{x: 1}}"),
            "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name path from \
             root Object type",
        ),
        (
            configuration("Object{spec: object.nothing}"),
            "expression 'Object{spec: object.nothing}' resulted in error: no such key: nothing",
        ),
        (
            patch("[JSONPatch{op: 'remove', path: '/nothing'}]"),
            "JSON Patch: error in remove for path: '/nothing': Unable to remove nonexistent key: nothing: missing value",
        ),
    ] {
        let status = mutate(std::slice::from_ref(&policy)).await.unwrap_err();
        let expect = format!("policy 'p0' with binding 'p0' denied request: {message}");
        assert!(status.message.starts_with(&expect), "{} not {expect}", status.message);
        assert_eq!((&*status.reason, status.code), ("Invalid", 403));
        let mut ignoring = policy;
        ignoring["failurePolicy"] = "Ignore".into();
        assert_eq!(mutate(&[ignoring]).await.unwrap()["spec"], pod()["spec"]);
    }
}

#[tokio::test]
async fn policies_that_ask_for_it_run_again() {
    let count = |name: &str, reinvocation: &str| {
        let expression = format!(
            "Object{{metadata: Object.metadata{{labels: {{'{name}': object.metadata.labels.?{name}.orValue('') + 'x'}}}}}}"
        );
        let mut policy = configuration(&expression);
        policy["reinvocationPolicy"] = reinvocation.into();
        policy
    };
    let found = mutate(&[count("a", "IfNeeded"), count("b", "Never"), count("c", "IfNeeded")]).await;
    let labels = found.unwrap()["metadata"]["labels"].clone();
    assert_eq!(labels, json!({"app": "web", "a": "xx", "b": "x", "c": "xx"}));
}
