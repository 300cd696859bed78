//! What a fuzzer needs of the files' readers: good files made from nothing, and readers that say what they found.
//!
//! A checksum keeps nearly every spoiled input from what lies behind it. So each reader takes an input twice: as it is, and
//! with its checksums made right.

use std::sync::Arc;

use base::Random;
use bytes::Bytes;

use super::format::{
    FRAME_BYTES, FileKind, Grid, HEADER_BYTES, Header, LogRecord, REUSED_FLAG, SECTOR_BYTES, SnapshotFrame, Writer,
    checksum, decode_record, decode_snapshot, encode_block, encode_end, frame_at, is_rot, payload_length,
};
use super::reuse::{Content, Reuse, ending};
use super::{marks, tail};
use crate::engine::Record;
use crate::transaction::{Operation, Put, Stamp};

const STORE: [u8; 16] = [7; 16];
/// Where a header has the flag of a file that is used again.
const REUSED_PLACE: usize = 12;

/// A segment of the log, sometimes in a file that was one before.
pub fn make_segment(random: &Random) -> Vec<u8> {
    let header = header(FileKind::Segment, random.range(0..1000), random);
    if !header.reused {
        return make_segment_of(header, random);
    }
    let old = Header {
        number: header.number + 1,
        reused: random.chance(0.5),
        ..header
    };
    make_segment_over(header, make_segment_of(old, random), random)
}

fn make_segment_of(header: Header, random: &Random) -> Vec<u8> {
    if header.reused {
        let old = Header {
            reused: false,
            ..header
        };
        return make_segment_over(header, make_segment_of(old, random), random);
    }
    let (bytes, seed) = header.encode();
    let mut bytes = bytes.to_vec();
    let start = bytes.len();
    bytes.extend(records(header.base, start, seed, random));
    if let Some(grid) = header.grid {
        bytes.resize(grid.after(bytes.len() as u64) as usize, Grid::FILL);
    }
    bytes
}

fn make_segment_over(header: Header, mut old: Vec<u8>, random: &Random) -> Vec<u8> {
    let (bytes, seed) = header.encode();
    let endings: Vec<_> = old.chunks(SECTOR_BYTES).filter_map(ending).collect();
    let (reuse, mut bytes) = Reuse::begin(&bytes, seed, &endings);
    bytes.extend(records(header.base, bytes.len(), seed, random));
    let padding = reuse.padding(bytes.len() as u64);
    bytes.resize(bytes.len() + padding, Grid::FILL);
    reuse.tag(0, &mut bytes);
    if old.len() < bytes.len() {
        old.resize(bytes.len(), Grid::FILL);
    }
    old[..bytes.len()].copy_from_slice(&bytes);
    old
}

/// Framed records of a segment, the first of them at `start`.
fn records(base: u64, start: usize, seed: u32, random: &Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut batch_start = start as u64;
    for index in 0..random.range(0..6) {
        if random.chance(0.5) {
            batch_start = (start + bytes.len()) as u64;
        }
        let operations = (0..random.range(1..4)).map(|_| operation(random)).collect();
        let record = LogRecord {
            revision: base + 1 + index,
            batch_start,
            time_ms: random.u64().cast_signed(),
            operations,
        };
        record.encode(seed, &mut bytes);
    }
    bytes
}

/// Reads a segment as opening does.
///
/// # Panics
/// When what was read is not what is written again.
pub fn segment(bytes: &[u8]) -> String {
    twice(bytes, FileKind::Segment, |bytes| {
        let (header, seed) = match Header::decode(FileKind::Segment, bytes) {
            Ok(header) => header,
            Err(error) => return format!("no header: {error:?}"),
        };
        let Some(content) = Content::read(bytes.to_vec(), header.reused, seed) else {
            return "no note of what was there".to_owned();
        };
        let bytes = content.bytes();
        let start = content.start();
        let (mut offset, mut records, mut last, mut batch) = (start, 0, header.base, start);
        let end = loop {
            match decode_record(bytes, offset, seed) {
                Ok((record, next)) => {
                    let mut again = Vec::new();
                    record.encode(seed, &mut again);
                    assert!(again == bytes[offset..next], "a record is not what it says");
                    (offset, last, batch) = (next, record.revision, record.batch_start as usize);
                    records += 1;
                }
                Err(error) => break error,
            }
        };
        let rot = is_rot(bytes, offset, last, seed);
        let tail = header
            .grid
            .map(|grid| tail::judge(&content, offset, batch, last, grid, seed));
        format!(
            "{} records, then {end:?}, rot: {rot}, tail: {tail:?}",
            if records > 0 { "some" } else { "no" }
        )
    })
}

/// A snapshot.
pub fn make_snapshot(random: &Random) -> Vec<u8> {
    let (header, mut seed) = header(FileKind::Snapshot, random.range(0..1000), random).encode();
    let mut bytes = header.to_vec();
    let mut entries = 0;
    for _ in 0..random.range(0..4) {
        let records: Vec<_> = (0..random.range(1..5)).map(|_| Arc::new(record(random))).collect();
        entries += records.len() as u64;
        seed = encode_block(&records, 0, seed, &mut bytes);
    }
    encode_end(entries, seed, &mut bytes);
    bytes
}

