//! What is stored under a key in etcd: the engine's value, with what etcd has no field for in front of it.
//!
//! `k8s:trireme:v1:<sealing key>:<schema epoch>:<expiry in ms, or nothing>:` and then the value, in the manner of upstream's
//! `k8s:enc:...` prefixes. A value that needs none of it (plain bytes, as another program wrote them) is stored as it is;
//! every value without the prefix is read as it is.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use rpc::etcd::mvccpb::KeyValue;

use super::keys::Keys;
use crate::engine::{Record, Revision};
use crate::transaction::{Put, Stamp};

const PREFIX: &[u8] = b"k8s:trireme:v1:";
/// The longest text between prefix and value: two numbers of 32 bits, one of 64, three colons.
const FIELDS_BYTES_MAX: usize = 10 + 10 + 20 + 3;

/// The bytes to store.
pub(super) fn encode(put: &Put) -> Bytes {
    if put.stamp == Stamp::default() && put.expires_at_ms.is_none() && !put.value.starts_with(PREFIX) {
        return put.value.clone();
    }
    let Stamp {
        sealing_key,
        schema_epoch,
    } = put.stamp;
    let expiry = put.expires_at_ms.map(|ms| ms.to_string()).unwrap_or_default();
    let fields = format!("{sealing_key}:{schema_epoch}:{expiry}:");
    let mut stored = BytesMut::with_capacity(PREFIX.len() + fields.len() + put.value.len());
    stored.put_slice(PREFIX);
    stored.put_slice(fields.as_bytes());
    stored.put_slice(&put.value);
    stored.freeze()
}

/// The value, stamp and expiry of what is stored.
pub(super) fn decode(stored: &Bytes) -> (Bytes, Stamp, Option<i64>) {
    let plain = || (stored.clone(), Stamp::default(), None);
    let Some(rest) = stored.strip_prefix(PREFIX) else {
        return plain();
    };
    let head = &rest[..rest.len().min(FIELDS_BYTES_MAX)];
    let mut ends = head
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b':')
        .map(|(at, _)| at);
    let (Some(first), Some(second), Some(third)) = (ends.next(), ends.next(), ends.next()) else {
        return plain();
    };
    let field = |from: usize, to: usize| std::str::from_utf8(&rest[from..to]).unwrap_or("?");
    let (key, epoch, expiry) = (field(0, first), field(first + 1, second), field(second + 1, third));
    let (Ok(sealing_key), Ok(schema_epoch)) = (key.parse(), epoch.parse()) else {
        return plain();
    };
    let expires_at_ms = match expiry {
        "" => None,
        text => match text.parse() {
            Ok(ms) => Some(ms),
            Err(_) => return plain(),
        },
    };
    let stamp = Stamp {
        sealing_key,
        schema_epoch,
    };
    (stored.slice(PREFIX.len() + third + 1..), stamp, expires_at_ms)
}

/// A record of etcd's; none when the key is not for callers.
pub(super) fn record(keys: &Keys, offset: u64, found: KeyValue) -> Option<Arc<Record>> {
    let key = keys.inward(&found.key)?;
    let (value, stamp, expires_at_ms) = decode(&found.value);
    Some(Arc::new(Record {
        key,
        value,
        create_revision: unsigned(found.create_revision) + offset,
        mod_revision: unsigned(found.mod_revision) + offset,
        version: unsigned(found.version),
        stamp,
        expires_at_ms,
    }))
}

/// etcd's numbers are signed and never negative.
pub(super) fn unsigned(number: i64) -> Revision {
    number.try_into().unwrap_or(0)
}

/// A revision as etcd writes it.
pub(super) fn signed(revision: Revision) -> i64 {
    revision.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &str, sealing_key: u32, schema_epoch: u32, expires_at_ms: Option<i64>) -> Put {
        Put {
            key: Bytes::from_static(b"/registry/a"),
            value: Bytes::copy_from_slice(value.as_bytes()),
            expires_at_ms,
            stamp: Stamp {
                sealing_key,
                schema_epoch,
            },
        }
    }

    #[test]
    fn what_is_stored_is_read_back() {
        for (put, stored) in [
            (put("{}", 0, 0, None), "{}"),
            (put("{}", 0, 1, None), "k8s:trireme:v1:0:1::{}"),
            (put("x:y", 7, 3, Some(99)), "k8s:trireme:v1:7:3:99:x:y"),
            (
                put("", u32::MAX, u32::MAX, Some(i64::MIN)),
                "k8s:trireme:v1:4294967295:4294967295:-9223372036854775808:",
            ),
            (
                put("k8s:trireme:v1:0:1::{}", 0, 0, None),
                "k8s:trireme:v1:0:0::k8s:trireme:v1:0:1::{}",
            ),
        ] {
            let encoded = encode(&put);
            assert_eq!(encoded, stored);
            assert_eq!(decode(&encoded), (put.value, put.stamp, put.expires_at_ms), "{stored}");
        }
    }

    #[test]
    fn what_others_wrote_is_read_as_it_is() {
        for foreign in [
            "",
            "k8s\0\n",
            "k8s:enc:aescbc:v1:k:",
            "k8s:trireme:v1:",
            "k8s:trireme:v1:a:b:c:",
            "k8s:trireme:v1:1:2",
        ] {
            let foreign = Bytes::from_static(foreign.as_bytes());
            assert_eq!(decode(&foreign), (foreign.clone(), Stamp::default(), None));
        }
    }
}
