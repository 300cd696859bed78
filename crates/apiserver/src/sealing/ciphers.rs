//! The ciphers of upstream's local providers, byte for byte in its storage format, so that what another API server sealed
//! opens here and the other way round.
//!
//! Sources: `k8s.io/apiserver/pkg/storage/value/encrypt/{aes,secretbox}`. The name under which a value is stored is
//! authenticated with it by AES-GCM alone: a value that AES-CBC or secretbox sealed opens under any name.

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::generic_array::GenericArray;
use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use base::Random;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use crypto_secretbox::XSalsa20Poly1305;
use ring::hkdf::{HKDF_SHA256, Prk};

/// Source: `cipher.NewGCM`; all that is stored has a nonce of this length in front.
const GCM_NONCE_BYTES: usize = 12;
const GCM_TAG_BYTES: usize = 16;
const CBC_BLOCK_BYTES: usize = 16;
const SECRETBOX_NONCE_BYTES: usize = 24;
const SECRETBOX_TAG_BYTES: usize = 16;
/// Source: `infoSizeExtendedNonceGCM`.
const INFO_BYTES: usize = 32;
/// The shortest seed of keys. Source: `MinSeedSizeExtendedNonceGCM`.
pub(super) const SEED_BYTES_MIN: usize = 32;

/// Why something does not open, in upstream's words.
pub(super) type Why = &'static str;

const TOO_SHORT: Why = "the stored data was shorter than the required size";
const NOT_AUTHENTIC: Why = "cipher: message authentication failed";

/// A key of AES-GCM, of 128, 192 or 256 bits.
pub(super) struct Gcm(GcmKey);

enum GcmKey {
    Bits128(Box<Aes128Gcm>),
    Bits192(Box<AesGcm<Aes192, U12>>),
    Bits256(Box<Aes256Gcm>),
}

impl Gcm {
    /// `None`: there is no AES with keys of this length.
    pub(super) fn new(key: &[u8]) -> Option<Gcm> {
        Some(Gcm(match key.len() {
            16 => GcmKey::Bits128(Box::new(KeyInit::new_from_slice(key).ok()?)),
            24 => GcmKey::Bits192(Box::new(KeyInit::new_from_slice(key).ok()?)),
            32 => GcmKey::Bits256(Box::new(KeyInit::new_from_slice(key).ok()?)),
            _ => return None,
        }))
    }

    /// Appends nonce, ciphertext and tag.
    pub(super) fn seal(&self, name: &[u8], value: &[u8], random: &Random, out: &mut Vec<u8>) {
        let nonce: [u8; GCM_NONCE_BYTES] = random.bytes();
        out.reserve(GCM_NONCE_BYTES + value.len() + GCM_TAG_BYTES);
        out.extend_from_slice(&nonce);
        let begin = out.len();
        out.extend_from_slice(value);
        let (nonce, text) = (GenericArray::from_slice(&nonce), &mut out[begin..]);
        let sealed: Result<GenericArray<u8, U16>, _> = match &self.0 {
            GcmKey::Bits128(key) => key.encrypt_in_place_detached(nonce, name, text),
            GcmKey::Bits192(key) => key.encrypt_in_place_detached(nonce, name, text),
            GcmKey::Bits256(key) => key.encrypt_in_place_detached(nonce, name, text),
        };
        let tag = sealed.expect("invariant: a value is far below what one nonce may seal");
        out.extend_from_slice(&tag);
    }

    /// Opens what [`Gcm::seal`] appended.
    pub(super) fn open(&self, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Why> {
        let (nonce, rest) = sealed.split_at_checked(GCM_NONCE_BYTES).ok_or(TOO_SHORT)?;
        let text_len = rest.len().checked_sub(GCM_TAG_BYTES).ok_or(NOT_AUTHENTIC)?;
        let (text, tag) = rest.split_at(text_len);
        let mut text = text.to_vec();
        let (nonce, tag) = (GenericArray::from_slice(nonce), GenericArray::from_slice(tag));
        let opened = match &self.0 {
            GcmKey::Bits128(key) => key.decrypt_in_place_detached(nonce, name, &mut text, tag),
            GcmKey::Bits192(key) => key.decrypt_in_place_detached(nonce, name, &mut text, tag),
            GcmKey::Bits256(key) => key.decrypt_in_place_detached(nonce, name, &mut text, tag),
        };
        opened.map_err(|_| NOT_AUTHENTIC)?;
        Ok(text)
    }
}

/// A seed that gives each value a key of its own: AES-GCM's nonces are too short for one key to seal without end.
/// Source: `NewHKDFExtendedNonceGCMTransformer`.
pub(super) struct Seed(Prk);

impl Seed {
    /// `None`: it is too short.
    pub(super) fn new(seed: &[u8]) -> Option<Seed> {
        (seed.len() >= SEED_BYTES_MIN).then(|| Seed(Prk::new_less_safe(HKDF_SHA256, seed)))
    }

