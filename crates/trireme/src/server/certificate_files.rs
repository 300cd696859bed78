//! Certificates of files: what the API server shows to clients, read again when the files change.
//!
//! Whoever asks for the name [`OWN_NAME`] sees the cluster's own certificate whatever is configured: the administrator's
//! kubeconfig does, and so does everything of this machine. Invariant: a certificate and a key that do not belong together
//! are never shown; the ones before stay.
//! Source: `k8s.io/apiserver/pkg/server/options/serving.go` and `pkg/server/dynamiccertificates`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::pki::{Pair, dns_names};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::cli::TlsFlags;
use crate::errors::{CliError, Kind, Result};
use crate::tls::{Shown, belong_together};
use crate::watched::{Contents, Follow, Refusal, Watched};

/// The name by which clients of this machine ask for the cluster's own certificate.
pub const OWN_NAME: &str = "trireme";

/// A certificate of two files.
struct FilePair {
    files: [PathBuf; 2],
    /// The names that it is for, when a flag says so; otherwise those in it.
    names: Vec<String>,
    contents: Contents,
    shown: Arc<Shown>,
}

/// Everything that is shown, by the name that is asked for.
pub struct Certificates {
    own: Arc<Shown>,
    others: Option<FilePair>,
    named: Vec<FilePair>,
}

// === impl TlsFlags ===

impl TlsFlags {
    /// Whether they say anything.
    pub fn are_given(&self) -> bool {
        *self != TlsFlags::default()
    }

    /// The same, wherever they are read: the names of files do not depend on a working directory. A name of nothing is
    /// none.
    pub fn anchored(&self) -> Result<TlsFlags> {
        let anchor = |file: &Option<PathBuf>| super::anchor(file.as_deref());
        let sni = self
            .tls_sni_cert_key
            .iter()
            .filter(|text| !text.is_empty())
            .map(|text| {
                let (files, names) = parts(text)?;
                let absolute = |file: &Path| std::path::absolute(file).map_err(CliError::internal);
                let [certificate, key] = [absolute(&files[0])?, absolute(&files[1])?];
                let names = if names.is_empty() {
                    String::new()
                } else {
                    format!(":{}", names.join(","))
                };
                Ok(format!("{},{}{names}", certificate.display(), key.display()))
            });
        Ok(TlsFlags {
            tls_cert_file: anchor(&self.tls_cert_file)?,
            tls_private_key_file: anchor(&self.tls_private_key_file)?,
            tls_sni_cert_key: sni.collect::<Result<_>>()?,
            client_ca_file: anchor(&self.client_ca_file)?,
        })
    }

    /// Whether clients that ask for no name of the cluster's own see a file's certificate.
    pub fn show_a_file(&self) -> bool {
        self.tls_cert_file.is_some()
    }

    /// Who signs certificates of clients besides the cluster's own authority: the file and what is in it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn client_ca(&self) -> Result<Option<(PathBuf, String)>> {
        let Some(file) = &self.client_ca_file else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(format!("{}: {error}", file.display())))?;
        Ok(Some((file.clone(), text)))
    }

    /// What is shown, beside the cluster's own.
    ///
    /// # Errors
    /// The flags contradict each other, or a file cannot be used.
    pub fn certificates(&self, own: Arc<Shown>) -> Result<Certificates> {
        let (others, named) = self.pairs()?;
        Ok(Certificates { own, others, named })
    }

    fn pairs(&self) -> Result<(Option<FilePair>, Vec<FilePair>)> {
        let others = match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(certificate), Some(key)) => Some(FilePair::read([certificate.clone(), key.clone()], Vec::new())?),
            (None, None) => None,
            _ => {
                return Err(wrong(
                    "--tls-cert-file and --tls-private-key-file must be specified together",
                ));
            }
        };
        let named = self.tls_sni_cert_key.iter().map(|text| {
            let (files, names) = parts(text)?;
            FilePair::read(files, names)
        });
        Ok((others, named.collect::<Result<_>>()?))
    }

    /// Whether a server could start with them.
    ///
    /// # Errors
    /// As [`TlsFlags::certificates`] and [`TlsFlags::client_ca`].
    pub fn check(&self) -> Result {
        self.pairs()?;
        self.client_ca().map(drop)
    }
}

