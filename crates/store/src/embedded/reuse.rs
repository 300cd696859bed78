//! A segment in a file that was a segment before: its room is what that one left there, so that nothing has to be filled and a
//! sync has half as much to write.
//!
//! Room that was filled is known for what it is (`tail.rs`); what an old segment left could be anything. So the last bytes of
//! each of the file's sectors are noted behind the header before anything else is written, and where such bytes are written
//! now, they are changed by a tag that is this segment's own. A sector that ends as was noted has therefore not been written,
//! or not to its end, whatever is in it. Pure.
//!
//! Invariants: behind what is durable there are at least [`PADDING_BYTES_MIN`] bytes of the filling, so that no batch begins
//! over anything else; records are read without a look at the note, which is for what comes after them.

use std::borrow::Cow;
use std::ops::Range;

use super::format::{FRAME_BYTES, Grid, HEADER_BYTES, Reader, SECTOR_BYTES, checksum};

/// Bytes at the end of a sector that are noted, and changed by a tag.
const ENDING_BYTES: usize = 4;
/// Filling behind a batch at least: the head of the next frame, and as much as a run of the filling that counts.
const PADDING_BYTES_MIN: u64 = 64;
const SECTOR: u64 = SECTOR_BYTES as u64;

pub(super) type Ending = [u8; ENDING_BYTES];

/// A file that is used again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reuse {
    /// The header's checksum.
    seed: u32,
    /// Sectors that it had.
    sectors: u64,
}

/// A segment as it was read.
#[derive(Debug)]
pub(super) struct Content {
    /// What was written, without tags.
    bytes: Vec<u8>,
    old: Option<(Reuse, Vec<Ending>)>,
}

/// How a sector ends, if it is one.
pub(super) fn ending(sector: &[u8]) -> Option<Ending> {
    let sector: &[u8; SECTOR_BYTES] = sector.try_into().ok()?;
    sector.last_chunk().copied()
}

// === impl Reuse ===

impl Reuse {
    /// Begins a segment, whose header is `header`, over sectors with these endings: what is written before its records.
    pub(super) fn begin(header: &[u8], seed: u32, endings: &[Ending]) -> (Self, Vec<u8>) {
        let reuse = Self {
            seed,
            sectors: endings.len() as u64,
        };
        let mut bytes = header.to_vec();
        let count = (endings.len() as u32).to_le_bytes();
        bytes.extend_from_slice(&count);
        bytes.extend_from_slice(&checksum(&count, endings.as_flattened(), seed).to_le_bytes());
        bytes.extend_from_slice(endings.as_flattened());
        (reuse, bytes)
    }

    fn decode(file: &[u8], seed: u32) -> Option<(Self, Vec<Ending>)> {
        let mut reader = Reader(file.get(HEADER_BYTES..)?);
        let count = reader.u32()?;
        let crc = reader.u32()?;
        let (endings, _) = reader.0.as_chunks::<ENDING_BYTES>();
        let endings = endings.get(..count as usize)?;
        let whole = crc == checksum(&count.to_le_bytes(), endings.as_flattened(), seed);
        let sectors = u64::from(count);
        whole.then(|| (Self { seed, sectors }, endings.to_vec()))
    }

    /// Makes the checksum of what was noted right, as far as its count can be: for a fuzzer.
    #[cfg(feature = "fuzzing")]
    pub(super) fn mend(file: &mut [u8], seed: u32) -> Option<Self> {
        let count = Reader(file.get(HEADER_BYTES..)?).u32()?;
        let reuse = Self {
            seed,
            sectors: u64::from(count),
        };
        let endings = file.get(HEADER_BYTES + FRAME_BYTES..usize::try_from(reuse.start()).ok()?)?;
        let crc = checksum(&count.to_le_bytes(), endings, seed);
        file[HEADER_BYTES + 4..HEADER_BYTES + FRAME_BYTES].copy_from_slice(&crc.to_le_bytes());
        Some(reuse)
    }

