//! Just enough DER to write a certificate around parts that are DER already, and to read keys.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
/// `TRUE`, whole.
pub(super) const TRUE: [u8; 3] = [0x01, 0x01, 0xff];

/// The tag of an explicitly tagged, constructed value.
pub(crate) const fn explicit(number: u8) -> u8 {
    0xa0 | number
}

/// The tag of an implicitly tagged, primitive value.
pub(super) fn implicit(number: u8) -> u8 {
    0x80 | number
}

/// One value: its tag, its length in the shortest form, its parts one after the other.
pub(crate) fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
            let significant = &bytes[first..];
            out.push(0x80 | significant.len() as u8);
            out.extend_from_slice(significant);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// A number that is not negative, of its bytes without zeros before them.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let sign: &[u8] = match bytes.first() {
        Some(first) if *first < 0x80 => &[],
        _ => &[0],
    };
    value(INTEGER, &[sign, bytes])
}

/// The content of the value at the beginning, if it has that tag; what comes after it is left in `input`.
pub(crate) fn take<'a>(tag: u8, input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (own, rest) = input.split_first()?;
    let (first, rest) = rest.split_first()?;
    if *own != tag {
        return None;
    }
    let (length, rest) = match *first {
        short if short < 0x80 => (usize::from(short), rest),
        // Lengths of up to three bytes: no key is 16 MiB long.
        long => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            if bytes.is_empty() || bytes.len() > 3 {
                return None;
            }
            let length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(content)
}

/// A bit string of named bits: trailing zeros are left out, as DER wants it.
pub(super) fn named_bits(bits: u16) -> Vec<u8> {
    // Bit 0 is the highest one of the first byte.
    let [high, low] = bits.to_be_bytes();
    let bytes: &[u8] = match (high, low) {
        (0, 0) => &[],
        (_, 0) => &[high],
        _ => &[high, low],
    };
    let unused = bytes.last().map_or(0, |last| last.trailing_zeros() as u8);
    value(BIT_STRING, &[&[unused], bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_their_shortest_form() {
        for (length, head) in [
            (0, &[0x30, 0][..]),
            (127, &[0x30, 127]),
            (128, &[0x30, 0x81, 128]),
            (256, &[0x30, 0x82, 1, 0]),
        ] {
            let content = vec![7; length];
            let whole = value(SEQUENCE, &[&content]);
            assert_eq!((&whole[..head.len()], whole.len()), (head, head.len() + length));
        }
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        for length in [0, 127, 128, 255, 256, 70_000] {
            let whole = [value(OCTET_STRING, &[&vec![7; length]]), vec![5, 0]].concat();
            let mut input = &whole[..];
            assert_eq!(take(INTEGER, &mut input), None, "another tag");
            assert_eq!(take(OCTET_STRING, &mut input).map(<[u8]>::len), Some(length));
            assert_eq!((take(NULL, &mut input), input.len()), (Some(&[][..]), 0));
            let mut cut = &whole[..whole.len() - 3];
            assert_eq!(take(OCTET_STRING, &mut cut), None);
        }
        for (number, expect) in [
            (&[1_u8][..], &[2, 1, 1][..]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[], &[2, 1, 0]),
        ] {
            assert_eq!(unsigned(number), expect);
        }
    }

    #[test]
    fn bits_lose_their_trailing_zeros() {
        for (bits, expect) in [
            (0, vec![3, 1, 0]),
            (0x8000, vec![3, 2, 7, 0x80]),
            (0xa000, vec![3, 2, 5, 0xa0]),
            (0x0080, vec![3, 3, 7, 0, 0x80]),
        ] {
            assert_eq!(named_bits(bits), expect, "{bits:x}");
        }
    }
}
