//! Bytes of a backup, as `FORMAT.md` beside this describes them. Pure.
//!
//! Invariant: whatever bytes are handed to a decoder, it answers what was encoded or an error; it never panics, and takes
//! no more memory than the limits of a frame.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::format::{self, FRAME_BYTES, LogRecord, PAYLOAD_BYTES_MAX, Reader, SnapshotFrame};
use super::BackupError;
use crate::engine::{Committed, Record, Revision};
use crate::transaction::{Operation, Put};

/// The version this program reads and writes.
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"TRIREMEB";
/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 64;
/// Bytes of a frame before what is packed: length, checksum, length when unpacked.
const HEAD_BYTES: usize = FRAME_BYTES + 4;
/// zstd's own default: a quarter of JSON's size at 300 MB/s.
const LEVEL: i32 = 3;

const REVISIONS: u8 = 3;
const END: u8 = 4;

/// What a backup says of itself at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupHeader {
    /// The first revision that can be restored.
    pub oldest: Revision,
    /// The last one.
    pub newest: Revision,
    /// Wall time in milliseconds since the epoch.
    pub taken_at_ms: i64,
}

impl BackupHeader {
    /// The bytes, and the checksum that seeds the first frame's.
    pub(super) fn encode(&self) -> ([u8; HEADER_BYTES], u32) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.oldest.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.newest.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.taken_at_ms.to_le_bytes());
        let seed = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&seed.to_le_bytes());
        (bytes, seed)
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<(Self, u32), BackupError> {
        if !bytes.starts_with(MAGIC) {
            return Err(BackupError::NotABackup);
        }
        let mut reader = Reader(&bytes[8..]);
        let mut read = || -> Option<_> {
            let (version, _) = (reader.u32()?, reader.u32()?);
            let header = Self {
                oldest: reader.u64()?,
                newest: reader.u64()?,
                taken_at_ms: reader.i64()?,
            };
            Some((version, header))
        };
        let (version, header) = read().ok_or(BackupError::NotABackup)?;
        let seed = Reader(&bytes[60..]).u32().unwrap_or_default();
        if crc32c::crc32c(&bytes[..60]) != seed {
            return Err(BackupError::Damaged { offset: 0 });
        }
        if version != VERSION {
            return Err(BackupError::Version(version));
        }
        if header.oldest > header.newest {
            return Err(BackupError::Damaged { offset: 16 });
        }
        Ok((header, seed))
    }
}

/// What the end of a backup says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    pub(super) keys: u64,
    pub(super) revisions: u64,
    pub(super) sealing_keys: BTreeSet<u32>,
}

/// A frame's payload, understood.
#[derive(Debug, PartialEq)]
pub(super) enum Payload {
    Blocks(Vec<Record>),
    Revisions(Vec<LogRecord>),
    End(End),
}

/// Packs keys; the framed bytes and the next seed.
pub(super) fn encode_blocks(records: &[Arc<Record>], seed: u32) -> std::io::Result<(Vec<u8>, u32)> {
    let mut payload = Vec::new();
    format::encode_block(records, 0, 0, &mut payload);
    // The snapshot's own framing is not needed inside of a frame.
    pack(&payload[FRAME_BYTES..], seed)
}

/// Packs revisions.
pub(super) fn encode_revisions(commits: &[Arc<Committed>], seed: u32) -> std::io::Result<(Vec<u8>, u32)> {
    let mut payload = vec![REVISIONS];
    for commit in commits {
        let operations: Vec<Operation> = commit.changes.iter().map(operation).collect();
        format::encode_record(commit.revision, 0, commit.time_ms, operations.iter(), 0, &mut payload);
    }
    pack(&payload, seed)
}

fn operation(change: &crate::engine::Change) -> Operation {
    match &change.after {
        None => Operation::Delete(change.key.clone()),
        Some(record) => Operation::Put(Put {
            key: record.key.clone(),
            value: record.value.clone(),
            expires_at_ms: record.expires_at_ms,
            stamp: record.stamp,
        }),
    }
}

/// Packs the end.
pub(super) fn encode_end(end: &End, seed: u32) -> std::io::Result<(Vec<u8>, u32)> {
    let mut payload = vec![END];
    payload.extend_from_slice(&end.keys.to_le_bytes());
    payload.extend_from_slice(&end.revisions.to_le_bytes());
    payload.extend_from_slice(&(end.sealing_keys.len() as u32).to_le_bytes());
    for key in &end.sealing_keys {
        payload.extend_from_slice(&key.to_le_bytes());
    }
    pack(&payload, seed)
}

