//! Spoils an input: flipped, cut, repeated, inserted and exchanged bytes, and what formats stumble over.

use base::Random;

/// What formats and types stumble over.
const TOKENS: [&[u8]; 41] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\"",
    b"\\u",
    b"\\ud800",
    b"null",
    b"-0",
    b"1e999",
    b"9223372036854775808",
    b"\0",
    b"\xff\xfe",
    b"&a",
    b"*a",
    b"<<: ",
    b"\n- ",
    b"---\n",
    b"? ",
    b"!!binary ",
    b"\x0a\xff\xff\xff\xff\x0f",
    b"k8s\0",
    b"$patch",
    b"$retainKeys",
    b"$setElementOrder/",
    b"$deleteFromPrimitiveList/",
    b"/-",
    b"~1",
    b"%2F",
    b"%",
    b"..",
    b" notin (",
    b".map(x, ",
    b".?a",
    b"[?0]",
    b" ? 1 : ",
    b" && ",
    b"dyn(",
    b")",
];

/// How often a token is repeated when it is repeated: deeper than any limit on nesting.
const REPEATED: usize = 400;
/// The longest piece that is repeated or taken from another input.
const PIECE_BYTES_MAX: usize = 64;

/// Changes an input in one to four places.
pub fn spoil(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &Random) {
    for _ in 0..=random.index(4) {
        let at = random.index(bytes.len() + 1);
        match random.index(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.index(8),
            1 => bytes.truncate(at),
            2 => {
                let end = (at + random.index(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let end = (at + random.index(PIECE_BYTES_MAX)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 | 5 => {
                let token = TOKENS[random.index(TOKENS.len())];
                let times = if random.chance(0.02) { REPEATED } else { 1 };
                bytes.splice(at..at, token.repeat(times));
            }
            6 if !others.is_empty() => {
                let other = &others[random.index(others.len())];
                let from = random.index(other.len() + 1);
                let end = (from + random.index(PIECE_BYTES_MAX)).min(other.len());
                bytes.splice(at..at, other[from..end].to_vec());
            }
            _ => bytes.insert(at, random.bytes::<1>()[0]),
        }
    }
}
