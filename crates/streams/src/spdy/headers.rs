//! The compressed headers of SPDY/3: one zlib stream for all frames of a direction, with a dictionary that both sides know.
//!
//! Reading needs no zlib with dictionaries: a raw inflater that was fed the dictionary as a stored block has it in its window.
//! Writing compresses nothing: what a server tells is empty or short, and stored blocks are zlib too.

use std::sync::LazyLock;

use flate2::{Decompress, FlushDecompress, Status};

use super::SpdyError;

/// The longest headers of one frame, inflated: clients send a stream's type, port and number.
const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// The words of the dictionary that stand in it with their length in front.
/// Source: draft-mbelshe-httpbis-spdy-00, 2.6.10.1 (also for all of what follows here).
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age \
    allow authorization cache-control connection content-base content-encoding content-language content-length \
    content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since \
    if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
    proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning \
    www-authenticate method get status 200|OK version HTTP/1.1 url public set-cookie keep-alive origin";
/// The rest of it.
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
    Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec \
    00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8\
    charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    for word in WORDS.split_whitespace() {
        let word = word.replace('|', " ");
        push_text(&mut bytes, &word);
    }
    bytes.extend_from_slice(REST.as_bytes());
    bytes
});

/// Reads the headers of one direction, in order.
pub struct Inflater {
    inflate: Decompress,
    begun: bool,
}

impl Inflater {
    /// Before the first frame.
    pub fn new() -> Inflater {
        let mut inflate = Decompress::new(false);
        let mut sink = vec![0; DICTIONARY.len()];
        inflate
            .decompress(&stored(&DICTIONARY), &mut sink, FlushDecompress::Sync)
            .expect("invariant: a stored block is deflate");
        Inflater { inflate, begun: false }
    }

    /// The headers of the next frame.
    ///
    /// # Errors
    /// What is not compressed headers, or too much.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
        if !self.begun {
            bytes = begin(bytes).ok_or(SpdyError::Compression)?;
            self.begun = true;
        }
        let mut out = vec![0; HEADERS_BYTES_MAX + 1];
        let (mut read, mut written) = (0, 0);
        while read < bytes.len() {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(&bytes[read..], &mut out[written..], FlushDecompress::Sync)
                .map_err(|_| SpdyError::Compression)?;
            let taken = |total: u64, before: u64| usize::try_from(total - before).unwrap_or(usize::MAX);
            let (took, made) = (
                taken(self.inflate.total_in(), before_in),
                taken(self.inflate.total_out(), before_out),
            );
            (read, written) = (read + took, written + made);
            if written > HEADERS_BYTES_MAX {
                return Err(SpdyError::TooLong);
            }
            if status == Status::StreamEnd || (took == 0 && made == 0) {
                return Err(SpdyError::Compression);
            }
        }
        parse(&out[..written])
    }
}

/// Writes the headers of one direction, in order.
#[derive(Default)]
pub struct Deflater {
    begun: bool,
}

impl Deflater {
    /// The headers of the next frame.
    pub fn write(&mut self, headers: &[(String, String)]) -> Vec<u8> {
        let mut block = u32::try_from(headers.len()).unwrap_or(0).to_be_bytes().to_vec();
        for (name, value) in headers {
            push_text(&mut block, name);
            push_text(&mut block, value);
        }
        // zlib's header for a window of 32 KiB and no compression, without a dictionary.
        let mut out = if std::mem::replace(&mut self.begun, true) {
            Vec::new()
        } else {
            vec![0x78, 0x01]
        };
        out.extend_from_slice(&stored(&block));
        // An empty block: a reader hands out what came before it.
        out.extend_from_slice(&stored(&[]));
        out
    }
}

/// What stands behind zlib's header: its two bytes, and the dictionary's checksum when it is used, as all clients do.
fn begin(bytes: &[u8]) -> Option<&[u8]> {
    let ([method, flags], rest) = bytes.split_first_chunk::<2>()?;
    if method & 0x0f != 8 {
        return None;
    }
    if flags & 0x20 == 0 {
        return Some(rest);
    }
    let (id, rest) = rest.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*id) == adler32(&DICTIONARY)).then_some(rest)
}

