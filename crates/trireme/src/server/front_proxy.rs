//! The front proxy: as whom the API server comes to servers that answer for other group versions.
//!
//! Without flags it has an authority of its own for that, as kubeadm's clusters have; its certificate says who it is, and the
//! headers that it sends say for whom it speaks. Extension servers read in `extension-apiserver-authentication` whom to trust.

use std::path::PathBuf;
use std::sync::Arc;

use apiserver::aggregation::ProxyConfig;
use apiserver::authentication::{FrontProxyConfig, ProxyHeaders};
use apiserver::hook::Certificate;
use apiserver::pki::Pair;
use base::Clock;
use tokio::sync::watch;

use super::certificate_files::pair_of;
use super::pki::Pki;
use crate::cli::AggregationFlags;
use crate::errors::{CliError, Context as _, Kind, Result};
use crate::renewal::Renewal;
use crate::watched::{Contents, Follow, Refusal, Watched};

/// The common name of the front proxy's certificate, as kubeadm's.
const CLIENT: &str = "front-proxy-client";

// === impl AggregationFlags ===

impl AggregationFlags {
    /// Whether they say anything.
    pub fn are_given(&self) -> bool {
        *self != AggregationFlags::default()
    }

    /// The same, wherever they are read. A name of nothing is none.
    pub fn anchored(&self) -> Result<AggregationFlags> {
        Ok(AggregationFlags {
            proxy_client_cert_file: super::anchor(self.proxy_client_cert_file.as_deref())?,
            proxy_client_key_file: super::anchor(self.proxy_client_key_file.as_deref())?,
            aggregator_reject_forwarding_redirect: self.aggregator_reject_forwarding_redirect,
        })
    }

    /// Whether a server could start with them.
    ///
    /// # Errors
    /// A file cannot be used, or one of the two is missing.
    pub fn check(&self) -> Result {
        self.files().map(drop)
    }

    /// The files of the certificate, and what is in them.
    fn files(&self) -> Result<Option<(Vec<PathBuf>, Contents)>> {
        let files = match (&self.proxy_client_cert_file, &self.proxy_client_key_file) {
            (Some(certificate), Some(key)) => vec![certificate.clone(), key.clone()],
            (None, None) => return Ok(None),
            _ => {
                let what = "--proxy-client-cert-file and --proxy-client-key-file must be specified together";
                return Err(wrong(what));
            }
        };
        let read = |file: &PathBuf| std::fs::read(file).map_err(|error| wrong(format!("{}: {error}", file.display())));
        let contents: Contents = files.iter().map(read).collect::<Result<_>>()?;
        pair(&contents).map_err(wrong)?;
        Ok(Some((files, contents)))
    }

    /// How the API server shows itself, from now on. With `others`, flags say whose word counts: then a certificate of our
    /// own would be trusted by nobody, and none is shown but that of the files.
    ///
    /// # Errors
    /// As [`AggregationFlags::check`], or no certificate can be made.
    pub fn start(&self, pki: &Arc<Pki>, others: bool, renewal: Renewal, follow: &Follow) -> Result<ProxyConfig> {
        let (shown, certificate) = watch::channel(None);
        match self.files()? {
            Some((files, contents)) => {
                shown.send_replace(pair(&contents).ok());
                let watched = Watched::since(files, contents);
                follow.start("aggregator-proxy-cert", watched, move |contents| {
                    let taken = pair(&contents).map(|certificate| {
                        shown.send_replace(Some(certificate));
                    });
                    std::future::ready(taken.map_err(Refusal::NotYet))
                });
            }
            None if others => {}
            None => {
                let made = issue(pki, &renewal.clock)?;
                shown.send_replace(Some(of(&made)));
                let (pki, clock) = (pki.clone(), renewal.clock.clone());
                renewal.keep(
                    made,
                    move || std::future::ready(issue(&pki, &clock)),
                    move |pair| {
                        shown.send_replace(Some(of(pair)));
                        Ok(())
                    },
                );
            }
        }
        Ok(ProxyConfig {
            certificate,
            read: Some(Arc::new(|path| std::fs::read(path))),
            rejects_redirects: self.aggregator_reject_forwarding_redirect.unwrap_or(true),
        })
    }
}

/// Whose word counts when no flag says so: our own.
pub fn own(pki: &Pki) -> FrontProxyConfig {
    FrontProxyConfig {
        authorities_pem: pki.front_proxy.pair().certificate_pem.clone(),
        allowed_names: vec![CLIENT.to_owned()],
        headers: ProxyHeaders::standard(),
    }
}

fn issue(pki: &Pki, clock: &Clock) -> Result<Pair> {
    let issued = pki.front_proxy.issue_client(CLIENT, None, clock.now());
    issued.doing("making the front proxy's certificate")
}

fn of(pair: &Pair) -> Certificate {
    (
        pair.certificate_pem.clone().into_bytes(),
        pair.key_pem.clone().into_bytes(),
    )
}

/// The certificate and the key of two files, when they belong together.
fn pair(contents: &Contents) -> std::result::Result<Certificate, String> {
    pair_of(contents).map(|pair| of(&pair))
}

fn wrong(what: impl Into<String>) -> CliError {
    CliError::new(Kind::Usage, "AGGREGATION", what).hint("the flags are in docs/aggregation.md")
}

#[cfg(test)]
mod tests {
    use apiserver::authentication::FrontProxy;
    use base::Random;

    use super::*;
    use crate::layout::Layout;

    #[test]
    fn files_are_given_together_and_belong_together() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::find(Some(dir.path()), true, |_| None).unwrap();
        layout.create().unwrap();
        let clock = Clock::real();
        let pki = Pki::open(&layout, &clock, &Random::seeded(1), None).unwrap();
        let (one, other) = (issue(&pki, &clock).unwrap(), issue(&pki, &clock).unwrap());
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let certificate = write("one.crt", &one.certificate_pem);
        let (key, foreign) = (write("one.key", &one.key_pem), write("other.key", &other.key_pem));
        for (certificate, key, expect) in [
            (None, None, ""),
            (certificate.clone(), key.clone(), ""),
            (
                certificate.clone(),
                foreign,
                "there is no certificate and key that belong together",
            ),
            (certificate, None, "must be specified together"),
            (None, key, "must be specified together"),
        ] {
            let flags = AggregationFlags {
                proxy_client_cert_file: certificate,
                proxy_client_key_file: key,
                ..AggregationFlags::default()
            };
            match flags.check() {
                Ok(()) => assert_eq!(expect, "", "{flags:?}"),
                Err(error) => assert!(!expect.is_empty() && error.what.contains(expect), "{}", error.what),
            }
        }
        assert!(FrontProxy::new(&own(&pki)).is_ok());
        assert_ne!(pki.ca_pem(), own(&pki).authorities_pem);
    }
}
