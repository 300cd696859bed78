//! Randomness as a value that is handed in, so that a simulation repeats itself under its seed.
//!
//! The real generator is a cryptographic one (ChaCha) seeded by the system, so tokens and UIDs may come from it.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// The letters of generated names: no vowels and none that are mistaken for another, so that no words appear.
/// Upstream: `k8s.io/apimachinery/pkg/util/rand`.
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A source of random values. Cheap to clone; clones draw from the same sequence.
#[derive(Clone, Debug)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// A generator that nobody can predict.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's randomness"
    )]
    pub fn real() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// The sequence of `seed`, the same in every run.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A new sequence that depends on this one but does not disturb it further: give one to each part of a simulation,
    /// so that a change in one part does not change what the others draw.
    pub fn fork(&self) -> Self {
        Self::seeded(self.u64())
    }

    /// Any 64 bits.
    pub fn u64(&self) -> u64 {
        self.0.lock().next_u64()
    }

    /// A number of `range`; its start when the range is empty.
    pub fn range(&self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return range.start;
        }
        self.0.lock().random_range(range)
    }

    /// An index below `len`; zero when `len` is zero.
    pub fn index(&self, len: usize) -> usize {
        self.range(0..len as u64) as usize
    }

    /// A number in `[0, 1)`.
    pub fn unit(&self) -> f64 {
        self.0.lock().random()
    }

    /// True with the given probability, which is clamped to `[0, 1]`.
    pub fn chance(&self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Fills `buffer`.
    pub fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().fill_bytes(buffer);
    }

    /// An array of random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// `length` letters for a generated name (`generateName` takes five), from upstream's alphabet.
    pub fn suffix(&self, length: usize) -> String {
        let mut generator = self.0.lock();
        (0..length)
            .map(|_| SUFFIX_ALPHABET[generator.random_range(0..SUFFIX_ALPHABET.len())] as char)
            .collect()
    }

    /// A version 4 UUID in its canonical lower-case form, as in `metadata.uid`.
    pub fn uuid(&self) -> String {
        let mut bytes: [u8; 16] = self.bytes();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 0x0f] {
                text.push(char::from_digit(u32::from(digit), 16).expect("invariant: a nibble is a hex digit"));
            }
        }
        text
    }

    /// Shuffles `items`.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for upper in (1..items.len()).rev() {
            items.swap(upper, self.index(upper + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself() {
        let draw = |seed| {
            let random = Random::seeded(seed);
            (
                random.u64(),
                random.suffix(8),
                random.uuid(),
                random.range(5..9),
                random.fork().u64(),
            )
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(Random::real().u64(), Random::real().u64());
    }

    #[test]
    fn clones_share_one_sequence() {
        let random = Random::seeded(1);
        let other = random.clone();
        assert_ne!(random.u64(), other.u64());
    }

    #[test]
    fn uuids_are_version_four() {
        let random = Random::seeded(3);
        for _ in 0..100 {
            let uuid = random.uuid();
            assert_eq!(uuid.len(), 36, "{uuid}");
            assert_eq!(uuid.as_bytes()[14], b'4', "{uuid}");
            assert!(b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
            for (index, character) in uuid.chars().enumerate() {
                assert_eq!(character == '-', [8, 13, 18, 23].contains(&index), "{uuid}");
            }
        }
    }

    #[test]
    fn suffixes_use_the_whole_alphabet_and_nothing_else() {
        let text = Random::seeded(4).suffix(5000);
        assert!(text.bytes().all(|letter| SUFFIX_ALPHABET.contains(&letter)));
        assert!(SUFFIX_ALPHABET.iter().all(|letter| text.contains(*letter as char)));
    }

    #[test]
    fn ranges_and_shuffles() {
        let random = Random::seeded(5);
        assert_eq!(random.range(4..4), 4);
        assert_eq!(random.index(0), 0);
        assert!((0..1000).all(|_| (3..6).contains(&random.range(3..6))));
        assert!(!random.chance(0.0) && random.chance(1.0));
        let mut items: Vec<u32> = (0..50).collect();
        random.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
