//! Lists, encoded while they are walked and sent: a list takes no more memory than a chunk, however long it is.
//!
//! In protobuf the length of the whole stands before it. A short list is made as a whole; a long one is walked twice, once
//! for the lengths, and each object remembers its own ([`Item::message_len`]).

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;

use api::codec::protobuf;
use api::schema::SchemaRef;
use api::{Map, Status, Value};
use client::Body;

use crate::call::Call;
use crate::cluster::Object;
use crate::registry::Served;
use crate::server::Server;

use super::item::Item;
use super::negotiate::{Form, Media};
use super::table::{IncludeObject, TableWriter};
use super::{body, encode_failed, not_acceptable, sized, tree};

/// How much of a list is encoded at a time: two of them, with what HTTP puts around them, are what TLS takes at once.
const CHUNK_BYTES: usize = 32 * 1024 - 64;
/// What stands in front of the items of a short list, about.
const HEAD_BYTES: usize = 256;
/// A page whose objects are smaller than this in JSON is made as a whole in protobuf: making it twice would cost more than
/// the memory.
const WHOLE_MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// What a Table takes of memory for a byte of its objects: their metadata as trees, the cells, and the text. Taken high.
const TABLE_BYTES_A_BYTE: usize = 3;
/// What a list as a tree takes for a byte of its objects: names, values and nodes on their own, and the text.
const TREE_BYTES_A_BYTE: usize = 10;
/// After how many objects whose lengths are taken other requests get their turn.
const MEASURED_AT_ONCE: usize = 64;

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

/// The objects of a list in their order.
pub type Objects = Box<dyn Iterator<Item = Result<Arc<Object>, Status>> + Send>;

/// Begins a walk over the objects of a list; each walk sees the same.
pub type Walk = Box<dyn Fn() -> Objects + Send>;

/// Whether a list can be encoded while it is walked: Tables, YAML and indented answers are made as a whole.
pub fn can_stream(call: &Call) -> bool {
    let output = &call.output;
    let whole = output.media == Media::Yaml || (output.pretty && output.media == Media::Json);
    matches!(output.form, Form::Plain | Form::PartialList(_)) && !whole
}

/// A whole list as an answer, walked and encoded while it is sent. Only when [`can_stream`]. It goes through `fetched`
/// objects.
pub fn stream(
    call: &Call,
    served: &Arc<Served>,
    revision: u64,
    fetched: usize,
    walk: Walk,
) -> Result<Response<Body>, Status> {
    let head = Page {
        objects: Vec::new(),
        revision,
        next: None,
        remaining: None,
    };
    let mut writer = Writer::new(call, served, &head, walk)?;
    writer.counted = Some((call.server.clone(), fetched));
    Ok(writer.stream(call, body::GZIP_THRESHOLD_BYTES + 1))
}

/// One page of a list as an answer, encoded while it is sent.
pub async fn answer(call: &Call, served: &Arc<Served>, page: Page) -> Result<Response<Body>, Status> {
    let size: usize = page.objects.iter().map(|object| object.json_len()).sum();
    let whole_budget = &call.server.whole_answers;
    if let Form::Table(version) = call.output.form {
        let part = whole_budget.admit(size * TABLE_BYTES_A_BYTE)?;
        return Ok(part.with(table(call, served, version, &page)?));
    }
    if !can_stream(call) {
        let part = whole_budget.admit(size * TREE_BYTES_A_BYTE)?;
        return Ok(part.with(whole(call, served, &page)?));
    }
    let objects = page.objects.clone();
    let walk: Walk = Box::new(move || Box::new(objects.clone().into_iter().map(Ok)));
    let mut writer = Writer::new(call, served, &page, walk)?;
    if size <= WHOLE_MESSAGE_BYTES_MAX && writer.media == Media::Protobuf {
        return Ok(sized(call, writer.message()?, 200));
    }
    if size <= CHUNK_BYTES {
        return Ok(sized(
            call,
            writer
                .chunk(usize::MAX, BytesMut::with_capacity(size + HEAD_BYTES))
                .await?,
            200,
        ));
    }
    Ok(writer.stream(call, size))
}

/// How the items of a list and the list are called.
fn shape(call: &Call, served: &Served) -> Result<(Item, String, String), Status> {
    match call.output.form {
        Form::Partial(_) => Err(not_acceptable(
            "you requested PartialObjectMetadata, but the requested object is a list",
        )),
        form => {
            let item = match Item::of(form) {
                Some(Item::Object) | None if SchemaRef::builtin(&served.gvk).is_some() => Item::Listed,
                item => item.unwrap_or(Item::Object),
            };
            let (api_version, kind) = item.types(served);
            let own = served.version().custom.as_ref().filter(|_| item == Item::Object);
            let list = own.map_or_else(|| format!("{kind}List"), |custom| custom.list_kind.clone());
            Ok((item, api_version, list))
        }
    }
}

struct Writer {
    served: Arc<Served>,
    media: Media,
    item: Item,
    api_version: String,
    kind: String,
    metadata: Map,
    walk: Walk,
    /// What is left; `None` before the head is written.
    objects: Option<Objects>,
    /// What had no place in the last chunk.
    next: Option<Arc<Object>>,
    /// How many items were written.
    written: usize,
    /// Where the list is counted when all of it was walked, and how many objects it goes through.
    counted: Option<(Arc<Server>, usize)>,
    done: bool,
}

