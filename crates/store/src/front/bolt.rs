//! A database file of bbolt (etcd's), written from its beginning to its end: pages of 4 KiB, one B+ tree a bucket.
//!
//! Source: `page.go`, `bucket.go` and `db.go` of go.etcd.io/bbolt 1.3. The sizes of all entries are known before the first
//! byte is made, so that the file can be streamed with its length told; entries are encoded when their page is.

use bytes::Bytes;

const PAGE_BYTES: usize = 4096;
const PAGE_HEADER_BYTES: usize = 16;
/// Both kinds of element: 16 bytes, then what they point to.
const ELEMENT_BYTES: usize = 16;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;
const BUCKET_FLAG: u32 = 0x01;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Two meta pages and the list of free ones.
const FIRST_PAGE: u64 = 3;
/// A bucket of less lies in its parent's page (bbolt: a quarter of a page).
const INLINE_BYTES_MAX: usize = PAGE_BYTES / 4;

/// A key with a value.
pub(super) trait Entry: Send {
    fn key(&self) -> &[u8];
    fn value_bytes(&self) -> usize;
    fn value(&self) -> Bytes;
}

impl Entry for (Vec<u8>, Vec<u8>) {
    fn key(&self) -> &[u8] {
        &self.0
    }

    fn value_bytes(&self) -> usize {
        self.1.len()
    }

    fn value(&self) -> Bytes {
        self.1.clone().into()
    }
}

/// A named tree. Its entries ascend by key.
pub(super) struct Bucket {
    name: &'static str,
    entries: Vec<Box<dyn Entry>>,
}

impl Bucket {
    pub(super) fn new(name: &'static str, entries: Vec<Box<dyn Entry>>) -> Self {
        Self { name, entries }
    }
}

/// A page (with those it overflows into) that is still to be made.
enum Page {
    Raw(Vec<u8>),
    Leaf(Vec<Box<dyn Entry>>),
}

/// A file being made: an iterator over its pages.
pub(super) struct Database {
    pages: std::vec::IntoIter<(u64, u64, Page)>,
    length: u64,
}

impl Database {
    /// The file of some buckets.
    pub(super) fn new(mut buckets: Vec<Bucket>) -> Self {
        buckets.sort_by_key(|bucket| bucket.name);
        let mut layout = Layout {
            pages: Vec::new(),
            next: FIRST_PAGE,
        };
        let mut names: Vec<Box<dyn Entry>> = Vec::new();
        for bucket in buckets {
            let value = layout.bucket(bucket.entries);
            names.push(Box::new((bucket.name.as_bytes().to_vec(), value)));
        }
        let (root, span) = (layout.next, 1);
        let bytes = leaf(root, span, &names, BUCKET_FLAG);
        layout.push(span, Page::Raw(bytes));
        let high_water = layout.next;
        let mut pages: Vec<(u64, u64, Page)> = (0..2)
            .map(|id| (id, 1, Page::Raw(meta(id, root, high_water))))
            .collect();
        pages.push((2, 1, Page::Raw(page(2, FREELIST, 0, 1, PAGE_BYTES))));
        pages.extend(layout.pages);
        Self {
            pages: pages.into_iter(),
            length: high_water * PAGE_BYTES as u64,
        }
    }

    /// Bytes of the whole file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

impl Iterator for Database {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let (id, span, page) = self.pages.next()?;
        Some(match page {
            Page::Raw(bytes) => bytes,
            Page::Leaf(entries) => leaf(id, span, &entries, 0),
        })
    }
}

struct Layout {
    pages: Vec<(u64, u64, Page)>,
    next: u64,
}

impl Layout {
    fn push(&mut self, span: u64, page: Page) -> u64 {
        let id = self.next;
        self.pages.push((id, span, page));
        self.next += span;
        id
    }

    /// Lays a tree out; the value by which its parent names it.
    fn bucket(&mut self, entries: Vec<Box<dyn Entry>>) -> Vec<u8> {
        let total: usize = PAGE_HEADER_BYTES + entries.iter().map(|entry| cost(&**entry)).sum::<usize>();
        if total <= INLINE_BYTES_MAX {
            // Root 0 says that the bucket's only page follows.
            let mut value = vec![0; 16];
            let mut inline = leaf(0, 1, &entries, 0);
            inline.truncate(total);
            value.extend_from_slice(&inline);
            return value;
        }
        let mut level = self.leaves(entries);
        while level.len() > 1 {
            level = self.branches(&level);
        }
        let root = level.first().map_or(0, |(_, id)| *id);
        [root.to_le_bytes(), 0_u64.to_le_bytes()].concat()
    }

