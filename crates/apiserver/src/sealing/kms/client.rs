//! The way to a key service: gRPC over a Unix socket, on a thread of its own.
//!
//! Values are built where nothing may be awaited (the replica's task), and now and then one needs the service to open its
//! key. On its own thread the service's answer does not depend on the task that waits for it.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use rpc::kms::key_management_service_client::KeyManagementServiceClient;
use rpc::kms::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::dial::unix_channel;
use crate::metrics::shared;

/// The thread that speaks with key services.
pub(in crate::sealing) struct KmsRuntime(Option<Runtime>);

impl KmsRuntime {
    pub(in crate::sealing) fn start() -> io::Result<KmsRuntime> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("kms").enable_all().build()?;
        Ok(KmsRuntime(Some(runtime)))
    }

    fn handle(&self) -> &Handle {
        let running = self.0.as_ref();
        running.expect("invariant: it is taken by drop alone").handle()
    }
}

impl Drop for KmsRuntime {
    /// Does not wait: it may be dropped by a task.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A key service. Every call ends after its timeout.
pub(super) struct Client {
    provider: String,
    handle: Handle,
    service: KeyManagementServiceClient<Channel>,
    timeout: Duration,
}

impl Client {
    /// Connects when it is first asked, and again whenever the connection is lost.
    pub(super) fn new(runtime: &KmsRuntime, provider: &str, path: &str, timeout: Duration) -> Client {
        let handle = runtime.handle().clone();
        let _entered = handle.enter();
        let channel = unix_channel(path, "http://kms");
        Client {
            provider: provider.to_owned(),
            service: KeyManagementServiceClient::new(channel),
            handle: handle.clone(),
            timeout,
        }
    }

    /// A call of that name in gRPC.
    fn call(&self, method: &'static str) -> Call {
        Call {
            provider: self.provider.clone(),
            method,
            timeout: self.timeout,
        }
    }

    /// Runs something on the service's thread.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(work);
    }

    pub(super) async fn status(&self) -> Result<StatusResponse, String> {
        let mut service = self.service.clone();
        let asked = async move { service.status(StatusRequest {}).await };
        self.call("/v2.KeyManagementService/Status").run(asked).await
    }

    pub(super) async fn encrypt(&self, request: EncryptRequest) -> Result<EncryptResponse, String> {
        let mut service = self.service.clone();
        let asked = async move { service.encrypt(request).await };
        self.call("/v2.KeyManagementService/Encrypt").run(asked).await
    }

    /// Waits on the calling thread, for no longer than the timeout.
    pub(super) fn decrypt(&self, request: DecryptRequest) -> Result<DecryptResponse, String> {
        let (answer, answered) = mpsc::sync_channel(1);
        let (mut service, timeout, call) = (
            self.service.clone(),
            self.timeout,
            self.call("/v2.KeyManagementService/Decrypt"),
        );
        self.spawn(async move {
            let outcome = call.run(async move { service.decrypt(request).await }).await;
            // Nobody waits any more.
            let _ = answer.send(outcome);
        });
        answered
            .recv_timeout(timeout)
            .unwrap_or_else(|_| Err("context deadline exceeded".into()))
    }
}

/// One call, with its deadline, and counted.
struct Call {
    provider: String,
    method: &'static str,
    timeout: Duration,
}

impl Call {
    async fn run<T>(self, asked: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, String> {
        let began = Instant::now();
        let (code, outcome) = match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(answer)) => ("OK".to_owned(), Ok(answer.into_inner())),
            Ok(Err(status)) => {
                let code = format!("{:?}", status.code());
                let why = format!("rpc error: code = {code} desc = {}", status.message());
                (code, Err(why))
            }
            Err(_) => ("DeadlineExceeded".to_owned(), Err("context deadline exceeded".into())),
        };
        let metrics = &shared().key_services;
        metrics.called(&self.provider, self.method, code, began.elapsed());
        outcome
    }
}
