//! Whose certificates are taken: the cluster's own authority, those of `--client-ca-file`, and those of proxies; read again
//! when the files change, and published for extension API servers.

use std::path::PathBuf;
use std::sync::Arc;

use apiserver::authentication::trust::Trust;
use apiserver::authentication::{AuthorityError, CertificateAuthenticator, FrontProxy, FrontProxyConfig};
use tokio::sync::watch;

use crate::errors::{Context as _, Result};
use crate::watched::{Contents, Follow, Refusal, Watched};

/// Who is trusted now.
pub struct Trusted {
    /// Takes clients' certificates.
    pub certificates: Arc<CertificateAuthenticator>,
    /// Takes proxies' word.
    pub proxy: Option<Arc<FrontProxy>>,
    told: Arc<watch::Sender<Trust>>,
    own_ca_pem: String,
    client_ca: Option<(PathBuf, String)>,
    proxy_ca: Option<PathBuf>,
}

/// Both bundles as one.
pub fn together(own_ca_pem: &str, more: &str) -> String {
    format!("{}\n{more}", own_ca_pem.trim_end())
}

// === impl Trusted ===

impl Trusted {
    /// Trusts the cluster's own authority, that of a file, and the proxies whose authorities are in another file.
    ///
    /// # Errors
    /// A bundle cannot be used.
    pub fn new(
        own_ca_pem: &str,
        client_ca: Option<(PathBuf, String)>,
        proxy: Option<FrontProxyConfig>,
        proxy_ca: Option<PathBuf>,
    ) -> Result<Trusted> {
        let more = client_ca.as_ref().map_or("", |(_, text)| text.as_str());
        let client_ca_pem = together(own_ca_pem, more);
        let certificates =
            CertificateAuthenticator::new(&client_ca_pem).doing("reading the certificate authorities")?;
        let made = proxy.as_ref().map(FrontProxy::new).transpose();
        let made = made.doing("reading --requestheader-client-ca-file")?;
        let trust = Trust {
            client_ca_pem,
            front_proxy: proxy,
        };
        Ok(Trusted {
            certificates: Arc::new(certificates),
            proxy: made.map(Arc::new),
            told: Arc::new(watch::channel(trust).0),
            own_ca_pem: own_ca_pem.to_owned(),
            client_ca,
            proxy_ca,
        })
    }

    /// What others should trust, as it changes.
    pub fn told(&self) -> watch::Receiver<Trust> {
        self.told.subscribe()
    }

    /// Follows the files until the end.
    pub fn follow(&self, follow: &Follow) {
        if let Some((file, text)) = &self.client_ca {
            let (own, certificates, told) = (self.own_ca_pem.clone(), self.certificates.clone(), self.told.clone());
            let watched = Watched::since(vec![file.clone()], vec![text.clone().into_bytes()]);
            follow.start("client-ca-bundle", watched, move |contents| {
                std::future::ready(bundle(&contents).and_then(|pem| {
                    // The cluster's own would hide that nothing is left of the file.
                    CertificateAuthenticator::new(&pem).map_err(|error| Refusal::Wrong(error.to_string()))?;
                    change(
                        &told,
                        |trust| trust.client_ca_pem = together(&own, &pem),
                        |trust| certificates.replace(&trust.client_ca_pem),
                    )
                }))
            });
        }
        let config = self.told.borrow().front_proxy.clone();
        if let (Some(file), Some(proxy), Some(config)) = (&self.proxy_ca, &self.proxy, config) {
            let (proxy, told) = (proxy.clone(), self.told.clone());
            let watched = Watched::since(vec![file.clone()], vec![config.authorities_pem.into_bytes()]);
            follow.start("request-header", watched, move |contents| {
                std::future::ready(bundle(&contents).and_then(|pem| {
                    let edit = |trust: &mut Trust| {
                        if let Some(config) = &mut trust.front_proxy {
                            config.authorities_pem.clone_from(&pem);
                        }
                    };
                    change(&told, edit, |_| proxy.replace_authorities(&pem))
                }))
            });
        }
    }
}

/// Changes what is trusted; the files that are read again meanwhile wait, for they are judged together.
fn change(
    told: &watch::Sender<Trust>,
    edit: impl FnOnce(&mut Trust),
    apply: impl FnOnce(&Trust) -> std::result::Result<(), AuthorityError>,
) -> std::result::Result<(), Refusal> {
    let mut outcome = Ok(());
    told.send_if_modified(|trust| {
        let mut new = trust.clone();
        edit(&mut new);
        outcome = check(new.front_proxy.as_ref(), &new.client_ca_pem)
            .and_then(|()| apply(&new).map_err(|error| error.to_string()));
        let is_taken = outcome.is_ok();
        if is_taken {
            *trust = new;
        }
        is_taken
    });
    outcome.map_err(Refusal::Wrong)
}

