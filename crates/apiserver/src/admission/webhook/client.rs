//! Reaches the services that webhooks name, by URL or as a Service of the cluster.
//!
//! A Service is resolved to a ready endpoint for each connection, and that address is dialled from where pods are reachable
//! (D14); its certificate must be for `NAME.NAMESPACE.svc`, also when the Service stands for a host outside of the cluster
//! (ExternalName). `default/kubernetes` is this server, which asks itself without a certificate. Webhooks that say the same of
//! their service share its connections. One that asks for patience (`Retry-After`) is asked again within its time.
//!
//! Source: `k8s.io/apiserver/pkg/util/webhook/client.go`; for the words of answers that are none
//! `NewGenericServerResponse` of apimachinery and `k8s.io/client-go/rest/request.go`; for patience `with_retry.go` there.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use api::field::quote;
use api::{Status, Value};
use base::Random;
use base64::Engine as _;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::response::Parts;
use http::uri::InvalidUri;
use http::{HeaderValue, StatusCode, Uri};
use parking_lot::Mutex;

use super::config::WebhookConfig;
use crate::cluster::Cluster;
use crate::dial::{ServiceDialer, Stream};
use crate::endpoints::{OWN, resolve};
use crate::hook::{CallError, Caller, Connector, Dial, Login, Protocols, Target, machine_roots};
use crate::trace;

/// The largest answer: a patch may hold a whole object (3 MiB) in base64, and there is no more than that to say.
const ANSWER_BYTES_MAX: usize = 6 * 1024 * 1024;
/// The longest text of a failed service that is repeated (upstream's `maxUnstructuredResponseTextBytes`).
const TEXT_BYTES_MAX: usize = 2048;
/// How often a question is asked in all (upstream: once, and `maxRetries` times more).
const ATTEMPTS_MAX: u32 = 11;
/// What we call ourselves to webhooks, as upstream.
const AGENT: &str = "kube-apiserver-admission";
const PORT_DEFAULT: u64 = 443;

/// The clients of one plug-in.
pub struct Clients {
    config: WebhookConfig,
    random: Random,
    shared: Mutex<HashMap<String, Weak<Client>>>,
}

/// One service.
pub struct Client {
    url: String,
    caller: Caller,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For people.
    pub why: String,
    /// For metrics.
    pub code: u16,
}

/// A Service, and what leads to it.
struct Route {
    namespace: String,
    name: String,
    port: u16,
    cluster: Arc<dyn Cluster>,
    services: Option<Arc<dyn ServiceDialer>>,
    random: Random,
}

// === impl Clients ===

impl Clients {
    /// Of a plug-in that is configured so.
    pub fn new(config: WebhookConfig, random: Random) -> Clients {
        Clients {
            config,
            random,
            shared: Mutex::default(),
        }
    }

    /// A new uid of a question.
    pub fn uid(&self) -> String {
        self.random.uuid()
    }

