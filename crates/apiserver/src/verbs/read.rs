//! GET of one object and LIST, over any row.

use std::ops::{Bound, Range};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde::{Deserialize, Serialize};
use store::{KeyRange, Snapshot};

use api::selector::FieldSelector;
use api::{GroupResource, Status, StatusDetails};
use client::Body;

use crate::call::Call;
use crate::cluster::Object;
use crate::custom;
use crate::options::{ListOptions, Selector, VersionMatch, parse_version};
use crate::registry::{Kind, Served};
use crate::respond;
use crate::respond::list::{self, Page};
use crate::storage::{Stored, object_of};

/// GET.
pub async fn get(call: &Call, served: &Arc<Served>) -> Result<Response<Body>, Status> {
    let object = fetch(call, served).await?;
    respond::object(call, served, &object, 200)
}

/// The object that the path names, fresh enough for the request.
pub async fn fetch(call: &Call, served: &Served) -> Result<Arc<Object>, Status> {
    let attributes = &call.attributes;
    let version = call.query.text("resourceVersion");
    match version.is_empty() {
        true => call.server.storage.fresh().await?,
        false => call.wait_for(&served.kind.resource, parse_version(version)?).await?,
    }
    let namespace = scope(&served.kind, &attributes.namespace);
    let object = call.server.storage.get(&served.kind, namespace, &attributes.name)?;
    let object = object.ok_or_else(|| Status::not_found(&served.resource(), &attributes.name))?;
    custom::shown_one(&call.server, served, object).await
}

/// The namespace of a key: none for cluster-wide kinds (a Namespace's own path names it as a namespace too).
pub fn scope<'a>(kind: &Kind, namespace: &'a str) -> &'a str {
    if kind.row.namespaced { namespace } else { "" }
}

/// LIST.
pub async fn list(call: &Call, served: &Arc<Served>) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(call, served, false)?;
    let as_stored = !custom::is_converted(served);
    if as_stored && options.limit == 0 && options.selector.name.is_none() && list::can_stream(call) {
        let prefix = served.kind.prefix(&options.selector.namespace);
        let start = start(call, &served.kind, &options, &prefix).await?;
        let places = start.places(&prefix);
        let fetched = places.len();
        if fetched > STREAM_OBJECTS_MIN {
            let revision = start.snapshot.revision();
            let scan = Scan {
                snapshot: start.snapshot,
                places,
                selected: Vec::new().into_iter(),
                kind: served.kind.clone(),
                selector: options.selector,
            };
            let walk = move || -> list::Objects { Box::new(scan.clone()) };
            return list::stream(call, served, revision, fetched, Box::new(walk));
        }
    }
    let page = page(call, served, &options).await?;
    list::answer(call, served, page).await
}

/// Longer lists than this are walked while they are sent.
const STREAM_OBJECTS_MIN: usize = 512;
/// How many entries are taken from the snapshot at a time.
const SCAN_ENTRIES: usize = 64;

/// Walks a snapshot and selects. A clone walks the same from where this one is. Holds the snapshot and one handful of entries,
/// however long the list is; of those that are not selected nothing but the header is touched.
#[derive(Clone)]
struct Scan {
    snapshot: Snapshot<Stored>,
    /// What is left.
    places: Range<usize>,
    selected: std::vec::IntoIter<Arc<store::Entry<Stored>>>,
    kind: Arc<Kind>,
    selector: Selector,
}

impl Iterator for Scan {
    type Item = Result<Arc<Object>, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.selected.len() == 0 {
            self.select();
        }
        let entry = self.selected.next()?;
        Some(object_of(&entry))
    }
}

impl Scan {
    /// Takes the next handful that is selected.
    fn select(&mut self) {
        let mut selected = Vec::new();
        for entry in self.snapshot.at(self.places.clone()) {
            self.places.start += 1;
            // What cannot be read is told when it is its turn.
            let object = entry.value.object.as_ref();
            if object.is_none_or(|object| matches(&self.kind, &self.selector, object)) {
                selected.push(entry.clone());
            }
            if selected.len() == SCAN_ENTRIES {
                break;
            }
        }
        self.selected = selected.into_iter();
    }
}

