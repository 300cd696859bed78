//! Encryption at rest without any configuration: chosen resources are sealed with keys of a local file.
//!
//! A sealed value is a salt and what AES-256-GCM makes of the value under a key that is derived from the salt, so that no
//! key is ever used twice, however often something is written (as KMS v2 does upstream). The store's key is authenticated
//! with it: a value that was moved to another name does not open. Each value says which key sealed it; the newest key
//! seals, older ones still open, and any write of an object, one that changes nothing too, seals it anew.

use std::collections::{BTreeMap, BTreeSet};

use base::Random;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

use api::GroupResource;

/// The length of a key.
pub const KEY_BYTES: usize = 32;
/// Long enough that two are never the same by chance.
const SALT_BYTES: usize = 24;
/// Tells the derived keys from any other use of the key.
const PURPOSE: &[u8] = b"trireme sealed value 1";

/// Seals and opens values.
pub struct Sealer {
    resources: BTreeSet<GroupResource>,
    keys: BTreeMap<u32, [u8; KEY_BYTES]>,
    /// The key that seals: the one with the highest number.
    current: u32,
    random: Random,
}

/// Why a file of keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// A line is not `<number> <key in base64>`.
    #[error("line {0} is not a number above zero and {KEY_BYTES} bytes in base64")]
    Line(usize),
    /// Two keys have the same number.
    #[error("key {0} is there twice")]
    Twice(u32),
    /// There is no key.
    #[error("there is no key")]
    Empty,
}

/// Why a value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key is not there any more.
    #[error("key {0} is not there")]
    NoKey(u32),
    /// The value was changed, moved, or sealed by another key of that number.
    #[error("it was changed, or sealed with another key {0}")]
    Broken(u32),
}

impl Sealer {
    /// Reads keys from the text of their file: a line for each, its number and its bytes in base64. Lines that begin
    /// with `#` are comments. `resources` are sealed from now on.
    ///
    /// # Errors
    /// A line that is none, no key, a number twice.
    pub fn from_text(
        text: &str,
        resources: impl IntoIterator<Item = GroupResource>,
        random: Random,
    ) -> Result<Sealer, KeysError> {
        let mut keys = BTreeMap::new();
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let (id, key) = read_key(line).ok_or(KeysError::Line(number))?;
            if keys.insert(id, key).is_some() {
                return Err(KeysError::Twice(id));
            }
        }
        Ok(Sealer {
            current: *keys.last_key_value().ok_or(KeysError::Empty)?.0,
            resources: resources.into_iter().collect(),
            keys,
            random,
        })
    }

    /// The text of a file with one new key.
    pub fn new_keys(random: &Random) -> String {
        format!("1 {}\n", STANDARD.encode(random.bytes::<KEY_BYTES>()))
    }

    /// The number of the key that seals a resource now; 0: it is not sealed.
    pub fn key_of(&self, resource: &GroupResource) -> u32 {
        if self.resources.contains(resource) {
            self.current
        } else {
            0
        }
    }

    /// Seals a value with the newest key.
    pub fn seal(&self, store_key: &[u8], value: &[u8]) -> Bytes {
        let salt: [u8; SALT_BYTES] = self.random.bytes();
        let mut sealed = Vec::with_capacity(SALT_BYTES + value.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(value);
        derived(&self.keys[&self.current], &salt)
            .seal_in_place_append_tag(nonce(), Aad::from(store_key), &mut sealed)
            .expect("invariant: a value is far below what one key may seal");
        sealed.splice(0..0, salt);
        sealed.into()
    }

    /// Opens a value that the key with this number sealed.
    ///
    /// # Errors
    /// No such key; a value that is not what was sealed under that name.
    pub fn open(&self, key: u32, store_key: &[u8], sealed: &[u8]) -> Result<Bytes, OpenError> {
        let secret = self.keys.get(&key).ok_or(OpenError::NoKey(key))?;
        let (salt, rest) = sealed.split_at_checked(SALT_BYTES).ok_or(OpenError::Broken(key))?;
        let mut value = rest.to_vec();
        let opened = derived(secret, salt)
            .open_in_place(nonce(), Aad::from(store_key), &mut value)
            .map_err(|_| OpenError::Broken(key))?;
        let len = opened.len();
        value.truncate(len);
        Ok(value.into())
    }
}

fn read_key(line: &str) -> Option<(u32, [u8; KEY_BYTES])> {
    let (id, key) = line.split_once(' ')?;
    let id: u32 = id.parse().ok().filter(|id| *id > 0)?;
    Some((id, STANDARD.decode(key.trim()).ok()?.try_into().ok()?))
}

/// The key of one value.
fn derived(secret: &[u8; KEY_BYTES], salt: &[u8]) -> LessSafeKey {
    let extracted = Salt::new(HKDF_SHA256, salt).extract(secret);
    let expanded = extracted
        .expand(&[PURPOSE], &AES_256_GCM)
        .expect("invariant: HKDF makes keys of this length");
    LessSafeKey::new(UnboundKey::from(expanded))
}

/// Each key seals once, so its nonce may be the same.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> GroupResource {
        GroupResource {
            group: String::new(),
            resource: "secrets".into(),
        }
    }

    fn sealer(text: &str) -> Result<Sealer, KeysError> {
        Sealer::from_text(text, [secrets()], Random::seeded(1))
    }

    fn line(id: u32, byte: u8) -> String {
        format!("{id} {}\n", STANDARD.encode([byte; KEY_BYTES]))
    }

    #[test]
    fn what_is_sealed_opens_under_its_name_only() {
        let old = sealer(&line(1, b'a')).unwrap();
        let sealed = old.seal(b"/registry/secrets/n/a", b"hunter2");
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_ne!(sealed, old.seal(b"/registry/secrets/n/a", b"hunter2"), "a salt each");
        // The newest key seals, the older one still opens.
        let both = sealer(&format!("# rotated\n{}{}", line(2, b'b'), line(1, b'a'))).unwrap();
        assert_eq!(both.key_of(&secrets()), 2);
        let pods = GroupResource {
            group: String::new(),
            resource: "pods".into(),
        };
        assert_eq!(both.key_of(&pods), 0);
        assert_eq!(both.open(1, b"/registry/secrets/n/a", &sealed).unwrap(), "hunter2");
        let broken = Err(OpenError::Broken(1));
        assert_eq!(both.open(1, b"/registry/secrets/n/b", &sealed), broken, "moved");
        assert_eq!(
            both.open(2, b"/registry/secrets/n/a", &sealed),
            Err(OpenError::Broken(2))
        );
        assert_eq!(
            both.open(3, b"/registry/secrets/n/a", &sealed),
            Err(OpenError::NoKey(3))
        );
        for index in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[index] ^= 1;
            assert_eq!(both.open(1, b"/registry/secrets/n/a", &changed), broken, "byte {index}");
            assert_eq!(
                both.open(1, b"/registry/secrets/n/a", &sealed[..index]),
                broken,
                "cut at {index}"
            );
        }
    }

    #[test]
    fn files_of_keys_are_checked() {
        assert!(sealer(&Sealer::new_keys(&Random::seeded(1))).is_ok());
        for (text, error) in [
            (String::new(), KeysError::Empty),
            ("# none\n".into(), KeysError::Empty),
            (format!("{}x", line(1, 1)), KeysError::Line(2)),
            (line(0, 1), KeysError::Line(1)),
            ("1 c2hvcnQ=".into(), KeysError::Line(1)),
            (format!("{}{}", line(1, 1), line(1, 2)), KeysError::Twice(1)),
        ] {
            assert_eq!(sealer(&text).err(), Some(error), "{text}");
        }
    }
}