    /// The lowest level: the first key of each page and the page.
    fn leaves(&mut self, entries: Vec<Box<dyn Entry>>) -> Vec<(Vec<u8>, u64)> {
        let mut level = Vec::new();
        let mut entries = entries.into_iter().peekable();
        while let Some(first) = entries.next() {
            let key = first.key().to_vec();
            let mut bytes = PAGE_HEADER_BYTES + cost(&*first);
            let mut page = vec![first];
            while let Some(entry) = entries.next_if(|entry| bytes + cost(&**entry) <= PAGE_BYTES) {
                bytes += cost(&*entry);
                page.push(entry);
            }
            let id = self.push(bytes.div_ceil(PAGE_BYTES) as u64, Page::Leaf(page));
            level.push((key, id));
        }
        level
    }

    fn branches(&mut self, below: &[(Vec<u8>, u64)]) -> Vec<(Vec<u8>, u64)> {
        let mut level = Vec::new();
        let mut rest = below;
        while let Some((first, _)) = rest.first() {
            let (mut bytes, mut count) = (PAGE_HEADER_BYTES, 0);
            while let Some((key, _)) = rest.get(count)
                && bytes + ELEMENT_BYTES + key.len() <= PAGE_BYTES
            {
                bytes += ELEMENT_BYTES + key.len();
                count += 1;
            }
            let (children, others) = rest.split_at(count);
            let page = branch(self.next, children);
            level.push((first.clone(), self.push(1, Page::Raw(page))));
            rest = others;
        }
        level
    }
}

fn cost(entry: &dyn Entry) -> usize {
    ELEMENT_BYTES + entry.key().len() + entry.value_bytes()
}

/// A page with its header and nothing else.
fn page(id: u64, flags: u16, count: usize, span: u64, bytes: usize) -> Vec<u8> {
    let mut page = vec![0; bytes];
    page[..8].copy_from_slice(&id.to_le_bytes());
    page[8..10].copy_from_slice(&flags.to_le_bytes());
    page[10..12].copy_from_slice(&(count as u16).to_le_bytes());
    page[12..16].copy_from_slice(&(span as u32 - 1).to_le_bytes());
    page
}

fn leaf(id: u64, span: u64, entries: &[Box<dyn Entry>], flags: u32) -> Vec<u8> {
    let mut page = page(id, LEAF, entries.len(), span, span as usize * PAGE_BYTES);
    let mut at = PAGE_HEADER_BYTES + entries.len() * ELEMENT_BYTES;
    for (index, entry) in entries.iter().enumerate() {
        let element = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
        let (key, value) = (entry.key(), entry.value());
        // A place is told from the element on.
        let fields = [flags, (at - element) as u32, key.len() as u32, value.len() as u32];
        for (number, field) in fields.into_iter().enumerate() {
            page[element + number * 4..][..4].copy_from_slice(&field.to_le_bytes());
        }
        page[at..][..key.len()].copy_from_slice(key);
        at += key.len();
        page[at..][..value.len()].copy_from_slice(&value);
        at += value.len();
    }
    page
}

fn branch(id: u64, children: &[(Vec<u8>, u64)]) -> Vec<u8> {
    let mut page = page(id, BRANCH, children.len(), 1, PAGE_BYTES);
    let mut at = PAGE_HEADER_BYTES + children.len() * ELEMENT_BYTES;
    for (index, (key, child)) in children.iter().enumerate() {
        let element = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
        page[element..][..4].copy_from_slice(&((at - element) as u32).to_le_bytes());
        page[element + 4..][..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
        page[element + 8..][..8].copy_from_slice(&child.to_le_bytes());
        page[at..][..key.len()].copy_from_slice(key);
        at += key.len();
    }
    page
}

/// One of the two pages that say where everything is; the one with the higher transaction counts.
fn meta(id: u64, root: u64, high_water: u64) -> Vec<u8> {
    let mut page = page(id, META, 0, 1, PAGE_BYTES);
    let mut meta = Vec::new();
    for number in [MAGIC, VERSION, PAGE_BYTES as u32, 0] {
        meta.extend_from_slice(&number.to_le_bytes());
    }
    // The root bucket and its sequence, the list of free pages, the first page that was never used, the transaction.
    for number in [root, 0, 2, high_water, id] {
        meta.extend_from_slice(&number.to_le_bytes());
    }
    let sum = fnv1a(&meta);
    meta.extend_from_slice(&sum.to_le_bytes());
    page[PAGE_HEADER_BYTES..][..meta.len()].copy_from_slice(&meta);
    page
}

fn fnv1a(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}