/// `certificate,key:name,name`. Source: `k8s.io/component-base/cli/flag/namedcertkey_flag.go`.
fn parts(text: &str) -> Result<([PathBuf; 2], Vec<String>)> {
    let (files, names) = text.split_once(':').unwrap_or((text, ""));
    let names: Vec<String> = names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    match files.split(',').collect::<Vec<_>>()[..] {
        [certificate, key] if !certificate.is_empty() && !key.is_empty() => {
            Ok(([certificate.into(), key.into()], names))
        }
        _ => Err(wrong(format!(
            "--tls-sni-cert-key {text}: expected comma separated certificate and key file paths"
        ))),
    }
}

fn wrong(what: impl Into<String>) -> CliError {
    CliError::new(Kind::Usage, "TLS_FILES", what)
        .hint("look at what --tls-cert-file, --tls-private-key-file, --tls-sni-cert-key and --client-ca-file name")
}

// === impl FilePair ===

impl FilePair {
    fn read(files: [PathBuf; 2], names: Vec<String>) -> Result<FilePair> {
        let read = |file: &Path| std::fs::read(file).map_err(|error| wrong(format!("{}: {error}", file.display())));
        let contents = vec![read(&files[0])?, read(&files[1])?];
        let pair = pair_of(&contents).map_err(|why| wrong(format!("{}: {why}", files[0].display())))?;
        Ok(FilePair {
            shown: Shown::new(&pair)?,
            files,
            names,
            contents,
        })
    }

    fn follow(&self, what: &'static str, follow: &Follow) {
        let shown = self.shown.clone();
        let watched = Watched::since(self.files.to_vec(), self.contents.clone());
        follow.start(what, watched, move |contents| {
            let taken = pair_of(&contents).and_then(|pair| shown.replace(&pair).map_err(|error| error.what));
            std::future::ready(taken.map_err(Refusal::Wrong))
        });
    }

    /// The names that it is for now.
    fn names(&self) -> Vec<String> {
        match self.names.is_empty() {
            true => self
                .shown
                .current()
                .cert
                .first()
                .map_or_else(Vec::new, |leaf| dns_names(leaf)),
            false => self.names.clone(),
        }
    }
}

/// The certificate and the key of two files.
///
/// # Errors
/// They do not belong together.
pub fn pair_of(contents: &[Vec<u8>]) -> std::result::Result<Pair, String> {
    let text = |at: usize| String::from_utf8(contents[at].clone()).map_err(|_| "it is no PEM".to_owned());
    let pair = Pair {
        certificate_pem: text(0)?,
        key_pem: text(1)?,
    };
    match belong_together(&pair) {
        true => Ok(pair),
        false => Err("there is no certificate and key that belong together".into()),
    }
}

// === impl Certificates ===

impl Certificates {
    /// Shows what the files become, until the end.
    pub fn follow(&self, follow: &Follow) {
        if let Some(others) = &self.others {
            others.follow("serving-cert", follow);
        }
        for pair in &self.named {
            pair.follow("sni-serving-cert", follow);
        }
    }

