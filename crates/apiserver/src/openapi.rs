//! `/openapi/v2` and `/openapi/v3`: the schemas of everything that is served, for `kubectl explain`, apply and diff.
//!
//! The documents are large, so each is made when it is first asked for, and kept, compressed, until its rows change.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use descriptions::Descriptions;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};

use api::openapi::{self, CustomSchema, OpenApiResource, OpenApiSubresource, Source, V2_PROTOBUF};
use api::{GroupVersion, GroupVersionKind, Map, Status, Value};
use client::Body;

use crate::call::Call;
use crate::registry::{Registry, Served};
use crate::respond::{body, negotiate};
use crate::server::Server;
use crate::{version, virtuals};

/// The documents of one registry.
pub struct OpenApi {
    /// The registry's.
    pub epoch: u64,
    /// Of what is known of other servers' group versions.
    pub others: u64,
    rows: Vec<OpenApiResource>,
    /// Whether the server tells how its tokens are verified.
    is_issuer: bool,
    /// The names of our own documents of v3 that are of no group version.
    general: Vec<String>,
    /// For each group version, what its document is made of: one that is made holds as long as this is the same.
    served: HashMap<String, Vec<Arc<Served>>>,
    made: Mutex<HashMap<String, Document>>,
    /// The hashes of our own documents of v3, which are known before these are made.
    hashes: Mutex<HashMap<String, Arc<str>>>,
}

/// A document is compressed in pieces of this size: it is written in pieces of a few bytes, for each of which the encoder would
/// clear the 32 KiB of its own buffer.
const COMPRESSED_AT_ONCE_BYTES: usize = 32 * 1024;

/// A document as it is kept: most who ask take it compressed, and hundreds of custom resources make many.
#[derive(Clone)]
struct Document {
    gzip: Bytes,
    /// How long it is when it is not compressed.
    len: usize,
    /// What changes with it: upper-case hexadecimal digits, without quotes.
    hash: Arc<str>,
}

/// Writes a document.
type Make<'m> = &'m dyn Fn(&mut dyn io::Write) -> io::Result<()>;

impl Document {
    /// Of what is written; `hash` is that of its bytes unless it is known.
    fn make(hash: Option<Arc<str>>, make: Make<'_>) -> Result<Document, Status> {
        let counted = Counted {
            gzip: GzEncoder::new(Vec::new(), Compression::fast()),
            hasher: hash.is_none().then(Sha256::new),
            len: 0,
        };
        let mut out = io::BufWriter::with_capacity(COMPRESSED_AT_ONCE_BYTES, counted);
        make(&mut out).map_err(Status::internal)?;
        let out = out.into_inner().map_err(Status::internal)?;
        let gzip = out.gzip.finish().map_err(Status::internal)?;
        let of_bytes = || out.hasher.map(|hasher| format!("{:X}", hasher.finalize()).into());
        Ok(Document {
            // A copy has no room left over.
            gzip: Bytes::copy_from_slice(&gzip),
            len: out.len,
            hash: hash.or_else(of_bytes).unwrap_or_default(),
        })
    }

    fn of(tree: &Value) -> Result<Document, Status> {
        Document::make(None, &|out| Ok(serde_json::to_writer(out, tree)?))
    }

    fn answer(&self, headers: &HeaderMap, media_type: &'static str) -> Result<Response<Body>, Status> {
        let etag = format!("\"{}\"", self.hash);
        let known = headers
            .get(IF_NONE_MATCH)
            .is_some_and(|value| value.as_bytes() == etag.as_bytes());
        let mut response = if known {
            let mut response = Response::new(client::body_of(""));
            *response.status_mut() = http::StatusCode::NOT_MODIFIED;
            response
        } else {
            body::kept(headers, self.len, media_type, &self.gzip)?
        };
        let headers = response.headers_mut();
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.insert(ETAG, etag);
        }
        headers.append(VARY, HeaderValue::from_static("Accept"));
        Ok(response)
    }
}