/// Selects one page from a snapshot.
pub async fn page(call: &Call, served: &Served, options: &ListOptions) -> Result<Page, Status> {
    let kind = &*served.kind;
    if custom::is_converted(served) {
        return converted_page(call, served, options).await;
    }
    let prefix = kind.prefix(&options.selector.namespace);
    let start = start(call, kind, options, &prefix).await?;
    let (page, fetched) = select(kind, &start, &prefix, options)?;
    let GroupResource { group, resource } = &kind.resource;
    let reads = &call.server.metrics.reads;
    reads.listed(group, resource, fetched, page.objects.len());
    if page.next.is_some() {
        // The rest of the list has to be there when the client comes back for it.
        call.server.storage.table(kind)?.keep(&start.snapshot);
    }
    Ok(page)
}

/// One page of a custom resource in a version that is not the stored one: what fields hold is known after the conversion, so
/// with a selector by fields there is one page only.
async fn converted_page(call: &Call, served: &Served, options: &ListOptions) -> Result<Page, Status> {
    let kind = &*served.kind;
    let selector = &options.selector;
    let prefix = kind.prefix(&selector.namespace);
    let start = start(call, kind, options, &prefix).await?;
    let by_fields = !selector.fields.is_everything();
    let plain = ListOptions {
        limit: if by_fields { 0 } else { options.limit },
        selector: Selector {
            fields: FieldSelector::default(),
            ..selector.clone()
        },
        ..options.clone()
    };
    let (mut page, fetched) = select(kind, &start, &prefix, &plain)?;
    page.objects = custom::shown(&call.server, served, page.objects).await?;
    page.objects.retain(|object| matches(kind, selector, object));
    let GroupResource { group, resource } = &kind.resource;
    call.server
        .metrics
        .reads
        .listed(group, resource, fetched, page.objects.len());
    if page.next.is_some() {
        call.server.storage.table(kind)?.keep(&start.snapshot);
    }
    Ok(page)
}

/// Where a page begins.
struct Start {
    snapshot: Snapshot<Stored>,
    /// The first key.
    from: Vec<u8>,
}

impl Start {
    /// Where in the snapshot the page and what is behind it lie.
    fn places(&self, prefix: &str) -> Range<usize> {
        let mut range = KeyRange::prefix(prefix.as_bytes());
        range.lower = Bound::Included(self.from.clone().into());
        self.snapshot.places(&range)
    }
}