    /// The certificate for a name: a flag's exact one, a flag's wildcard, those of the names in certificates, ours, others.
    fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let others = || self.others.as_ref().map_or(&self.own, |others| &others.shown).current();
        let Some(name) = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase()) else {
            return others();
        };
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let wanted = [Some(&name), wildcard.as_ref()];
        for is_explicit in [true, false] {
            for wanted in wanted.into_iter().flatten() {
                let pairs = self.named.iter().filter(|pair| pair.names.is_empty() != is_explicit);
                let mut fitting = pairs.filter(|pair| pair.names().iter().any(|own| own.eq_ignore_ascii_case(wanted)));
                if let Some(pair) = fitting.next() {
                    return pair.shown.current();
                }
            }
        }
        if name == OWN_NAME { self.own.current() } else { others() }
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use apiserver::metrics::ReloadMetrics;
    use apiserver::pki::Authority;
    use base::{Clock, Random, Shutdown};

    use super::*;

    struct World {
        dir: tempfile::TempDir,
        authority: Authority,
    }

    impl World {
        fn new() -> World {
            World {
                dir: tempfile::tempdir().unwrap(),
                authority: Authority::generate("ca", Clock::real().now(), Random::seeded(1)).unwrap(),
            }
        }

        fn pair(&self, names: &[&str]) -> Pair {
            self.authority
                .issue_server(names[0], None, names, &[], Clock::real().now())
                .unwrap()
        }

        /// Writes a pair and says how a flag names it.
        fn write(&self, name: &str, names: &[&str]) -> String {
            let pair = self.pair(names);
            let [certificate, key] = ["crt", "key"].map(|end| self.dir.path().join(format!("{name}.{end}")));
            std::fs::write(&certificate, &pair.certificate_pem).unwrap();
            std::fs::write(&key, &pair.key_pem).unwrap();
            format!("{},{}", certificate.display(), key.display())
        }
    }

    fn shown(certificates: &Certificates, name: Option<&str>) -> String {
        dns_names(&certificates.choose(name).cert[0]).join(" ")
    }

    #[test]
    fn the_name_that_is_asked_for_chooses() {
        let world = World::new();
        let own = Shown::new(&world.pair(&["own"])).unwrap();
        let file = world.write("file", &["file"]);
        let (certificate, key) = file.split_once(',').unwrap();
        let flags = TlsFlags {
            tls_cert_file: Some(certificate.into()),
            tls_private_key_file: Some(key.into()),
            tls_sni_cert_key: vec![
                world.write("a", &["a.example.com", "c.example.com"]),
                format!("{}:*.example.com,b.example.com", world.write("b", &["b"])),
                format!("{}:c.example.com", world.write("c", &["c"])),
            ],
            client_ca_file: None,
        };
        let certificates = flags.certificates(own.clone()).unwrap();
        for (name, expect) in [
            (None, "file"),
            (Some("other"), "file"),
            (Some("trireme"), "own"),
            (Some("b.example.com"), "b"),
            (Some("C.example.com"), "c"),
            (Some("d.example.com."), "b"),
            // A name of a flag goes before one in a certificate, even when it is a pattern.
            (Some("a.example.com"), "b"),
        ] {
            assert_eq!(shown(&certificates, name), expect, "{name:?}");
        }
        let alone = TlsFlags::default().certificates(own).unwrap();
        assert_eq!(shown(&alone, None), "own");
    }

    #[test]
    fn what_cannot_be_shown_is_told() {
        let world = World::new();
        let (a, b) = (world.write("a", &["a"]), world.write("b", &["b"]));
        let (certificate, _) = a.split_once(',').unwrap();
        let (_, key) = b.split_once(',').unwrap();
        let sni = |text: &str| TlsFlags {
            tls_sni_cert_key: vec![text.to_owned()],
            ..TlsFlags::default()
        };
        let alone = TlsFlags {
            tls_cert_file: Some(certificate.into()),
            ..TlsFlags::default()
        };
        for (flags, expect) in [
            (alone, "must be specified together"),
            (sni("a"), "expected comma separated certificate and key file paths"),
            (sni("/nowhere,/nowhere"), "/nowhere: No such file"),
            (sni(&format!("{certificate},{key}")), "belong together"),
        ] {
            let error = flags.check().unwrap_err();
            assert!(error.what.contains(expect), "{error:?}");
        }
    }

    #[tokio::test]
    async fn files_that_change_are_shown_when_they_belong_together() {
        let world = World::new();
        let own = Shown::new(&world.pair(&["own"])).unwrap();
        let file = world.write("file", &["one"]);
        let (certificate, key) = file.split_once(',').unwrap();
        let flags = TlsFlags {
            tls_cert_file: Some(certificate.into()),
            tls_private_key_file: Some(key.into()),
            ..TlsFlags::default()
        };
        let certificates = flags.certificates(own).unwrap();
        let follow = Follow {
            metrics: ReloadMetrics::default(),
            clock: Clock::real(),
            shutdown: Shutdown::new(),
        };
        certificates.follow(&follow);
        // The certificate first: until its key is there the old pair is shown.
        world.write("file", &["two"]);
        let taken = async {
            while shown(&certificates, None) != "two" {
                // Who shows it is told of a new file by nothing but what is shown.
                tokio::time::sleep(Duration::from_millis(5)).await;
                assert!(["one", "two"].contains(&shown(&certificates, None).as_str()));
            }
        };
        tokio::time::timeout(Duration::from_secs(60), taken).await.unwrap();
        follow.shutdown.finish().await;
    }
}