fn pack(payload: &[u8], seed: u32) -> std::io::Result<(Vec<u8>, u32)> {
    let packed = zstd::bulk::compress(payload, LEVEL)?;
    let mut frame = Vec::with_capacity(HEAD_BYTES + packed.len());
    frame.extend_from_slice(&(packed.len() as u32 + 4).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&packed);
    let crc = checksum(&frame, seed);
    frame[4..FRAME_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok((frame, crc))
}

fn checksum(frame: &[u8], seed: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &frame[..4]), &frame[FRAME_BYTES..])
}

/// Bytes of the whole frame that begins here; none while its length is not there. An impossible length is `Err`.
pub(super) fn frame_bytes(head: &[u8]) -> Option<Result<usize, ()>> {
    let length = Reader(head).u32()? as usize;
    // What does not shrink grows by a thousandth at most.
    let possible = (4..=PAYLOAD_BYTES_MAX + PAYLOAD_BYTES_MAX / 128).contains(&length);
    Some(if possible { Ok(FRAME_BYTES + length) } else { Err(()) })
}

/// Unpacks a whole frame; none when it is not what was written.
pub(super) fn decode_frame(frame: &[u8], seed: u32) -> Option<(Payload, u32)> {
    let mut head = Reader(frame.get(4..HEAD_BYTES)?);
    let (crc, size) = (head.u32()?, head.u32()? as usize);
    if checksum(frame, seed) != crc || size > PAYLOAD_BYTES_MAX {
        return None;
    }
    let payload = zstd::bulk::decompress(&frame[HEAD_BYTES..], size).ok()?;
    if payload.len() != size {
        return None;
    }
    Some((decode_payload(&payload)?, crc))
}

fn decode_payload(payload: &[u8]) -> Option<Payload> {
    let mut reader = Reader(payload);
    match reader.u8()? {
        REVISIONS => {
            let mut records = Vec::new();
            let mut offset = 1;
            while offset < payload.len() {
                let (record, next) = format::decode_record(payload, offset, 0).ok()?;
                records.push(record);
                offset = next;
            }
            Some(Payload::Revisions(records))
        }
        END => {
            let (keys, revisions) = (reader.u64()?, reader.u64()?);
            let count = reader.u32()? as usize;
            let sealing_keys = (0..count).map_while(|_| reader.u32()).collect::<BTreeSet<_>>();
            (reader.0.is_empty() && sealing_keys.len() == count).then_some(Payload::End(End {
                keys,
                revisions,
                sealing_keys,
            }))
        }
        _ => match format::decode_snapshot(payload, 0)? {
            SnapshotFrame::Block(records) => Some(Payload::Blocks(records)),
            SnapshotFrame::End(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::examples::{TIME_MS, example, sealed};
    use super::*;
    use crate::engine::Change;

    fn of(name: &str) -> Vec<u8> {
        example(include_str!("FORMAT.md"), name)
    }

    #[test]
    fn a_backup_is_as_its_example() {
        let bytes = of("header");
        let expect = BackupHeader {
            oldest: 1042,
            newest: 1043,
            taken_at_ms: TIME_MS,
        };
        let (found, mut seed) = BackupHeader::decode(bytes[..].try_into().unwrap()).unwrap();
        assert_eq!(found, expect);
        assert_eq!(expect.encode().0[..], bytes);

        let record = Arc::new(sealed());
        let deleted = Committed {
            revision: 1043,
            time_ms: TIME_MS,
            changes: vec![Change {
                key: record.key.clone(),
                before: Some(record.clone()),
                after: None,
            }],
        };
        let logged = LogRecord {
            revision: 1043,
            batch_start: 0,
            time_ms: TIME_MS,
            operations: vec![Operation::Delete("s1".into())],
        };
        let end = End {
            keys: 1,
            revisions: 1,
            sealing_keys: [3].into(),
        };
        for (name, expect, encoded) in [
            (
                "blocks",
                Payload::Blocks(vec![sealed()]),
                encode_blocks(&[record], 0).unwrap(),
            ),
            (
                "revisions",
                Payload::Revisions(vec![logged]),
                encode_revisions(&[Arc::new(deleted)], 0).unwrap(),
            ),
            ("end", Payload::End(end.clone()), encode_end(&end, 0).unwrap()),
        ] {
            let bytes = of(name);
            assert_eq!(frame_bytes(&bytes), Some(Ok(bytes.len())), "{name}");
            let (payload, next_seed) = decode_frame(&bytes, seed).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(payload, expect, "{name}");
            // Packed by zstd as it likes: what is unpacked is the same.
            assert_eq!(decode_frame(&encoded.0, 0).unwrap().0, expect, "{name}");
            seed = next_seed;
        }
    }
}