    /// What reaches the service that a `clientConfig` names.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn client(
        &self,
        config: &Value,
        cluster: &Arc<dyn Cluster>,
        services: Option<&Arc<dyn ServiceDialer>>,
    ) -> Result<Arc<Client>, String> {
        let key = config.to_string();
        let mut shared = self.shared.lock();
        if let Some(client) = shared.get(&key).and_then(Weak::upgrade) {
            return Ok(client);
        }
        shared.retain(|_, client| client.strong_count() > 0);
        let client = Arc::new(self.make(config, cluster, services)?);
        shared.insert(key, Arc::downgrade(&client));
        Ok(client)
    }

    fn make(
        &self,
        config: &Value,
        cluster: &Arc<dyn Cluster>,
        services: Option<&Arc<dyn ServiceDialer>>,
    ) -> Result<Client, String> {
        let service = &config["service"];
        if !service.is_object() {
            let url = config["url"].as_str().filter(|url| !url.is_empty());
            let url = url.ok_or("webhook configuration must have either service or URL")?;
            let parsed: Uri = url.parse().map_err(unparsable)?;
            let (Some(scheme), Some(authority)) = (parsed.scheme_str(), parsed.authority()) else {
                return Err(format!("Unparsable URL: {} has no host", quote(url)));
            };
            let host = authority.host();
            let port = authority.port_u16().unwrap_or(443);
            let protocols = match is_local(host) {
                true => Protocols::Both,
                false => Protocols::Http1,
            };
            let url = format!("{scheme}://{authority}{}", clean(parsed.path()));
            let target = self.target(&url, &format!("{host}:{port}"), config)?;
            let connector = Connector::new(&target, protocols).map_err(unloadable)?;
            return Ok(Client {
                url,
                caller: Caller::new(connector, target.login, AGENT),
            });
        }
        let text = |field: &str| service[field].as_str().unwrap_or("").to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let port = service["port"].as_u64().unwrap_or(PORT_DEFAULT);
        let port = u16::try_from(port).map_err(|_| format!("port {port} is none"))?;
        let host = format!("{name}.{namespace}.svc:{port}");
        let url = format!("https://{host}{}", clean(&text("path")));
        let target = match (&*namespace, &*name, port) == OWN {
            true => own(&host)?,
            false => self.target(&url, &host, config)?,
        };
        let connector = Connector::new(&target, Protocols::Http1).map_err(unloadable)?;
        let route = Arc::new(Route {
            namespace,
            name,
            port,
            cluster: cluster.clone(),
            services: services.cloned(),
            random: self.random.fork(),
        });
        let dial: Dial = Arc::new(move |_: &Uri| {
            let route = route.clone();
            Box::pin(async move { route.dial().await })
        });
        Ok(Client {
            url,
            caller: Caller::new(connector.over(dial), target.login, AGENT),
        })
    }

    fn target(&self, url: &str, host: &str, config: &Value) -> Result<Target, String> {
        let bundle = config["caBundle"].as_str().filter(|bundle| !bundle.is_empty());
        let ca_pem = match bundle {
            Some(bundle) => {
                let pem = base64::engine::general_purpose::STANDARD.decode(bundle);
                pem.map_err(|error| format!("unable to load root certificates: {error}"))?
            }
            None => {
                let roots = self.config.read.as_ref().and_then(machine_roots);
                roots.ok_or("unable to load root certificates: there is no caBundle, and this machine has none")?
            }
        };
        let user = self.config.users.for_host(host);
        Ok(Target {
            url: url.parse().map_err(unparsable)?,
            ca_pem: Some(ca_pem),
            server_name: None,
            certificate: user.and_then(|user| user.certificate.clone()),
            login: user.map_or(Login::None, |user| user.login.clone()),
        })
    }
}

/// This server: nobody else is asked, whatever is said of certificates and users (see `loopback.rs`).
fn own(host: &str) -> Result<Target, String> {
    Ok(Target {
        url: format!("http://{host}").parse().map_err(unparsable)?,
        ca_pem: None,
        server_name: None,
        certificate: None,
        login: Login::None,
    })
}

fn unparsable(error: InvalidUri) -> String {
    format!("Unparsable URL: {error}")
}

fn unloadable(why: String) -> String {
    format!("unable to load root certificates: {why}")
}

fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address: Option<std::net::IpAddr> = address.parse().ok();
    host.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}

/// A path without empty steps, `.` and `..`, as Go's `path.Join` makes it.
fn clean(path: &str) -> String {
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => {
                steps.pop();
            }
            step => steps.push(step),
        }
    }
    format!("/{}", steps.join("/"))
}

// === impl Client ===

impl Client {
    /// Sends a question and takes the answer's body. `trace` is the client's, when this is not told of itself.
    ///
    /// # Errors
    /// The service is not reached, says nothing in time, or answers with another status than success.
    pub async fn ask(&self, question: Bytes, timeout: Duration, trace: Option<&HeaderValue>) -> Result<Bytes, Failure> {
        // The service is told whole seconds, of a part of one more than there is.
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let url = format!("{}?timeout={seconds}s", self.url);
        let failed = |why: &str| Failure {
            why: format!("Post {}: {why}", quote(&url)),
            code: 503,
        };
        let target: Uri = url.parse().map_err(|error: InvalidUri| failed(&error.to_string()))?;
        let trace = trace::onward(trace);
        let exchange = async {
            let mut attempt = 1;
            loop {
                let answer = self
                    .caller
                    .post(target.clone(), question.clone(), ANSWER_BYTES_MAX, trace.clone());
                let (head, body) = answer.await?;
                match patience(&head) {
                    Some(pause) if attempt < ATTEMPTS_MAX => tokio::time::sleep(pause).await,
                    _ => return Ok::<_, CallError>((head, body)),
                }
                attempt += 1;
            }
        };
        let (head, body): (Parts, Bytes) = match tokio::time::timeout(timeout, exchange).await {
            Err(_) => return Err(failed("context deadline exceeded")),
            Ok(Err(error)) => return Err(failed(&error.why)),
            Ok(Ok(answer)) => answer,
        };
        if !(200..=206).contains(&head.status.as_u16()) {
            return Err(refused(&head, &body));
        }
        if body.is_empty() {
            let (code, media) = (head.status.as_u16(), media(&head));
            let why = format!("0-length response with status code: {code} and content type: {media}");
            return Err(Failure { why, code: 503 });
        }
        Ok(body)
    }
}

