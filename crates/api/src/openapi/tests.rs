//! The documents hold what kubectl looks for, and every reference in them leads somewhere.

use serde_json::json;

use super::*;

fn with_widget(check: impl Fn(&Source<'_>)) {
    let mut resources = builtin_resources();
    let props = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer", "minimum": 1, "default": 3, "description": "How large."},
        "port": {"x-kubernetes-int-or-string": true},
        "extra": {"type": "string", "nullable": true}}}}});
    resources.push(OpenApiResource {
        gvk: GroupVersionKind::new("example.com", "v1", "Widget"),
        plural: "widgets".into(),
        namespaced: true,
        verbs: ["create", "get", "list", "patch", "watch"].map(String::from).to_vec(),
        subresources: Vec::new(),
        custom: Some(CustomSchema {
            text: props.to_string().into(),
            list_kind: "WidgetList".into(),
            selectable: Vec::new(),
        }),
    });
    let describe = |ty: &str, field: &str| match (ty, field) {
        ("api.core.v1.Pod", "") => Some("A pod.".to_string()),
        ("api.core.v1.Pod", "spec") => Some("What it is.".to_string()),
        ("api.core.v1.Pod", "metadata") => Some("Who it is.".to_string()),
        _ => None,
    };
    check(&Source {
        resources: &resources,
        version: "v1.36.0",
        is_issuer: true,
        describe: &describe,
    });
}

/// Every reference leads somewhere.
fn check_references(value: &Value, document: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                let found = reference.strip_prefix('#').and_then(|path| document.pointer(path));
                assert!(found.is_some(), "{reference}");
            }
            map.values().for_each(|value| check_references(value, document));
        }
        Value::Array(items) => items.iter().for_each(|value| check_references(value, document)),
        _ => {}
    }
}

#[test]
fn v3_of_every_group_version_is_whole() {
    with_widget(|source| {
        let mut versions: Vec<GroupVersion> = source
            .resources
            .iter()
            .map(|row| GroupVersion::new(&*row.gvk.group, &*row.gvk.version))
            .collect();
        versions.sort();
        versions.dedup();
        for version in versions {
            let document = v3(source, &version);
            let schemas = document["components"]["schemas"].as_object().unwrap();
            check_references(&document, &document);
            for row in source
                .resources
                .iter()
                .filter(|row| row.gvk.group == version.group && row.gvk.version == version.version)
            {
                // kubectl finds the type of a path by its kind.
                let gvk = json!({"group": row.gvk.group, "kind": row.gvk.kind, "version": row.gvk.version});
                let found = schemas.values().filter(|schema| {
                    schema["x-kubernetes-group-version-kind"]
                        .as_array()
                        .is_some_and(|kinds| kinds.contains(&gvk))
                });
                assert_eq!(found.count(), 1, "{gvk}");
            }
        }
    });
}

#[test]
fn pods_are_what_kubectl_looks_for() {
    with_widget(|source| {
        let document = v3(source, &GroupVersion::new("", "v1"));
        let path = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"];
        assert_eq!(path["patch"]["operationId"], "patchCoreV1NamespacedPod");
        assert_eq!(path["patch"]["x-kubernetes-action"], "patch");
        assert_eq!(
            path["patch"]["x-kubernetes-group-version-kind"],
            json!({"group": "", "kind": "Pod", "version": "v1"})
        );
        let names: Vec<&str> = path["patch"]["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|p| p["name"].as_str())
            .collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        assert_eq!(path["parameters"][0]["name"], "name");
        let list = &document["paths"]["/api/v1/pods"]["get"];
        assert_eq!(list["operationId"], "listCoreV1PodForAllNamespaces");
        assert_eq!(
            document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["get"]["operationId"],
            "connectCoreV1GetNamespacedPodExec"
        );
        assert_eq!(
            document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"]["x-kubernetes-group-version-kind"],
            json!({"group": "policy", "kind": "Eviction", "version": "v1"})
        );

        let schemas = &document["components"]["schemas"];
        assert_eq!(
            schemas["io.k8s.apimachinery.pkg.apis.meta.v1.Patch"],
            json!({"type": "object"})
        );
        let pod = &schemas["io.k8s.api.core.v1.Pod"];
        assert_eq!(pod["description"], "A pod.");
        assert_eq!(
            pod["properties"]["spec"],
            json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}], "default": {}, "description": "What it is."})
        );
        let container = &schemas["io.k8s.api.core.v1.Container"];
        assert_eq!(container["required"], json!(["name"]));
        assert_eq!(
            container["properties"]["ports"],
            json!({"type": "array",
                "items": {"$ref": "#/components/schemas/io.k8s.api.core.v1.ContainerPort"},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
                "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "containerPort"})
        );
        assert_eq!(
            container["properties"]["imagePullPolicy"],
            json!({"type": "string", "enum": ["Always", "IfNotPresent", "Never"]})
        );
        assert_eq!(
            container["properties"]["name"],
            json!({"type": "string", "default": ""})
        );
        let selector = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["nodeSelector"];
        assert_eq!(
            selector,
            &json!({"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"})
        );
    });
}

