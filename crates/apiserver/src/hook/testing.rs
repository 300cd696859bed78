//! A hook for tests: a service on loopback that answers as the test says and keeps what it was asked.

use std::net::SocketAddr;
use std::sync::Arc;

use api::Value;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Login, Target};
use crate::dial::Stream;

/// What a test's service answers to the question of that number (from 0): a status and a body.
pub type Answer = Arc<dyn Fn(usize, &Value) -> (u16, Value) + Send + Sync>;

/// A service on loopback. It ends with the test's runtime.
pub struct Service {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Value>>>,
    logins: Arc<Mutex<Vec<String>>>,
}

impl Service {
    /// Plain HTTP.
    pub async fn start(answer: impl Fn(usize, &Value) -> (u16, Value) + Send + Sync + 'static) -> Service {
        Service::with(None, answer).await
    }

    /// HTTPS, if there is a configuration.
    pub async fn with(
        tls: Option<rustls::ServerConfig>,
        answer: impl Fn(usize, &Value) -> (u16, Value) + Send + Sync + 'static,
    ) -> Service {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let service = Service {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            logins: Arc::default(),
        };
        let (asked, logins, answer): (_, _, Answer) = (service.asked.clone(), service.logins.clone(), Arc::new(answer));
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, logins, answer, tls) = (asked.clone(), logins.clone(), answer.clone(), tls.clone());
                tokio::spawn(async move {
                    let stream: Stream = match tls {
                        None => Box::new(stream),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    let serve = service_fn(|request| respond(request, &asked, &logins, &*answer));
                    // A client that goes away is no failure.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), serve)
                        .await;
                });
            }
        });
        service
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().clone()
    }

    /// The `Authorization` of each question.
    pub fn logins(&self) -> Vec<String> {
        self.logins.lock().clone()
    }

    /// The service without TLS.
    pub fn target(&self) -> Target {
        Target {
            url: format!("http://{}/hook", self.address).parse().unwrap(),
            ca_pem: None,
            server_name: None,
            certificate: None,
            login: Login::None,
        }
    }
}

async fn respond(
    request: Request<Incoming>,
    asked: &Mutex<Vec<Value>>,
    logins: &Mutex<Vec<String>>,
    answer: &(dyn Fn(usize, &Value) -> (u16, Value) + Send + Sync),
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let login = request.headers().get("authorization");
    let login = login.map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let question: Value = serde_json::from_slice(&body).unwrap();
    let number = {
        let mut asked = asked.lock();
        asked.push(question.clone());
        logins.lock().push(login);
        asked.len() - 1
    };
    let (status, body) = answer(number, &question);
    let response = Response::builder().status(status);
    Ok(response.body(Full::new(Bytes::from(body.to_string()))).unwrap())
}