/// A stored block that is not the last one. Nothing that is written here is longer than one takes.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut out = vec![0];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(&bytes[..usize::from(length)]);
    out
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn parse(mut bytes: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
    let count = number(&mut bytes)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = text(&mut bytes)?;
        let value = text(&mut bytes)?;
        headers.push((name.to_ascii_lowercase(), value));
    }
    Ok(headers)
}

fn number(bytes: &mut &[u8]) -> Result<usize, SpdyError> {
    let (first, rest) = bytes.split_first_chunk::<4>().ok_or(SpdyError::Headers)?;
    *bytes = rest;
    usize::try_from(u32::from_be_bytes(*first)).map_err(|_| SpdyError::Headers)
}

fn text(bytes: &mut &[u8]) -> Result<String, SpdyError> {
    let length = number(bytes)?;
    let (own, rest) = bytes.split_at_checked(length).ok_or(SpdyError::Headers)?;
    *bytes = rest;
    String::from_utf8(own.to_vec()).map_err(|_| SpdyError::Headers)
}

fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % MODULUS;
        (a, (b + a) % MODULUS)
    });
    b << 16 | a
}

#[cfg(test)]
pub(super) mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// Compresses as a client does: deflate with the dictionary in the window.
    pub(in crate::spdy) struct Client {
        deflate: Compress,
        begun: bool,
    }

    impl Client {
        pub(in crate::spdy) fn new() -> Client {
            Client {
                deflate: Compress::new(Compression::best(), false),
                begun: false,
            }
        }

        fn deflate(&mut self, bytes: &[u8]) -> Vec<u8> {
            let mut out = Vec::with_capacity(bytes.len() * 2 + 64);
            self.deflate.compress_vec(bytes, &mut out, FlushCompress::Sync).unwrap();
            out
        }

        pub(in crate::spdy) fn write(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
            let mut block = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
            for (name, value) in headers {
                push_text(&mut block, name);
                push_text(&mut block, value);
            }
            let mut out = Vec::new();
            if !std::mem::replace(&mut self.begun, true) {
                out.extend_from_slice(&[0x78, 0xbb]);
                out.extend_from_slice(&adler32(&DICTIONARY).to_be_bytes());
                // What the dictionary compresses to is known to both sides.
                self.deflate(&DICTIONARY);
            }
            out.extend(self.deflate(&block));
            out
        }
    }

    #[test]
    fn the_dictionary_is_that_of_the_protocol() {
        assert_eq!(DICTIONARY.len(), 1423);
        assert_eq!(adler32(&DICTIONARY), 0xe3c6_a7c2);
    }

    #[test]
    fn headers_come_as_they_went() {
        let (mut client, mut inflater) = (Client::new(), Inflater::new());
        for headers in [
            &[("streamtype", "error"), ("port", "8080"), ("requestid", "0")][..],
            &[("streamtype", "data"), ("content-type", "text/plain")],
            &[],
        ] {
            let read = inflater.read(&client.write(headers)).unwrap();
            let read: Vec<(&str, &str)> = read.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(read, headers);
        }
    }

    #[test]
    fn what_is_written_is_zlib() {
        use std::io::Read as _;
        let mut deflater = Deflater::default();
        let mut all = deflater.write(&[]);
        all.extend(deflater.write(&[("a".into(), "b".into())]));
        let mut read = [0; 18];
        flate2::read::ZlibDecoder::new(&*all).read_exact(&mut read).unwrap();
        assert_eq!(read, *b"\0\0\0\0\0\0\0\x01\0\0\0\x01a\0\0\0\x01b");
    }

    #[test]
    fn nonsense_is_refused() {
        let good = Client::new().write(&[("a", "b")]);
        let check = |bytes: &[u8], expect| assert_eq!(Inflater::new().read(bytes), Err(expect), "{bytes:?}");
        check(b"", SpdyError::Compression);
        check(b"\x79\x01", SpdyError::Compression);
        check(b"\x78\xbb\0\0\0\0\0", SpdyError::Compression);
        check(&[&good[..6], &[0xff; 9][..]].concat(), SpdyError::Compression);
        check(&good[..6], SpdyError::Headers);
        let huge = Client::new().write(&[("a", &"b".repeat(HEADERS_BYTES_MAX))]);
        check(&huge, SpdyError::TooLong);
    }
}
