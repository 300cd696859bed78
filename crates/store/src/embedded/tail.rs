//! What is behind the last whole record of the newest segment: room, a batch that was never synced, or one that was and has
//! rotted. Pure.
//!
//! Two of them look alike in most logs: the end of what was acknowledged, damaged, and a batch that a crash tore. They are
//! told apart by what was there before. Room is filled ([`Grid::FILL`]), and it was durable up to the next place of the grid
//! before a batch was written into it. A torn batch therefore lets the filling show through, or zeros where the file was
//! shorter; it never begins with zeros, nor is it written to its very end and still not whole.
//!
//! Invariant: what a crash can leave, whichever part of a batch it kept, is never taken for rot. The other way around there
//! are limits, which `FORMAT.md` names.

use super::format::{
    FRAME_BYTES, Grid, PAYLOAD_BYTES_MAX, Reader, SECTOR_BYTES, checksum, frame_at, is_rot, payload_length,
};

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
pub(super) fn judge(segment: &[u8], from: usize, batch: usize, last_revision: u64, grid: Grid, seed: u32) -> Tail {
    if is_rot(segment, from, last_revision, seed) {
        return Tail::Rotten("a record that was durable is damaged");
    }
    // Everything before `batch` was durable, so the room behind that was, too; what follows it may not have been.
    let filled = usize::try_from(grid.after(batch as u64)).unwrap_or(usize::MAX);
    if segment.len() < filled {
        return Tail::Rotten("the room behind the last records was cut off, and maybe some of them");
    }
    let written = segment[from..].iter().rposition(|byte| *byte != Grid::FILL);
    let Some(end) = written.map(|last| from + last + 1) else {
        return Tail::Room;
    };
    if from + 4 <= filled && segment[from..from + 4] == [0; 4] {
        return Tail::Rotten("there are zeros where a record or room for one must be");
    }
    let cut_short = end > filled && segment[end - 1] == 0;
    if cut_short || has_hole(&segment[..end], from, filled) {
        return Tail::Torn;
    }
    if is_complete(segment, from, end, last_revision, filled, seed) {
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
/// the last one is.
fn is_complete(segment: &[u8], from: usize, end: usize, last_revision: u64, filled: usize, seed: u32) -> bool {
    let mut place = from;
    while place < end {
        // A batch further on has become zeros, and this one has rotted, too.
        if place + 4 <= filled && segment[place..place + 4] == [0; 4] {
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
    use crate::embedded::format::LogRecord;
    use crate::transaction::{Operation, Put, Stamp};

    const SEED: u32 = 5;
    const GRID: u64 = 4096;
    /// Where the durable records end in these tests: anywhere in a sector.
    const STARTS: [usize; 4] = [100, 509, 1023, 4000];

    fn grid() -> Grid {
        Grid::of(GRID)
    }

    fn record(revision: u64, batch_start: usize, value: usize) -> Vec<u8> {
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
        record.encode(SEED, &mut bytes);
        bytes
    }

    /// A segment whose records up to `from` are durable, and a batch behind them.
    struct Written {
        from: usize,
        /// The file before the batch.
        before: Vec<u8>,
        batch: Vec<u8>,
        /// Length of its first record.
        first: usize,
        /// The file with the batch and the room behind it.
        whole: Vec<u8>,
        what: String,
    }

    /// With a batch of records with values of these lengths.
    fn written(from: usize, values: &[usize]) -> Written {
        let batch: Vec<u8> = (8..)
            .zip(values)
            .flat_map(|(revision, value)| record(revision, from, *value))
            .collect();
        let mut before = vec![1; from];
        let mut whole = [&before[..], &batch].concat();
        for file in [&mut before, &mut whole] {
            file.resize(grid().after(file.len() as u64) as usize, Grid::FILL);
        }
        let first = record(8, from, values[0]).len();
        let what = format!("{values:?} at {from}");
        Written {
            from,
            before,
            batch,
            first,
            whole,
            what,
        }
    }

    impl Written {
        fn judged(&self, bytes: &[u8]) -> Tail {
            judge(bytes, self.from, self.from, 7, grid(), SEED)
        }

        fn is_rotten(&self, bytes: &[u8]) -> bool {
            matches!(self.judged(bytes), Tail::Rotten(_))
        }
    }

    /// Every batch that is damaged by a bit, or gone, is known to have been there.
    #[test]
    fn a_rotten_batch_is_never_taken_for_a_torn_one() {
        let batches = [&[40][..], &[0], &[300], &[10, 60, 5], &[5000]];
        for (from, values) in STARTS.into_iter().cycle().zip(batches) {
            let written = written(from, values);
            let (what, first) = (&written.what, written.first);
            // The first record is the one that is not whole: bits of the others are found the same way behind it. All of a
            // small one's bits, some of a large one's.
            for bit in (0..first * 8).step_by(if first > 600 { 411 } else { 1 }) {
                let mut bytes = written.whole.clone();
                bytes[from + bit / 8] ^= 1 << (bit % 8);
                let judged = written.judged(&bytes);
                assert!(matches!(judged, Tail::Rotten(_)), "{what}: bit {bit}: {judged:?}");
            }
            let gone = [(written.batch.len(), 0), (first.min(512), 0), (8, 0)];
            for (length, with) in gone.into_iter().chain([(written.batch.len(), 0xff)]) {
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
        for (from, values) in STARTS.iter().flat_map(|from| batches.map(|values| (*from, values))) {
            let written = written(from, values);
            let (before, batch) = (&written.before, &written.batch);
            let room = vec![Grid::FILL; written.whole.len() - before.len()];
            let check = |file: &[u8], what: &str| {
                // What is whole would be read, and what follows be judged.
                let (mut place, mut last) = (from, 7);
                while frame_at(file, place, SEED).is_some() {
                    let length: [u8; 4] = file[place..place + 4].try_into().unwrap();
                    (place, last) = (place + FRAME_BYTES + u32::from_le_bytes(length) as usize, last + 1);
                }
                let judged = judge(file, place, from, last, grid(), SEED);
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