async fn start(call: &Call, kind: &Kind, options: &ListOptions, prefix: &str) -> Result<Start, Status> {
    let storage = &call.server.storage;
    let table = storage.table(kind)?;
    if !options.next.is_empty() {
        let token = Token::decode(&options.next)?;
        if options.resource_version.is_some_and(|version| version > 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let from = [prefix.as_bytes(), token.start.as_bytes()].concat();
        let Ok(revision) = u64::try_from(token.revision) else {
            return Ok(Start {
                snapshot: table.snapshot(),
                from,
            });
        };
        let snapshot = table.snapshot_at(revision).ok_or_else(|| expired_continue(&token))?;
        return Ok(Start { snapshot, from });
    }
    let from = prefix.as_bytes().to_vec();
    let version = options.resource_version.unwrap_or(0);
    // A limit with a version and no match means exactly that version (upstream: "legacy exact match").
    let exact = match options.version_match {
        VersionMatch::Exact => true,
        VersionMatch::Unset => version > 0 && options.limit > 0,
        VersionMatch::NotOlderThan => false,
    };
    match options.resource_version {
        None => storage.fresh().await?,
        Some(0) => {}
        Some(version) => call.wait_for(&kind.resource, version).await?,
    }
    let snapshot = match exact {
        true => table
            .snapshot_at(version)
            .ok_or_else(|| Status::expired("The resourceVersion for the provided list is too old."))?,
        false => table.snapshot(),
    };
    Ok(Start { snapshot, from })
}

/// The page, and how many objects were looked at for it.
fn select(kind: &Kind, start: &Start, prefix: &str, options: &ListOptions) -> Result<(Page, usize), Status> {
    let Start { snapshot, from } = start;
    let selector = &options.selector;
    let mut fetched = 0;
    let mut page = Page {
        objects: Vec::new(),
        revision: snapshot.revision(),
        next: None,
        remaining: None,
    };
    if let Some(name) = &selector.name
        && (!kind.row.namespaced || !selector.namespace.is_empty())
    {
        let key = kind.key(&selector.namespace, name);
        if let Some(entry) = snapshot.get(key.as_bytes()) {
            page.objects
                .extend(Some(object_of(entry)?).filter(|object| matches(kind, selector, object)));
            fetched = 1;
        }
        return Ok((page, fetched));
    }
    let everything = selector.is_everything();
    let places = start.places(prefix);
    let count = places.len();
    let mut last: &[u8] = from;
    for entry in snapshot.at(places) {
        if options.limit > 0 && page.objects.len() == options.limit {
            page.next = Some(Token::after(last, prefix, snapshot.revision()).encode());
            page.remaining = everything.then_some((count - fetched) as u64);
            break;
        }
        fetched += 1;
        last = entry.key();
        let object = entry.value.object.as_ref();
        if everything || object.is_none_or(|object| matches(kind, selector, object)) {
            page.objects.push(object_of(entry)?);
        }
    }
    Ok((page, fetched))
}

/// Whether an object is selected. Reads the header only.
pub fn matches(kind: &Kind, selector: &Selector, object: &Object) -> bool {
    let header = object.header();
    if selector.name.as_ref().is_some_and(|name| **name != *header.name) {
        return false;
    }
    if !selector.namespace.is_empty() && selector.namespace != *header.namespace {
        return false;
    }
    let field = |name: &str| match name {
        "metadata.name" => Some(&*header.name),
        "metadata.namespace" => Some(&*header.namespace),
        _ => {
            let index = kind.fields.iter().position(|(known, _)| known == name)?;
            header.fields.get(index)
        }
    };
    selector.labels.matches(|key| object.label(key)) && selector.fields.matches(field)
}

/// A continue token, in upstream's form.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    #[serde(rename = "v")]
    version: String,
    /// The snapshot's revision; -1 goes on in whatever is there now.
    #[serde(rename = "rv")]
    revision: i64,
    /// The first key of the rest, without the list's prefix.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

impl Token {
    /// The token of what follows a key.
    fn after(last: &[u8], prefix: &str, revision: u64) -> Token {
        let name = last.get(prefix.len()..).unwrap_or_default();
        let start = format!("{}\0", String::from_utf8_lossy(name));
        Token {
            version: TOKEN_VERSION.into(),
            revision: i64::try_from(revision).unwrap_or(i64::MAX),
            start,
        }
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("invariant: a token has only text keys"))
    }

    fn decode(text: &str) -> Result<Token, Status> {
        let bad = |why: &dyn std::fmt::Display| {
            Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
                bad(&format_args!("illegal base64 data at input byte {at}"))
            }
            _ => bad(&format_args!("illegal base64 data at input byte {}", text.len())),
        })?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| bad(&error))?;
        if token.version != TOKEN_VERSION {
            let why = format!("server does not recognize this encoded version {}", token.version);
            return Err(bad(&why));
        }
        if token.revision == 0 {
            return Err(bad(&"incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.is_empty() {
            return Err(bad(&"encoded start key empty (version meta.k8s.io/v1)"));
        }
        // A client must not walk out of its own prefix.
        let clean = |part: &str| !matches!(part, "" | "." | "..");
        if !token.start.trim_start_matches('/').split('/').all(clean) {
            return Err(bad(&token.start));
        }
        Ok(token)
    }
}

/// 410 with a token that reads on in what is there now.
fn expired_continue(token: &Token) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let again = Token {
        version: TOKEN_VERSION.into(),
        revision: -1,
        start: token.start.clone(),
    };
    status.metadata.insert("continue".into(), again.encode().into());
    status.details = Some(StatusDetails::default());
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_themselves_back_and_refuse_others() {
        let token = Token::after(b"/registry/pods/a/x", "/registry/pods/a/", 7);
        assert_eq!(token.start, "x\0");
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        let upstream = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTAsInN0YXJ0IjoieFx1MDAwMCJ9";
        assert_eq!(Token::decode(upstream).unwrap().revision, 10);
        for start in ["", "../secrets/a", "a/../../x", "/", "a//b"] {
            let bad = Token {
                version: TOKEN_VERSION.into(),
                revision: 1,
                start: start.into(),
            };
            assert_eq!(Token::decode(&bad.encode()).unwrap_err().code, 400, "{start}");
        }
        for text in ["!", "e30", "eyJ2IjoieCIsInJ2IjoxLCJzdGFydCI6ImEifQ"] {
            assert_eq!(Token::decode(text).unwrap_err().code, 400, "{text}");
        }
    }
}
