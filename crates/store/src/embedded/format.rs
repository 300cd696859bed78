//! Bytes of the log and of snapshots, as `FORMAT.md` describes them. Pure: no file is touched here.
//!
//! Invariant: whatever bytes are handed to a decoder, it answers "not whole" or what was encoded; it never panics and
//! never allocates more than the input's length.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::{Record, Revision};
use crate::transaction::{Operation, Put, Stamp};

/// The version this program reads and writes.
pub(super) const FORMAT_VERSION: u32 = 1;
/// Header flags of segments that this program understands: those of [`Header::grid`] and [`Header::reused`]. Others change
/// what the file means.
const GRID_FLAGS: u32 = 0x1f;
pub(super) const REUSED_FLAG: u32 = 0x20;
/// What a disk writes whole or not at all, at least.
pub(super) const SECTOR_BYTES: usize = 512;
/// Bytes of a file's header.
pub(super) const HEADER_BYTES: usize = 64;
/// Bytes before a frame's payload.
pub(super) const FRAME_BYTES: usize = 8;
/// Bytes of a payload at most; above the largest transaction with its framing.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const BLOCK: u8 = 1;
const END: u8 = 2;
const NO_EXPIRY: i64 = i64::MIN;

/// Which file a header is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment,
    Snapshot,
}

/// The start of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: FileKind,
    pub(super) store: [u8; 16],
    /// Segment id, or the snapshot's raw revision.
    pub(super) number: u64,
    /// Raw revision before a segment's first record; 0 in a snapshot.
    pub(super) base: u64,
    pub(super) revision_offset: u64,
    pub(super) writer: Writer,
    /// How room at the end of a segment was made; none in a snapshot, and in segments of the program's first builds.
    pub(super) grid: Option<Grid>,
    /// The file was a segment before, and room is what that left (`reuse.rs`).
    pub(super) reused: bool,
}

/// Room at the end of a segment is filled with [`Grid::FILL`], and ends at a multiple of a power of two. Before anything is
/// appended there is, durably, such room behind the end, if only to the next multiple: so what stands there later was
/// written, or has rotted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// The power of two, 1 to 31.
    power: u8,
}

// === impl Grid ===

impl Grid {
    /// What room is filled with: what no disk gives back for what it has lost (0 and 255), and what no text in UTF-8 has.
    pub(super) const FILL: u8 = 0xfa;

    /// The largest grid whose steps are no longer than `bytes`, but at least a sector.
    pub(super) fn of(bytes: u64) -> Self {
        let power = bytes.max(SECTOR_BYTES as u64).ilog2().min(31);
        Self { power: power as u8 }
    }

    /// The first multiple of its step after an offset.
    pub(super) fn after(self, offset: u64) -> u64 {
        ((offset >> self.power) + 1) << self.power
    }
}

/// The program version that wrote a file: what an operator needs when this one cannot read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writer(u32);

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    NotWhole,
    /// Whole, but of a format version or with flags that this program does not know.
    Newer {
        version: u32,
        writer: Writer,
    },
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    NotWhole,
    /// Its checksum is right and its content is unknown: a newer program wrote it. It must never be taken for a torn end.
    Unknown,
}

impl Writer {
    /// This program.
    pub(super) fn this() -> Self {
        Self::of(env!("CARGO_PKG_VERSION"))
    }

    /// The program of a version: `major.minor.patch` in 12, 10 and 10 bits.
    pub(super) fn of(version: &str) -> Self {
        let mut parts = version
            .split(['.', '-', '+'])
            .map(|part| part.parse::<u32>().unwrap_or(0));
        let mut next = |most: u32| parts.next().unwrap_or(0).min(most);
        Self(next(0xfff) << 20 | next(0x3ff) << 10 | next(0x3ff))
    }
}

impl std::fmt::Display for Writer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => write!(formatter, "a version that did not say its name"),
            packed => write!(
                formatter,
                "version {}.{}.{}",
                packed >> 20,
                (packed >> 10) & 0x3ff,
                packed & 0x3ff
            ),
        }
    }
}

impl FileKind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            FileKind::Segment => b"TRIREMEL",
            FileKind::Snapshot => b"TRIREMES",
        }
    }
}

