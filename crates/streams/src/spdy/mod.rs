//! SPDY/3.1 as Kubernetes' clients speak it, for the server side: kubectl before 1.31 for exec and attach, and every kubectl for
//! port-forward, which newer ones tunnel through a WebSocket.
//!
//! What upstream's library (`moby/spdystream`) leaves out is left out here too: windows and priorities. A stream whose reader
//! is slow holds its connection up, and TCP holds the client up. No crate speaks this protocol any more.

mod connection;
mod frame;
mod headers;

pub use connection::{Receiver, Sender, Session, Stream};
pub use frame::{Decoder, Encoder, Frame};

/// The value of `Upgrade` that asks for it.
pub const UPGRADE: &str = "SPDY/3.1";
/// The header that names the protocols inside, in the request those offered and in the answer the chosen one.
pub const PROTOCOL_HEADER: &str = "x-stream-protocol-version";

/// Why a connection ends: what the peer sent is not this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpdyError {
    /// A control frame of another version.
    #[error("SPDY version {0} instead of 3")]
    Version(u16),
    /// A control frame whose length does not fit its kind.
    #[error("a control frame of {0} bytes")]
    Length(usize),
    /// Longer than anybody sends.
    #[error("a frame that is too long")]
    TooLong,
    /// Headers that do not inflate.
    #[error("headers that are not compressed as they should be")]
    Compression,
    /// Headers that cannot be read.
    #[error("headers that cannot be read")]
    Headers,
    /// A stream number that is zero, even, or not higher than the one before.
    #[error("a new stream with the number {0}")]
    Stream(u32),
}

/// The value of a header; names are lower case.
pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(own, _)| own == name)
        .map(|(_, value)| value.as_str())
}

/// Chooses the first of the `supported` protocols that was offered (values of [`PROTOCOL_HEADER`], comma lists allowed).
/// `None` if nothing fits, as upstream's `negotiateProtocol`.
pub fn negotiate<'a>(offered: impl IntoIterator<Item = &'a str>, supported: &[&'static str]) -> Option<&'static str> {
    let offered: Vec<&str> = offered
        .into_iter()
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    offered
        .iter()
        .find_map(|name| supported.iter().copied().find(|own| own == name))
}