impl Writer {
    fn new(call: &Call, served: &Arc<Served>, page: &Page, walk: Walk) -> Result<Writer, Status> {
        let (item, api_version, kind) = shape(call, served)?;
        Ok(Writer {
            served: served.clone(),
            media: call.output.media,
            item,
            api_version,
            kind,
            metadata: page.metadata(),
            walk,
            objects: None,
            next: None,
            written: 0,
            counted: None,
            done: false,
        })
    }

    /// The answer, in chunks. An object that cannot be read breaks it off.
    fn stream(self, call: &Call, size: usize) -> Response<Body> {
        let media_type = self.media.as_str();
        let chunks = futures::stream::unfold(self, |mut writer| async move {
            if writer.done {
                return None;
            }
            let out = BytesMut::with_capacity(CHUNK_BYTES);
            let chunk = writer.chunk(CHUNK_BYTES, out).await.map_err(|status| {
                writer.done = true;
                client::TransportError::Lost(status.message)
            });
            Some((chunk, writer))
        });
        body::compressed(&call.headers, size, body::streaming(media_type, chunks))
    }

    /// Encodes into `out` what has a place in `enough` bytes, one object at least, or to the end.
    async fn chunk(&mut self, enough: usize, mut out: BytesMut) -> Result<Bytes, Status> {
        let mut objects = match self.objects.take() {
            Some(objects) => objects,
            None => {
                self.head(&mut out).await?;
                (self.walk)()
            }
        };
        while out.len() < enough {
            let next = self.next.take().map(Ok).or_else(|| objects.next());
            let Some(object) = next.transpose()? else {
                self.done = true;
                if let Some((server, fetched)) = self.counted.take() {
                    let api::GroupResource { group, resource } = &self.served.kind.resource;
                    server.metrics.reads.listed(group, resource, fetched, self.written);
                }
                out.put_slice(match self.media {
                    Media::Protobuf => &protobuf::ENVELOPE_END,
                    _ => b"]}\n",
                });
                break;
            };
            // In JSON it is known whether the memory would have to grow.
            if !out.is_empty() && out.len() + object.json_len() > enough && self.media == Media::Json {
                self.next = Some(object);
                break;
            }
            self.write(&object, &mut out)?;
        }
        self.objects = Some(objects);
        Ok(out.freeze())
    }

    async fn head(&mut self, out: &mut BytesMut) -> Result<(), Status> {
        if self.media == Media::Protobuf {
            let metadata = self.metadata_message()?;
            let len = metadata.len() + self.measure().await?;
            out.put_slice(&protobuf::envelope_start(&self.api_version, &self.kind, len));
            out.put_slice(&metadata);
            return Ok(());
        }
        out.put_slice(br#"{"kind":""#);
        out.put_slice(self.kind.as_bytes());
        out.put_slice(br#"","apiVersion":""#);
        out.put_slice(self.api_version.as_bytes());
        out.put_slice(br#"","metadata":"#);
        out.put_slice(&body::encode(&Value::Object(self.metadata.clone())));
        out.put_slice(br#","items":["#);
        Ok(())
    }

    fn metadata_message(&self) -> Result<Vec<u8>, Status> {
        protobuf::list_metadata(&Value::Object(self.metadata.clone())).map_err(encode_failed)
    }

    /// How long all items are together.
    async fn measure(&mut self) -> Result<usize, Status> {
        let mut len = 0;
        for (count, object) in (self.walk)().enumerate() {
            let object = object?;
            len += protobuf::item_len(self.item.message_len(&self.served, &object)?);
            if count % MEASURED_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(len)
    }

    /// The whole list as one message in its envelope.
    fn message(&mut self) -> Result<Vec<u8>, Status> {
        let mut message = self.metadata_message()?;
        for object in (self.walk)() {
            let object = object?;
            let item = self.item.message(&self.served, &object, object.revision())?;
            protobuf::item(&mut message, &item);
        }
        Ok(protobuf::enveloped(&self.api_version, &self.kind, &message))
    }

    fn write(&mut self, object: &Object, out: &mut BytesMut) -> Result<(), Status> {
        let revision = object.revision();
        self.written += 1;
        if self.media == Media::Protobuf {
            let message = self.item.message(&self.served, object, revision)?;
            let mut item = Vec::with_capacity(protobuf::item_len(message.len()));
            protobuf::item(&mut item, &message);
            out.put_slice(&item);
            return Ok(());
        }
        if self.written > 1 {
            out.put_u8(b',');
        }
        self.item.write_json(&self.served, object, revision, out)
    }
}

/// A list as a tree: for people, and in YAML.
fn whole(call: &Call, served: &Served, page: &Page) -> Result<Response<Body>, Status> {
    let (item, api_version, kind) = shape(call, served)?;
    let items: Result<Vec<Value>, Status> = page
        .objects
        .iter()
        .map(|object| item.value(served, object, object.revision()))
        .collect();
    let list = serde_json::json!({
        "kind": kind, "apiVersion": api_version, "metadata": page.metadata(), "items": items?,
    });
    Ok(tree(call, &list, 200))
}

fn table(call: &Call, served: &Served, version: &'static str, page: &Page) -> Result<Response<Body>, Status> {
    let include = IncludeObject::parse(&call.query)?;
    let writer = TableWriter::new(served, include, version, call.now_seconds());
    let objects = page.objects.iter().map(|object| (&**object, object.revision()));
    let table = writer.table(objects, page.metadata(), true)?;
    Ok(tree(call, &table, 200))
}