#[test]
fn a_custom_kind_stands_beside_the_others() {
    with_widget(|source| {
        let document = v3(source, &GroupVersion::new("example.com", "v1"));
        let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
        assert_eq!(
            paths,
            [
                "/apis/example.com/v1/namespaces/{namespace}/widgets",
                "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}",
                "/apis/example.com/v1/widgets"
            ]
        );
        let widget = &document["components"]["schemas"]["com.example.v1.Widget"];
        assert_eq!(widget["properties"]["spec"]["properties"]["size"]["default"], 3);
        assert_eq!(
            widget["properties"]["metadata"],
            json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}],
                "description": "Who it is."})
        );
        let document = v2(source);
        let widget = &document["definitions"]["com.example.v1.Widget"]["properties"]["spec"]["properties"];
        assert_eq!(
            widget["size"],
            json!({"type": "integer", "minimum": 1, "default": 3, "description": "How large."})
        );
        assert_eq!(widget["port"], json!({"x-kubernetes-int-or-string": true}));
        assert_eq!(widget["extra"], json!({}));
    });
}

#[test]
fn v2_is_whole_in_both_encodings() {
    with_widget(|source| {
        let document = v2(source);
        let definitions = document["definitions"].as_object().unwrap();
        check_references(&document, &document);
        assert!(definitions.len() > 600, "{}", definitions.len());
        assert_eq!(
            definitions["io.k8s.api.core.v1.Pod"]["properties"]["metadata"],
            json!({"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "description": "Who it is."})
        );
        let bytes = v2_protobuf(&document);
        assert!(bytes.starts_with(b"\x0a\x032.0\x12"), "swagger, then info");
        let fields = top_level(&bytes);
        assert_eq!(
            fields.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(),
            [1, 2, 8, 9, 10, 12, 13]
        );
        for (at, section) in [(3, "definitions"), (4, "parameters")] {
            let named = document[section].as_object().unwrap();
            let pairs = top_level(fields[at].1);
            assert_eq!(pairs.len(), named.len());
            for ((tag, pair), name) in pairs.iter().zip(named.keys()) {
                let inner = top_level(pair);
                assert_eq!((*tag, inner[0].0, inner[0].1), (1, 1, name.as_bytes()));
            }
        }
        let reference = b"\x12\x1e\x0a\x1c#/parameters/pretty-tJGM1-ng";
        let paths = fields[2].1;
        assert!(paths.windows(reference.len()).any(|bytes| bytes == reference));
    });
}

#[test]
fn v2_is_the_same_when_it_is_written_in_parts() {
    with_widget(|source| {
        let document = v2(source);
        let mut bytes = Vec::new();
        write_v2(source, &mut bytes).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), document);
        let mut written = Vec::new();
        write_v2_protobuf(source, &mut written).unwrap();
        let whole = v2_protobuf(&document);
        let sorted = |bytes| -> Vec<(u64, Vec<Vec<u8>>)> {
            let parts = top_level(bytes).into_iter().map(|(tag, part)| {
                // Definitions come in another order.
                let mut pairs: Vec<Vec<u8>> = match tag {
                    9 => top_level(part).into_iter().map(|(_, pair)| pair.to_vec()).collect(),
                    _ => vec![part.to_vec()],
                };
                pairs.sort();
                (tag, pairs)
            });
            parts.collect()
        };
        assert_eq!(sorted(&written), sorted(&whole));
    });
}

