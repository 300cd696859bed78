//! The files of the cluster's authority and of the leaves that outlive a process.
//!
//! Only four secrets live long: the authority's key, that of the front proxy's authority, the key that signs tokens, and the
//! keys that seal what the store keeps of Secrets. Leaves are replaced while their users run. A leaf and its key are one file, so that a crash leaves both old or
//! both new.

use std::path::{Path, PathBuf};

use apiserver::pki::{Authority, LEAF_SECONDS, Pair, not_after, validity};
use apiserver::sealing::Sealer;
use base::{Clock, Random};

use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::{Layout, write_private};

/// The authority's common name, as kubeadm's.
const AUTHORITY_NAME: &str = "kubernetes";
/// The common name of the front proxy's authority, as kubeadm's.
const FRONT_PROXY_NAME: &str = "front-proxy-ca";
/// The administrator: the only certificate in `system:masters`.
const ADMINISTRATOR: (&str, &str) = ("kubernetes-admin", apiserver::request::SYSTEM_MASTERS);

/// The cluster's authority and token key.
pub struct Pki {
    /// Issues certificates.
    pub authority: Authority,
    /// Issues the front proxy's: whoever has one of these speaks for others.
    pub front_proxy: Authority,
    /// Signs tokens: PKCS#8 in PEM, a secret.
    pub token_key_pem: String,
    /// Keys of encryption at rest, in the form of [`apiserver::sealing::Sealer::from_text`]: a secret. A line with a
    /// higher number rotates them at the next start.
    pub sealing_keys: String,
    directory: PathBuf,
    clock: Clock,
}

// === impl Pki ===

impl Pki {
    /// Reads the files, or makes them at the first start.
    ///
    /// An authority near its end gets a new certificate for its key: what it signed stays good, and whoever trusts the old
    /// one has years to learn of the new one (`docs/decisions/0004-certificates-are-renewed-through-the-api.md`).
    pub fn open(layout: &Layout, clock: &Clock, random: &Random, leaf_seconds: Option<u32>) -> Result<Pki> {
        let directory = layout.pki();
        let authority = authority(&directory, "ca", AUTHORITY_NAME, clock, random)?;
        let front_proxy = self::authority(&directory, "front-proxy-ca", FRONT_PROXY_NAME, clock, random)?;
        let token_key_pem = read_or_make(&directory.join("sa.key"), || {
            let key = rcgen::KeyPair::generate().doing("making the key of tokens")?;
            Ok(key.serialize_pem())
        })?;
        let sealing_keys = read_or_make(&directory.join("sealing.keys"), || Ok(Sealer::new_keys(random)))?;
        let leaf_seconds = leaf_seconds.map_or(LEAF_SECONDS, i64::from);
        Ok(Pki {
            authority: authority.with_leaf_seconds(leaf_seconds),
            front_proxy: front_proxy.with_leaf_seconds(leaf_seconds),
            token_key_pem,
            sealing_keys,
            directory,
            clock: clock.clone(),
        })
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.authority.pair().certificate_pem
    }

    /// The administrator's certificate, kept until it ends.
    pub fn administrator(&self, clock: &Clock) -> Result<Pair> {
        if let Some(pair) = read_leaf(&self.directory, "admin")?
            && not_after(&pair.certificate_pem).is_ok_and(|end| clock.now() < end)
        {
            return Ok(pair);
        }
        self.new_administrator(clock)
    }

    /// Another certificate for the administrator.
    pub fn new_administrator(&self, clock: &Clock) -> Result<Pair> {
        let (name, group) = ADMINISTRATOR;
        let pair = self.authority.issue_client(name, Some(group), clock.now());
        let pair = pair.doing("making the administrator's certificate")?;
        write_leaf(&self.directory, "admin", &pair)?;
        Ok(pair)
    }
}

/// Reads an authority, or makes it at the first start.
fn authority(directory: &Path, file: &str, name: &str, clock: &Clock, random: &Random) -> Result<Authority> {
    if let Some(pair) = read_pair(directory, file)? {
        let loaded = Authority::load(pair, random.fork()).map_err(|error| broken(directory, file, &error))?;
        return renewed(loaded, directory, file, name, clock);
    }
    let made = Authority::generate(name, clock.now(), random.fork());
    let made = made.doing("making the cluster's certificate authorities")?;
    write_pair(directory, file, made.pair())?;
    Ok(made)
}

/// After four fifths of its life an authority begins another one.
fn renewed(authority: Authority, directory: &Path, file: &str, name: &str, clock: &Clock) -> Result<Authority> {
    let (begin, end) = validity(&authority.pair().certificate_pem).map_err(|error| broken(directory, file, &error))?;
    let due = begin.as_second() + (end.as_second() - begin.as_second()) / 5 * 4;
    if clock.now().as_second() < due {
        return Ok(authority);
    }
    let new = authority.renewed(name, clock.now());
    let new = new.doing("renewing the certificate of the cluster's authority")?;
    // The key is the one that is there.
    write_private(
        &directory.join(format!("{file}.crt")),
        new.pair().certificate_pem.as_bytes(),
    )?;
    tracing::info!(authority = name, "the certificate authority's certificate was renewed");
    Ok(new)
}

