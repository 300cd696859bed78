//! Services of others on loopback, as a cluster's flags name them: issuers of tokens and webhooks, over HTTPS.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use apiserver::pki::{Authority, Pair};
use apiserver::tokens::{Claims, KubernetesClaims, Signer};
use base::{Clock, Random};
use rustls::ServerConfig;
use serde_json::{Value, json};

/// A token ends long after every test.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// A service that answers JSON.
pub struct Service {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// Who signed its certificate.
    pub ca_pem: String,
}

/// A service that signs tokens, and tells who asks by which key.
pub struct Issuer {
    /// Where it is.
    pub service: Service,
    signer: Arc<Signer>,
}

/// An authority of a test's own.
pub fn authority() -> Authority {
    Authority::generate("others", Clock::real().now(), Random::real()).unwrap()
}

/// A certificate of that authority for a server on loopback with this name.
pub fn serving(authority: &Authority, name: &str) -> Pair {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let pair = authority.issue_server(name, None, &[name], &loopback, Clock::real().now());
    pair.unwrap()
}

// === impl Service ===

impl Service {
    /// Answers from now on: the service's URL, a path, and what was sent there make an answer. Ends with this program.
    pub fn start(answer: impl Fn(&str, &str, Value) -> Value + Send + Sync + 'static) -> Service {
        let authority = authority();
        let pair = serving(&authority, "service");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes())
            .map(Result::unwrap)
            .collect();
        let key = rustls_pemfile::private_key(&mut pair.key_pem.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key.unwrap());
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let service = Service {
            url: url.clone(),
            ca_pem: authority.pair().certificate_pem.clone(),
        };
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, url, answer) = (config.clone(), url.clone(), answer.clone());
                // Whoever goes away in the middle is no failure of the service.
                std::thread::spawn(move || exchange(stream, config, |path, sent| answer(&url, path, sent)));
            }
        });
        service
    }

    /// The service in kubeconfig format.
    pub fn kubeconfig(&self) -> Value {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca_pem);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.url, "certificate-authority-data": ca}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        })
    }
}

fn exchange(
    mut socket: TcpStream,
    config: Arc<ServerConfig>,
    answer: impl Fn(&str, Value) -> Value,
) -> std::io::Result<()> {
    let mut connection = rustls::ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(rustls::Stream::new(&mut connection, &mut socket));
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut sent = vec![0; length];
    stream.read_exact(&mut sent)?;
    let path = first.split(' ').nth(1).unwrap_or_default();
    let body = answer(path, serde_json::from_slice(&sent).unwrap_or_default()).to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let stream = stream.get_mut();
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len())?;
    stream.flush()?;
    stream.conn.send_close_notify();
    stream.flush()
}

// === impl Issuer ===

impl Issuer {
    /// An issuer of OpenID Connect.
    pub fn start() -> Issuer {
        let key = authority().pair().key_pem.clone();
        let signer = Arc::new(Signer::from_pem(&key, Random::real()).unwrap());
        let keys = signer.key_set();
        let service = Service::start(move |url, path, _| match path {
            "/keys" => keys.clone(),
            _ => json!({"issuer": url, "jwks_uri": format!("{url}/keys"), "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"]}),
        });
        Issuer { service, signer }
    }

    /// A token for the audience `trireme`.
    pub fn token(&self, subject: &str, team: &str) -> String {
        let now = Clock::real().now().as_second();
        let claims = Claims {
            audiences: vec!["trireme".into()],
            issuer: self.service.url.clone(),
            subject: subject.into(),
            kubernetes: KubernetesClaims {
                namespace: team.into(),
                ..KubernetesClaims::default()
            },
            issued_at: Some(now),
            expires: Some(now + TOKEN_SECONDS),
            ..Claims::default()
        };
        self.signer.sign(&claims).unwrap()
    }
}