    /// Appends what the key was made of, and what it sealed.
    pub(super) fn seal(&self, name: &[u8], value: &[u8], random: &Random, out: &mut Vec<u8>) {
        let info: [u8; INFO_BYTES] = random.bytes();
        out.extend_from_slice(&info);
        self.key(&info).seal(name, value, random, out);
    }

    /// Opens what [`Seed::seal`] appended.
    pub(super) fn open(&self, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Why> {
        let (info, rest) = sealed.split_at_checked(INFO_BYTES).ok_or(TOO_SHORT)?;
        self.key(info).open(name, rest)
    }

    fn key(&self, info: &[u8]) -> Gcm {
        let mut key = [0; 32];
        self.0
            .expand(&[info], HKDF_SHA256)
            .and_then(|made| made.fill(&mut key))
            .expect("invariant: HKDF makes keys of this length");
        Gcm::new(&key).expect("invariant: 32 bytes are a key")
    }
}

/// A key of AES-CBC. What it sealed is not authenticated; kept because upstream's stores have it.
pub(super) enum Cbc {
    Bits128([u8; 16]),
    Bits192([u8; 24]),
    Bits256([u8; 32]),
}

impl Cbc {
    /// `None`: there is no AES with keys of this length.
    pub(super) fn new(key: &[u8]) -> Option<Cbc> {
        match key.len() {
            16 => key.try_into().ok().map(Cbc::Bits128),
            24 => key.try_into().ok().map(Cbc::Bits192),
            _ => key.try_into().ok().map(Cbc::Bits256),
        }
    }

    /// Appends the first block and the ciphertext.
    pub(super) fn seal(&self, value: &[u8], random: &Random, out: &mut Vec<u8>) {
        fn sealed<C: KeyIvInit + BlockEncryptMut>(key: &[u8], first: &[u8], value: &[u8]) -> Vec<u8> {
            let cipher = C::new_from_slices(key, first).expect("invariant: the lengths are those of the cipher");
            cipher.encrypt_padded_vec_mut::<Pkcs7>(value)
        }
        let first: [u8; CBC_BLOCK_BYTES] = random.bytes();
        out.extend_from_slice(&first);
        out.extend_from_slice(&match self {
            Cbc::Bits128(key) => sealed::<cbc::Encryptor<Aes128>>(key, &first, value),
            Cbc::Bits192(key) => sealed::<cbc::Encryptor<Aes192>>(key, &first, value),
            Cbc::Bits256(key) => sealed::<cbc::Encryptor<Aes256>>(key, &first, value),
        });
    }

    /// Opens what [`Cbc::seal`] appended.
    pub(super) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Why> {
        fn opened<C: KeyIvInit + BlockDecryptMut>(key: &[u8], first: &[u8], text: &[u8]) -> Result<Vec<u8>, Why> {
            let cipher = C::new_from_slices(key, first).expect("invariant: the lengths are those of the cipher");
            cipher
                .decrypt_padded_vec_mut::<Pkcs7>(text)
                .map_err(|_| "invalid padding on input")
        }
        let (first, text) = sealed.split_at_checked(CBC_BLOCK_BYTES).ok_or(TOO_SHORT)?;
        match (text.len(), self) {
            (0, _) => Err("invalid PKCS7 data (empty or not padded)"),
            (len, _) if len % CBC_BLOCK_BYTES != 0 => Err("the stored data is not a multiple of the block size"),
            (_, Cbc::Bits128(key)) => opened::<cbc::Decryptor<Aes128>>(key, first, text),
            (_, Cbc::Bits192(key)) => opened::<cbc::Decryptor<Aes192>>(key, first, text),
            (_, Cbc::Bits256(key)) => opened::<cbc::Decryptor<Aes256>>(key, first, text),
        }
    }
}

/// A key of NaCl's secretbox: XSalsa20 and Poly1305.
pub(super) struct Secretbox(XSalsa20Poly1305);

impl Secretbox {
    /// `None`: it is not 32 bytes.
    pub(super) fn new(key: &[u8]) -> Option<Secretbox> {
        XSalsa20Poly1305::new_from_slice(key).ok().map(Secretbox)
    }

