//! Reading a backup as its bytes come, in pieces of any size.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::BackupError;
use super::format::{self, BackupHeader, End, HEADER_BYTES, Payload};
use crate::embedded::format::LogRecord;
use crate::embedded::memory::evolve;
use crate::engine::{Record, Revision};
use crate::map::Map;
use crate::transaction::Operation;

/// What a whole backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// Its beginning.
    pub header: BackupHeader,
    /// Keys at the oldest revision.
    pub keys: u64,
    /// Revisions after the oldest.
    pub revisions: u64,
    /// The ids of the keys that sealed values; the keys themselves are not in it.
    pub sealing_keys: BTreeSet<u32>,
    /// Its length.
    pub bytes: u64,
}

/// Checks a backup on its way to somewhere else: hand it every piece, then call [`BackupCheck::finish`].
#[derive(Default)]
pub struct BackupCheck {
    decoder: Decoder,
    tally: Tally,
}

impl BackupCheck {
    /// A check at the beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// The first thing that is wrong; final.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.decoder.push(bytes, &mut self.tally)
    }

    /// What it was, when that was all.
    ///
    /// # Errors
    /// It has no end.
    pub fn finish(self) -> Result<BackupSummary, BackupError> {
        self.decoder.finish()
    }
}

/// Who takes what a decoder reads.
pub(super) trait Sink {
    fn record(&mut self, record: Record);
    fn revision(&mut self, record: LogRecord);
}

/// Forgets what it is given.
#[derive(Default)]
struct Tally;

impl Sink for Tally {
    fn record(&mut self, _: Record) {}
    fn revision(&mut self, _: LogRecord) {}
}

/// Builds the state at a revision.
pub(super) struct Build {
    records: Vec<Arc<Record>>,
    root: Map<Arc<Record>>,
    upto: Revision,
}

impl Build {
    pub(super) fn new(upto: Revision) -> Self {
        Self {
            records: Vec::new(),
            root: Map::new(),
            upto,
        }
    }

    pub(super) fn finish(mut self) -> Map<Arc<Record>> {
        self.settle();
        self.root
    }

    fn settle(&mut self) {
        if !self.records.is_empty() {
            self.root = Map::from_sorted(std::mem::take(&mut self.records));
        }
    }
}

impl Sink for Build {
    fn record(&mut self, record: Record) {
        self.records.push(Arc::new(record));
    }

    fn revision(&mut self, record: LogRecord) {
        self.settle();
        if record.revision <= self.upto {
            evolve(&mut self.root, record.revision, &record.operations);
        }
    }
}

/// The state of reading. Invariants: keys ascend, revisions have no gap, nothing follows the end.
#[derive(Default)]
pub(super) struct Decoder {
    /// What has come and is not a whole frame yet.
    buffer: Vec<u8>,
    /// Bytes understood.
    offset: u64,
    header: Option<(BackupHeader, u32)>,
    last_key: Option<Bytes>,
    last_revision: Revision,
    seen: End,
    ended: bool,
    failed: Option<BackupError>,
}

impl Decoder {
    pub(super) fn header(&self) -> Option<BackupHeader> {
        self.header.map(|(header, _)| header)
    }

    pub(super) fn push(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<(), BackupError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.buffer.extend_from_slice(bytes);
        let read = self.advance(sink);
        if let Err(error) = &read {
            self.failed = Some(error.clone());
        }
        read
    }

    fn advance(&mut self, sink: &mut impl Sink) -> Result<(), BackupError> {
        let mut at = 0;
        loop {
            let rest = &self.buffer[at..];
            let Some((header, seed)) = self.header else {
                let magic = &b"TRIREMEB"[..rest.len().min(8)];
                if !rest.starts_with(magic) {
                    return Err(BackupError::NotABackup);
                }
                let Some(bytes) = rest.first_chunk::<HEADER_BYTES>() else {
                    break;
                };
                let (header, seed) = BackupHeader::decode(bytes)?;
                self.last_revision = header.oldest;
                self.header = Some((header, seed));
                at += HEADER_BYTES;
                continue;
            };
            let damaged = BackupError::Damaged {
                offset: self.offset + at as u64,
            };
            if self.ended {
                return if rest.is_empty() { self.drain(at) } else { Err(damaged) };
            }
            let Some(length) = format::frame_bytes(rest) else { break };
            let Ok(length) = length else { return Err(damaged) };
            let Some(frame) = rest.get(..length) else { break };
            let (payload, crc) = format::decode_frame(frame, seed).ok_or_else(|| damaged.clone())?;
            self.header = Some((header, crc));
            self.take(payload, header, sink).ok_or(damaged)?;
            at += length;
        }
        self.drain(at)
    }

    fn drain(&mut self, at: usize) -> Result<(), BackupError> {
        self.buffer.drain(..at);
        self.offset += at as u64;
        Ok(())
    }

    /// Hands a payload on; none when it does not follow what came before.
    fn take(&mut self, payload: Payload, header: BackupHeader, sink: &mut impl Sink) -> Option<()> {
        match payload {
            Payload::Blocks(records) => {
                for record in records {
                    let follows = self.last_key.as_ref().is_none_or(|last| *last < record.key);
                    if !follows || self.seen.revisions > 0 || record.mod_revision > header.oldest {
                        return None;
                    }
                    self.last_key = Some(record.key.clone());
                    self.seen.keys += 1;
                    self.note_seal(record.stamp.sealing_key);
                    sink.record(record);
                }
            }
            Payload::Revisions(records) => {
                for record in records {
                    // An engine that does not count every change (etcd) has gaps; what is earlier never comes later.
                    if record.revision <= self.last_revision || record.revision > header.newest {
                        return None;
                    }
                    self.last_revision = record.revision;
                    self.seen.revisions += 1;
                    for operation in &record.operations {
                        if let Operation::Put(put) = operation {
                            self.note_seal(put.stamp.sealing_key);
                        }
                    }
                    sink.revision(record);
                }
            }
            Payload::End(end) => {
                self.ended = true;
                (end == self.seen).then_some(())?;
            }
        }
        Some(())
    }

    fn note_seal(&mut self, key: u32) {
        if key != 0 {
            self.seen.sealing_keys.insert(key);
        }
    }

    pub(super) fn finish(self) -> Result<BackupSummary, BackupError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let bytes = self.offset + self.buffer.len() as u64;
        let (true, Some((header, _))) = (self.ended, self.header) else {
            return Err(BackupError::Truncated { bytes });
        };
        Ok(BackupSummary {
            header,
            keys: self.seen.keys,
            revisions: self.seen.revisions,
            sealing_keys: self.seen.sealing_keys,
            bytes,
        })
    }
}
