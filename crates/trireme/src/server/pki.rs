//! The files of the cluster's authority, and the leaves that are made anew at every start.
//!
//! Only four secrets live long: the authority's key, the key that signs tokens, the administrator's, and the keys that seal
//! what the store keeps of Secrets. Everything else is made when a process starts and replaced while it runs.

use std::path::{Path, PathBuf};

use apiserver::pki::{Authority, Pair};
use apiserver::sealing::Sealer;
use base::{Clock, Random};

use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::{Layout, write_private};

/// The authority's common name, as kubeadm's.
const AUTHORITY_NAME: &str = "kubernetes";
/// The administrator: the only certificate in `system:masters`.
const ADMINISTRATOR: (&str, &str) = ("kubernetes-admin", apiserver::request::SYSTEM_MASTERS);

/// The cluster's authority and token key.
pub struct Pki {
    /// Issues certificates.
    pub authority: Authority,
    /// Signs tokens: PKCS#8 in PEM, a secret.
    pub token_key_pem: String,
    /// Keys of encryption at rest, in the form of [`apiserver::sealing::Sealer::from_text`]: a secret. A line with a
    /// higher number rotates them at the next start.
    pub sealing_keys: String,
    directory: PathBuf,
}

// === impl Pki ===

impl Pki {
    /// Reads the files, or makes them at the first start.
    pub fn open(layout: &Layout, clock: &Clock, random: &Random) -> Result<Pki> {
        let directory = layout.pki();
        let authority = match read_pair(&directory, "ca")? {
            Some(pair) => Authority::load(pair, random.fork()).map_err(|error| broken(&directory, "ca", &error))?,
            None => {
                let made = Authority::generate(AUTHORITY_NAME, clock.now(), random.fork());
                let authority = made.doing("making the cluster's certificate authority")?;
                write_pair(&directory, "ca", authority.pair())?;
                authority
            }
        };
        let token_key_pem = read_or_make(&directory.join("sa.key"), || {
            let key = rcgen::KeyPair::generate().doing("making the key of tokens")?;
            Ok(key.serialize_pem())
        })?;
        let sealing_keys = read_or_make(&directory.join("sealing.keys"), || Ok(Sealer::new_keys(random)))?;
        Ok(Pki {
            authority,
            token_key_pem,
            sealing_keys,
            directory,
        })
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.authority.pair().certificate_pem
    }

    /// The administrator's certificate, kept until it is due.
    pub fn administrator(&self, clock: &Clock) -> Result<Pair> {
        if let Some(pair) = read_pair(&self.directory, "admin")?
            && apiserver::pki::renew_at(&pair.certificate_pem).is_ok_and(|due| clock.now() < due)
        {
            return Ok(pair);
        }
        let (name, group) = ADMINISTRATOR;
        let pair = self.authority.issue_client(name, Some(group), clock.now());
        let pair = pair.doing("making the administrator's certificate")?;
        write_pair(&self.directory, "admin", &pair)?;
        Ok(pair)
    }
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
        let first = Pki::open(&layout, &clock, &random).unwrap();
        let second = Pki::open(&layout, &clock, &random).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.token_key_pem, second.token_key_pem);
        let admin = first.administrator(&clock).unwrap();
        assert_eq!(
            second.administrator(&clock).unwrap().certificate_pem,
            admin.certificate_pem
        );
    }

    #[test]
    fn a_lost_key_is_told_and_nothing_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::find(Some(dir.path()), true, |_| None).unwrap();
        layout.create().unwrap();
        drop(Pki::open(&layout, &Clock::real(), &Random::seeded(1)).unwrap());
        std::fs::remove_file(layout.pki().join("ca.key")).unwrap();
        let error = Pki::open(&layout, &Clock::real(), &Random::seeded(1)).err().unwrap();
        assert_eq!(error.id, "PKI_BROKEN");
        // A crash after the key alone is no loss.
        std::fs::write(layout.pki().join("ca.key"), "half").unwrap();
        std::fs::remove_file(layout.pki().join("ca.crt")).unwrap();
        assert!(Pki::open(&layout, &Clock::real(), &Random::seeded(1)).is_ok());
    }
}
