//! The way to an external signer: gRPC over a Unix socket.

use std::error::Error as _;
use std::time::Duration;

use base::Backoff;
use rpc::external_jwt::external_jwt_signer_client::ExternalJwtSignerClient;
use rpc::external_jwt::{
    FetchKeysRequest, FetchKeysResponse, MetadataRequest, MetadataResponse, SignJwtRequest, SignJwtResponse,
};
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::Channel;

use crate::dial::unix_channel;
use crate::metrics::shared;

/// How long an answer may take: upstream's `keySyncTimeout`, and no request lives longer.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// The same of what is asked once, at the start, when keys were answered already.
const METADATA_LIMIT: Duration = Duration::from_secs(10);
/// The pauses before a socket is tried again that nobody listens at: no event tells when somebody does, as a socket's file is there
/// before it is listened at, and stays when nobody does any more.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is counted of a failure that is not the service's.
pub(super) const NOT_GRPC: &str = "unknown-non-grpc";

/// Why there is no answer, or none that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// In gRPC's words, or [`NOT_GRPC`].
    pub code: String,
    pub why: String,
}

impl Failure {
    /// The answer cannot be used.
    pub(super) fn of_answer(why: impl Into<String>) -> Failure {
        Failure {
            code: NOT_GRPC.to_owned(),
            why: why.into(),
        }
    }

    /// The same, in the course of something.
    pub(super) fn during(self, what: &str) -> Failure {
        Failure {
            why: format!("{what}: {}", self.why),
            ..self
        }
    }
}

/// An external signer. Every call ends after its limit; until then it waits for somebody to listen.
pub(super) struct Client(ExternalJwtSignerClient<Channel>);

// === impl Client ===

impl Client {
    /// Connects when it is first asked, and again whenever the connection is lost.
    pub(super) fn new(path: &str) -> Client {
        Client(ExternalJwtSignerClient::new(unix_channel(path, "http://localhost")))
    }

    pub(super) async fn sign(&self, claims: &str) -> Result<SignJwtResponse, Failure> {
        let request = SignJwtRequest {
            claims: claims.to_owned(),
        };
        let ask = || {
            let (mut service, request) = (self.0.clone(), request.clone());
            async move { service.sign(request).await }
        };
        call("/v1.ExternalJWTSigner/Sign", CALL_LIMIT, ask).await
    }

    pub(super) async fn fetch_keys(&self) -> Result<FetchKeysResponse, Failure> {
        let ask = || {
            let mut service = self.0.clone();
            async move { service.fetch_keys(FetchKeysRequest {}).await }
        };
        call("/v1.ExternalJWTSigner/FetchKeys", CALL_LIMIT, ask).await
    }

    pub(super) async fn metadata(&self) -> Result<MetadataResponse, Failure> {
        let ask = || {
            let mut service = self.0.clone();
            async move { service.metadata(MetadataRequest {}).await }
        };
        call("/v1.ExternalJWTSigner/Metadata", METADATA_LIMIT, ask).await
    }
}

async fn call<T, F>(method: &'static str, limit: Duration, ask: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let began = Instant::now();
    let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    let asked = async {
        loop {
            match ask().await {
                Err(status) if is_unconnected(&status) => tokio::time::sleep(pauses.next_delay()).await,
                outcome => return outcome,
            }
        }
    };
    let status = match tokio::time::timeout(limit, asked).await {
        Ok(Ok(answer)) => {
            shared().external_signers.called(method, "OK", began.elapsed());
            return Ok(answer.into_inner());
        }
        Ok(Err(status)) => status,
        Err(_) => tonic::Status::deadline_exceeded("context deadline exceeded"),
    };
    let code = match status.code() {
        // Go has one letter less.
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    shared().external_signers.called(method, &code, began.elapsed());
    let why = format!("rpc error: code = {code} desc = {}", status.message());
    Err(Failure { code, why })
}

/// Whether nobody was asked: gRPC's "wait for ready".
fn is_unconnected(status: &tonic::Status) -> bool {
    let source = status.source();
    status.code() == Code::Unavailable && source.is_some_and(|source| source.is::<tonic::transport::Error>())
}
