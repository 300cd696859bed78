//! gRPC probes: one call of the health protocol that gRPC servers share.
//!
//! Source: `pkg/probe/grpc/grpc.go` for the words; `grpc.health.v1` for the protocol, two messages of one field each.

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::Answer;

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus`, by number.
const STATES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks the server at `address` about one of its services; an empty name is the server itself.
pub async fn check(address: SocketAddr, service: &str, limit: Duration) -> Answer {
    let until = tokio::time::Instant::now() + limit;
    let seconds = limit.as_secs();
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else {
        return Answer::Failure(format!("error: failed to connect service at \"{address}\""));
    };
    // Upstream tries to connect until its time is over; a probe's period tries again just as well.
    let channel = match tokio::time::timeout_at(until, endpoint.connect()).await {
        Ok(Ok(channel)) => channel,
        _ => {
            return Answer::Failure(format!(
                "timeout: failed to connect service \"{address}\" within {seconds}s: context deadline exceeded"
            ));
        }
    };
    let mut client = tonic::client::Grpc::new(channel);
    let call = async {
        client
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let path = PathAndQuery::from_static(METHOD);
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        client.unary(Request::new(request), path, codec).await
    };
    let late = || format!("timeout: health rpc did not complete within {seconds}s");
    match tokio::time::timeout_at(until, call).await {
        Err(_) => Answer::Failure(late()),
        Ok(Ok(response)) if response.get_ref().status == SERVING => Answer::Success,
        Ok(Ok(response)) => {
            let state = usize::try_from(response.get_ref().status)
                .ok()
                .and_then(|at| STATES.get(at));
            Answer::Failure(format!(
                "service unhealthy (responded with \"{}\")",
                state.unwrap_or(&STATES[0])
            ))
        }
        Ok(Err(status)) => Answer::Failure(match status.code() {
            Code::Unimplemented => format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message()
            ),
            Code::DeadlineExceeded => late(),
            code => format!(
                "error: health rpc probe failed: rpc error: code = {code:?} desc = {}",
                status.message()
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    /// Serves `good`, not `bad`, and knows no other service.
    #[derive(Clone)]
    struct Health;

    impl tonic::server::UnaryService<HealthCheckRequest> for Health {
        type Response = HealthCheckResponse;
        type Future = std::future::Ready<Result<tonic::Response<HealthCheckResponse>, Status>>;

        fn call(&mut self, request: Request<HealthCheckRequest>) -> Self::Future {
            let answer = match &*request.get_ref().service {
                "good" => Ok(SERVING),
                "bad" => Ok(2),
                other => Err(Status::not_found(format!("unknown service {other}"))),
            };
            std::future::ready(answer.map(|status| tonic::Response::new(HealthCheckResponse { status })))
        }
    }

    /// A server with the protocol, or one that knows no method.
    async fn serve(listener: tokio::net::TcpListener, implemented: bool) {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                let known = implemented && request.uri().path() == METHOD;
                Ok::<_, Infallible>(if known {
                    let codec = ProstCodec::<HealthCheckResponse, HealthCheckRequest>::default();
                    tonic::server::Grpc::new(codec).unary(Health, request).await
                } else {
                    Status::unimplemented("unknown method Check").into_http()
                })
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move { drop(connection.await) });
        }
    }

    #[tokio::test]
    async fn servers_answer_for_their_services() {
        let limit = Duration::from_secs(5);
        let mut servers = Vec::new();
        for implemented in [true, false] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            servers.push(listener.local_addr().unwrap());
            tokio::spawn(serve(listener, implemented));
        }
        let failed = |text: &str| Answer::Failure(text.into());
        for (server, service, expect) in [
            (servers[0], "good", Answer::Success),
            (
                servers[0],
                "bad",
                failed("service unhealthy (responded with \"NOT_SERVING\")"),
            ),
            (
                servers[0],
                "other",
                failed("error: health rpc probe failed: rpc error: code = NotFound desc = unknown service other"),
            ),
            (
                servers[1],
                "good",
                failed(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): \
                     unknown method Check",
                ),
            ),
        ] {
            assert_eq!(check(server, service, limit).await, expect, "{service}");
        }
        let nobody = check("127.0.0.1:1".parse().unwrap(), "good", limit).await;
        let expect = "timeout: failed to connect service \"127.0.0.1:1\" within 5s: context deadline exceeded";
        assert_eq!(nobody, failed(expect));
    }
}