impl Header {
    /// The header's bytes and its checksum, which seeds those of the frames.
    pub(super) fn encode(&self) -> ([u8; HEADER_BYTES], u32) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(self.kind.magic());
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let flags = self.grid.map_or(0, |grid| u32::from(grid.power)) | if self.reused { REUSED_FLAG } else { 0 };
        bytes[12..16].copy_from_slice(&flags.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.store);
        bytes[32..40].copy_from_slice(&self.number.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.base.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.revision_offset.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.writer.0.to_le_bytes());
        let seed = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&seed.to_le_bytes());
        (bytes, seed)
    }

    pub(super) fn decode(kind: FileKind, bytes: &[u8]) -> Result<(Self, u32), HeaderError> {
        let mut reader = Reader(bytes.get(..HEADER_BYTES).ok_or(HeaderError::NotWhole)?);
        let mut read = || -> Option<(Self, u32, u32, u32)> {
            let magic = reader.take(8)?;
            let version = reader.u32()?;
            let flags = reader.u32()?;
            let store = reader.take(16)?.try_into().ok()?;
            let (number, base, revision_offset) = (reader.u64()?, reader.u64()?, reader.u64()?);
            let header = Self {
                kind,
                store,
                number,
                base,
                revision_offset,
                writer: Writer(reader.u32()?),
                grid: Some(Grid {
                    power: (flags & GRID_FLAGS) as u8,
                })
                .filter(|grid| grid.power > 0),
                reused: flags & REUSED_FLAG != 0,
            };
            (magic == kind.magic()).then_some((header, version, flags, reader.u32()?))
        };
        let (header, version, flags, seed) = read().ok_or(HeaderError::NotWhole)?;
        if crc32c::crc32c(&bytes[..60]) != seed {
            return Err(HeaderError::NotWhole);
        }
        let known = match kind {
            FileKind::Segment => GRID_FLAGS | REUSED_FLAG,
            FileKind::Snapshot => 0,
        };
        // What is left in a file that is used again is nothing that a grid of none says anything about.
        let unknown = flags & !known != 0 || header.reused && header.grid.is_none();
        if version != FORMAT_VERSION || unknown {
            let writer = header.writer;
            return Err(HeaderError::Newer { version, writer });
        }
        Ok((header, seed))
    }
}

/// A revision as the log has it; revisions are raw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogRecord {
    pub(super) revision: u64,
    pub(super) batch_start: u64,
    pub(super) time_ms: i64,
    pub(super) operations: Vec<Operation>,
}

impl LogRecord {
    /// Appends the framed record to `buffer`.
    pub(super) fn encode(&self, seed: u32, buffer: &mut Vec<u8>) {
        let operations = self.operations.iter();
        encode_record(self.revision, self.batch_start, self.time_ms, operations, seed, buffer);
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let (revision, batch_start, time_ms) = (reader.u64()?, reader.u64()?, reader.i64()?);
        let count = reader.u32()?;
        let mut operations = Vec::new();
        for _ in 0..count {
            operations.push(match reader.u8()? {
                PUT => {
                    let key = reader.bytes()?;
                    let stamp = Stamp {
                        sealing_key: reader.u32()?,
                        schema_epoch: reader.u32()?,
                    };
                    let expires_at_ms = reader.expiry()?;
                    let value = reader.bytes()?;
                    Operation::Put(Put {
                        key,
                        value,
                        expires_at_ms,
                        stamp,
                    })
                }
                DELETE => Operation::Delete(reader.bytes()?),
                _ => return None,
            });
        }
        (reader.0.is_empty() && count > 0).then_some(Self {
            revision,
            batch_start,
            time_ms,
            operations,
        })
    }
}

/// Appends a framed record to `buffer`, without owning its operations.
pub(super) fn encode_record<'a>(
    revision: u64,
    batch_start: u64,
    time_ms: i64,
    operations: impl ExactSizeIterator<Item = &'a Operation>,
    seed: u32,
    buffer: &mut Vec<u8>,
) {
    let frame = begin_frame(buffer);
    buffer.extend_from_slice(&revision.to_le_bytes());
    buffer.extend_from_slice(&batch_start.to_le_bytes());
    buffer.extend_from_slice(&time_ms.to_le_bytes());
    buffer.extend_from_slice(&(operations.len() as u32).to_le_bytes());
    for operation in operations {
        match operation {
            Operation::Put(put) => {
                buffer.push(PUT);
                push_bytes(buffer, &put.key);
                push_origin(buffer, put.stamp, put.expires_at_ms);
                push_bytes(buffer, &put.value);
            }
            Operation::Delete(key) => {
                buffer.push(DELETE);
                push_bytes(buffer, key);
            }
        }
    }
    end_frame(buffer, frame, seed);
}