/// Compresses what is written, and counts it.
struct Counted {
    gzip: GzEncoder<Vec<u8>>,
    hasher: Option<Sha256>,
    len: usize,
}

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.gzip.write(bytes)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes[..written]);
        }
        self.len += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gzip.flush()
    }
}

impl OpenApi {
    /// The documents of a registry: none of them made yet, but for those that were made before and would be the same.
    pub fn new(registry: &Registry, is_issuer: bool, others: u64, before: Option<&OpenApi>) -> OpenApi {
        let mut rows: Vec<OpenApiResource> = registry.served().iter().map(|served| row(served)).collect();
        rows.extend(virtuals::ALL.iter().map(|entry| OpenApiResource {
            gvk: GroupVersionKind::new(entry.group, entry.version, entry.kind),
            plural: entry.plural.into(),
            namespaced: entry.namespaced,
            verbs: entry.verbs.iter().map(|verb| (*verb).to_owned()).collect(),
            subresources: Vec::new(),
            custom: None,
        }));
        let mut by_version: HashMap<String, Vec<Arc<Served>>> = HashMap::new();
        for served in registry.served() {
            let path = match &*served.gvk.group {
                "" => format!("api/{}", served.gvk.version),
                group => format!("apis/{group}/{}", served.gvk.version),
            };
            by_version.entry(path).or_default().push(served.clone());
        }
        let (mut made, mut hashes) = (HashMap::new(), HashMap::new());
        if let Some(before) = before {
            let same = |one: &Vec<Arc<Served>>, other: &Vec<Arc<Served>>| {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
            };
            let keeps = |path: &String| match (by_version.get(path), before.served.get(path)) {
                (Some(now), Some(then)) => same(now, then),
                // Another server's, or what belongs to no kind.
                (None, None) => before.others == others && path.starts_with("api"),
                _ => false,
            };
            let documents = before.made.lock();
            let kept = documents.iter().filter(|(path, _)| keeps(path));
            made.extend(kept.map(|(path, document)| (path.clone(), document.clone())));
            let known = before.hashes.lock();
            let kept = known
                .iter()
                .filter(|(path, _)| by_version.contains_key(*path) && keeps(path));
            hashes.extend(kept.map(|(path, hash)| (path.clone(), hash.clone())));
        }
        let mut new = OpenApi {
            epoch: registry.epoch,
            others,
            rows,
            is_issuer,
            general: Vec::new(),
            served: by_version,
            made: Mutex::new(made),
            hashes: Mutex::new(hashes),
        };
        new.general = openapi::v3_general_names(&new.source(&openapi::undescribed));
        new
    }

    fn source<'a>(&'a self, describe: &'a dyn Fn(&str, &str) -> Option<String>) -> Source<'a> {
        Source {
            resources: &self.rows,
            version: "v1.36.0",
            is_issuer: self.is_issuer,
            describe,
        }
    }

    /// The v2 document; as a whole tree only where those of others are merged into it.
    fn make_v2(&self, server: &Server, protobuf: bool) -> Result<Document, Status> {
        let texts = Descriptions::new();
        let describe = |ty: &str, field: &str| texts.get(ty, field);
        let source = self.source(&describe);
        if server.aggregation.has_v2() {
            let tree = server.aggregation.merge_v2(openapi::v2(&source));
            return match protobuf {
                true => Document::make(None, &|out| out.write_all(&openapi::v2_protobuf(&tree))),
                false => Document::of(&tree),
            };
        }
        Document::make(None, &|out| match protobuf {
            true => openapi::write_v2_protobuf(&source, out),
            false => openapi::write_v2(&source, out),
        })
    }