impl controllers::CertificateSigner for Pki {
    fn sign(&self, request_pem: &str, usages: &[String], seconds: Option<i64>) -> Result<String, String> {
        let signed = self
            .authority
            .sign_request(request_pem, usages, seconds, self.clock.now());
        signed.map_err(|error| error.to_string())
    }
}

const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";

/// Reads a leaf with its key; `None` when there is none.
pub fn read_leaf(directory: &Path, name: &str) -> Result<Option<Pair>> {
    let Some(text) = read(&directory.join(format!("{name}.pem")))? else {
        return Ok(None);
    };
    let at = text.find(KEY_BEGINS);
    let (certificate, key) = text.split_at(at.ok_or_else(|| broken(directory, name, &"its key is missing"))?);
    Ok(Some(Pair {
        certificate_pem: certificate.to_owned(),
        key_pem: key.to_owned(),
    }))
}

/// Writes a leaf with its key.
pub fn write_leaf(directory: &Path, name: &str, pair: &Pair) -> Result {
    let text = format!("{}\n{}", pair.certificate_pem.trim_end(), pair.key_pem);
    write_private(&directory.join(format!("{name}.pem")), text.as_bytes())
}

/// Reads a certificate and its key; `None` when neither is there.
pub fn read_pair(directory: &Path, name: &str) -> Result<Option<Pair>> {
    let (certificate, key) = (
        directory.join(format!("{name}.crt")),
        directory.join(format!("{name}.key")),
    );
    match (read(&certificate)?, read(&key)?) {
        (Some(certificate_pem), Some(key_pem)) => Ok(Some(Pair {
            certificate_pem,
            key_pem,
        })),
        (None, None) => Ok(None),
        // A crash between the two writes: the key is written first, so a certificate is never without one.
        (None, Some(_)) => Ok(None),
        (Some(_), None) => Err(broken(directory, name, &"its key is missing")),
    }
}

/// Writes a certificate and its key: the key first.
pub fn write_pair(directory: &Path, name: &str, pair: &Pair) -> Result {
    write_private(&directory.join(format!("{name}.key")), pair.key_pem.as_bytes())?;
    write_private(&directory.join(format!("{name}.crt")), pair.certificate_pem.as_bytes())
}

/// Reads a secret, or makes it at the first start.
fn read_or_make(path: &Path, make: impl FnOnce() -> Result<String>) -> Result<String> {
    if let Some(text) = read(path)? {
        return Ok(text);
    }
    let text = make()?;
    write_private(path, text.as_bytes())?;
    Ok(text)
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::file(path, &error)),
    }
}

fn broken(directory: &Path, name: &str, error: &dyn std::fmt::Display) -> CliError {
    let what = format!(
        "the certificate {name} in {} cannot be used: {error}",
        directory.display()
    );
    CliError::new(Kind::Machine, "PKI_BROKEN", what)
        .hint("restore the directory from a backup; `trireme reset` starts over and loses the cluster")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::find(Some(dir.path()), true, |_| None).unwrap();
        layout.create().unwrap();
        let (clock, random) = (Clock::real(), Random::seeded(1));
        let first = Pki::open(&layout, &clock, &random, None).unwrap();
        let second = Pki::open(&layout, &clock, &random, None).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.token_key_pem, second.token_key_pem);
        let admin = first.administrator(&clock).unwrap();
        assert_eq!(
            second.administrator(&clock).unwrap().certificate_pem,
            admin.certificate_pem
        );
        let again = first.new_administrator(&clock).unwrap();
        assert_ne!(again.certificate_pem, admin.certificate_pem);
        let read = read_leaf(&layout.pki(), "admin").unwrap().unwrap();
        assert_eq!(read.certificate_pem.trim_end(), again.certificate_pem.trim_end());
        assert_eq!(read.key_pem, again.key_pem);
    }

    #[test]
    fn an_authority_near_its_end_begins_again_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::find(Some(dir.path()), true, |_| None).unwrap();
        layout.create().unwrap();
        let random = Random::seeded(1);
        let at = |text: &str| Clock::simulated(text.parse().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let open = |text: &str| Pki::open(&layout, &at(text), &random, None).unwrap();
        let first = open("2026-01-01T00:00:00Z");
        assert_eq!(open("2033-12-01T00:00:00Z").ca_pem(), first.ca_pem());
        let late = open("2034-02-01T00:00:00Z");
        assert_ne!(late.ca_pem(), first.ca_pem());
        assert_eq!(late.authority.pair().key_pem, first.authority.pair().key_pem);
        assert_eq!(open("2034-02-02T00:00:00Z").ca_pem(), late.ca_pem(), "once");
    }

    #[test]
    fn a_lost_key_is_told_and_nothing_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::find(Some(dir.path()), true, |_| None).unwrap();
        layout.create().unwrap();
        drop(Pki::open(&layout, &Clock::real(), &Random::seeded(1), None).unwrap());
        std::fs::remove_file(layout.pki().join("ca.key")).unwrap();
        let error = Pki::open(&layout, &Clock::real(), &Random::seeded(1), None)
            .err()
            .unwrap();
        assert_eq!(error.id, "PKI_BROKEN");
        // A crash after the key alone is no loss.
        std::fs::write(layout.pki().join("ca.key"), "half").unwrap();
        std::fs::remove_file(layout.pki().join("ca.crt")).unwrap();
        assert!(Pki::open(&layout, &Clock::real(), &Random::seeded(1), None).is_ok());
    }
}