    /// Where its first record is.
    pub(super) fn start(self) -> u64 {
        (HEADER_BYTES + FRAME_BYTES) as u64 + self.sectors * ENDING_BYTES as u64
    }

    /// Where the old content ends.
    fn end(self) -> u64 {
        self.sectors * SECTOR
    }

    /// The sectors that have a tag: those behind the note's.
    fn tagged(self) -> Range<u64> {
        self.start().div_ceil(SECTOR)..self.sectors
    }

    /// Filling that has to follow what ends at a place: to the end of the sector, or of the next one.
    pub(super) fn padding(self, end: u64) -> usize {
        let padded = (end + PADDING_BYTES_MIN).next_multiple_of(SECTOR).min(self.end());
        padded.saturating_sub(end) as usize
    }

    /// Puts the tags into bytes that are written at `offset`, or takes them away again.
    pub(super) fn tag(self, offset: u64, bytes: &mut [u8]) {
        let tagged = self.tagged();
        let first = (offset / SECTOR).max(tagged.start);
        let last = (offset + bytes.len() as u64).div_ceil(SECTOR).min(tagged.end);
        for sector in first..last {
            let ending = (sector + 1) * SECTOR - ENDING_BYTES as u64;
            for (place, tag) in (ending..).zip(self.tag_of(sector)) {
                // The batch may begin or end in the middle of them.
                let byte = place
                    .checked_sub(offset)
                    .and_then(|index| bytes.get_mut(index as usize));
                if let Some(byte) = byte {
                    *byte ^= tag;
                }
            }
        }
    }

    /// The tag of a sector: other segments of the same file had another one there, whatever they wrote (the finishing steps
    /// of the generator splitmix64).
    fn tag_of(self, sector: u64) -> Ending {
        let mut bits = (u64::from(self.seed) << 32 | sector).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) as u32).to_le_bytes()
    }
}

// === impl Content ===

impl Content {
    /// A segment whose header says whether its file is used again; none: what was noted of the old one is not whole.
    pub(super) fn read(mut bytes: Vec<u8>, reused: bool, seed: u32) -> Option<Self> {
        let old = if reused {
            Some(Reuse::decode(&bytes, seed)?)
        } else {
            None
        };
        if let Some((reuse, _)) = &old {
            reuse.tag(0, &mut bytes);
        }
        Some(Self { bytes, old })
    }

    /// What was written, and the tags taken away where nothing was.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the first record is.
    pub(super) fn start(&self) -> usize {
        let start = self.old.as_ref().map(|(reuse, _)| reuse.start());
        start.map_or(HEADER_BYTES, |start| usize::try_from(start).unwrap_or(usize::MAX))
    }

    /// Up to where there was content before, as far as it is still there.
    pub(super) fn old_end(&self) -> usize {
        let end = self.old.as_ref().map_or(0, |(reuse, _)| reuse.end());
        usize::try_from(end).map_or(self.bytes.len(), |end| end.min(self.bytes.len()))
    }

    /// Whether the medium has four zeros at a place, which were not there before.
    pub(super) fn is_zero(&self, place: usize) -> bool {
        self.raw(place) == Some([0; 4])
            && !self.is_old(place / SECTOR_BYTES)
            && !self.is_old((place + 3) / SECTOR_BYTES)
    }