    fn document(&self, name: &str, make: impl FnOnce() -> Result<Document, Status>) -> Result<Document, Status> {
        if let Some(made) = self.made.lock().get(name) {
            return Ok(made.clone());
        }
        // Made without the lock: another request may make it too, which costs time and harms nobody.
        let document = make()?;
        self.made.lock().insert(name.to_owned(), document.clone());
        Ok(document)
    }

    /// The hash of the document of a group version: our own, or one that was made of what another server says.
    fn v3_hash(&self, server: &Server, path: &str) -> Result<Option<Arc<str>>, Status> {
        match server.aggregation.converted(path) {
            Some(converted) => Ok(Some(self.document(path, || Document::of(&converted))?.hash)),
            None => Ok(self.hash(path)),
        }
    }

    /// The document of a group version: our own, or one that was made of what another server says.
    fn v3_of_all(&self, server: &Server, path: &str) -> Result<Option<Document>, Status> {
        match server.aggregation.converted(path) {
            Some(converted) => self.document(path, || Document::of(&converted)).map(Some),
            None => self.v3(path),
        }
    }

    fn v3(&self, path: &str) -> Result<Option<Document>, Status> {
        let Some(hash) = self.hash(path) else {
            return Ok(None);
        };
        let texts = Descriptions::new();
        let describe = |ty: &str, field: &str| texts.get(ty, field);
        let source = self.source(&describe);
        let make = || {
            let tree = match group_version_of(path) {
                Some(group_version) => openapi::v3(&source, &group_version),
                None => openapi::v3_general(&source, path).ok_or_else(Status::no_such_path)?,
            };
            Document::make(Some(hash), &|out| Ok(serde_json::to_writer(out, &tree)?))
        };
        self.document(path, make).map(Some)
    }

    /// The hash of our own document of a path: of what it is made of, so that an index of all can be told without
    /// making any. Clients keep documents by it, over an upgrade of the server, too.
    fn hash(&self, path: &str) -> Option<Arc<str>> {
        if let Some(known) = self.hashes.lock().get(path) {
            return Some(known.clone());
        }
        let mut hasher = Sha256::new();
        let mut is_empty = true;
        if self.general.iter().any(|name| name == path) {
            is_empty = false;
            hasher.update(path);
        }
        let of = group_version_of(path);
        let own = |row: &&OpenApiResource| of.as_ref().is_some_and(|of| row.is_of(of));
        for row in self.rows.iter().filter(own) {
            is_empty = false;
            let subresources = row
                .subresources
                .iter()
                .map(|sub| json!([sub.name, sub.gvk.to_string(), sub.verbs]));
            let subresources: Vec<Value> = subresources.collect();
            let facts = json!([row.gvk.to_string(), row.plural, row.namespaced, row.verbs, subresources]);
            hasher.update(facts.to_string());
            if let Some(custom) = &row.custom {
                hasher.update(json!([custom.list_kind, custom.selectable]).to_string());
                hasher.update(&*custom.text);
            }
        }
        if is_empty {
            return None;
        }
        hasher.update(version::document().to_string());
        let hash: Arc<str> = format!("{:X}", hasher.finalize()).into();
        self.hashes.lock().insert(path.to_owned(), hash.clone());
        Some(hash)
    }
}

fn row(served: &Served) -> OpenApiResource {
    let words = |verbs: &[&str]| verbs.iter().map(|verb| (*verb).to_owned()).collect();
    let subresources = served
        .version()
        .subresources
        .iter()
        .map(|subresource| OpenApiSubresource {
            name: subresource.name.into(),
            gvk: match subresource.kind {
                Some((group, version, kind)) => GroupVersionKind::new(group, version, kind),
                None => served.gvk.clone(),
            },
            verbs: match subresource.name {
                // Whatever the method, it is somebody else who answers.
                "attach" | "exec" | "portforward" | "proxy" => words(&["connect"]),
                _ => words(subresource.verbs),
            },
        });
    OpenApiResource {
        gvk: served.gvk.clone(),
        plural: served.gvr.resource.clone(),
        namespaced: served.kind.row.namespaced,
        verbs: words(served.version().verbs),
        subresources: subresources.collect(),
        custom: served.version().custom.as_ref().map(|custom| CustomSchema {
            text: custom.text.clone(),
            list_kind: custom.list_kind.clone(),
            selectable: custom.selectable.iter().map(|(name, _)| name.clone()).collect(),
        }),
    }
}

