//! Sends spans to a collector: OTLP over gRPC, without TLS, as upstream's API server does.
//!
//! On a thread of its own, so that a slow collector holds up nobody. What is finished while the queue is full is lost.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use base::Random;
use rpc::otlp::any_value::Value;
use rpc::otlp::trace_service_client::TraceServiceClient;
use rpc::otlp::{
    AnyValue, ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span,
};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::config::TracingConfiguration;

/// Finished spans that wait at most (upstream's SDK: `DefaultMaxQueueSize`).
const QUEUE_SPANS_MAX: usize = 2048;
/// Spans that are sent at a time (`DefaultMaxExportBatchSize`).
const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits for others to be sent with (`DefaultScheduleDelay`).
const BATCH_DELAY: Duration = Duration::from_secs(5);
/// How long a collector has for a batch (upstream's exporter: 10 seconds).
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The name of the program, as upstream's `apiserverService`.
const SERVICE: &str = "apiserver";

/// Whoever sends spans; dropping it sends what is left.
pub struct Exporter {
    thread: Option<JoinHandle<()>>,
    end: CancellationToken,
}

impl Exporter {
    /// Starts to send what comes into the queue.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(config: &TracingConfiguration, random: &Random) -> io::Result<(Exporter, Sender<Span>)> {
        let (sender, queue) = channel(QUEUE_SPANS_MAX);
        let end = CancellationToken::new();
        let url = format!("http://{}", config.endpoint());
        let endpoint = Endpoint::from_shared(url).map_err(io::Error::other)?;
        let resource = resource(random);
        let stop = end.clone();
        let thread = std::thread::Builder::new().name("otlp".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(run(endpoint, resource, queue, stop)),
                Err(error) => tracing::error!(%error, "spans cannot be sent"),
            }
        })?;
        let exporter = Exporter {
            thread: Some(thread),
            end,
        };
        Ok((exporter, sender))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            // A thread that fell over has told of it.
            let _ = thread.join();
        }
    }
}

async fn run(endpoint: Endpoint, resource: Resource, mut queue: Receiver<Span>, end: CancellationToken) {
    let channel = endpoint
        .timeout(SEND_TIMEOUT)
        .connect_timeout(SEND_TIMEOUT)
        .connect_lazy();
    let mut client = TraceServiceClient::new(channel);
    let mut batch = Vec::new();
    loop {
        let first = tokio::select! {
            received = queue.recv_many(&mut batch, BATCH_SPANS_MAX) => received > 0,
            () = end.cancelled() => false,
        };
        let due = Instant::now() + BATCH_DELAY;
        while first && batch.len() < BATCH_SPANS_MAX {
            let room = BATCH_SPANS_MAX - batch.len();
            tokio::select! {
                received = queue.recv_many(&mut batch, room) => if received == 0 { break },
                () = tokio::time::sleep_until(due) => break,
                () = end.cancelled() => break,
            }
        }
        if end.is_cancelled() || !first {
            // What is there is the last.
            while let Ok(span) = queue.try_recv() {
                batch.push(span);
            }
        }
        if !batch.is_empty() {
            send(&mut client, &resource, std::mem::take(&mut batch)).await;
        }
        if end.is_cancelled() || !first {
            return;
        }
    }
}

async fn send(client: &mut TraceServiceClient<Channel>, resource: &Resource, spans: Vec<Span>) {
    let count = spans.len();
    let scope = InstrumentationScope {
        name: "trireme".into(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
            }],
        }],
    };
    if let Err(error) = client.export(request).await {
        tracing::warn!(count, %error, "spans were not sent");
    }
}

fn resource(random: &Random) -> Resource {
    let attribute = |key: &str, value: String| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value)),
        }),
    };
    Resource {
        attributes: vec![
            attribute("service.name", SERVICE.to_owned()),
            attribute("service.instance.id", format!("apiserver-{}", random.uuid())),
        ],
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::service::TowerToHyperService;
    use rpc::otlp::trace_service_server::{TraceService, TraceServiceServer};
    use rpc::otlp::{ExportTraceServiceRequest, ExportTraceServiceResponse};
    use tokio::net::TcpListener;
    use tonic::{Request, Response, Status};

    use super::*;

    /// Hands on what it is told.
    struct Collector(Sender<ExportTraceServiceRequest>);

    #[tonic::async_trait]
    impl TraceService for Collector {
        async fn export(
            &self,
            request: Request<ExportTraceServiceRequest>,
        ) -> Result<Response<ExportTraceServiceResponse>, Status> {
            self.0.send(request.into_inner()).await.unwrap();
            Ok(Response::new(ExportTraceServiceResponse::default()))
        }
    }

    async fn serve(listener: TcpListener, service: TraceServiceServer<Collector>) {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service.clone()));
            tokio::spawn(async move { drop(connection.await) });
        }
    }

    #[tokio::test]
    async fn what_is_left_at_the_end_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap();
        let (told, mut collected) = channel(4);
        let server = tokio::spawn(serve(listener, TraceServiceServer::new(Collector(told))));
        let text =
            format!("apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: {endpoint}\n");
        let config = TracingConfiguration::from_text(&text).unwrap();
        let (exporter, queue) = Exporter::start(&config, &Random::seeded(1)).unwrap();
        for name in ["one", "two"] {
            let span = Span {
                name: name.into(),
                ..Span::default()
            };
            queue.send(span).await.unwrap();
        }
        tokio::task::spawn_blocking(move || drop(exporter)).await.unwrap();
        let mut names = Vec::new();
        let mut service = None;
        // Both at once, or one after the other.
        while names.len() < 2 {
            let request = collected.recv().await.unwrap();
            for of_program in request.resource_spans {
                service = of_program.resource.unwrap().attributes.into_iter().next();
                let scopes = of_program.scope_spans.into_iter();
                names.extend(scopes.flat_map(|scope| scope.spans).map(|span| span.name));
            }
        }
        assert_eq!(names, ["one", "two"]);
        let service = service
            .and_then(|attribute| attribute.value)
            .and_then(|value| value.value);
        assert_eq!(service, Some(Value::StringValue("apiserver".into())));
        server.abort();
    }
}
