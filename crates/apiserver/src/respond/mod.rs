//! Answers: objects and lists in the negotiated shape, and the HTTP around them.

pub mod body;
pub mod negotiate;
pub mod table;
pub mod view;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;

use api::{Map, Status, Value};
use client::Body;

use crate::call::Call;
use crate::cluster::Object;
use crate::registry::Served;

use negotiate::Form;
use table::{IncludeObject, TableWriter};

/// How much of a list is encoded at a time: large enough to be cheap, small against a connection's buffers.
const LIST_CHUNK_BYTES: usize = 64 * 1024;

/// One object as an answer.
pub fn object(call: &Call, served: &Served, object: &Object, code: u16) -> Result<Response<Body>, Status> {
    let revision = object.revision();
    let mut out = BytesMut::with_capacity(object.json_len());
    match call.output.form {
        Form::Plain => view::write(served, object, revision, &mut out)?,
        Form::Partial(version) => table::write_partial(object, revision, version, &mut out),
        Form::Table(version) => {
            let include = IncludeObject::parse(&call.query)?;
            let writer = TableWriter::new(served, include, version, call.now_seconds());
            let mut metadata = Map::new();
            metadata.insert("resourceVersion".into(), revision.to_string().into());
            let table = writer.table(std::iter::once((object, revision)), metadata, true)?;
            return Ok(sized(call, body::encode(&table, call.output.pretty), code));
        }
        Form::PartialList(_) => {
            return Err(not_acceptable(
                "you requested PartialObjectMetadataList, but the requested object is not a list",
            ));
        }
    }
    Ok(sized(call, prettified(out.freeze(), call.output.pretty), code))
}

/// A tree that is no stored object (a Scale, a review, a dry run's result) as an answer.
pub fn tree(call: &Call, value: &Value, code: u16) -> Response<Body> {
    sized(call, body::encode(value, call.output.pretty), code)
}

/// A status as a successful answer.
pub fn success(call: &Call, status: &Status) -> Response<Body> {
    let code = if status.code == 0 { 200 } else { status.code };
    sized(call, prettified(status.to_json().into(), call.output.pretty), code)
}

fn sized(call: &Call, bytes: impl Into<Bytes>, code: u16) -> Response<Body> {
    let bytes = bytes.into();
    let size = bytes.len();
    body::compressed(&call.headers, size, body::json(code, bytes))
}

fn prettified(bytes: Bytes, pretty: bool) -> Bytes {
    if !pretty {
        return bytes;
    }
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) => body::encode(&value, true).into(),
        Err(_) => bytes,
    }
}

fn not_acceptable(message: &str) -> Status {
    Status::failure(api::Reason::NotAcceptable, message)
}

/// One page of a list.
pub struct Page {
    /// The objects, already selected. Sharing them keeps the page's snapshot consistent while it is sent.
    pub objects: Vec<Arc<Object>>,
    /// The revision of the snapshot.
    pub revision: u64,
    /// The token for the next page.
    pub next: Option<String>,
    /// How many objects follow, when that is known.
    pub remaining: Option<u64>,
}

