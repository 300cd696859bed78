//! The header `traceparent`: in which trace a client is, and whether that one is sampled.
//! Source: W3C Trace Context, level 1.

/// A trace and a span in it that somebody else has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: [u8; 16],
    /// The span.
    pub span: [u8; 8],
    /// Whether whoever began the trace samples it.
    pub sampled: bool,
}

impl Context {
    /// Reads the header; `None`: it is to be ignored.
    pub fn parse(header: &str) -> Option<Context> {
        let mut parts = header.trim().split('-');
        let [version] = hex(parts.next()?)?;
        let trace: [u8; 16] = hex(parts.next()?)?;
        let span: [u8; 8] = hex(parts.next()?)?;
        let [flags] = hex(parts.next()?)?;
        // Later versions may have more parts, this one has not.
        let more = parts.next().is_some();
        let valid = version != 0xff && !(version == 0 && more) && trace != [0; 16] && span != [0; 8];
        valid.then_some(Context {
            trace,
            span,
            sampled: flags & 1 == 1,
        })
    }
}

/// So many bytes in small letters.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_or_ignored() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let read = |header: String| Context::parse(&header);
        let context = read(format!("00-{trace}-{span}-01")).unwrap();
        assert_eq!((context.trace[0], context.span[7], context.sampled), (0x4b, 0xb7, true));
        assert!(!read(format!("00-{trace}-{span}-00")).unwrap().sampled);
        assert!(read(format!("01-{trace}-{span}-01-more")).is_some());
        for header in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}0-{span}-01"),
        ] {
            assert_eq!(read(header.clone()), None, "{header}");
        }
    }
}
