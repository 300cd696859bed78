//! Where a hook is, from a file in kubeconfig format: `clusters` is the service, `users` is us.
//!
//! Source: `LoadKubeconfig` of `k8s.io/apiserver/pkg/util/webhook/webhook.go` and `k8s.io/client-go/tools/clientcmd`.

use std::fmt;
use std::path::{Path, PathBuf};

use api::Value;
use api::codec::{Limits, yaml};
use base64::Engine as _;
use bytes::Bytes;
use http::Uri;

use super::ReadFile;

/// Where machines keep the roots that everybody trusts; the first that is there counts.
/// Source: `crypto/x509/root_linux.go` of Go.
pub(super) const MACHINE_ROOTS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// What of a user's credentials is not spoken here.
const UNSPOKEN: [&str; 4] = ["exec", "auth-provider", "as", "as-groups"];

/// A service, whom to trust there, and who we are.
#[derive(Clone)]
pub struct Target {
    /// Where questions go.
    pub url: Uri,
    /// Who may have signed the service's certificate; `None`: anybody (`insecure-skip-tls-verify`).
    pub ca_pem: Option<Vec<u8>>,
    /// The name in the service's certificate, when it is not the URL's.
    pub server_name: Option<String>,
    /// Our certificate and its key, as PEM.
    pub certificate: Option<Certificate>,
    /// What we say who we are.
    pub login: Login,
}

/// A chain of certificates and its key, as PEM.
pub type Certificate = (Vec<u8>, Vec<u8>);

/// What is said with each question.
#[derive(Clone)]
pub enum Login {
    /// Nothing.
    None,
    /// A bearer token.
    Token(String),
    /// A bearer token from a file, read with each question: it may be renewed.
    TokenFile {
        /// The file.
        path: PathBuf,
        /// How it is read.
        read: ReadFile,
    },
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
}

impl fmt::Debug for Target {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("url", &self.url).finish_non_exhaustive()
    }
}

// === impl Target ===

impl Target {
    /// Reads the file and those that it names.
    ///
    /// # Errors
    /// What cannot be read or used, and where.
    pub fn from_kubeconfig(path: &Path, read: &ReadFile) -> Result<Target, String> {
        let bytes = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let file = File {
            directory: path.parent().unwrap_or(Path::new("/")),
            read,
        };
        let target = file.target(&bytes);
        target.map_err(|why| format!("{}: {why}", path.display()))
    }
}

/// The file's directory: relative names are from there.
pub(super) struct File<'a> {
    pub(super) directory: &'a Path,
    pub(super) read: &'a ReadFile,
}

// === impl File ===

impl File<'_> {
    fn target(&self, bytes: &[u8]) -> Result<Target, String> {
        let decoded = yaml::decode(&Bytes::copy_from_slice(bytes), &Limits::default());
        let config = decoded.map_err(|error| error.to_string())?.value;
        let current = text(&config, "current-context").ok_or("current-context is not set")?;
        let context = entry(&config, "contexts", "context", current)?;
        let named = text(context, "cluster").ok_or_else(|| format!("context {current:?} names no cluster"))?;
        let cluster = entry(&config, "clusters", "cluster", named)?;
        let nobody = Value::Null;
        let user = match text(context, "user") {
            Some(user) => entry(&config, "users", "user", user)?,
            None => &nobody,
        };
        let server = text(cluster, "server").ok_or_else(|| format!("cluster {named:?} names no server"))?;
        let url = url(server)?;
        if text(cluster, "proxy-url").is_some() {
            return Err("proxy-url: hooks are reached directly only".into());
        }
        Ok(Target {
            ca_pem: self.authority(cluster, &url)?,
            server_name: text(cluster, "tls-server-name").map(str::to_owned),
            certificate: self.certificate(user)?,
            login: self.login(user)?,
            url,
        })
    }

    fn authority(&self, cluster: &Value, url: &Uri) -> Result<Option<Vec<u8>>, String> {
        let own = self.bytes(cluster, "certificate-authority")?;
        if cluster["insecure-skip-tls-verify"] == true {
            return match own {
                Some(_) => Err("specifying a root certificates file with the insecure flag is not allowed".into()),
                None => Ok(None),
            };
        }
        if own.is_some() || url.scheme_str() != Some("https") {
            return Ok(own.or_else(|| Some(Vec::new())));
        }
        let roots = super::machine_roots(self.read);
        let missing = "certificate-authority is not set, and this machine has no roots of its own";
        roots.map(Some).ok_or_else(|| missing.into())
    }

    pub(super) fn certificate(&self, user: &Value) -> Result<Option<Certificate>, String> {
        let chain = self.bytes(user, "client-certificate")?;
        let key = self.bytes(user, "client-key")?;
        match (chain, key) {
            (Some(chain), Some(key)) => Ok(Some((chain, key))),
            (None, None) => Ok(None),
            _ => Err("client-certificate and client-key must be given together".into()),
        }
    }

    pub(super) fn login(&self, user: &Value) -> Result<Login, String> {
        if let Some(field) = UNSPOKEN.into_iter().find(|field| !user[*field].is_null()) {
            return Err(format!(
                "users[].user.{field}: hooks know certificates, tokens and passwords only"
            ));
        }
        if let Some(file) = text(user, "tokenFile") {
            return Ok(Login::TokenFile {
                path: self.directory.join(file),
                read: self.read.clone(),
            });
        }
        if let Some(token) = text(user, "token") {
            return Ok(Login::Token(token.to_owned()));
        }
        Ok(match text(user, "username") {
            Some(name) => Login::Password {
                user: name.to_owned(),
                password: text(user, "password").unwrap_or("").to_owned(),
            },
            None => Login::None,
        })
    }

    /// `FIELD-data`, or what is in the file that `FIELD` names.
    fn bytes(&self, of: &Value, field: &str) -> Result<Option<Vec<u8>>, String> {
        let data = format!("{field}-data");
        if let Some(data) = text(of, &data) {
            let bytes = base64::engine::general_purpose::STANDARD.decode(data);
            return bytes.map(Some).map_err(|error| format!("{field}-data: {error}"));
        }
        let Some(name) = text(of, field) else {
            return Ok(None);
        };
        let path = self.directory.join(name);
        let bytes = (self.read)(&path).map_err(|error| format!("{field} {}: {error}", path.display()))?;
        Ok(Some(bytes))
    }
}