/// The fields of a message that holds only bytes fields at its top.
fn top_level(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let varint = |bytes: &mut &[u8]| {
        let mut number = 0u64;
        for place in 0.. {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            number |= u64::from(byte & 0x7f) << (place * 7);
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    };
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        assert_eq!(key & 7, 2);
        let len = varint(&mut bytes) as usize;
        fields.push((key >> 3, &bytes[..len]));
        bytes = &bytes[len..];
    }
    fields
}

#[test]
fn documents_have_the_paths_and_words_of_upstreams() {
    with_widget(|source| {
        let core = v3(source, &GroupVersion::new("", "v1"));
        for (path, id, action) in [
            ("/api/v1/", "getCoreV1APIResources", json!(null)),
            ("/api/v1/watch/nodes", "watchCoreV1NodeList", json!("watchlist")),
            ("/api/v1/watch/nodes/{name}", "watchCoreV1Node", json!("watch")),
            (
                "/api/v1/watch/pods",
                "watchCoreV1PodListForAllNamespaces",
                json!("watchlist"),
            ),
            (
                "/api/v1/watch/namespaces/{namespace}/pods",
                "watchCoreV1NamespacedPodList",
                json!("watchlist"),
            ),
            (
                "/api/v1/watch/namespaces/{namespace}/pods/{name}",
                "watchCoreV1NamespacedPod",
                json!("watch"),
            ),
        ] {
            let get = &core["paths"][path]["get"];
            assert_eq!(
                (&get["operationId"], &get["x-kubernetes-action"]),
                (&json!(id), &action),
                "{path}"
            );
        }
        // What all operations of a path take stands once.
        let pods = &core["paths"]["/api/v1/pods"];
        assert!(pods["get"]["parameters"].is_null());
        let names = |parameters: &Value| -> Vec<String> {
            let all = parameters.as_array().unwrap().iter();
            all.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            names(&pods["parameters"])[..3],
            ["allowWatchBookmarks", "continue", "fieldSelector"]
        );
        let exec = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"];
        assert!(!names(&exec["parameters"]).contains(&"pretty".to_owned()));
        let media = |operation: &Value| -> Vec<String> {
            let content = operation["responses"]["200"]["content"].as_object().unwrap();
            content.keys().cloned().collect()
        };
        let lists = [
            "application/json",
            "application/json;stream=watch",
            "application/vnd.kubernetes.protobuf",
            "application/vnd.kubernetes.protobuf;stream=watch",
            "application/yaml",
        ];
        assert_eq!(media(&pods["get"]), lists);
        let schemas = &core["components"]["schemas"];
        let profile = &schemas["io.k8s.api.core.v1.SeccompProfile"];
        let members = json!({"localhostProfile": "LocalhostProfile"});
        assert_eq!(
            profile["x-kubernetes-unions"],
            json!([{"discriminator": "type", "fields-to-discriminateBy": members}])
        );
        assert_eq!(
            schemas["io.k8s.api.core.v1.PodSchedulingGroup"]["x-kubernetes-unions"],
            json!([{"fields-to-discriminateBy": {"podGroupName": "PodGroupName"}}])
        );
        let name = &schemas["io.k8s.api.core.v1.LocalObjectReference"]["properties"]["name"];
        assert_eq!(name["default"], "");
        let say = |path: &str, method: &str| core["paths"][path][method]["description"].clone();
        let endpoints = "/api/v1/namespaces/{namespace}/endpoints";
        assert_eq!(say(endpoints, "post"), "create Endpoints");
        assert_eq!(say("/api/v1/namespaces/{namespace}/events", "post"), "create an Event");
        assert_eq!(
            say("/api/v1/componentstatuses", "get"),
            "list objects of kind ComponentStatus"
        );
        let list = &schemas["io.k8s.api.core.v1.PodList"];
        assert_eq!(list["description"], "PodList is a list of objects of kind Pod.");
        assert!(list["properties"]["items"]["description"].is_string());
        // Every group version has these kinds; each document says so of its own and of the first.
        let apps = v3(source, &GroupVersion::new("apps", "v1"));
        let kinds = |name: &str| {
            let name = format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}");
            apps["components"]["schemas"][&name]["x-kubernetes-group-version-kind"].clone()
        };
        for name in ["DeleteOptions", "WatchEvent"] {
            let of = |group: &str| json!({"group": group, "kind": name, "version": "v1"});
            assert_eq!(kinds(name), json!([of(""), of("apps")]));
        }
        // Custom resources have neither protobuf nor the paths that were there before them.
        let custom = v3(source, &GroupVersion::new("example.com", "v1"));
        assert!(custom["paths"]["/apis/example.com/v1/"].is_null());
        assert!(custom["paths"]["/apis/example.com/v1/watch/widgets"].is_null());
        let list = &custom["paths"]["/apis/example.com/v1/widgets"]["get"];
        let own = ["application/json", "application/json;stream=watch", "application/yaml"];
        assert_eq!(media(list), own);
        let all = v2(source);
        let log = &all["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/log"]["get"];
        assert_eq!(log["produces"][0], "text/plain");
        let list = &all["paths"]["/api/v1/"]["get"];
        assert_eq!(
            (&list["consumes"], &list["x-kubernetes-action"]),
            (&list["produces"], &json!(null))
        );
    });
}