/// Whether clients and proxies can be told apart. Upstream looks at the start only (`pkg/controlplane/apiserver/options`).
///
/// # Errors
/// Whoever has a certificate of a client could speak for everybody.
pub fn check(proxy: Option<&FrontProxyConfig>, client_ca_pem: &str) -> std::result::Result<(), String> {
    match proxy {
        Some(proxy) if proxy.allowed_names.is_empty() && overlap(&proxy.authorities_pem, client_ca_pem) => Err(
            "--requestheader-client-ca-file and --client-ca-file contain overlapping certificates; \
             --requestheader-allowed-names must be specified to ensure regular client certificates cannot set \
             authenticating proxy headers for arbitrary users"
                .into(),
        ),
        _ => Ok(()),
    }
}

/// Whether two bundles have a certificate in common.
fn overlap(a: &str, b: &str) -> bool {
    let certificates = |pem: &str| -> Vec<_> {
        rustls_pemfile::certs(&mut pem.as_bytes())
            .filter_map(std::result::Result::ok)
            .collect()
    };
    let (a, b) = (certificates(a), certificates(b));
    a.iter().any(|own| b.contains(own))
}

fn bundle(contents: &Contents) -> std::result::Result<String, Refusal> {
    String::from_utf8(contents.concat()).map_err(|_| Refusal::Wrong("it is no PEM".into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use apiserver::authentication::ProxyHeaders;
    use apiserver::metrics::ReloadMetrics;
    use apiserver::pki::{Authority, Pair};
    use base::{Clock, Random, Shutdown};

    use super::*;

    fn authority(seed: u64) -> Authority {
        Authority::generate("ca", Clock::real().now(), Random::seeded(seed)).unwrap()
    }

    fn pem(authority: &Authority) -> String {
        authority.pair().certificate_pem.clone()
    }

    fn is_taken(trusted: &Trusted, pair: &Pair) -> bool {
        let chain: Vec<_> = rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes())
            .map(std::result::Result::unwrap)
            .collect();
        trusted.certificates.authenticate(&chain, Clock::real().now()).is_ok()
    }

    #[tokio::test]
    async fn other_authorities_are_taken_and_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        let [own, first, second] = [1, 2, 3].map(authority);
        std::fs::write(&file, pem(&first)).unwrap();
        let trusted = Trusted::new(&pem(&own), Some((file.clone(), pem(&first))), None, None).unwrap();
        let follow = Follow {
            metrics: ReloadMetrics::default(),
            clock: Clock::real(),
            shutdown: Shutdown::new(),
        };
        let mut told = trusted.told();
        trusted.follow(&follow);
        let certificate = |of: &Authority| of.issue_client("jane", None, Clock::real().now()).unwrap();
        let all = [&own, &first, &second].map(certificate);
        assert_eq!(all.each_ref().map(|pair| is_taken(&trusted, pair)), [true, true, false]);
        std::fs::write(&file, "nothing").unwrap();
        std::fs::write(dir.path().join("new"), pem(&second)).unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        let changed = tokio::time::timeout(Duration::from_secs(60), told.changed()).await;
        changed.unwrap().unwrap();
        assert_eq!(told.borrow().client_ca_pem, together(&pem(&own), &pem(&second)));
        assert_eq!(all.each_ref().map(|pair| is_taken(&trusted, pair)), [true, false, true]);
        follow.shutdown.finish().await;
    }

    #[tokio::test]
    async fn a_reload_does_not_make_proxies_of_clients() {
        let dir = tempfile::tempdir().unwrap();
        let [own, proxies, others] = [1, 2, 3].map(authority);
        let (client_ca, proxy_ca) = (dir.path().join("clients.crt"), dir.path().join("proxies.crt"));
        let config = FrontProxyConfig {
            authorities_pem: pem(&proxies),
            allowed_names: Vec::new(),
            headers: ProxyHeaders::standard(),
        };
        std::fs::write(&client_ca, pem(&others)).unwrap();
        let (of_clients, of_proxies) = (Some((client_ca, pem(&others))), Some(proxy_ca));
        let trusted = Trusted::new(&pem(&own), of_clients, Some(config), of_proxies).unwrap();
        let sender = trusted.told.clone();
        let becomes = |pem: String| change(&sender, |trust| trust.client_ca_pem = pem, |_| Ok(()));
        let refused = becomes(together(&pem(&own), &pem(&proxies))).unwrap_err();
        assert!(matches!(refused, Refusal::Wrong(why) if why.contains("overlapping")));
        assert_eq!(
            trusted.told().borrow().client_ca_pem,
            together(&pem(&own), &pem(&others))
        );
        becomes(pem(&own)).unwrap();
        assert_eq!(trusted.told().borrow().client_ca_pem, pem(&own));
        let becomes = |pem: String| {
            let edit = |trust: &mut Trust| trust.front_proxy.as_mut().unwrap().authorities_pem = pem;
            change(&sender, edit, |_| Ok(()))
        };
        assert!(becomes(pem(&own)).is_err());
        becomes(pem(&others)).unwrap();
    }
}
