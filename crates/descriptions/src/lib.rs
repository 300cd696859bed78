//! What upstream says of every API type and field, for OpenAPI and `kubectl explain`.
//!
//! The texts are 1 MB and needed for moments when a document is made, so they stay compressed in the executable, in blocks of
//! neighbours: a document of one group unpacks few of them, and [`Descriptions`] holds these only as long as it lives.
//!
//! **Architecture invariant**: a leaf. It knows no type of ours; names and texts are all there is.

use std::cell::OnceCell;
use std::io::Read as _;

static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.deflate"));

/// The first key of each block, and where it begins and ends among the compressed bytes.
static BLOCKS: &[(&str, usize, usize)] = include!(concat!(env!("OUT_DIR"), "/blocks.rs"));

/// The descriptions, and those blocks of them that were asked for.
pub struct Descriptions {
    /// One for each of [`BLOCKS`].
    blocks: Vec<OnceCell<Block>>,
}

struct Block {
    /// Lines `type<TAB>text` and `type/field<TAB>text`, sorted by bytes.
    text: String,
    /// Where each line begins.
    lines: Vec<u32>,
}

impl Descriptions {
    /// With nothing unpacked.
    pub fn new() -> Descriptions {
        Descriptions {
            blocks: BLOCKS.iter().map(|_| OnceCell::new()).collect(),
        }
    }

    /// The description of a type (empty `field`) or of one of its fields. Types are named as OpenAPI does, with or
    /// without `io.k8s.`: `api.core.v1.Pod`.
    pub fn get(&self, ty: &str, field: &str) -> Option<String> {
        let ty = ty.strip_prefix("io.k8s.").unwrap_or(ty);
        let key = if field.is_empty() {
            ty.to_string()
        } else {
            format!("{ty}/{field}")
        };
        let behind = BLOCKS.partition_point(|(first, ..)| *first <= &*key);
        let place = behind.checked_sub(1)?;
        self.blocks[place].get_or_init(|| Block::unpack(place)).get(&key)
    }
}

impl Default for Descriptions {
    fn default() -> Descriptions {
        Descriptions::new()
    }
}

impl Block {
    fn unpack(place: usize) -> Block {
        let (_, begin, end) = BLOCKS[place];
        let mut text = String::new();
        flate2::read::DeflateDecoder::new(&COMPRESSED[begin..end])
            .read_to_string(&mut text)
            .expect("invariant: the build script compressed this text");
        let mut at = 0;
        let mut lines = Vec::new();
        for line in text.split_inclusive('\n') {
            lines.push(at);
            at += line.len() as u32;
        }
        Block { text, lines }
    }

    fn get(&self, key: &str) -> Option<String> {
        let key_of = |start: u32| {
            let line = &self.text[start as usize..];
            line.split('\t').next().unwrap_or("")
        };
        let found = self.lines.binary_search_by(|start| key_of(*start).cmp(key)).ok()?;
        let line = self.text[self.lines[found] as usize..].lines().next()?;
        let (_, escaped) = line.split_once('\t')?;
        Some(unescape(escaped))
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            }),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_are_described() {
        let all = Descriptions::new();
        for (ty, field, expect) in [
            ("api.core.v1.Pod", "", Some("Pod is a collection of containers")),
            (
                "io.k8s.api.core.v1.ContainerPort",
                "protocol",
                Some("Protocol for port. Must be UDP, TCP, or SCTP. Defaults to \"TCP\"."),
            ),
            ("api.core.v1.Pod", "metadata", Some("Standard object's metadata.")),
            (
                "apimachinery.pkg.apis.meta.v1.ObjectMeta",
                "labels",
                Some("Map of string keys and values"),
            ),
            (
                "apimachinery.pkg.api.resource.Quantity",
                "",
                Some("Quantity is a fixed-point"),
            ),
            ("api.core.v1.Pod", "nothing", None),
        ] {
            let got = all.get(ty, field);
            match expect {
                Some(expect) => assert!(
                    got.as_deref().is_some_and(|text| text.starts_with(expect)),
                    "{ty} {field}: {got:?}"
                ),
                None => assert_eq!(got, None),
            }
        }
        // Paragraphs survive.
        let quantity = all.get("apimachinery.pkg.api.resource.Quantity", "").unwrap();
        assert!(quantity.contains("\n\n") && !quantity.contains("\\n"));
    }

    #[test]
    fn only_what_is_asked_for_is_unpacked() {
        let all = Descriptions::new();
        let unpacked = |all: &Descriptions| all.blocks.iter().filter(|block| block.get().is_some()).count();
        assert!(all.get("api.core.v1.Pod", "").is_some() && all.get("api.core.v1.Pod", "").is_some());
        assert_eq!(unpacked(&all), 1);
        // What would stand before the first block, or behind the last line of one, is in none.
        assert_eq!((all.get("", ""), all.get("zzz", "")), (None, None));
        for (first, ..) in BLOCKS {
            let (ty, field) = first.split_once('/').unwrap_or((first, ""));
            assert!(all.get(ty, field).is_some(), "{first}");
        }
        assert_eq!(unpacked(&all), BLOCKS.len());
    }
}
