//! What is behind the last whole record of the newest segment: room, a batch that was never synced, or one that was and has
//! rotted. Pure.
//!
//! Two of them look alike in most logs: the end of what was acknowledged, damaged, and a batch that a crash tore. They are
//! told apart by what was there before. Room is filled ([`Grid::FILL`]), and it was durable up to the next place of the grid
//! before a batch was written into it. A torn batch therefore lets the filling show through, or zeros where the file was
//! shorter; it never begins with zeros, nor is it written to its very end and still not whole. In a file that is used again
//! ([`Content`]) what a batch has not overwritten counts as filling.
//!
//! Invariant: what a crash can leave, whichever part of a batch it kept, is never taken for rot. The other way around there
//! are limits, which `FORMAT.md` names.

use super::format::{
    FRAME_BYTES, Grid, PAYLOAD_BYTES_MAX, Reader, SECTOR_BYTES, checksum, frame_at, is_rot, payload_length,
};
use super::reuse::Content;

/// What a crash leaves out of a batch is its part of a sector, which is little at the batch's beginning, or everything to its
/// end. A run of the filling, or of zeros, as long as this counts as left out anywhere: a store that does not open after a
/// crash would be worse than damage that is told by a warning only.
const HOLE_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing was written there.
    Room,
    /// A batch that was never acknowledged.
    Torn,
    /// Something that was durable is damaged; what.
    Rotten(&'static str),
}

/// Judges what is not whole at `from`, behind a record of the batch that begins at `batch`, or behind the header.
pub(super) fn judge(content: &Content, from: usize, batch: usize, last_revision: u64, grid: Grid, seed: u32) -> Tail {
    if is_rot(content.bytes(), from, last_revision, seed) {
        return Tail::Rotten("a record that was durable is damaged");
    }
    // Everything before `batch` was durable, so the room behind that was, too; what follows it may not have been, unless it
    // was there before the segment was.
    let filled = usize::try_from(grid.after(batch as u64)).unwrap_or(usize::MAX);
    if content.bytes().len() < filled {
        return Tail::Rotten("the room behind the last records was cut off, and maybe some of them");
    }
    let filled = filled.max(content.old_end());
    let segment = &*content.without_old(from);
    let written = segment[from..].iter().rposition(|byte| *byte != Grid::FILL);
    let Some(end) = written.map(|last| from + last + 1) else {
        return Tail::Room;
    };
    if from + 4 <= filled && content.is_zero(from) {
        return Tail::Rotten("there are zeros where a record or room for one must be");
    }
    let cut_short = end > filled && segment[end - 1] == 0;
    if cut_short || has_hole(&segment[..end], from, filled) {
        return Tail::Torn;
    }
    // A batch further on has become zeros, and this one has rotted, too.
    let gone = |place: usize| place + 4 <= filled && content.is_zero(place);
    if is_complete(segment, from, end, last_revision, gone, seed) {
        Tail::Rotten("the last batch was written to its end and is damaged")
    } else {
        Tail::Torn
    }
}

/// Whether a part behind `from` was left out: the filling shows, or zeros where there may have been no filling yet.
fn has_hole(segment: &[u8], from: usize, filled: usize) -> bool {
    // What is there instead: the filling everywhere, or only as far as it was durable.
    [usize::MAX, filled].into_iter().any(|filled| {
        let mut run = 0;
        segment.iter().enumerate().skip(from).any(|(place, byte)| {
            let absent = if place < filled { Grid::FILL } else { 0 };
            run = if *byte == absent { run + 1 } else { 0 };
            let sector = (place - place % SECTOR_BYTES).max(from);
            let all_of_it = (place + 1) % SECTOR_BYTES == 0 && run > place - sector;
            run >= HOLE_BYTES || all_of_it
        })
    })
}

/// Whether frames were written up to `end`: their lengths lead there, or the first one would be whole if it ended there, or
/// the last one is; or up to where one is gone.
fn is_complete(
    segment: &[u8],
    from: usize,
    end: usize,
    last_revision: u64,
    gone: impl Fn(usize) -> bool,
    seed: u32,
) -> bool {
    let mut place = from;
    while place < end {
        if gone(place) {
            return true;
        }
        let length = segment.get(place..place + 4).and_then(payload_length);
        match length.map(|length| place + FRAME_BYTES + length) {
            Some(next) if next <= end => place = next,
            _ => break,
        }
    }
    if place == end {
        return true;
    }
    if let Some((head, payload)) = segment[from..end].split_at_checked(FRAME_BYTES) {
        // Below 4 GiB, as a segment is.
        let length = (payload.len() as u32).to_le_bytes();
        if head[4..] == checksum(&length, payload, seed).to_le_bytes() {
            return true;
        }
    }
    // Its length and its revision are looked at before the checksum, which is dear.
    let is_last = |place: &usize| {
        let mut reader = Reader(&segment[*place..end]);
        let length = reader.u32().map(|length| length as usize + FRAME_BYTES);
        let (_crc, revision) = (reader.u32(), reader.u64());
        length == Some(end - place) && revision.is_some_and(|revision| revision > last_revision)
    };
    let earliest = end.saturating_sub(PAYLOAD_BYTES_MAX + FRAME_BYTES).max(from + 1);
    (earliest..end)
        .filter(is_last)
        .any(|place| frame_at(segment, place, seed).is_some())
}