pub(super) fn text<'a>(of: &'a Value, field: &str) -> Option<&'a str> {
    of[field].as_str().filter(|text| !text.is_empty())
}

/// The entry of that name in one of the lists of a kubeconfig.
fn entry<'a>(config: &'a Value, list: &str, field: &str, name: &str) -> Result<&'a Value, String> {
    let entries = config[list].as_array().into_iter().flatten();
    let mut named = entries.filter(|entry| entry["name"] == name);
    let found = named.next().map(|entry| &entry[field]);
    found.ok_or_else(|| format!("{field} {name:?} does not exist"))
}

/// A server as kubeconfigs write it: without a scheme it is plain HTTP, without a path it is the root.
fn url(server: &str) -> Result<Uri, String> {
    let full = match server.contains("://") {
        true => server.to_owned(),
        false => format!("http://{server}"),
    };
    let url: Uri = full.parse().map_err(|error| format!("server {server:?}: {error}"))?;
    match url.scheme_str() {
        Some("https" | "http") if url.host().is_some() => Ok(url),
        _ => Err(format!("server {server:?} is no URL of http or https")),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    fn read(config: &str) -> Result<Target, String> {
        let config = config.to_owned();
        let files: ReadFile = Arc::new(move |path| match path.to_str() {
            Some("/etc/hook/config") => Ok(config.clone().into_bytes()),
            Some("/etc/hook/ca.pem") => Ok(b"CA".to_vec()),
            Some("/keys/key.pem") => Ok(b"KEY".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
        Target::from_kubeconfig(Path::new("/etc/hook/config"), &files)
    }

    fn config(cluster: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: s, user: u}}}}]\n\
             clusters: [{{name: s, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        )
    }

    #[test]
    fn files_say_where_and_who() {
        let found = read(&config(
            "server: 'https://hook.example:8443/authorize?timeout=5s', certificate-authority: ca.pem, tls-server-name: x",
            "client-certificate-data: Q0hBSU4=, client-key: /keys/key.pem, token: secret",
        ));
        let found = found.unwrap();
        assert_eq!(found.url.to_string(), "https://hook.example:8443/authorize?timeout=5s");
        assert_eq!(
            (found.ca_pem, found.server_name.as_deref()),
            (Some(b"CA".to_vec()), Some("x"))
        );
        assert_eq!(found.certificate, Some((b"CHAIN".to_vec(), b"KEY".to_vec())));
        assert!(matches!(found.login, Login::Token(token) if token == "secret"));
        let insecure = read(&config(
            "server: 'https://x', insecure-skip-tls-verify: true",
            "username: a, password: b",
        ));
        let insecure = insecure.unwrap();
        assert!(insecure.ca_pem.is_none() && matches!(insecure.login, Login::Password { .. }));
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let file = "/etc/hook/config: ";
        let plain = "server: 'http://x'";
        for (config, expect) in [
            ("kind: Config".to_owned(), "current-context is not set"),
            ("current-context: x".to_owned(), "context \"x\" does not exist"),
            (config("", ""), "cluster \"s\" names no server"),
            (
                config("server: 'ftp://x'", ""),
                "server \"ftp://x\" is no URL of http or https",
            ),
            (
                config(plain, "exec: {}"),
                "users[].user.exec: hooks know certificates, tokens and passwords only",
            ),
            (
                config(plain, "client-key: /keys/key.pem"),
                "client-certificate and client-key must be given together",
            ),
            (
                config(plain, "client-key: none"),
                "client-key /etc/hook/none: entity not found",
            ),
            (
                config("server: 'http://x', proxy-url: 'http://p'", ""),
                "proxy-url: hooks are reached directly only",
            ),
        ] {
            assert_eq!(read(&config).unwrap_err(), format!("{file}{expect}"));
        }
    }
}