/// How long a service that cannot answer now wants to be left alone (`checkWait`). Other forms than seconds do not count.
fn patience(head: &Parts) -> Option<Duration> {
    let passes = head.status == StatusCode::TOO_MANY_REQUESTS || head.status.is_server_error();
    let seconds = head.headers.get(RETRY_AFTER).filter(|_| passes)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

fn media(head: &Parts) -> &str {
    head.headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

/// A status other than success, as upstream's client words it. Redirects are none of ours to follow, though upstream's client
/// does: a webhook does not choose what else the server asks (CVE-2020-8561).
fn refused(head: &Parts, body: &[u8]) -> Failure {
    let code = head.status.as_u16();
    if let Ok(status) = serde_json::from_slice::<Status>(body)
        && status.kind == "Status"
        && status.status == "Failure"
    {
        return Failure {
            why: status.message,
            code: status.code,
        };
    }
    let is_text = media(head).starts_with("text/") || (media(head).is_empty() && std::str::from_utf8(body).is_ok());
    let said = String::from_utf8_lossy(&body[..body.len().min(TEXT_BYTES_MAX)]);
    let said = if is_text { said.trim() } else { "unknown" };
    let why = match head.status {
        StatusCode::CONFLICT => "the server reported a conflict".to_owned(),
        StatusCode::NOT_FOUND => "the server could not find the requested resource".to_owned(),
        StatusCode::BAD_REQUEST => "the server rejected our request for an unknown reason".to_owned(),
        StatusCode::UNAUTHORIZED => "the server has asked for the client to provide credentials".to_owned(),
        StatusCode::NOT_ACCEPTABLE if matches!(said, "" | "unknown") => {
            "the server was unable to respond with a content type that the client supports".to_owned()
        }
        StatusCode::FORBIDDEN | StatusCode::NOT_ACCEPTABLE | StatusCode::UNSUPPORTED_MEDIA_TYPE => said.to_owned(),
        StatusCode::METHOD_NOT_ALLOWED => "the server does not allow this method on the requested resource".to_owned(),
        StatusCode::UNPROCESSABLE_ENTITY => "the server rejected our request due to an error in our request".to_owned(),
        StatusCode::SERVICE_UNAVAILABLE => "the server is currently unable to handle the request".to_owned(),
        StatusCode::GATEWAY_TIMEOUT => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned()
        }
        StatusCode::TOO_MANY_REQUESTS => {
            "the server has received too many requests and has asked us to try again later".to_owned()
        }
        _ if code >= 500 => {
            let said = quote(said);
            format!("an error on the server ({said}) has prevented the request from succeeding")
        }
        _ => format!("the server responded with the status code {code} but did not return more information"),
    };
    Failure { why, code }
}

// === impl Route ===

impl Route {
    /// A connection to one of the Service's endpoints.
    async fn dial(&self) -> io::Result<Stream> {
        let way = resolve(&*self.cluster, &self.namespace, &self.name, self.port, &self.random);
        way.map_err(io::Error::other)?.dial(self.services.as_ref()).await
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, expect) in [
            ("", "/"),
            ("/", "/"),
            ("allow", "/allow"),
            ("/a//b/", "/a/b"),
            ("/a/../../b/.", "/b"),
        ] {
            assert_eq!(clean(path), expect, "{path}");
        }
    }

    #[test]
    fn failures_are_worded_as_upstream() {
        for (code, media, body, expect) in [
            (
                500,
                "text/plain; charset=utf-8",
                "webhook \"x\" broke\n",
                r#"an error on the server ("webhook \"x\" broke") has prevented the request from succeeding"#,
            ),
            (
                502,
                "application/json",
                "{}",
                r#"an error on the server ("unknown") has prevented the request from succeeding"#,
            ),
            (404, "", "", "the server could not find the requested resource"),
            (403, "text/plain", "go away", "go away"),
            (
                302,
                "",
                "",
                "the server responded with the status code 302 but did not return more information",
            ),
            (
                400,
                "application/json",
                r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "told", "code": 422}"#,
                "told",
            ),
        ] {
            let mut response = Response::builder().status(code);
            if !media.is_empty() {
                response = response.header(CONTENT_TYPE, media);
            }
            let (head, ()) = response.body(()).unwrap().into_parts();
            assert_eq!(refused(&head, body.as_bytes()).why, expect);
        }
    }
}
