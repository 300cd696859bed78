//! Whether a certificate and a key belong together: what a user is told of a Secret of the type `kubernetes.io/tls`.
//!
//! Only read, never used: of a key, no more than what its certificate shows as well is looked at. Words and order are those of
//! Go's `tls.X509KeyPair`, which upstream asks (`warningsForSecret` in `pkg/registry/core/secret/strategy.go`). A key on an
//! elliptic curve is compared by the public point that it carries; one that carries none, as few do, is taken.

use x509_parser::pem::Pem;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

// DER of the object identifiers of kinds of keys.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const X25519: &[u8] = &[0x2b, 0x65, 0x6e];

// Tags of DER.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const PUBLIC_POINT: u8 = 0xa1;

/// What is wrong with the pair, in PEM; `None`: nothing.
pub fn complaint(certificate: &[u8], key: &[u8]) -> Option<String> {
    check(certificate, key).err()
}

fn check(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let certificate = find_certificate(certificate)?;
    let key = find_key(key)?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(&certificate.contents).map_err(|_| "x509: malformed certificate")?;
    belongs(certificate.public_key(), private(&key.contents)?)
}

/// The blocks up to the first that cannot be read.
fn blocks(text: &[u8]) -> impl Iterator<Item = Pem> {
    Pem::iter_from_buffer(text).map_while(Result::ok)
}

/// The first certificate, or what was found in place of it.
fn find_certificate(text: &[u8]) -> Result<Pem, String> {
    let mut skipped = Vec::new();
    for block in blocks(text) {
        if block.label == "CERTIFICATE" {
            return Ok(block);
        }
        skipped.push(block.label);
    }
    Err(match &skipped[..] {
        [] => "tls: failed to find any PEM data in certificate input".into(),
        [one] if one.ends_with("PRIVATE KEY") => {
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have \
             been switched"
                .into()
        }
        _ => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following \
             types: [{}]",
            skipped.join(" ")
        ),
    })
}

/// The first private key, or what was found in place of it.
fn find_key(text: &[u8]) -> Result<Pem, String> {
    let mut skipped = Vec::new();
    for block in blocks(text) {
        if block.label == "PRIVATE KEY" || block.label.ends_with(" PRIVATE KEY") {
            return Ok(block);
        }
        skipped.push(block.label);
    }
    Err(match &skipped[..] {
        [] => "tls: failed to find any PEM data in key input".into(),
        [one] if one == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".into()
        }
        _ => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the \
             following types: [{}]",
            skipped.join(" ")
        ),
    })
}

/// What of a private key its certificate shows, too.
#[derive(Debug, PartialEq)]
enum Private<'a> {
    /// The modulus.
    Rsa(&'a [u8]),
    /// The public point, where the key carries it.
    Elliptic(Option<&'a [u8]>),
    /// The seed, of which the public key is made.
    Ed25519(&'a [u8]),
}

fn private(der: &[u8]) -> Result<Private<'_>, String> {
    let unreadable = || "tls: failed to parse private key".to_owned();
    let (_, body) = expect(der, SEQUENCE).ok_or_else(unreadable)?;
    let (rest, _) = expect(body, INTEGER).ok_or_else(unreadable)?;
    match rest.first() {
        Some(&INTEGER) => modulus(der).map(Private::Rsa).ok_or_else(unreadable),
        Some(&OCTET_STRING) => Ok(Private::Elliptic(point(rest))),
        _ => wrapped(rest).ok_or_else(unreadable)?,
    }
}

/// What is inside of PKCS #8, from the kind of the key on.
fn wrapped(rest: &[u8]) -> Option<Result<Private<'_>, String>> {
    let (rest, algorithm) = expect(rest, SEQUENCE)?;
    let (_, kind) = expect(algorithm, OBJECT_IDENTIFIER)?;
    let (_, key) = expect(rest, OCTET_STRING)?;
    match kind {
        RSA => Some(Ok(Private::Rsa(modulus(key)?))),
        ELLIPTIC => {
            let (_, body) = expect(key, SEQUENCE)?;
            let (rest, _) = expect(body, INTEGER)?;
            Some(Ok(Private::Elliptic(point(rest))))
        }
        ED25519 => Some(Ok(Private::Ed25519(expect(key, OCTET_STRING)?.1))),
        X25519 => Some(Err("tls: found unknown private key type in PKCS#8 wrapping".into())),
        _ => None,
    }
}

/// The modulus of PKCS #1.
fn modulus(der: &[u8]) -> Option<&[u8]> {
    let (_, body) = expect(der, SEQUENCE)?;
    let (rest, _) = expect(body, INTEGER)?;
    Some(significant(expect(rest, INTEGER)?.1))
}