/// The record at `offset` of a segment and where the next one starts.
pub(super) fn decode_record(segment: &[u8], offset: usize, seed: u32) -> Result<(LogRecord, usize), FrameError> {
    let (payload, _, next) = frame_at(segment, offset, seed).ok_or(FrameError::NotWhole)?;
    let record = LogRecord::decode(payload).ok_or(FrameError::Unknown)?;
    Ok((record, next))
}

/// Whether a whole record lies anywhere after `from` that proves everything up to `from` was durable once: then what is
/// not whole at `from` has rotted.
pub(super) fn is_rot(segment: &[u8], from: usize, last_revision: u64, seed: u32) -> bool {
    let plausible = |offset: &usize| {
        // The two fields are looked at before the checksum, which is dear.
        let mut reader = Reader(segment.get(offset + FRAME_BYTES..).unwrap_or_default());
        let (Some(revision), Some(start)) = (reader.u64(), reader.u64()) else {
            return false;
        };
        revision > last_revision && start > from as u64 && start <= *offset as u64
    };
    (from + 1..segment.len())
        .filter(plausible)
        .any(|offset| frame_at(segment, offset, seed).is_some())
}

/// Appends a framed block of a snapshot and returns its checksum, the seed of the next frame.
pub(super) fn encode_block(records: &[Arc<Record>], revision_offset: u64, seed: u32, buffer: &mut Vec<u8>) -> u32 {
    let frame = begin_frame(buffer);
    buffer.push(BLOCK);
    buffer.extend_from_slice(&(records.len() as u32).to_le_bytes());
    for record in records {
        push_bytes(buffer, &record.key);
        for number in [
            record.create_revision - revision_offset,
            record.mod_revision - revision_offset,
            record.version,
        ] {
            buffer.extend_from_slice(&number.to_le_bytes());
        }
        push_origin(buffer, record.stamp, record.expires_at_ms);
        push_bytes(buffer, &record.value);
    }
    end_frame(buffer, frame, seed)
}

/// Appends the end of a snapshot.
pub(super) fn encode_end(entries: u64, seed: u32, buffer: &mut Vec<u8>) {
    let frame = begin_frame(buffer);
    buffer.push(END);
    buffer.extend_from_slice(&entries.to_le_bytes());
    end_frame(buffer, frame, seed);
}

/// A frame of a snapshot.
pub(super) enum SnapshotFrame {
    Block(Vec<Record>),
    End(u64),
}

/// Decodes a snapshot's payload. `revision_offset` is added to the raw revisions.
pub(super) fn decode_snapshot(payload: &[u8], revision_offset: Revision) -> Option<SnapshotFrame> {
    let mut reader = Reader(payload);
    let frame = match reader.u8()? {
        BLOCK => {
            let count = reader.u32()?;
            let mut records = Vec::new();
            for _ in 0..count {
                let key = reader.slice()?;
                let create_revision = reader.u64()?.checked_add(revision_offset)?;
                let mod_revision = reader.u64()?.checked_add(revision_offset)?;
                let version = reader.u64()?;
                let stamp = Stamp {
                    sealing_key: reader.u32()?,
                    schema_epoch: reader.u32()?,
                };
                let expires_at_ms = reader.expiry()?;
                let value = reader.slice()?;
                records.push(Record {
                    create_revision,
                    mod_revision,
                    version,
                    stamp,
                    expires_at_ms,
                    ..Record::tight(key, value)
                });
            }
            SnapshotFrame::Block(records)
        }
        END => SnapshotFrame::End(reader.u64()?),
        _ => return None,
    };
    reader.0.is_empty().then_some(frame)
}