#[cfg(test)]
mod tests {
    use base::Random;

    use super::*;
    use crate::embedded::format::{HEADER_BYTES, LogRecord};
    use crate::embedded::reuse::{Reuse, ending};
    use crate::transaction::{Operation, Put, Stamp};

    const SEED: u32 = 5;
    const GRID: u64 = 4096;
    /// Where the durable records end in these tests: anywhere in a sector, and behind what is noted of an old file.
    const STARTS: [usize; 5] = [260, 509, 1023, 1536, 4000];

    fn grid() -> Grid {
        Grid::of(GRID)
    }

    fn record(revision: u64, batch_start: usize, value: usize, seed: u32) -> Vec<u8> {
        let put = Put {
            key: "key".into(),
            value: vec![b'v'; value].into(),
            expires_at_ms: None,
            stamp: Stamp::default(),
        };
        let record = LogRecord {
            revision,
            batch_start: batch_start as u64,
            time_ms: 7,
            operations: vec![Operation::Put(put)],
        };
        let mut bytes = Vec::new();
        record.encode(seed, &mut bytes);
        bytes
    }

    fn records(from: usize, values: &[usize], seed: u32) -> Vec<u8> {
        let records = (8..)
            .zip(values)
            .flat_map(|(revision, value)| record(revision, from, *value, seed));
        records.collect()
    }

    /// A segment whose records up to `from` are durable, and a batch behind them.
    struct Written {
        from: usize,
        /// The file before the batch.
        before: Vec<u8>,
        /// What is written for the batch.
        batch: Vec<u8>,
        /// Length of its records.
        length: usize,
        /// Length of its first record.
        first: usize,
        /// The file with the batch and the room behind it.
        whole: Vec<u8>,
        reused: bool,
        what: String,
    }

    /// With a batch of records with values of these lengths.
    fn written(from: usize, values: &[usize]) -> Written {
        let batch = records(from, values, SEED);
        let mut before = vec![1; from];
        let mut whole = [&before[..], &batch].concat();
        for file in [&mut before, &mut whole] {
            file.resize(grid().after(file.len() as u64) as usize, Grid::FILL);
        }
        Written {
            from,
            before,
            length: batch.len(),
            batch,
            first: record(8, from, values[0], SEED).len(),
            whole,
            reused: false,
            what: format!("{values:?} at {from}"),
        }
    }

    /// The same in the file of an old segment, which has the same batch in the same place, again and again.
    fn written_over(from: usize, values: &[usize]) -> Written {
        let mut before = vec![1; from];
        // So long that a sector is left in any case.
        let end = from + records(from, values, SEED).len() + SECTOR_BYTES;
        let end = grid().after(end as u64) as usize;
        while before.len() < end {
            before.extend(records(from, values, SEED + 1));
        }
        before.truncate(end);
        let endings: Vec<_> = before.chunks(SECTOR_BYTES).filter_map(ending).collect();
        let (reuse, mut bytes) = Reuse::begin(&[0; HEADER_BYTES], SEED, &endings);
        let write = |file: &mut Vec<u8>, offset: usize, mut bytes: Vec<u8>| {
            let end = (offset + bytes.len()) as u64;
            bytes.resize(bytes.len() + reuse.padding(end), Grid::FILL);
            reuse.tag(offset as u64, &mut bytes);
            put(file, offset, &bytes);
            bytes
        };
        bytes.resize(from, 1);
        write(&mut before, 0, bytes);
        let records = records(from, values, SEED);
        let mut whole = before.clone();
        let length = records.len();
        let batch = write(&mut whole, from, records);
        Written {
            from,
            before,
            batch,
            length,
            first: record(8, from, values[0], SEED).len(),
            whole,
            reused: true,
            what: format!("{values:?} at {from}, over an old segment"),
        }
    }

    impl Written {
        fn judged(&self, bytes: &[u8]) -> Tail {
            judge(&self.content(bytes), self.from, self.from, 7, grid(), SEED)
        }

