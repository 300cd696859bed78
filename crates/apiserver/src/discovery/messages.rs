//! Aggregated discovery as protobuf messages. Source: `k8s.io/api/apidiscovery/v2/generated.proto`. The table of API facts has only kinds that somebody stores or posts, so these are written down here.

use api::Value;
use api::codec::protobuf;
use prost::Message;

/// The list in its envelope.
pub(super) fn encode(list: &Value) -> Vec<u8> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let message = List {
        metadata: Some(Empty {}),
        items: each(&list["items"], group),
    };
    protobuf::enveloped(
        &text(&list["apiVersion"]),
        &text(&list["kind"]),
        &message.encode_to_vec(),
    )
}

fn each<T>(value: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().into_iter().flatten().map(read).collect()
}

fn text(value: &Value) -> Option<String> {
    Some(value.as_str().unwrap_or_default().to_owned())
}

fn texts(value: &Value) -> Vec<String> {
    each(value, |value| value.as_str().unwrap_or_default().to_owned())
}

fn group(value: &Value) -> Group {
    Group {
        metadata: Some(Metadata {
            name: text(&value["metadata"]["name"]),
        }),
        versions: each(&value["versions"], |version| Version {
            version: text(&version["version"]),
            resources: each(&version["resources"], resource),
            freshness: text(&version["freshness"]),
        }),
    }
}

fn resource(value: &Value) -> Resource {
    Resource {
        resource: text(&value["resource"]),
        response_kind: kind(&value["responseKind"]),
        scope: text(&value["scope"]),
        singular_resource: text(&value["singularResource"]),
        verbs: texts(&value["verbs"]),
        short_names: texts(&value["shortNames"]),
        categories: texts(&value["categories"]),
        subresources: each(&value["subresources"], |sub| Subresource {
            subresource: text(&sub["subresource"]),
            response_kind: kind(&sub["responseKind"]),
            verbs: texts(&sub["verbs"]),
        }),
    }
}

fn kind(value: &Value) -> Option<Kind> {
    value.is_object().then(|| Kind {
        group: text(&value["group"]),
        version: text(&value["version"]),
        kind: text(&value["kind"]),
    })
}

#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Empty>,
    #[prost(message, repeated, tag = "2")]
    items: Vec<Group>,
}

/// A `ListMeta` that says nothing.
#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct Group {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, repeated, tag = "2")]
    versions: Vec<Version>,
}

/// What an `ObjectMeta` of a group has.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Version {
    #[prost(string, optional, tag = "1")]
    version: Option<String>,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Resource>,
    #[prost(string, optional, tag = "3")]
    freshness: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(string, optional, tag = "1")]
    resource: Option<String>,
    #[prost(message, optional, tag = "2")]
    response_kind: Option<Kind>,
    #[prost(string, optional, tag = "3")]
    scope: Option<String>,
    #[prost(string, optional, tag = "4")]
    singular_resource: Option<String>,
    #[prost(string, repeated, tag = "5")]
    verbs: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    short_names: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    categories: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    subresources: Vec<Subresource>,
}

#[derive(Clone, PartialEq, Message)]
struct Subresource {
    #[prost(string, optional, tag = "1")]
    subresource: Option<String>,
    #[prost(message, optional, tag = "2")]
    response_kind: Option<Kind>,
    #[prost(string, repeated, tag = "4")]
    verbs: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Kind {
    #[prost(string, optional, tag = "1")]
    group: Option<String>,
    #[prost(string, optional, tag = "2")]
    version: Option<String>,
    #[prost(string, optional, tag = "3")]
    kind: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_becomes_a_message() {
        let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": [
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "freshness": "Current", "resources": [
                {"resource": "deployments", "responseKind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                    "scope": "Namespaced", "singularResource": "deployment", "verbs": ["get"], "shortNames": ["deploy"],
                    "subresources": [{"subresource": "scale", "verbs": ["update"],
                        "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}]},
            ]}]},
        ]});
        let bytes = encode(&list);
        let envelope = protobuf::Envelope::open(&bytes).unwrap();
        assert_eq!(
            (&*envelope.api_version, &*envelope.kind),
            ("apidiscovery.k8s.io/v2", "APIGroupDiscoveryList")
        );
        let read = List::decode(envelope.raw).unwrap();
        let resource = &read.items[0].versions[0].resources[0];
        assert_eq!(
            (resource.scope.as_deref(), &resource.short_names[..]),
            (Some("Namespaced"), &["deploy".to_owned()][..])
        );
        let scale = resource.subresources[0].response_kind.as_ref().unwrap();
        assert_eq!(scale.group.as_deref(), Some("autoscaling"));
        assert_eq!(read.items[0].metadata.as_ref().unwrap().name.as_deref(), Some("apps"));
    }
}