/// The payload of the frame at `offset`, its checksum, and where the next frame starts; none when it is not whole.
pub(super) fn frame_at(file: &[u8], offset: usize, seed: u32) -> Option<(&[u8], u32, usize)> {
    let head = file.get(offset..offset + FRAME_BYTES)?;
    let length = payload_length(head)?;
    let start = offset + FRAME_BYTES;
    let payload = file.get(start..start + length)?;
    let crc = checksum(&head[..4], payload, seed);
    (head[4..] == crc.to_le_bytes()).then_some((payload, crc, start + length))
}

/// The payload length that a frame's first bytes announce, if it can be one.
pub(super) fn payload_length(head: &[u8]) -> Option<usize> {
    let length = Reader(head).u32()? as usize;
    (length > 0 && length <= PAYLOAD_BYTES_MAX).then_some(length)
}

pub(super) fn checksum(length: &[u8], payload: &[u8], seed: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, length), payload)
}

fn begin_frame(buffer: &mut Vec<u8>) -> usize {
    let frame = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_BYTES]);
    frame
}

fn end_frame(buffer: &mut [u8], frame: usize, seed: u32) -> u32 {
    let length = (buffer.len() - frame - FRAME_BYTES) as u32;
    let crc = checksum(&length.to_le_bytes(), &buffer[frame + FRAME_BYTES..], seed);
    buffer[frame..frame + 4].copy_from_slice(&length.to_le_bytes());
    buffer[frame + 4..frame + FRAME_BYTES].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn push_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    buffer.extend_from_slice(bytes);
}

fn push_origin(buffer: &mut Vec<u8>, stamp: Stamp, expires_at_ms: Option<i64>) {
    buffer.extend_from_slice(&stamp.sealing_key.to_le_bytes());
    buffer.extend_from_slice(&stamp.schema_epoch.to_le_bytes());
    buffer.extend_from_slice(&expires_at_ms.unwrap_or(NO_EXPIRY).to_le_bytes());
}