/// `api/v1` or `apis/apps/v1`.
fn group_version_of(path: &str) -> Option<GroupVersion> {
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => Some(GroupVersion::new("", *version)),
        ["apis", group, version] => Some(GroupVersion::new(*group, *version)),
        _ => None,
    }
}

/// `/openapi/v2`, as JSON or as gnostic's protobuf.
pub async fn v2(call: &Call) -> Result<Response<Body>, Status> {
    let documents = call.server.openapi(&call.registry);
    let accept = negotiate::accept(&call.headers);
    let clauses = negotiate::clauses(&accept);
    let protobuf = clauses
        .iter()
        .find(|clause| clause.takes_json() || clause.subkind.starts_with("com.github.proto-openapi.spec.v2"))
        .is_some_and(|clause| !clause.takes_json());
    let (name, media_type) = match protobuf {
        true => ("v2.protobuf", V2_PROTOBUF),
        false => ("v2", "application/json"),
    };
    let server = call.server.clone();
    let made = aside(move || documents.document(name, || documents.make_v2(&server, protobuf)));
    made.await??.answer(&call.headers, media_type)
}

/// Makes a document on a thread that may be busy: the workers have requests to answer meanwhile.
async fn aside<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(make).await.map_err(Status::internal)
}

/// `/openapi/v3`: where the documents are, with their hashes.
pub async fn v3_index(call: &Call) -> Result<Response<Body>, Status> {
    let documents = call.server.openapi(&call.registry);
    let mut own: Vec<String> = call.server.discovery(&call.registry).group_versions().collect();
    own.extend(documents.general.iter().cloned());
    let server = call.server.clone();
    let made = aside(move || {
        let mut paths = Map::new();
        let others = server.aggregation.v3_paths();
        let own = own.into_iter().filter(|path| !others.contains_key(path));
        let own = own.map(|path| (path, None));
        for (path, url) in own.chain(others.clone()) {
            let url = match url {
                Some(url) => Some(url),
                None => documents
                    .v3_hash(&server, &path)?
                    .map(|hash| format!("/openapi/v3/{path}?hash={hash}")),
            };
            if let Some(url) = url {
                paths.insert(path, json!({"serverRelativeURL": url}));
            }
        }
        Document::of(&json!({"paths": paths}))
    });
    made.await??.answer(&call.headers, "application/json")
}

/// `/openapi/v3/<group version>`, or the name of another document. With a hash in the query the answer never changes; with
/// an old hash the client is sent on to the new one.
pub async fn v3(call: &Call, path: &str) -> Result<Response<Body>, Status> {
    tracing::trace!(target: "walk", "OpenAPI");
    let documents = call.server.openapi(&call.registry);
    let wanted = path.to_owned();
    let server = call.server.clone();
    let document = aside(move || documents.v3_of_all(&server, &wanted))
        .await??
        .ok_or_else(Status::no_such_path)?;
    match call.query.get("hash") {
        Some(hash) if hash != &*document.hash => {
            let mut response = Response::new(client::body_of(""));
            *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
            let location = format!("/openapi/v3/{path}?hash={}", document.hash);
            let location = HeaderValue::from_str(&location).map_err(Status::internal)?;
            response.headers_mut().insert(http::header::LOCATION, location);
            Ok(response)
        }
        hash => {
            let mut response = document.answer(&call.headers, "application/json")?;
            if hash.is_some() {
                response
                    .headers_mut()
                    .insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            }
            Ok(response)
        }
    }
}