    /// Appends nonce, tag and ciphertext.
    pub(super) fn seal(&self, value: &[u8], random: &Random, out: &mut Vec<u8>) {
        let nonce: [u8; SECRETBOX_NONCE_BYTES] = random.bytes();
        out.extend_from_slice(&nonce);
        let tag_at = out.len();
        out.extend_from_slice(&[0; SECRETBOX_TAG_BYTES]);
        out.extend_from_slice(value);
        let text = &mut out[tag_at + SECRETBOX_TAG_BYTES..];
        let tag = self
            .0
            .encrypt_in_place_detached(GenericArray::from_slice(&nonce), b"", text)
            .expect("invariant: a value is far below what one nonce may seal");
        out[tag_at..tag_at + SECRETBOX_TAG_BYTES].copy_from_slice(&tag);
    }

    /// Opens what [`Secretbox::seal`] appended.
    pub(super) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Why> {
        const WHY: Why = "invalid payload";
        let (nonce, rest) = sealed.split_at_checked(SECRETBOX_NONCE_BYTES).ok_or(TOO_SHORT)?;
        let (tag, text) = rest.split_at_checked(SECRETBOX_TAG_BYTES).ok_or(WHY)?;
        let mut text = text.to_vec();
        let (nonce, tag) = (GenericArray::from_slice(nonce), GenericArray::from_slice(tag));
        self.0
            .decrypt_in_place_detached(nonce, b"", &mut text, tag)
            .map_err(|_| WHY)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"/registry/secrets/default/a";

    type SealFn = Box<dyn Fn(&[u8], &Random, &mut Vec<u8>)>;
    type OpenFn = Box<dyn Fn(&[u8], &[u8]) -> Result<Vec<u8>, Why>>;

    /// Every cipher with every length of key, and whether it authenticates the value, and its name.
    fn all() -> Vec<(String, SealFn, OpenFn, bool, bool)> {
        let mut all: Vec<(String, SealFn, OpenFn, bool, bool)> = Vec::new();
        for bytes in [16, 24, 32] {
            let key = vec![7; bytes];
            let (one, two) = (Gcm::new(&key).unwrap(), Gcm::new(&key).unwrap());
            all.push((
                format!("gcm {bytes}"),
                Box::new(move |value, random, out| one.seal(NAME, value, random, out)),
                Box::new(move |name, sealed| two.open(name, sealed)),
                true,
                true,
            ));
            let (one, two) = (Cbc::new(&key).unwrap(), Cbc::new(&key).unwrap());
            all.push((
                format!("cbc {bytes}"),
                Box::new(move |value, random, out| one.seal(value, random, out)),
                Box::new(move |_, sealed| two.open(sealed)),
                false,
                false,
            ));
        }
        let (one, two) = (Secretbox::new(&[7; 32]).unwrap(), Secretbox::new(&[7; 32]).unwrap());
        all.push((
            "secretbox".into(),
            Box::new(move |value, random, out| one.seal(value, random, out)),
            Box::new(move |_, sealed| two.open(sealed)),
            true,
            false,
        ));
        let (one, two) = (Seed::new(&[7; 32]).unwrap(), Seed::new(&[7; 32]).unwrap());
        all.push((
            "seed".into(),
            Box::new(move |value, random, out| one.seal(NAME, value, random, out)),
            Box::new(move |name, sealed| two.open(name, sealed)),
            true,
            true,
        ));
        all
    }

    #[test]
    fn what_is_sealed_opens() {
        let random = Random::seeded(1);
        for (name, seal, open, authentic, bound) in all() {
            for value in [&b""[..], b"hunter2", &[b'x'; 16], &[b'y'; 200]] {
                let mut sealed = Vec::new();
                seal(value, &random, &mut sealed);
                assert_eq!(open(NAME, &sealed).unwrap(), value, "{name}");
                assert!(
                    value.len() < 7 || !sealed.windows(value.len()).any(|window| window == value),
                    "{name}"
                );
                assert_eq!(
                    open(b"/registry/secrets/default/b", &sealed).is_err(),
                    bound,
                    "{name}: moved"
                );
                for cut in 0..sealed.len().min(100) {
                    assert_ne!(open(NAME, &sealed[..cut]).as_deref(), Ok(value), "{name}: cut at {cut}");
                }
                for at in (0..sealed.len()).filter(|_| authentic) {
                    sealed[at] ^= 1;
                    assert!(open(NAME, &sealed).is_err(), "{name}: byte {at}");
                    sealed[at] ^= 1;
                }
            }
        }
    }

    /// What other implementations made with the same keys. Sources: the GCM specification's test cases 4, 10 and 16;
    /// `openssl enc -aes-*-cbc`; NaCl's `tests/secretbox.c`.
    #[test]
    fn other_programs_sealed_it() {
        let hex = |text: &str| -> Vec<u8> {
            let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            digits.chunks(2).map(byte).collect()
        };
        let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let text = hex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
             b16aedf5aa0de657ba637b39",
        );
        let key = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
        for (bytes, sealed) in [
            (
                16,
                "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05\
                 1ba30b396a0aac973d58e091 5bc94fbc3221a5db94fae95ae7121a47",
            ),
            (
                24,
                "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84a3f47\
                 18e2448b2fe324d9ccda2710 2519498e80f1478f37ba55bd6d27618c",
            ),
            (
                32,
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
                 c5f61e6393ba7a0abcc9f662 76fc6ece0f4e1768cddf8853bb2d551b",
            ),
        ] {
            let mut stored = hex("cafebabefacedbaddecaf888");
            stored.extend(hex(sealed));
            let gcm = Gcm::new(&hex(key)[..bytes]).unwrap();
            assert_eq!(gcm.open(&aad, &stored).as_deref(), Ok(&text[..]), "{bytes}");
        }
        for (bytes, sealed) in [
            (16, "1c7c22d412eea56add38efbbb5ff950cddb3a58fd2576b57353dd9ebbe511ab3"),
            (24, "1189147b0bcd192bb652525aa9a3bd8251425d5f38167b9c6cb0fecde1303f85"),
            (32, "9d9d09e19339ded5cf41c4a3f14f02dff30b7d23a7877d22e4760dbff79c6b23"),
        ] {
            let mut stored = hex("000102030405060708090a0b0c0d0e0f");
            stored.extend(hex(sealed));
            let opened = Cbc::new(&vec![7; bytes]).unwrap().open(&stored);
            assert_eq!(opened.as_deref(), Ok(&b"hunter2 is the password"[..]), "{bytes}");
        }
        let boxed = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37\
             f3ffc770 3f9400e5 2a7dfb4b 3d3305d9 8e993b9f 48681273 c29650ba 32fc76ce 48332ea7 164d96a4 476fb8c5\
             31a1186a c0dfc17c 98dce87b 4da7f011 ec48c972 71d2c20f 9b928fe2 270d6fb8 63d51738 b48eeee3 14a7cc8a\
             b9321645 48e526ae 90224368 517acfea bd6bb373 2bc0e9da 99832b61 ca01b6de 56244a9e 88d5f9b3 7973f622\
             a43d14a6 599b1f65 4cb45a74 e355a5");
        let key = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
        let opened = Secretbox::new(&key).unwrap().open(&boxed).unwrap();
        assert!(
            opened.starts_with(&hex("be075fc53c81f2d5cf141316ebeb0c7b")),
            "{opened:02x?}"
        );
        assert_eq!(opened.len(), 131);
    }

    #[test]
    fn keys_have_their_lengths() {
        for bytes in [0, 1, 15, 17, 31, 33, 64] {
            let key = vec![1; bytes];
            assert!(Gcm::new(&key).is_none() && Cbc::new(&key).is_none(), "{bytes}");
            assert!(Secretbox::new(&key).is_none(), "{bytes}");
            assert_eq!(Seed::new(&key).is_some(), bytes >= SEED_BYTES_MIN, "{bytes}");
        }
    }
}
