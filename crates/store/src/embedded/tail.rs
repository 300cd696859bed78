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

use super::format::{FRAME_BYTES, Grid, PAYLOAD_BYTES_MAX, Reader, checksum, frame_at, is_rot, payload_length};

/// What a crash leaves out of a batch is at least a sector, or everything to its end. A run of the filling, or of zeros, as
/// long as this is a part that was left out.
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
    if cut_short || has_hole(&segment[from..end], filled.saturating_sub(from)) {
        return Tail::Torn;
    }
    if is_complete(segment, from, end, last_revision, filled, seed) {
        Tail::Rotten("the last batch was written to its end and is damaged")
    } else {
        Tail::Torn
    }
}

/// Whether a part was left out: the filling shows, or zeros where there was no filling yet.
fn has_hole(written: &[u8], filled: usize) -> bool {
    let (mut fill, mut zeros) = (0, 0);
    for (place, byte) in written.iter().enumerate() {
        fill = if *byte == Grid::FILL { fill + 1 } else { 0 };
        zeros = if *byte == 0 && place >= filled { zeros + 1 } else { 0 };
        if fill >= HOLE_BYTES || zeros >= HOLE_BYTES {
            return true;
        }
    }
    false
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
    /// Where the durable records end in these tests.
    const FROM: usize = 100;

    fn grid() -> Grid {
        Grid::of(GRID).unwrap()
    }

    fn record(revision: u64, value: usize) -> Vec<u8> {
        let put = Put {
            key: "key".into(),
            value: vec![b'v'; value].into(),
            expires_at_ms: None,
            stamp: Stamp::default(),
        };
        let record = LogRecord {
            revision,
            batch_start: FROM as u64,
            time_ms: 7,
            operations: vec![Operation::Put(put)],
        };
        let mut bytes = Vec::new();
        record.encode(SEED, &mut bytes);
        bytes
    }

    /// A segment whose records up to `FROM` are durable, then a batch of records with values of these lengths. Where the
    /// file had ended before it, and the batch.
    fn segment(values: &[usize]) -> (usize, Vec<u8>, Vec<u8>) {
        let room = grid().after(FROM as u64) as usize;
        let batch: Vec<u8> = (8..)
            .zip(values)
            .flat_map(|(revision, value)| record(revision, *value))
            .collect();
        let end = FROM + batch.len();
        let mut bytes = vec![1; FROM];
        bytes.extend_from_slice(&batch);
        bytes.resize(
            if end < room {
                room
            } else {
                grid().after(end as u64) as usize
            },
            Grid::FILL,
        );
        (room, bytes, batch)
    }

    fn judged(bytes: &[u8]) -> Tail {
        judge(bytes, FROM, FROM, 7, grid(), SEED)
    }

    fn is_rotten(bytes: &[u8]) -> bool {
        matches!(judged(bytes), Tail::Rotten(_))
    }

    /// Every batch that is damaged by a bit, or gone, is known to have been there.
    #[test]
    fn a_rotten_batch_is_never_taken_for_a_torn_one() {
        for values in [&[40][..], &[0], &[300], &[10, 60, 5], &[5000]] {
            let (_, whole, batch) = segment(values);
            // The first record is the one that is not whole: bits of the others are found the same way behind it.
            let first = record(8, values[0]).len();
            // All of a small one's bits, some of a large one's.
            for bit in (0..first * 8).step_by(if first > 600 { 61 } else { 1 }) {
                let mut bytes = whole.clone();
                bytes[FROM + bit / 8] ^= 1 << (bit % 8);
                assert!(is_rotten(&bytes), "{values:?}: bit {bit}: {:?}", judged(&bytes));
            }
            for (length, with) in [(batch.len(), 0), (batch.len(), 0xff), (first.min(512), 0), (8, 0)] {
                let mut bytes = whole.clone();
                bytes[FROM..FROM + length].fill(with);
                let told = is_rotten(&bytes) || with == 0xff;
                assert!(told, "{values:?}: {length} bytes of {with}: {:?}", judged(&bytes));
                assert_ne!(judged(&bytes), Tail::Room, "it is never silent");
            }
            assert!(
                is_rotten(&whole[..FROM]) && is_rotten(&whole[..FROM + 1]),
                "{values:?}: cut off"
            );
        }
    }

    /// Whatever a crash keeps of a batch: a beginning of it, or some of its sectors, with or without the room behind it.
    #[test]
    fn a_torn_batch_is_never_taken_for_a_rotten_one() {
        let random = Random::seeded(3);
        for values in [
            &[40][..],
            &[0],
            &[300],
            &[10, 60, 5],
            &[5000],
            &[3000, 3000],
            &[2000, 0, 9000],
        ] {
            let (room, whole, batch) = segment(values);
            let mut before = vec![1; FROM];
            before.resize(room, Grid::FILL);
            let first = record(8, values[0]).len();
            let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| {
                if file.len() < at + bytes.len() {
                    file.resize(at + bytes.len(), 0);
                }
                file[at..at + bytes.len()].copy_from_slice(bytes);
            };
            let check = |mut file: Vec<u8>, what: &str| {
                for with_room in [false, true] {
                    if with_room {
                        put(&mut file, FROM + batch.len(), &whole[FROM + batch.len()..]);
                    }
                    // A whole first record would be read, and what follows be judged.
                    if frame_at(&file, FROM, SEED).is_none() {
                        assert!(!is_rotten(&file), "{values:?}: {what}: {:?}", judged(&file));
                    } else {
                        let next = judge(&file, FROM + first, FROM, 8, grid(), SEED);
                        let whole = frame_at(&file, FROM + first, SEED).is_some();
                        assert!(
                            whole || !matches!(next, Tail::Rotten(_)),
                            "{values:?}: {what}: {next:?}"
                        );
                    }
                }
            };
            for length in (0..=batch.len()).step_by(if batch.len() > 600 { 97 } else { 1 }) {
                let mut file = before.clone();
                put(&mut file, FROM, &batch[..length]);
                check(file, &format!("{length} bytes"));
            }
            for round in 0..50 {
                let mut file = before.clone();
                for (sector, chunk) in batch.chunks(512).enumerate() {
                    if random.chance(0.5) {
                        put(&mut file, FROM + sector * 512, chunk);
                    }
                }
                check(file, &format!("sectors of round {round}"));
            }
            assert_eq!(judged(&before), Tail::Room);
        }
    }
}
