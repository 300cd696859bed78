//! The life of one object: made, looked at in every way, changed in every way, told to watchers, deleted in every way.

use api::{Map, Value, meta, patch};
use serde_json::json;

use super::encoding::{BOTH, Encoding};
use super::{NAMESPACE, Resource, contains, without_identity, without_managers};
use crate::world::{Answer, Api};

/// The ways to patch.
const PATCHES: [&str; 4] = ["json", "merge", "strategic", "apply"];

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// One object in one encoding.
pub struct Life<'a> {
    api: &'a Api,
    resource: &'a Resource,
    encoding: Encoding,
    /// What is sent to make it.
    object: Value,
    /// What its status becomes.
    status: Option<Value>,
    /// Where its kind lives, and itself.
    collection: String,
    path: String,
    /// What watchers are to be told.
    told: Vec<(&'static str, Value)>,
    /// Every answer.
    lived: Vec<(String, Value)>,
}

impl<'a> Life<'a> {
    pub fn new(api: &'a Api, resource: &'a Resource, object: &Value, encoding: Encoding) -> Life<'a> {
        let mut object = object.clone();
        if resource.namespaced {
            meta::set_text(&mut object, "namespace", NAMESPACE);
        }
        let status = object.as_object_mut().unwrap().remove("status");
        let collection = resource.collection();
        let path = format!("{collection}/{}", meta::name(&object));
        Life {
            api,
            resource,
            encoding,
            object,
            status,
            collection,
            path,
            told: Vec::new(),
            lived: Vec::new(),
        }
    }

    /// Lives it; answers with every answer, without what no two lives share.
    pub async fn live(mut self) -> Vec<(String, Value)> {
        let list = self.ask("GET", &self.collection, None).await;
        let from = list["metadata"]["resourceVersion"].as_str().unwrap();
        let name = meta::name(&self.object);
        let watch = format!(
            "{}?watch=1&fieldSelector=metadata.name%3D{name}&resourceVersion={from}",
            self.collection
        );
        let mut watchers = Vec::new();
        for encoding in BOTH {
            watchers.push(encoding.watch(self.api, &watch).await);
        }
        let as_table = self.api.open(&format!("GET {watch}"), &[("accept", TABLE)], "").await;
        let mut as_table = crate::world::Watch::of(as_table);

        self.made().await;
        self.looked_at().await;
        self.updated().await;
        self.patched().await;
        self.views_rewritten().await;
        self.scaled().await;
        self.deleted().await;
        self.deleted_with_others().await;

        for (word, object) in &self.told {
            for watcher in &mut watchers {
                let (found, event) = watcher.next().await;
                let expect = match *word {
                    // As it was, at the revision of its end.
                    "DELETED" => without_version(object),
                    _ => object.clone(),
                };
                let event = if *word == "DELETED" {
                    without_version(&event)
                } else {
                    event
                };
                assert_eq!((&*found, &event), (*word, &expect), "{watch}");
            }
            let row = as_table.next().await.unwrap();
            assert_eq!(row["type"], **word);
            assert_eq!(
                row["object"]["rows"][0]["object"]["metadata"]["uid"],
                object["metadata"]["uid"]
            );
        }
        // Not watched: each way begins anew.
        self.status_written().await;
        self.lived
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.encoding.ask(self.api, method, path, body).await
    }

    /// Sends a patch, which is JSON (or YAML) in every life; its answer is in this one's encoding.
    async fn patch(&self, path: &str, way: &str, body: &Value) -> Value {
        let media = match way {
            "json" => "application/json-patch+json",
            "merge" => "application/merge-patch+json",
            "strategic" => "application/strategic-merge-patch+json",
            _ => "application/apply-patch+yaml",
        };
        let query = if way == "apply" {
            "?fieldManager=applier&force=true"
        } else {
            ""
        };
        let request = format!("PATCH {path}{}", join(path, query));
        let headers = [("content-type", media), ("accept", self.encoding.media())];
        let answer = self.api.call(&request, &headers, body.to_string()).await;
        let read = self.encoding.read(&answer);
        assert!((200..300).contains(&answer.code), "{request} {way}: {read:#}");
        read
    }

    /// The object, which is the same in both encodings.
    async fn get(&self, path: &str) -> Value {
        let json = Encoding::Json.ask(self.api, "GET", path, None).await;
        let protobuf = Encoding::Protobuf.ask(self.api, "GET", path, None).await;
        assert_eq!(json, protobuf, "{path}");
        json
    }

    async fn is_absent(&self) {
        for encoding in BOTH {
            let answer = encoding.call(self.api, "GET", &self.path, None).await;
            let status = encoding.read(&answer);
            assert_eq!(
                (answer.code, &status["reason"]),
                (404, &json!("NotFound")),
                "{}",
                self.path
            );
        }
    }

    /// Remembers an answer.
    fn note(&mut self, step: &str, answer: &Value) {
        self.lived.push((step.to_owned(), without_identity(answer.clone())));
    }

    /// Remembers the answer to a write that changed the object; it is what a reader sees.
    async fn changed(&mut self, step: &str, word: &'static str, answer: Value) {
        assert_eq!(answer, self.get(&self.path).await, "{step} {}", self.path);
        self.note(step, &answer);
        self.told.push((word, answer));
    }

    fn current(&self) -> &Value {
        &self.told.last().unwrap().1
    }

    async fn made(&mut self) {
        let strict = format!("{}?fieldValidation=Strict&fieldManager=tester", self.collection);
        let dry = self
            .ask("POST", &format!("{strict}&dryRun=All"), Some(&self.object))
            .await;
        self.note("dry create", &dry);
        self.is_absent().await;
        let made = self.ask("POST", &strict, Some(&self.object)).await;
        let gvk = &self.resource.gvk;
        assert_eq!(
            (made["apiVersion"].as_str(), made["kind"].as_str()),
            (Some(&*gvk.api_version()), Some(&*gvk.kind))
        );
        assert!(contains(&made, &self.object), "{made:#}");
        // A dry run shows what would be, an identity included.
        assert_eq!(without_managers(&dry), without_managers(&made), "{gvk}");
        self.changed("create", "ADDED", made).await;
        let again = self.encoding.call(self.api, "POST", &strict, Some(&self.object)).await;
        assert_eq!(
            (again.code, &self.encoding.read(&again)["reason"]),
            (409, &json!("AlreadyExists"))
        );
    }

    async fn looked_at(&mut self) {
        let object = self.current().clone();
        let selected = format!(
            "{}?fieldSelector=metadata.name%3D{}",
            self.collection,
            meta::name(&object)
        );
        let list = self.get(&selected).await;
        let gvk = &self.resource.gvk;
        assert_eq!(list["kind"], format!("{}List", gvk.kind));
        let mut item = object.clone();
        for field in ["apiVersion", "kind"] {
            item.as_object_mut().unwrap().remove(field);
        }
        let [found] = &list["items"].as_array().unwrap()[..] else {
            panic!("{list:#}")
        };
        assert_eq!(*found, item);

        // For people.
        for path in [&self.path, &selected] {
            let table = self.as_media(path, TABLE).await.ok();
            let [row] = &table["rows"].as_array().unwrap()[..] else {
                panic!("{table:#}")
            };
            let headings = table["columnDefinitions"].as_array().unwrap();
            assert_eq!(headings.len(), row["cells"].as_array().unwrap().len(), "{gvk}");
            assert_eq!(
                (&table["kind"], &row["object"]["metadata"]),
                (&json!("Table"), &object["metadata"])
            );
        }
        let whole = self
            .as_media(&format!("{}?includeObject=Object", self.path), TABLE)
            .await
            .ok();
        assert_eq!(whole["rows"][0]["object"], object);

        // For controllers.
        let mut seen: Vec<[Value; 2]> = Vec::new();
        for encoding in BOTH {
            let form = |kind: &str| format!("{};as={kind};g=meta.k8s.io;v=v1", encoding.media());
            let one = self.as_media(&self.path, &form("PartialObjectMetadata")).await;
            let one = encoding.read_as(&one, gvk);
            assert_eq!(
                (&one["kind"], &one["metadata"]),
                (&json!("PartialObjectMetadata"), &object["metadata"])
            );
            let all = self.as_media(&selected, &form("PartialObjectMetadataList")).await;
            let mut of_list = gvk.clone();
            of_list.kind = format!("{}List", gvk.kind);
            let all = encoding.read_as(&all, &of_list);
            assert_eq!(all["items"][0]["metadata"], object["metadata"]);
            seen.push([all["kind"].clone(), all["metadata"].clone()]);
        }
        assert_eq!(seen[0], seen[1]);
    }

    async fn as_media(&self, path: &str, media: &str) -> Answer {
        let answer = self.api.call(&format!("GET {path}"), &[("accept", media)], "").await;
        assert_eq!(
            answer.code,
            200,
            "{path} {media}: {}",
            String::from_utf8_lossy(&answer.bytes)
        );
        answer
    }

    async fn updated(&mut self) {
        let mut object = self.current().clone();
        // Namespaces have one of their own.
        let labels = meta::metadata_mut(&mut object)
            .entry("labels")
            .or_insert_with(|| json!({}));
        labels["put"] = "1".into();
        let managed = format!("{}?fieldManager=tester&fieldValidation=Strict", self.path);
        let dry = self.ask("PUT", &format!("{managed}&dryRun=All"), Some(&object)).await;
        self.note("dry update", &dry);
        assert_eq!(self.get(&self.path).await, *self.current());
        let updated = self.ask("PUT", &managed, Some(&object)).await;
        assert_eq!(updated["metadata"]["labels"]["put"], "1");
        self.changed("update", "MODIFIED", updated).await;
        // What was read before is out of date.
        let late = self.encoding.call(self.api, "PUT", &managed, Some(&object)).await;
        assert_eq!(
            (late.code, &self.encoding.read(&late)["reason"]),
            (409, &json!("Conflict"))
        );
    }

    async fn patched(&mut self) {
        for way in PATCHES {
            let body = match way {
                "json" => json!([{"op": "add", "path": "/metadata/labels/json", "value": "1"}]),
                _ => json!({"metadata": {"labels": {way: "1"}}}),
            };
            let body = if way == "apply" { self.to_apply(body) } else { body };
            let dry = self.patch(&format!("{}?dryRun=All", self.path), way, &body).await;
            self.note("dry patch", &dry);
            assert_eq!(self.get(&self.path).await, *self.current(), "{way}");
            let patched = self.patch(&self.path, way, &body).await;
            assert_eq!(patched["metadata"]["labels"][way], "1", "{way}");
            self.changed(way, "MODIFIED", patched).await;
            // The same again changes nothing.
            let again = self.patch(&self.path, way, &body).await;
            assert_eq!(&again, self.current(), "{way}");
        }
    }

    /// An apply configuration with those fields.
    fn to_apply(&self, mut fields: Value) -> Value {
        let map = fields.as_object_mut().unwrap();
        map.insert("apiVersion".into(), self.object["apiVersion"].clone());
        map.insert("kind".into(), self.object["kind"].clone());
        meta::set_text(&mut fields, "name", meta::name(&self.object));
        fields
    }

    /// Subresources that are views of the object: read, and written back as they were read.
    async fn views_rewritten(&mut self) {
        let resource = self.resource;
        for (name, verbs) in &resource.subresources {
            if name == "scale" || !verbs.contains("update") || !verbs.contains("get") || verbs.contains("delete") {
                continue;
            }
            let path = format!("{}/{name}", self.path);
            let seen = self.get(&path).await;
            assert_eq!(&seen, self.current(), "{path}");
            for query in ["?dryRun=All", ""] {
                let written = self.ask("PUT", &format!("{path}{query}"), Some(&seen)).await;
                assert_eq!(written, seen, "{path}{query}");
            }
            for way in PATCHES {
                let body = match way {
                    "json" => json!([]),
                    "apply" => self.to_apply(json!({})),
                    _ => json!({}),
                };
                let written = self.patch(&path, way, &body).await;
                assert_eq!(written, seen, "{path} {way}");
            }
        }
    }

    async fn scaled(&mut self) {
        if !self.resource.subresources.contains_key("scale") {
            return;
        }
        let path = format!("{}/scale", self.path);
        let mut scale = self.get(&path).await;
        self.note("scale", &scale);
        scale["spec"]["replicas"] = 3.into();
        let dry = self.ask("PUT", &format!("{path}?dryRun=All"), Some(&scale)).await;
        assert_eq!(dry["spec"]["replicas"], 3);
        assert_eq!(self.get(&self.path).await, *self.current());
        self.ask("PUT", &path, Some(&scale)).await;
        self.has_replicas("scale by update", 3).await;
        for (replicas, way) in (4..).zip(PATCHES) {
            let body = match way {
                "json" => json!([{"op": "replace", "path": "/spec/replicas", "value": replicas}]),
                "apply" => json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
                    "metadata": {"name": meta::name(&self.object)}, "spec": {"replicas": replicas}}),
                _ => json!({"spec": {"replicas": replicas}}),
            };
            let patched = self.patch(&path, way, &body).await;
            assert_eq!(
                (&patched["kind"], &patched["spec"]["replicas"]),
                (&json!("Scale"), &json!(replicas))
            );
            self.has_replicas(way, replicas).await;
        }
    }

    async fn has_replicas(&mut self, step: &str, replicas: i64) {
        let object = self.get(&self.path).await;
        assert_eq!(object["spec"]["replicas"], replicas, "{step}");
        self.changed(step, "MODIFIED", object).await;
    }

    fn delete_options(&self, more: Value) -> Value {
        let mut options = json!({"apiVersion": self.object["apiVersion"], "kind": "DeleteOptions",
            "propagationPolicy": "Background", "gracePeriodSeconds": 0});
        options
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        options
    }

    /// Deletes it; every answer is remembered.
    async fn deleted(&mut self) {
        let object = self.current().clone();
        let dry = self.delete_options(json!({"dryRun": ["All"]}));
        let answer = self.ask("DELETE", &self.path, Some(&dry)).await;
        self.note("dry delete", &answer);
        assert_eq!(self.get(&self.path).await, object);
        let other = self.delete_options(json!({"preconditions": {"uid": "another"}}));
        let refused = self.encoding.call(self.api, "DELETE", &self.path, Some(&other)).await;
        assert_eq!(
            (refused.code, &self.encoding.read(&refused)["reason"]),
            (409, &json!("Conflict"))
        );
        self.delete("delete").await;
    }

    async fn delete(&mut self, step: &str) {
        let uid = self.current()["metadata"]["uid"].clone();
        let options = self.delete_options(json!({"preconditions": {"uid": uid}}));
        let answer = self.ask("DELETE", &self.path, Some(&options)).await;
        self.note(step, &answer);
        if self.resource.gvk.kind == "Namespace" {
            // Marked only; it goes when whoever has emptied it finalizes it.
            assert_eq!(answer["status"]["phase"], "Terminating");
            self.changed("terminating", "MODIFIED", answer.clone()).await;
            let mut empty = answer;
            empty["spec"]["finalizers"] = json!([]);
            let finalized = self.ask("PUT", &format!("{}/finalize", self.path), Some(&empty)).await;
            self.note("finalized", &finalized);
        }
        self.is_absent().await;
        let last = self.current().clone();
        self.told.push(("DELETED", last));
    }

    /// Made anew by an apply, and deleted with all that have its label.
    async fn deleted_with_others(&mut self) {
        let mut whole = self.object.clone();
        meta::metadata_mut(&mut whole).insert("labels".into(), json!({"kept": "no"}));
        let applied = self.patch(&self.path, "apply", &whole).await;
        self.changed("apply to create", "ADDED", applied).await;
        if !self.resource.verbs.contains("deletecollection") {
            self.delete("delete again").await;
            return;
        }
        let dry = self.delete_options(json!({"dryRun": ["All"]}));
        let selected = format!("{}?labelSelector=kept%3Dno", self.collection);
        self.ask("DELETE", &selected, Some(&dry)).await;
        assert_eq!(self.get(&self.path).await, *self.current());
        let none = format!("{}?labelSelector=kept%3Dyes", self.collection);
        let options = self.delete_options(json!({}));
        self.ask("DELETE", &none, Some(&options)).await;
        assert_eq!(self.get(&self.path).await, *self.current());
        let list = self.ask("DELETE", &selected, Some(&options)).await;
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        assert_eq!(list["items"][0]["metadata"]["uid"], self.current()["metadata"]["uid"]);
        self.is_absent().await;
        let last = self.current().clone();
        self.told.push(("DELETED", last));
    }

    /// The status, written by an update and by each patch: the same comes of all of them.
    async fn status_written(&mut self) {
        let has_status = self.resource.subresources.contains_key("status");
        assert_eq!(has_status, self.status.is_some(), "status of {}", self.resource.gvk);
        let Some(status) = self.status.clone() else { return };
        let path = format!("{}/status", self.path);
        let mut first = None;
        for way in ["put"].into_iter().chain(PATCHES) {
            let made = self.ask("POST", &self.collection, Some(&self.object)).await;
            let before = made.get("status").cloned().unwrap_or_else(|| Value::Object(Map::new()));
            let whole = patch::merge_patch(&before, &status).unwrap();
            let written = match way {
                "put" => {
                    let mut body = made.clone();
                    body["status"] = whole;
                    self.ask("PUT", &format!("{path}?dryRun=All"), Some(&body)).await;
                    assert_eq!(self.get(&path).await, made);
                    self.ask("PUT", &path, Some(&body)).await
                }
                "json" => {
                    let body = json!([{"op": "add", "path": "/status", "value": whole}]);
                    self.patch(&path, way, &body).await
                }
                "apply" => {
                    let body = self.to_apply(json!({"status": status}));
                    self.patch(&path, way, &body).await
                }
                _ => self.patch(&path, way, &json!({"status": status})).await,
            };
            assert!(contains(&written["status"], &status), "{path} {way}: {written:#}");
            assert_eq!(written, self.get(&self.path).await, "{path} {way}");
            self.note(way, &written);
            let first = first.get_or_insert_with(|| without_managers(&written));
            assert_eq!(without_managers(&written), *first, "{path} {way}");
            // A deletion as before, whose events nobody reads.
            self.told.push(("MODIFIED", written));
            self.delete("delete").await;
        }
    }
}

fn join<'q>(path: &str, query: &'q str) -> std::borrow::Cow<'q, str> {
    match path.contains('?') {
        true => query.replacen('?', "&", 1).into(),
        false => query.into(),
    }
}

fn without_version(object: &Value) -> Value {
    let mut object = object.clone();
    meta::set_text(&mut object, "resourceVersion", "");
    object
}