impl Page {
    /// The list's metadata.
    pub fn metadata(&self) -> Map {
        let mut metadata = Map::new();
        if let Some(next) = &self.next {
            metadata.insert("continue".into(), next.clone().into());
        }
        if let Some(remaining) = self.remaining {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
        metadata.insert("resourceVersion".into(), self.revision.to_string().into());
        metadata
    }
}

/// Where the objects of a long list come from.
pub type Objects = Box<dyn Iterator<Item = Result<Arc<Object>, Status>> + Send>;

/// Whether a list can be encoded while it is walked: Tables and indented answers are made as a whole.
pub fn can_stream(call: &Call) -> bool {
    matches!(call.output.form, Form::Plain | Form::PartialList(_)) && !call.output.pretty
}

/// A whole list as an answer, walked and encoded while it is sent: it takes no more memory than a chunk. Only when
/// [`can_stream`].
pub fn stream(call: &Call, served: &Arc<Served>, revision: u64, objects: Objects) -> Result<Response<Body>, Status> {
    let shape = Shape::of(call, served)?;
    let page = Page {
        objects: Vec::new(),
        revision,
        next: None,
        remaining: None,
    };
    let state = ListState::new(served, &shape, &page, objects);
    let answer = body::streaming("application/json", state.chunks());
    Ok(body::compressed(&call.headers, body::GZIP_THRESHOLD_BYTES, answer))
}

/// One page of a list as an answer, encoded while it is sent.
pub fn list(call: &Call, served: &Arc<Served>, page: Page) -> Result<Response<Body>, Status> {
    if let Form::Table(version) = call.output.form {
        return table_list(call, served, version, &page);
    }
    let shape = Shape::of(call, served)?;
    if call.output.pretty {
        return pretty_list(call, served, &page, &shape);
    }
    let size: usize = page.objects.iter().map(|object| object.json_len()).sum();
    let objects = page.objects.clone().into_iter().map(Ok);
    let mut state = ListState::new(served, &shape, &page, Box::new(objects));
    if size <= LIST_CHUNK_BYTES {
        let bytes = state.chunk(usize::MAX)?;
        return Ok(sized(call, bytes, 200));
    }
    let answer = body::streaming("application/json", state.chunks());
    Ok(body::compressed(&call.headers, size, answer))
}

/// How a list and its items are called.
struct Shape {
    api_version: String,
    kind: String,
    item: Item,
}

impl Shape {
    fn of(call: &Call, served: &Served) -> Result<Shape, Status> {
        match call.output.form {
            Form::PartialList(version) => Ok(Shape {
                api_version: format!("meta.k8s.io/{version}"),
                kind: "PartialObjectMetadataList".into(),
                item: Item::Partial(version),
            }),
            Form::Partial(_) => {
                let why = "you requested PartialObjectMetadata, but the requested object is a list";
                Err(not_acceptable(why))
            }
            Form::Plain | Form::Table(_) => Ok(Shape {
                api_version: served.gvk.api_version(),
                kind: format!("{}List", served.gvk.kind),
                item: Item::Object,
            }),
        }
    }
}

#[derive(Clone, Copy)]
enum Item {
    Object,
    Partial(&'static str),
}

struct ListState {
    served: Arc<Served>,
    objects: Objects,
    item: Item,
    /// What is encoded and not sent; holds the list's head at the start.
    out: BytesMut,
    done: bool,
}

impl ListState {
    fn new(served: &Arc<Served>, shape: &Shape, page: &Page, objects: Objects) -> ListState {
        let mut out = BytesMut::new();
        out.put_slice(br#"{"kind":""#);
        out.put_slice(shape.kind.as_bytes());
        out.put_slice(br#"","apiVersion":""#);
        out.put_slice(shape.api_version.as_bytes());
        out.put_slice(br#"","metadata":"#);
        out.put_slice(&body::encode(&Value::Object(page.metadata()), false));
        out.put_slice(br#","items":["#);
        ListState {
            served: served.clone(),
            objects,
            item: shape.item,
            out,
            done: false,
        }
    }

    /// All that is left, in chunks. An object that cannot be read breaks the answer off.
    fn chunks(self) -> impl futures::Stream<Item = Result<Bytes, client::TransportError>> + Send {
        futures::stream::unfold(self, |mut state| async move {
            if state.done {
                return None;
            }
            let chunk = state.chunk(LIST_CHUNK_BYTES).map_err(|status| {
                state.done = true;
                client::TransportError::Lost(status.message)
            });
            Some((chunk, state))
        })
    }

    /// Encodes at least `enough` bytes, or to the end.
    fn chunk(&mut self, enough: usize) -> Result<Bytes, Status> {
        while self.out.len() < enough {
            let Some(object) = self.objects.next().transpose()? else {
                self.out.put_slice(b"]}");
                self.done = true;
                break;
            };
            if !self.out.ends_with(br#""items":["#) {
                self.out.put_u8(b',');
            }
            match self.item {
                Item::Object => view::write(&self.served, &object, object.revision(), &mut self.out)?,
                Item::Partial(version) => table::write_partial(&object, object.revision(), version, &mut self.out),
            }
        }
        Ok(self.out.split().freeze())
    }
}

fn pretty_list(call: &Call, served: &Served, page: &Page, shape: &Shape) -> Result<Response<Body>, Status> {
    let items: Result<Vec<Value>, Status> = page
        .objects
        .iter()
        .map(|object| match shape.item {
            Item::Object => view::value(served, object, object.revision()),
            Item::Partial(version) => {
                let mut out = BytesMut::new();
                table::write_partial(object, object.revision(), version, &mut out);
                serde_json::from_slice(&out).map_err(Status::internal)
            }
        })
        .collect();
    let list = serde_json::json!({
        "kind": shape.kind, "apiVersion": shape.api_version, "metadata": page.metadata(), "items": items?,
    });
    Ok(tree(call, &list, 200))
}

fn table_list(call: &Call, served: &Served, version: &'static str, page: &Page) -> Result<Response<Body>, Status> {
    let include = IncludeObject::parse(&call.query)?;
    let writer = TableWriter::new(served, include, version, call.now_seconds());
    let objects = page.objects.iter().map(|object| (&**object, object.revision()));
    let table = writer.table(objects, page.metadata(), true)?;
    Ok(tree(call, &table, 200))
}
