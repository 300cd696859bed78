//! Conflicts, configurations that do not fit, and limits.

use serde_json::json;

use super::*;

#[test]
fn conflicts_are_worded_as_upstream_words_them() {
    let mut world = World::new("apps", "v1", "Deployment");
    world.update("kubectl-create", deployment(3, "web:1"));
    let error = world
        .try_apply("bob", json!({"spec": {"replicas": 5}}), false)
        .unwrap_err();
    let status = error.to_status();
    assert_eq!(
        (status.code, &*status.reason, &*status.message),
        (
            409,
            "Conflict",
            "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
        )
    );
    let causes = status.details.expect("details").causes;
    assert_eq!(
        causes,
        [crate::StatusCause {
            reason: "FieldManagerConflict".into(),
            message: "conflict with \"kubectl-create\" using apps/v1".into(),
            field: ".spec.replicas".into(),
        }]
    );

    world.update_through("scaler", "scale", deployment(4, "web:1"));
    world.try_apply("carol", deployment(4, "web:2"), true).expect("forced");
    let error = world.try_apply("bob", deployment(5, "web:3"), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"carol\":\n- .spec.replicas\n- .spec.template.spec.containers[name=\"web\"].image\nconflicts with \"scaler\" with subresource \"scale\" using apps/v1:\n- .spec.replicas"
    );
}

#[test]
fn what_does_not_fit_the_schema_is_refused_in_upstreams_words() {
    let mut world = World::new("apps", "v1", "Deployment");
    let container = |container: Value| json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    for (config, expect) in [
        (
            json!({"spec": {"replicas": "3"}}),
            ".spec.replicas: expected numeric (int or float), got string",
        ),
        (
            json!({"spec": {"bogus": 1}}),
            ".spec.bogus: field not declared in schema",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            json!({"spec": {"paused": "x"}}),
            ".spec.paused: expected boolean, got &{x}",
        ),
        (json!({"spec": []}), ".spec: expected map, got &{[]}"),
        (
            json!({"spec": {"template": {"spec": {"containers": {}}}}}),
            ".spec.template.spec.containers: expected list, got &{map[]}",
        ),
        (
            container(json!({"name": "a", "env": [{"name": "K", "value": 8080}]})),
            ".spec.template.spec.containers[name=\"a\"].env[name=\"K\"].value: expected string, got &value.valueUnstructured{Value:8080}",
        ),
        (
            container(json!("x")),
            ".spec.template.spec.containers: element 0: associative list with keys may not have non-map elements",
        ),
        (
            json!({"spec": {"replicas": "x", "paused": 1}}),
            "errors:\n  .spec.paused: expected boolean, got &{1}\n  .spec.replicas: expected numeric (int or float), got string",
        ),
        (
            json!({"metadata": {"finalizers": ["a", null]}}),
            ".metadata.finalizers: element 1: associative list without keys has an element that's an explicit null",
        ),
    ] {
        let error = world.try_apply("a", config, false).unwrap_err();
        let start = "failed to create typed patch object (/x; apps/v1, Kind=Deployment): ";
        assert_eq!(error, ApplyError::Internal(format!("{start}{expect}")));
        assert_eq!(error.to_status().code, 500);
    }
    assert_eq!(world.object, Value::Null);
}

#[test]
fn configurations_of_other_kinds_are_refused() {
    let mut world = config_map();
    for (config, expect) in [
        (
            json!({"apiVersion": "v1", "kind": "Secret"}),
            "invalid object type: /v1, Kind=Secret",
        ),
        (json!({}), "invalid object type: /, Kind="),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": []}}),
            "metadata.managedFields must be nil",
        ),
    ] {
        let error = world
            .with("a", "", |live, request| apply(live, &config, request, false))
            .unwrap_err();
        assert_eq!(error, ApplyError::BadRequest(expect.into()));
    }
}

#[test]
fn the_deepest_tree_fits_a_tasks_stack() {
    // A custom resource definition's schema nests as deep as a decoder reads; tokio's stacks have 2 MiB.
    let work = || {
        let kind = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let mut world = World::new(&kind.group, &kind.version, &kind.kind);
        let levels = TRACKED_DEPTH_MAX / 2 - 5;
        let schema = |leaf: &str, levels: usize| {
            (0..levels).fold(json!({"type": leaf}), |inner, _| json!({"properties": {"p": inner}}))
        };
        let nested = |leaf: &str, levels: usize| json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema(leaf, levels)}}]}});
        let definition = |leaf: &str| nested(leaf, levels);
        world.update("u", definition("string"));
        assert_eq!(world.owners().len(), 1);
        world.try_apply("a", definition("integer"), true).expect("forced");
        // What is stored can be read again.
        let text = world.object.to_string();
        crate::codec::json::decode(text.as_bytes(), &Default::default()).expect("within the decoder's depth");
        world.apply("a", json!({}));
        let patch = definition("boolean");
        let schema = world.schema.clone();
        crate::patch::strategic_merge_patch(&world.object, &patch, &schema).expect("a patch");
        crate::patch::merge_patch(&world.object, &patch).expect("a patch");
        // Deeper objects have no managers, and deeper configurations are refused.
        let error = world.try_apply("a", nested("string", levels + 4), false).unwrap_err();
        assert!(error.to_string().ends_with(": exceeded max depth"), "{error}");
        world.update("u", nested("string", levels + 4));
        assert_eq!(world.owners(), Vec::<String>::new());
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(work);
    thread.expect("a thread").join().expect("no overflow");
}

#[test]
fn trees_that_are_no_objects_do_no_harm() {
    let mut world = config_map();
    for tree in [
        json!(null),
        json!(1),
        json!([]),
        json!("x"),
        json!({"metadata": "x"}),
        json!({"metadata": {"labels": 1}}),
    ] {
        let mut new = tree.clone();
        world.with("u", "", |live, request| update(live, &mut new, request));
        world.with("u", "", |_, request| {
            update(&tree, &mut json!({"metadata": {}}), request)
        });
        ignore_time_changes(&mut tree.clone(), &tree);
        let config = world.complete(json!({}));
        assert!(
            world
                .with("u", "", |live, request| apply(live, &tree, request, true))
                .is_err()
        );
        let _ = world.with("u", "", |_, request| apply(&tree, &config, request, true));
    }
}
