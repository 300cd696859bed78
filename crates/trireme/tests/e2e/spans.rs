//! Spans of requests as a collector of OpenTelemetry gets them, from a server that is told of it by upstream's file.

use std::collections::BTreeSet;
use std::process::Child;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rpc::otlp::any_value::Value as Attribute;
use rpc::otlp::trace_service_server::{TraceService, TraceServiceServer};
use rpc::otlp::{ExportTraceServiceRequest, ExportTraceServiceResponse, Span, SpanKind};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tonic::{Response, Status};

use crate::cluster::{Cluster, fail};
use crate::etcd_server::started;

/// How long spans may take on a machine that is busy; they wait five seconds for others.
const SPANS_LIMIT: Duration = Duration::from_secs(60);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Hands on what it is told.
struct Collector(Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        // Nobody waits for what comes after the test's last look.
        let _ = self.0.send(request.into_inner()).await;
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

/// Ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The spans of the trace, once there are so many.
async fn spans_of_trace(told: &mut Receiver<ExportTraceServiceRequest>, wanted: &[&str]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let all_there = |spans: &[Span]| wanted.iter().all(|name| spans.iter().any(|span| span.name == *name));
    while !all_there(&spans) {
        let request = told.recv().await.expect("the collector's end");
        let programs = request.resource_spans.into_iter();
        let scopes = programs.flat_map(|program| program.scope_spans);
        spans.extend(scopes.flat_map(|scope| scope.spans));
        spans.retain(|span| hex(&span.trace_id) == TRACE);
    }
    spans
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Attribute> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_told_of_a_clients_trace() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    let (sender, mut told) = channel(1024);
    let service = TraceServiceServer::new(Collector(sender));
    tokio::spawn(serve(listener, service));

    let cluster = Cluster::prepare();
    let file = cluster.dir.join("tracing.yaml");
    let flag = format!("--tracing-config-file={}", file.display());
    let flags = ["server", "--api-port", "0", &flag];
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n";
    std::fs::write(&file, format!("{head}samplingRatePerMillion: -1\n")).unwrap();
    let error = fail(&cluster.trireme(&flags));
    assert!(
        error.contains("error[TRACING_CONFIG]") && error.contains("sampling rate must be positive"),
        "{error}"
    );

    // Nothing is sampled but what a client asks for that may.
    std::fs::write(&file, format!("{head}endpoint: {endpoint}\n")).unwrap();
    let (server, _) = started(&cluster.dir, &flags);
    let _server = Ended(server);
    std::fs::copy(cluster.dir.join("data/admin.kubeconfig"), cluster.kubeconfig()).unwrap();
    let client = cluster.client();
    let request = Request::post("/api/v1/namespaces/default/configmaps")
        .header("content-type", "application/json")
        .header("user-agent", "spans/1")
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .body(Bytes::from_static(br#"{"metadata":{"name":"traced"}}"#))
        .unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!(answer.status(), 201);
    let audit_id = answer.headers()["audit-id"].to_str().unwrap().to_owned();

    let root_name = "POST /api/v1/namespaces/{:namespace}/configmaps";
    let wanted = [
        "Priority and Fairness",
        "Authorization",
        "Admission",
        "Store commit",
        root_name,
    ];
    let spans = tokio::time::timeout(SPANS_LIMIT, spans_of_trace(&mut told, &wanted));
    let spans = spans.await.expect("the spans");
    let root = spans.iter().find(|span| span.name == root_name).unwrap();
    assert_eq!(
        (root.kind(), hex(&root.parent_span_id)),
        (SpanKind::Server, "00f067aa0ba902b7".into())
    );
    assert_eq!(
        attribute(root, "http.response.status_code"),
        Some(&Attribute::IntValue(201))
    );
    assert_eq!(attribute(root, "audit-id"), Some(&Attribute::StringValue(audit_id)));
    assert_eq!(
        attribute(root, "user_agent.original"),
        Some(&Attribute::StringValue("spans/1".into()))
    );
    let known: BTreeSet<&[u8]> = spans.iter().map(|span| &*span.span_id).collect();
    for span in spans.iter().filter(|span| span.name != root_name) {
        assert!(known.contains(&*span.parent_span_id), "{span:?}");
        assert!(
            span.start_time_unix_nano >= root.start_time_unix_nano
                && span.end_time_unix_nano >= span.start_time_unix_nano
        );
    }
}