/// Takes numbers and bytes off the front; none when there are too few.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn expiry(&mut self) -> Option<Option<i64>> {
        self.i64().map(|expiry| (expiry != NO_EXPIRY).then_some(expiry))
    }

    /// Copied, so that one small value does not pin the whole file.
    fn bytes(&mut self) -> Option<Bytes> {
        self.slice().map(Bytes::copy_from_slice)
    }

    fn slice(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            kind: FileKind::Segment,
            store: [7; 16],
            number: 3,
            base: 41,
            revision_offset: 1000,
            writer: Writer::of("0.1.0"),
            grid: Some(Grid::of(65_536)),
            reused: false,
        }
    }

    fn record(revision: u64, batch_start: u64) -> LogRecord {
        let put = Put {
            key: "k".into(),
            value: vec![9; 100].into(),
            expires_at_ms: Some(5),
            stamp: Stamp {
                sealing_key: 1,
                schema_epoch: 2,
            },
        };
        let operations = vec![Operation::Put(put), Operation::Delete("gone".into())];
        LogRecord {
            revision,
            batch_start,
            time_ms: -3,
            operations,
        }
    }

    #[test]
    fn a_header_is_read_back_and_nothing_else_is() {
        let (bytes, seed) = header().encode();
        assert_eq!(Header::decode(FileKind::Segment, &bytes), Ok((header(), seed)));
        assert_eq!(Header::decode(FileKind::Snapshot, &bytes), Err(HeaderError::NotWhole));
        assert_eq!(
            Header::decode(FileKind::Segment, &bytes[..63]),
            Err(HeaderError::NotWhole)
        );
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                Header::decode(FileKind::Segment, &bytes),
                Err(HeaderError::NotWhole),
                "bit {bit}"
            );
        }
        let mut newer = bytes;
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..60]);
        newer[60..].copy_from_slice(&crc.to_le_bytes());
        let writer = Writer::of("0.1.0");
        assert_eq!(
            Header::decode(FileKind::Segment, &newer),
            Err(HeaderError::Newer { version: 2, writer })
        );
        let snapshot = Header {
            kind: FileKind::Snapshot,
            grid: None,
            ..header()
        };
        // A flag that is not known, in a snapshot any.
        for (header, place, flags) in [
            (header(), 12, 0x20),
            (header(), 12, 0x40),
            (header(), 12, 0x70),
            (header(), 13, 1),
            (snapshot, 12, 1),
        ] {
            let (mut flagged, _) = header.encode();
            flagged[place] = flags;
            let crc = crc32c::crc32c(&flagged[..60]);
            flagged[60..].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(
                Header::decode(header.kind, &flagged),
                Err(HeaderError::Newer { version: 1, writer }),
                "{flags} at {place}"
            );
        }
    }

    #[test]
    fn a_grid_is_at_least_a_sector() {
        for (bytes, offset, after) in [
            (0, 0, 512),
            (512, 511, 512),
            (512, 512, 1024),
            (1000, 700, 1024),
            (65_536, 65_537, 131_072),
            (u64::MAX, 1, 1 << 31),
        ] {
            assert_eq!(Grid::of(bytes).after(offset), after, "{bytes}, {offset}");
        }
    }

    #[test]
    fn a_writer_says_its_version() {
        for (version, text) in [
            ("0.1.0", "version 0.1.0"),
            ("12.34.56-rc.1", "version 12.34.56"),
            ("", "a version that did not say its name"),
        ] {
            assert_eq!(Writer::of(version).to_string(), text);
        }
    }

    #[test]
    fn a_whole_record_of_unknown_content_is_not_a_torn_one() {
        let mut bytes = Vec::new();
        record(42, 64).encode(5, &mut bytes);
        // The first operation becomes of a kind that does not exist.
        bytes[FRAME_BYTES + 28] = 9;
        end_frame(&mut bytes, 0, 5);
        assert_eq!(decode_record(&bytes, 0, 5), Err(FrameError::Unknown));
    }

    #[test]
    fn a_record_is_read_back_and_no_flipped_bit_passes() {
        let mut bytes = Vec::new();
        record(42, 64).encode(5, &mut bytes);
        assert_eq!(decode_record(&bytes, 0, 5), Ok((record(42, 64), bytes.len())));
        assert_eq!(decode_record(&bytes, 0, 6), Err(FrameError::NotWhole));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_record(&bytes, 0, 5), Err(FrameError::NotWhole), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(
                decode_record(&bytes[..length], 0, 5),
                Err(FrameError::NotWhole),
                "length {length}"
            );
        }
    }

    #[test]
    fn a_hole_is_rot_when_a_later_batch_follows() {
        let mut file = vec![0; HEADER_BYTES];
        record(1, 64).encode(5, &mut file);
        let hole = file.len();
        file.extend_from_slice(&[0xff; 200]);
        assert!(!is_rot(&file, hole, 1, 5));
        // Of the same batch as the hole: the batch is torn.
        record(3, hole as u64).encode(5, &mut file);
        assert!(!is_rot(&file, hole, 1, 5));
        let later = file.len() as u64;
        record(4, later).encode(5, &mut file);
        assert!(is_rot(&file, hole, 1, 5));
        assert!(!is_rot(&file, hole, 4, 5));
    }

    #[test]
    fn a_snapshot_block_is_read_back() {
        let record = Record {
            key: "k".into(),
            value: "v".into(),
            create_revision: 1005,
            mod_revision: 1009,
            version: 3,
            stamp: Stamp {
                sealing_key: 8,
                schema_epoch: 9,
            },
            expires_at_ms: None,
        };
        let mut bytes = Vec::new();
        let crc = encode_block(&[Arc::new(record.clone())], 1000, 11, &mut bytes);
        encode_end(1, crc, &mut bytes);
        let (payload, seed, next) = frame_at(&bytes, 0, 11).unwrap();
        assert!(matches!(decode_snapshot(payload, 1000), Some(SnapshotFrame::Block(found)) if found == [record]));
        assert!(
            frame_at(&bytes, next, 11).is_none(),
            "each frame's seed is the checksum before it"
        );
        let (payload, _, end) = frame_at(&bytes, next, seed).unwrap();
        assert!(matches!(decode_snapshot(payload, 1000), Some(SnapshotFrame::End(1))));
        assert_eq!(end, bytes.len());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Header::decode(FileKind::Segment, &bytes);
            let _ = decode_record(&bytes, 0, 0);
            let _ = LogRecord::decode(&bytes);
            let _ = decode_snapshot(&bytes, 7);
            let _ = is_rot(&bytes, 3, 0, 0);
        }
    }
}