        fn content(&self, bytes: &[u8]) -> Content {
            Content::read(bytes.to_vec(), self.reused, SEED).expect("what is noted is whole")
        }

        fn is_rotten(&self, bytes: &[u8]) -> bool {
            matches!(self.judged(bytes), Tail::Rotten(_))
        }
    }

    /// Every batch that is damaged by a bit, or gone, is known to have been there.
    #[test]
    fn a_rotten_batch_is_never_taken_for_a_torn_one() {
        let batches = [&[40][..], &[0], &[300], &[10, 60, 5], &[5000]];
        let written = [written, written_over].map(|written| {
            let places = STARTS.into_iter().cycle().zip(batches);
            places.map(move |(from, values)| written(from, values))
        });
        for written in written.into_iter().flatten() {
            let (from, what, first) = (written.from, &written.what, written.first);
            // The first record is the one that is not whole: bits of the others are found the same way behind it. All of a
            // small one's bits, some of a large one's.
            for bit in (0..first * 8).step_by(if first > 600 { 411 } else { 1 }) {
                let mut bytes = written.whole.clone();
                bytes[from + bit / 8] ^= 1 << (bit % 8);
                let judged = written.judged(&bytes);
                assert!(matches!(judged, Tail::Rotten(_)), "{what}: bit {bit}: {judged:?}");
            }
            let gone = [(written.length, 0), (first.min(512), 0), (8, 0)];
            for (length, with) in gone.into_iter().chain([(written.length, 0xff)]) {
                let mut bytes = written.whole.clone();
                bytes[from..from + length].fill(with);
                let judged = written.judged(&bytes);
                let told = matches!(judged, Tail::Rotten(_)) || with == 0xff;
                assert!(told, "{what}: {length} bytes of {with}: {judged:?}");
                assert_ne!(judged, Tail::Room, "it is never silent");
            }
            for cut in [from, from + 1] {
                assert!(written.is_rotten(&written.whole[..cut]), "{what}: cut to {cut}");
            }
        }
    }

    fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
        if file.len() < at + bytes.len() {
            file.resize(at + bytes.len(), 0);
        }
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Whatever a crash keeps of a batch and of the room that was made for it: a beginning, or some of the sectors.
    #[test]
    fn a_torn_batch_is_never_taken_for_a_rotten_one() {
        let random = Random::seeded(3);
        let batches = [
            &[40][..],
            &[0],
            &[300],
            &[10, 60, 5],
            &[5000],
            &[3000, 3000],
            &[2000, 0, 9000],
        ];
        let places = STARTS.iter().flat_map(|from| batches.map(|values| (*from, values)));
        for written in places.flat_map(|(from, values)| [written(from, values), written_over(from, values)]) {
            let from = written.from;
            let (before, batch) = (&written.before, &written.batch);
            let room = vec![Grid::FILL; written.whole.len() - before.len()];
            let check = |file: &[u8], what: &str| {
                // What is whole would be read, and what follows be judged.
                let (mut place, mut last) = (from, 7);
                let content = written.content(file);
                while frame_at(content.bytes(), place, SEED).is_some() {
                    let length: [u8; 4] = content.bytes()[place..place + 4].try_into().unwrap();
                    (place, last) = (place + FRAME_BYTES + u32::from_le_bytes(length) as usize, last + 1);
                }
                let judged = judge(&content, place, from, last, grid(), SEED);
                assert!(
                    !matches!(judged, Tail::Rotten(_)),
                    "{}: {what}: {judged:?}",
                    written.what
                );
            };
            let step = if batch.len() > 600 { 397 } else { 1 };
            for with_room in [false, true] {
                for length in (0..batch.len()).step_by(step).chain([batch.len()]) {
                    let mut file = before.clone();
                    if with_room {
                        put(&mut file, before.len(), &room);
                    }
                    put(&mut file, from, &batch[..length]);
                    check(&file, &format!("{length} bytes"));
                }
            }
            for length in (0..room.len()).step_by(411) {
                let mut file = before.clone();
                put(&mut file, before.len(), &room[..length]);
                check(&file, &format!("{length} bytes of room"));
            }
            for round in 0..30 {
                let mut file = before.clone();
                for (at, bytes) in [(before.len(), &room), (from, batch)] {
                    let end = at + bytes.len();
                    for sector in at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
                        let start = at.max(sector * SECTOR_BYTES);
                        if random.chance(0.5) {
                            let stop = end.min((sector + 1) * SECTOR_BYTES);
                            put(&mut file, start, &bytes[start - at..stop - at]);
                        }
                    }
                }
                check(&file, &format!("sectors of round {round}"));
            }
            assert_eq!(written.judged(before), Tail::Room);
        }
    }
}