/// The public point of SEC 1, from the private number on.
fn point(mut rest: &[u8]) -> Option<&[u8]> {
    while let Some((tag, content, after)) = element(rest) {
        if tag == PUBLIC_POINT {
            let (_, bits) = expect(content, BIT_STRING)?;
            // The first byte tells how many bits of the last one do not count.
            return bits.get(1..);
        }
        rest = after;
    }
    None
}

fn belongs(public: &SubjectPublicKeyInfo, private: Private) -> Result<(), String> {
    let other_kind = || Err("tls: private key type does not match public key type".to_owned());
    let is_pair = match (public.parsed(), private) {
        (Ok(PublicKey::RSA(public)), Private::Rsa(modulus)) => significant(public.modulus) == modulus,
        (Ok(PublicKey::EC(public)), Private::Elliptic(point)) => point.is_none_or(|point| public.data() == point),
        (Ok(PublicKey::RSA(_) | PublicKey::EC(_)), _) => return other_kind(),
        _ if public.algorithm.algorithm.as_bytes() != ED25519 => {
            return Err("tls: unknown public key algorithm".into());
        }
        (_, Private::Ed25519(seed)) => {
            let public = &*public.subject_public_key.data;
            ring::signature::Ed25519KeyPair::from_seed_and_public_key(seed, public).is_ok()
        }
        _ => return other_kind(),
    };
    match is_pair {
        true => Ok(()),
        false => Err("tls: private key does not match public key".into()),
    }
}

/// A number without the zeros before it.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// What is behind the first element, and its content, when it has this tag.
fn expect(input: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(input)?;
    (tag == wanted).then_some((rest, content))
}

/// The first element: its tag, its content, and what is behind it.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // More than four bytes of length are more than any key has.
        0x81..=0x84 => {
            let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (len.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! file {
        ($name:literal) => {
            include_str!(concat!("testdata/", $name))
        };
    }

    /// Made once with openssl; nothing anywhere trusts them.
    const RSA_CERTIFICATE: &str = file!("rsa.crt");
    const EC_CERTIFICATE: &str = file!("ec.crt");
    const ED_CERTIFICATE: &str = file!("ed.crt");

    #[test]
    fn pairs_and_what_is_none() {
        let not_pair = "tls: private key does not match public key";
        let other_kind = "tls: private key type does not match public key type";
        let both = format!("{}{EC_CERTIFICATE}", file!("ec.key"));
        let odd = EC_CERTIFICATE.replace(" CERTIFICATE-", " ODD-");
        let odd_twice = format!("{odd}{odd}");
        let cut = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let cut_key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        for (certificate, key, expect) in [
            (RSA_CERTIFICATE, file!("rsa.key"), ""),
            (RSA_CERTIFICATE, file!("rsa-pkcs1.key"), ""),
            (EC_CERTIFICATE, file!("ec.key"), ""),
            (EC_CERTIFICATE, file!("ec8.key"), ""),
            (ED_CERTIFICATE, file!("ed.key"), ""),
            // Blocks around the one that is meant, as those of parameters are.
            (&both, &both, ""),
            (EC_CERTIFICATE, file!("ec-other.key"), not_pair),
            (ED_CERTIFICATE, file!("ed-other.key"), not_pair),
            (EC_CERTIFICATE, file!("rsa.key"), other_kind),
            (RSA_CERTIFICATE, file!("ed.key"), other_kind),
            (ED_CERTIFICATE, file!("ec.key"), other_kind),
            (
                EC_CERTIFICATE,
                file!("x.key"),
                "tls: found unknown private key type in PKCS#8 wrapping",
            ),
            (EC_CERTIFICATE, cut_key, "tls: failed to parse private key"),
            (cut, file!("ec.key"), "x509: malformed certificate"),
            ("", "", "tls: failed to find any PEM data in certificate input"),
            (EC_CERTIFICATE, "x", "tls: failed to find any PEM data in key input"),
            (
                file!("ec.key"),
                EC_CERTIFICATE,
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may \
                 have been switched",
            ),
            (
                EC_CERTIFICATE,
                EC_CERTIFICATE,
                "tls: found a certificate rather than a key in the PEM for the private key",
            ),
            (
                &odd,
                file!("ec.key"),
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the \
                 following types: [ODD]",
            ),
            (
                EC_CERTIFICATE,
                &odd_twice,
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of \
                 the following types: [ODD ODD]",
            ),
        ] {
            let got = complaint(certificate.as_bytes(), key.as_bytes()).unwrap_or_default();
            assert_eq!(got, expect, "{certificate}{key}");
        }
    }

    /// Whatever a key is cut to, it is read without a panic.
    #[test]
    fn pieces_of_keys() {
        for key in [file!("rsa.key"), file!("ec8.key"), file!("ed.key")] {
            let der = blocks(key.as_bytes()).next().unwrap().contents;
            for len in 0..der.len() {
                let _ = private(&der[..len]);
            }
        }
    }
}