    /// With the filling in place of sectors that were not written, or not to their end, from a place on.
    pub(super) fn without_old(&self, from: usize) -> Cow<'_, [u8]> {
        if self.old.is_none() {
            return Cow::Borrowed(&self.bytes);
        }
        let mut bytes = self.bytes.clone();
        for sector in from / SECTOR_BYTES..bytes.len() / SECTOR_BYTES {
            if self.is_old(sector) {
                let start = sector * SECTOR_BYTES;
                bytes[start.max(from)..start + SECTOR_BYTES].fill(Grid::FILL);
            }
        }
        Cow::Owned(bytes)
    }

    /// Whether a sector ends as it did before.
    fn is_old(&self, sector: usize) -> bool {
        let Some((reuse, endings)) = &self.old else {
            return false;
        };
        let ending = self.raw((sector + 1) * SECTOR_BYTES - ENDING_BYTES);
        reuse.tagged().contains(&(sector as u64)) && ending.as_ref() == endings.get(sector)
    }

    /// Four bytes as the medium has them.
    fn raw(&self, place: usize) -> Option<[u8; 4]> {
        let mut bytes: [u8; 4] = self.bytes.get(place..place + 4)?.try_into().ok()?;
        if let Some((reuse, _)) = &self.old {
            reuse.tag(place as u64, &mut bytes);
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use base::Random;

    use super::*;

    const SEED: u32 = 77;

    /// A segment over an old one of 20 sectors of one byte: what was written before its records, as the medium has it.
    fn begun() -> (Reuse, Vec<u8>) {
        let mut file = vec![b'o'; 20 * SECTOR_BYTES];
        let endings: Vec<_> = file.chunks(SECTOR_BYTES).filter_map(ending).collect();
        let (reuse, mut bytes) = Reuse::begin(&[7; HEADER_BYTES], SEED, &endings);
        let padding = reuse.padding(bytes.len() as u64);
        bytes.resize(bytes.len() + padding, Grid::FILL);
        reuse.tag(0, &mut bytes);
        file[..bytes.len()].copy_from_slice(&bytes);
        (reuse, file)
    }

    #[test]
    fn what_was_not_written_is_told_from_what_was() {
        let (reuse, file) = begun();
        let content = Content::read(file.clone(), true, SEED).unwrap();
        let start = content.start();
        let all_room = |content: &Content, from: usize| {
            let bytes = content.without_old(from);
            bytes[from..].iter().all(|byte| *byte == Grid::FILL)
        };
        assert!(all_room(&content, start));
        // The very bytes that were there before, in pieces that begin and end anywhere.
        let random = Random::seeded(1);
        let (mut file, mut at) = (file, start);
        while at + 3 * SECTOR_BYTES < file.len() {
            let length = random.range(1..900) as usize;
            let padding = reuse.padding((at + length) as u64);
            let mut bytes = [vec![b'o'; length], vec![Grid::FILL; padding]].concat();
            reuse.tag(at as u64, &mut bytes);
            file[at..at + bytes.len()].copy_from_slice(&bytes);
            at += length;
            let content = Content::read(file.clone(), true, SEED).unwrap();
            assert!(content.bytes()[start..at].iter().all(|byte| *byte == b'o'));
            assert!(content.without_old(start)[..at] == content.bytes()[..at]);
            assert!(all_room(&content, at), "written to {at}");
        }
    }

    #[test]
    fn padding_ends_with_a_sector_and_is_never_short() {
        let (reuse, _) = begun();
        let end = reuse.end();
        for place in reuse.start()..end + 10 {
            let padded = place + reuse.padding(place) as u64;
            if place >= end {
                assert_eq!(padded, place);
            } else {
                assert!(padded.is_multiple_of(SECTOR) && padded <= end);
                assert!(padded == end || (PADDING_BYTES_MIN..PADDING_BYTES_MIN + SECTOR).contains(&(padded - place)));
            }
        }
    }

    #[test]
    fn a_note_is_whole_or_nothing() {
        let (reuse, file) = begun();
        for bit in HEADER_BYTES * 8..reuse.start() as usize * 8 {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            assert!(Content::read(file, true, SEED).is_none(), "bit {bit}");
        }
        for length in 0..reuse.start() as usize {
            assert!(Content::read(file[..length].to_vec(), true, SEED).is_none());
        }
        assert!(Content::read(file.clone(), true, SEED + 1).is_none());
        assert!(Content::read(file, true, SEED).is_some());
    }
}