#[test]
fn parameters_that_many_share_are_told_once() {
    with_widget(|source| {
        let document = v2(source);
        let parameters = document["parameters"].as_object().unwrap();
        assert_eq!(parameters.len(), 46, "upstream's without shardSelector and logpath");
        for (name, parameter) in parameters {
            let own = parameter["name"].as_str().unwrap();
            let mark = name.strip_prefix(own).and_then(|rest| rest.strip_prefix('-'));
            assert_eq!(mark.map(str::len), Some(8), "{name}");
        }
        let pod = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"];
        let names = |parameters: &Value| -> Vec<String> {
            let name = |one: &Value| one["$ref"].as_str().or(one["name"].as_str()).unwrap().to_owned();
            parameters.as_array().unwrap().iter().map(name).collect()
        };
        let shared = ["#/parameters/namespace-vgWSWtn3", "#/parameters/pretty-tJGM1-ng"];
        assert_eq!(names(&pod["parameters"]), ["name", shared[0], shared[1]]);
        assert_eq!(
            names(&pod["patch"]["parameters"]),
            [
                "#/parameters/body-78PwaGsr",
                "dryRun",
                "#/parameters/fieldManager-7c6nTn1T",
                "fieldValidation",
                "#/parameters/force-tOGGb0Yi",
            ]
        );
        assert_eq!(
            names(&pod["put"]["parameters"])[..3],
            ["body", "dryRun", "#/parameters/fieldManager-Qy4HdaTW"]
        );
    });
}

#[test]
fn paths_of_no_group_version_have_documents() {
    with_widget(|source| {
        let names = v3_general_names(source);
        let groups: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("apis/")).collect();
        assert!(
            groups.contains(&"apps") && !groups.contains(&"example.com"),
            "{groups:?}"
        );
        for name in &names {
            let document = v3_general(source, name).unwrap();
            check_references(&document, &document);
            let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
            assert_eq!(paths, [&format!("/{name}/")]);
        }
        let get = |name: &str, path: &str| v3_general(source, name).unwrap()["paths"][path]["get"].clone();
        let rbac = get("apis/rbac.authorization.k8s.io", "/apis/rbac.authorization.k8s.io/");
        assert_eq!(
            (&rbac["operationId"], &rbac["tags"]),
            (&json!("getRbacAuthorizationAPIGroup"), &json!(["rbacAuthorization"]))
        );
        let version = get("version", "/version/");
        let info = json!({"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.version.Info"});
        assert_eq!(
            version["responses"]["200"]["content"],
            json!({"application/json": {"schema": info}})
        );
        let keys = get("openid/v1/jwks", "/openid/v1/jwks/");
        let text = json!({"application/jwk-set+json": {"schema": {"type": "string"}}});
        assert_eq!(keys["responses"]["200"]["content"], text);
        assert!(v3_general(source, "apis/example.com").is_none());
        let document = v2(source);
        for name in &names {
            assert!(document["paths"][format!("/{name}/")]["get"].is_object(), "{name}");
        }
        let silent = Source {
            is_issuer: false,
            ..*source
        };
        assert!(!v3_general_names(&silent).iter().any(|name| name.contains("openid")));
    });
}
