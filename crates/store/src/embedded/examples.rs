//! The examples in the two `FORMAT.md` and the program say the same: each is decoded, and encoded again.
//!
//! They were made from the text, by another program, so that text and program check each other. The bytes of version 1 are
//! for good: whoever changes one of them changes the version.

use std::sync::Arc;

use super::format::{self, FileKind, Grid, Header, LogRecord, SnapshotFrame, Writer};
use super::marks;
use super::reuse::{Content, Reuse};
use crate::engine::Record;
use crate::transaction::{Operation, Put, Stamp};

const STORE: [u8; 16] = [7; 16];
const SEALED: Stamp = Stamp {
    sealing_key: 3,
    schema_epoch: 1,
};
const EXPIRES_AT_MS: Option<i64> = Some(1_700_000_060_000);
pub(super) const TIME_MS: i64 = 1_700_000_000_000;

/// The bytes of an example: what stands left of two spaces in the block of this name.
pub(super) fn example(document: &str, name: &str) -> Vec<u8> {
    let (_, after) = document
        .split_once(&format!("```text {name}\n"))
        .unwrap_or_else(|| panic!("no example {name}"));
    let (block, _) = after.split_once("```").unwrap();
    let bytes = block.lines().flat_map(|line| {
        let (bytes, _) = line.split_once("  ").unwrap_or((line, ""));
        bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap())
    });
    bytes.collect()
}

fn of_store(name: &str) -> Vec<u8> {
    example(include_str!("FORMAT.md"), name)
}

fn header(kind: FileKind, number: u64, base: u64) -> Header {
    Header {
        kind,
        store: STORE,
        number,
        base,
        revision_offset: 1000,
        writer: Writer::of("0.1.0"),
        grid: (kind == FileKind::Segment).then(|| Grid::of(65_536)),
        reused: false,
    }
}

/// The key `s1`, as users see its revisions.
pub(super) fn sealed() -> Record {
    Record {
        key: "s1".into(),
        value: vec![0xaa, 0xbb, 0xcc].into(),
        create_revision: 1007,
        mod_revision: 1042,
        version: 5,
        stamp: SEALED,
        expires_at_ms: EXPIRES_AT_MS,
    }
}

fn record() -> LogRecord {
    let plain = Put {
        key: "k".into(),
        value: "v".into(),
        expires_at_ms: None,
        stamp: Stamp {
            sealing_key: 0,
            schema_epoch: 1,
        },
    };
    let sealed = sealed();
    let sealed = Put {
        key: sealed.key,
        value: sealed.value,
        expires_at_ms: sealed.expires_at_ms,
        stamp: sealed.stamp,
    };
    LogRecord {
        revision: 42,
        batch_start: 64,
        time_ms: TIME_MS,
        operations: vec![
            Operation::Put(plain),
            Operation::Put(sealed),
            Operation::Delete("d".into()),
        ],
    }
}

#[test]
fn a_segment_is_as_its_example() {
    let bytes = of_store("segment header");
    let expect = header(FileKind::Segment, 3, 41);
    let (found, seed) = Header::decode(FileKind::Segment, &bytes).unwrap();
    assert_eq!(found, expect);
    assert_eq!(expect.encode().0[..], bytes);

    let bytes = of_store("record");
    assert_eq!(format::decode_record(&bytes, 0, seed), Ok((record(), bytes.len())));
    let mut encoded = Vec::new();
    record().encode(seed, &mut encoded);
    assert_eq!(encoded, bytes);
}

#[test]
fn a_file_that_is_used_again_is_as_its_example() {
    let bytes = of_store("segment header, file used again");
    let expect = Header {
        grid: Some(Grid::of(512)),
        reused: true,
        ..header(FileKind::Segment, 3, 41)
    };
    let (found, seed) = Header::decode(FileKind::Segment, &bytes).unwrap();
    assert_eq!(found, expect);
    assert_eq!(expect.encode().0[..], bytes);

    let endings = [[1, 2, 3, 4], [5, 6, 7, 8], [Grid::FILL; 4]];
    let (reuse, encoded) = Reuse::begin(&bytes, seed, &endings);
    let begin = [bytes, of_store("note")].concat();
    assert_eq!(encoded, begin);
    assert_eq!(reuse.start(), begin.len() as u64);
    // Zeros become the tags.
    let mut file = vec![0; 1536];
    reuse.tag(0, &mut file);
    assert_eq!(
        [
            file[508..512].to_vec(),
            file[1020..1024].to_vec(),
            file[1532..].to_vec()
        ]
        .concat(),
        { [vec![0; 4], of_store("tags")].concat() }
    );
    assert_eq!(file.iter().filter(|byte| **byte != 0).count(), 8);

    let mut file = begin;
    file.resize(1536, 9);
    let content = Content::read(file, true, seed).unwrap();
    assert_eq!(content.start() as u64, reuse.start());
}

#[test]
fn a_snapshot_is_as_its_example() {
    let bytes = of_store("snapshot header");
    let expect = header(FileKind::Snapshot, 42, 0);
    let (found, seed) = Header::decode(FileKind::Snapshot, &bytes).unwrap();
    assert_eq!(found, expect);
    assert_eq!(expect.encode().0[..], bytes);

    let frames = [of_store("block"), of_store("end")].concat();
    let (payload, next_seed, next) = format::frame_at(&frames, 0, seed).unwrap();
    assert!(matches!(format::decode_snapshot(payload, 1000), Some(SnapshotFrame::Block(found)) if found == [sealed()]));
    let (payload, _, end) = format::frame_at(&frames, next, next_seed).unwrap();
    assert!(matches!(
        format::decode_snapshot(payload, 1000),
        Some(SnapshotFrame::End(1))
    ));
    assert_eq!(end, frames.len());
    let mut encoded = Vec::new();
    let next_seed = format::encode_block(&[Arc::new(sealed())], 1000, seed, &mut encoded);
    format::encode_end(1, next_seed, &mut encoded);
    assert_eq!(encoded, frames);
}

#[test]
fn a_mark_is_as_its_example() {
    let bytes = of_store("mark");
    let expect = marks::Read {
        marks: 1,
        newest: 42,
        rotten: false,
    };
    assert_eq!(marks::decode_all(&bytes, STORE), expect);
    assert_eq!(marks::encode(STORE, 42)[..], bytes);
}
