//! The schema of built-in types, looked at from outside.

use super::*;
use crate::GroupVersion;

fn of(name: &str) -> SchemaRef {
    SchemaRef::builtin_type(name).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn a_kind_is_found_under_its_group_version() {
    for (api_version, kind, expect) in [
        ("v1", "Pod", Some("api.core.v1.Pod")),
        ("apps/v1", "DeploymentList", Some("api.apps.v1.DeploymentList")),
        ("autoscaling/v1", "Scale", Some("api.autoscaling.v1.Scale")),
        (
            "apps/v1",
            "DeleteOptions",
            Some("apimachinery.pkg.apis.meta.v1.DeleteOptions"),
        ),
        (
            "example.com/v1",
            "WatchEvent",
            Some("apimachinery.pkg.apis.meta.v1.WatchEvent"),
        ),
        ("meta.k8s.io/v1", "Table", Some("apimachinery.pkg.apis.meta.v1.Table")),
        ("v1", "Deployment", None),
        ("apps/v1beta1", "Deployment", None),
    ] {
        let gvk = GroupVersion::parse(api_version).unwrap().kind(kind);
        let found = SchemaRef::builtin(&gvk);
        assert_eq!(found.as_ref().map(|schema| schema.node().name()), expect, "{gvk}");
    }
}

#[test]
fn fields_are_found_in_their_order() {
    let schema = of("api.core.v1.ConfigMap");
    let Shape::Object(fields) = schema.shape() else {
        panic!("{schema:?}");
    };
    let mut left = fields.in_order();
    for (name, expect) in [
        ("a", None),
        ("binaryData", Some("binaryData")),
        ("binaryData", Some("binaryData")),
        ("binaryDatum", None),
        ("data", Some("data")),
        ("immutablf", None),
        ("metadata", Some("metadata")),
        ("z", None),
    ] {
        assert_eq!(left.find(name).map(Field::name), expect, "{name}");
    }
}

#[test]
fn lists_say_how_they_merge() {
    let container = of("io.k8s.api.core.v1.Container");
    let ports = container.node().field("ports").unwrap();
    let Shape::List {
        item,
        list_type: ListType::Map(keys),
    } = ports.schema().shape()
    else {
        panic!("{ports:?}");
    };
    assert_eq!(item.name(), "api.core.v1.ContainerPort");
    assert_eq!(keys.iter().collect::<Vec<_>>(), ["containerPort", "protocol"]);
    assert_eq!(ports.merge_key(), Some("containerPort"));
    assert_eq!(ports.patch_strategy().as_str(), Some("merge"));
    assert_eq!(item.field("protocol").unwrap().default(), Some("TCP".into()));
    let args = container.node().field("args").unwrap().schema();
    assert!(args.is_atomic() && args.topology_is_declared());
    let finalizers = of("apimachinery.pkg.apis.meta.v1.ObjectMeta")
        .at(&["finalizers"])
        .unwrap();
    assert!(matches!(
        finalizers.shape(),
        Shape::List {
            list_type: ListType::Set,
            ..
        }
    ));
}

#[test]
fn a_field_may_own_a_type_otherwise_than_the_type_says() {
    let reference = of("api.core.v1.ObjectReference");
    assert!(reference.node().is_atomic());
    let claim = of("api.core.v1.PersistentVolumeSpec").at(&["claimRef"]).unwrap();
    assert!(!claim.node().is_atomic());
    assert_eq!(claim.node().name(), reference.node().name());
    assert!(claim.node().field("name").is_some());
}

#[test]
fn facts_are_read_on_demand() {
    let policy = of("api.core.v1.Container")
        .node()
        .field("imagePullPolicy")
        .unwrap()
        .enum_values();
    assert_eq!(policy, ["Always", "Never", "IfNotPresent"]);
    let gates = of("api.core.v1.Container")
        .node()
        .field("resizePolicy")
        .unwrap()
        .gates();
    assert_eq!(gates, ["InPlacePodVerticalScaling"]);
}

#[test]
fn every_type_is_walked_without_a_hole() {
    let mut fields = 0;
    for name in all_types() {
        if let Shape::Object(object) = of(name).shape() {
            for field in object.iter() {
                fields += 1;
                assert!(!field.name().is_empty(), "{name}");
                assert!(!field.schema().go_type().is_empty(), "{name}.{}", field.name());
                assert_eq!(object.get(field.name()).unwrap().name(), field.name());
            }
        }
    }
    assert!(fields > 3000, "{fields}");
    assert_eq!(resources().len(), 95);
    for row in resources() {
        assert!(
            SchemaRef::builtin(&row.group_version.kind(&row.kind)).is_some(),
            "{row:?}"
        );
    }
}

#[test]
fn the_tables_are_small() {
    // The design's budget is 3 MB.
    let bytes = decode_again().memory_bytes();
    assert!(bytes < 512 * 1024, "{bytes}");
}