/// Reads a snapshot as opening does.
///
/// # Panics
/// When what was read is not what is written again.
pub fn snapshot(bytes: &[u8]) -> String {
    twice(bytes, FileKind::Snapshot, |bytes| {
        let (_, mut seed) = match Header::decode(FileKind::Snapshot, bytes) {
            Ok(header) => header,
            Err(error) => return format!("no header: {error:?}"),
        };
        let mut offset = HEADER_BYTES;
        loop {
            let Some((payload, crc, next)) = frame_at(bytes, offset, seed) else {
                return "not whole".to_owned();
            };
            match decode_snapshot(payload, 0) {
                Some(SnapshotFrame::Block(records)) => {
                    let mut again = Vec::new();
                    let records: Vec<_> = records.into_iter().map(Arc::new).collect();
                    encode_block(&records, 0, seed, &mut again);
                    assert!(again == bytes[offset..next], "a block is not what it says");
                }
                Some(SnapshotFrame::End(_)) => return "whole".to_owned(),
                None => return "unknown".to_owned(),
            }
            (seed, offset) = (crc, next);
        }
    })
}

/// A file of marks.
pub fn make_marks(random: &Random) -> Vec<u8> {
    let marks = (0..random.range(0..5)).map(|_| marks::encode(STORE, random.u64()));
    marks.flatten().collect()
}

/// Reads marks as opening does.
pub fn read_marks(bytes: &[u8]) -> String {
    let read = marks::decode_all(bytes, STORE);
    format!("marks: {}, rotten: {}", read.marks > 0, read.rotten)
}

fn header(kind: FileKind, number: u64, random: &Random) -> Header {
    // Those of the program's first builds had no grid.
    let grid = (kind == FileKind::Segment && random.chance(0.8)).then(|| Grid::of(random.range(1..3000)));
    Header {
        kind,
        store: STORE,
        number,
        base: number,
        revision_offset: random.range(0..3),
        writer: Writer::this(),
        grid,
        reused: grid.is_some() && random.chance(0.5),
    }
}

fn bytes(random: &Random) -> Bytes {
    let length = random.index(20);
    (0..length).map(|_| random.u64().to_le_bytes()[0]).collect()
}

fn operation(random: &Random) -> Operation {
    if random.chance(0.3) {
        return Operation::Delete(bytes(random));
    }
    let record = record(random);
    Operation::Put(Put {
        key: record.key,
        value: record.value,
        expires_at_ms: record.expires_at_ms,
        stamp: record.stamp,
    })
}

fn record(random: &Random) -> Record {
    Record {
        key: bytes(random),
        value: bytes(random),
        create_revision: random.range(0..1000),
        mod_revision: random.range(0..1000),
        version: random.range(1..9),
        stamp: Stamp {
            sealing_key: 1,
            schema_epoch: 2,
        },
        expires_at_ms: random.chance(0.3).then(|| random.range(0..1_000_000).cast_signed()),
    }
}

/// Reads an input as it is, and with its checksums made right.
fn twice(bytes: &[u8], kind: FileKind, read: impl Fn(&[u8]) -> String) -> String {
    let mut mended = bytes.to_vec();
    mend(&mut mended, kind);
    format!("{}; mended: {}", read(bytes), read(&mended))
}

/// Makes the checksums of a file right, as far as its lengths lead.
fn mend(file: &mut [u8], kind: FileKind) {
    if file.len() < HEADER_BYTES {
        return;
    }
    let header = crc32c::crc32c(&file[..HEADER_BYTES - 4]);
    file[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&header.to_le_bytes());
    let mut start = HEADER_BYTES;
    let mut reuse = None;
    if kind == FileKind::Segment && file[REUSED_PLACE] & REUSED_FLAG as u8 != 0 {
        reuse = Reuse::mend(file, header);
        start = reuse.map_or(start, |reuse| reuse.start() as usize);
    }
    // Checksums are of what is read, without tags.
    if let Some(reuse) = reuse {
        reuse.tag(0, file);
    }
    mend_frames(file, start, header, kind);
    if let Some(reuse) = reuse {
        reuse.tag(0, file);
    }
}

fn mend_frames(file: &mut [u8], start: usize, header: u32, kind: FileKind) {
    let (mut offset, mut seed) = (start, header);
    while let Some(length) = file.get(offset..offset + FRAME_BYTES).and_then(payload_length) {
        let start = offset + FRAME_BYTES;
        let Some(payload) = file.get(start..start + length) else {
            return;
        };
        let crc = checksum(&file[offset..offset + 4], payload, seed);
        file[offset + 4..start].copy_from_slice(&crc.to_le_bytes());
        if kind == FileKind::Snapshot {
            seed = crc;
        }
        offset = start + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits, cuts and copied pieces; the general harness is elsewhere and spoils better.
    fn spoil(bytes: &mut Vec<u8>, random: &Random) {
        for _ in 0..random.range(1..4) {
            let at = random.index(bytes.len() + 1);
            match random.range(0..4) {
                0 if at < bytes.len() => bytes[at] ^= 1 << random.range(0..8),
                1 => bytes.truncate(at),
                2 => {
                    let end = (at + random.index(40)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = random.index(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                _ if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0xff][random.index(4)],
                _ => {}
            }
        }
    }

    #[test]
    fn what_is_made_is_read_and_what_is_spoiled_does_no_harm() {
        let random = Random::seeded(1);
        let segments = (make_segment as fn(&Random) -> Vec<u8>, segment as fn(&[u8]) -> String);
        for (make, read) in [segments, (make_snapshot, snapshot), (make_marks, read_marks)] {
            let mut outcomes = std::collections::BTreeSet::new();
            for _ in 0..3000 {
                let mut bytes = make(&random);
                outcomes.insert(read(&bytes));
                spoil(&mut bytes, &random);
                outcomes.insert(read(&bytes));
            }
            assert!(outcomes.len() > 2, "{outcomes:?}");
        }
        assert!(segment(&make_segment(&random)).contains("records"));
        assert!(snapshot(&make_snapshot(&random)).starts_with("whole"));
    }
}
