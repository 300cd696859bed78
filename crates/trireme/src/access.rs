//! How commands reach the API: as whoever a kubeconfig says, like any other client.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use client::https::{Connector, Credentials, HttpsTransport, Stream};
use client::{Transport as _, TransportError};
use futures::future::BoxFuture;
use http::header::ACCEPT;
use serde_json::Value;

use crate::errors::{CliError, Kind, Result};
use crate::layout::Layout;

/// The largest answer that is taken whole. A history has sixteen MiB of objects.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A way to one API server.
pub struct Access {
    transport: Arc<HttpsTransport>,
    server: String,
}

// === impl Access ===

impl Access {
    /// As the kubeconfig says; without one, as the administrator of the cluster of this machine.
    pub fn open(kubeconfig: Option<&Path>, layout: &Layout) -> Result<Access> {
        let own = layout.admin_kubeconfig();
        if kubeconfig.is_none() && !own.exists() {
            return Err(crate::no_cluster(layout));
        }
        let path = kubeconfig.unwrap_or(&own);
        let text = std::fs::read_to_string(path).map_err(|error| CliError::file(path, &error))?;
        let broken = |why: String| {
            CliError::new(Kind::Usage, "KUBECONFIG_BROKEN", format!("{}: {why}", path.display()))
                .hint("see what kubectl makes of it: kubectl config view --kubeconfig FILE")
        };
        let config: Value = serde_saphyr::from_str(&text).map_err(|error| broken(error.to_string()))?;
        let context = named(&config, "contexts", &config["current-context"], "context").map_err(&broken)?;
        let cluster = named(&config, "clusters", &context["cluster"], "cluster").map_err(&broken)?;
        let user = named(&config, "users", &context["user"], "user").map_err(&broken)?;
        let base = path.parent().unwrap_or(Path::new("."));
        let pem = |tree: &Value, name: &str| text_of(tree, name, base).map_err(&broken);
        let credentials = match (pem(user, "client-certificate")?, pem(user, "client-key")?) {
            (Some(chain_pem), Some(key_pem)) => Credentials::Certificate { chain_pem, key_pem },
            _ => match user["token"].as_str().map(str::to_owned) {
                Some(token) => Credentials::Token(Arc::new(move || token.clone())),
                None => return Err(broken("the user has no client certificate and no token".into())),
            },
        };
        let server = cluster["server"].as_str().unwrap_or_default().to_owned();
        let ca = pem(cluster, "certificate-authority")?.ok_or_else(|| broken("the cluster has no authority".into()))?;
        let transport = match cluster["tls-server-name"].as_str() {
            Some(name) => named_transport(&server, name, &ca, credentials),
            None => HttpsTransport::new(&server, &ca, credentials),
        };
        let transport = transport.map_err(|error| broken(error.to_string()))?;
        let transport = Arc::new(transport);
        Ok(Access { transport, server })
    }

    /// A GET whose answer is read by the caller. What is not a success is an error in the server's words.
    pub async fn get(&self, path: &str, accept: &str) -> Result<client::Body> {
        let request = http::Request::get(path)
            .header(ACCEPT, accept)
            .body(Bytes::new())
            .map_err(CliError::internal)?;
        let response = self.transport.send(request).await.map_err(|error| {
            let what = format!("the API server at {} does not answer: {error}", self.server);
            CliError::new(Kind::Missing, "NO_ANSWER", what).hint("look whether it runs: trireme status")
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body = client::collect(response.into_body(), ANSWER_BYTES_MAX).await;
        let body: Value = body
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let message = body["message"].as_str().unwrap_or("no reason was given");
        let (kind, id, hint) = match status.as_u16() {
            401 | 403 => (
                Kind::Machine,
                "FORBIDDEN",
                "ask whoever may give that right, or name another identity: --kubeconfig FILE",
            ),
            404 => (Kind::Missing, "NOT_FOUND", "look for it: kubectl get ... -A"),
            429 => (Kind::Machine, "REFUSED", "the server is busy: try again"),
            _ => (Kind::Machine, "REFUSED", "see how the server is: trireme status"),
        };
        let what = format!("the API server answered {}: {message}", status.as_u16());
        Err(CliError::new(kind, id, what).hint(hint))
    }

    /// A GET of a document.
    pub async fn json(&self, path: &str, accept: &str) -> Result<Value> {
        let body = self.get(path, accept).await?;
        let lost = |why: String| {
            CliError::new(Kind::Machine, "LOST", format!("the answer did not come whole: {why}"))
                .hint("try again; see how the server is: trireme status")
        };
        let bytes = client::collect(body, ANSWER_BYTES_MAX)
            .await
            .map_err(|error| lost(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| lost(error.to_string()))
    }
}

/// A transport to a server whose certificate has that name, and not its host's.
///
/// # Errors
/// When the URL, the name, the authority or the credentials cannot be read.
pub fn named_transport(
    server: &str,
    name: &str,
    ca_pem: &str,
    credentials: Credentials,
) -> std::result::Result<HttpsTransport, TransportError> {
    let authority = server.trim_start_matches("https://").trim_end_matches('/');
    let port = authority.rsplit_once(':').map_or("443", |(_, port)| port);
    let connector = Arc::new(At(authority.to_owned()));
    HttpsTransport::with_connector(&format!("https://{name}:{port}"), ca_pem, credentials, connector)
}

/// Connects to one place, whatever it is asked for.
struct At(String);

impl Connector for At {
    fn connect(&self, _authority: &str) -> BoxFuture<'static, std::io::Result<Box<dyn Stream>>> {
        let authority = self.0.clone();
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(authority).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

fn named<'a>(config: &'a Value, list: &str, name: &Value, field: &str) -> std::result::Result<&'a Value, String> {
    let entries = config[list].as_array().map_or(&[][..], Vec::as_slice);
    let found = entries.iter().find(|entry| entry["name"] == *name);
    found
        .map(|entry| &entry[field])
        .ok_or_else(|| format!("{list} has no entry named {name}"))
}

/// A PEM that a kubeconfig holds (`NAME-data`, base64) or names (`NAME`, a file beside it).
fn text_of(tree: &Value, name: &str, base: &Path) -> std::result::Result<Option<String>, String> {
    if let Some(data) = tree[format!("{name}-data")].as_str() {
        let bytes = BASE64.decode(data).map_err(|error| format!("{name}-data: {error}"))?;
        return String::from_utf8(bytes)
            .map(Some)
            .map_err(|error| format!("{name}-data: {error}"));
    }
    let Some(file) = tree[name].as_str() else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(base.join(file));
    text.map(Some).map_err(|error| format!("{file}: {error}"))
}
