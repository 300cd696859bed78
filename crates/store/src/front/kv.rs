//! The service `KV`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use rpc::etcd::etcdserverpb::kv_server::Kv;
use rpc::etcd::etcdserverpb::request_op::Request as Op;
use rpc::etcd::etcdserverpb::response_op::Response as Answer;
use rpc::etcd::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use tokio::runtime::Handle;
use tonic::{Request, Response, Status};

use super::{Front, Shared, errors, evaluate, range};
use crate::engine::Engine as _;
use crate::transaction::{CommitError, Operation, Transaction};

/// How often a transaction that lost a race is decided again. Each time somebody else's write went through, so this many
/// in a row on one key is a client that should wait.
const ATTEMPTS_MAX: u32 = 1000;

#[tonic::async_trait]
impl Kv for Front {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        range::check(&request)?;
        let (revision, root) = self.shared.newest()?;
        self.shared.range(&request, &root, revision).map(Response::new)
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let put = request.into_inner();
        if !evaluate::is_reading(&put) {
            let shared = self.shared.clone();
            return Finished::new(async move { shared.put_unread(put).await })
                .await
                .map(Response::new);
        }
        let response = self.alone(Op::RequestPut(put)).await?;
        match response {
            (header, Some(Answer::ResponsePut(put))) => Ok(Response::new(PutResponse { header, ..put })),
            _ => Err(Status::internal("a put was answered as something else")),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let response = self.alone(Op::RequestDeleteRange(request.into_inner())).await?;
        match response {
            (header, Some(Answer::ResponseDeleteRange(deleted))) => {
                Ok(Response::new(DeleteRangeResponse { header, ..deleted }))
            }
            _ => Err(Status::internal("a delete was answered as something else")),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.transact(request.into_inner()).await.map(Response::new)
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let revision = self.shared.compact(request.get_ref().revision).await?;
        Ok(Response::new(CompactionResponse {
            header: self.shared.header(revision),
        }))
    }
}

impl Front {
    /// One operation as a transaction of its own.
    async fn alone(
        &self,
        operation: Op,
    ) -> Result<(Option<rpc::etcd::etcdserverpb::ResponseHeader>, Option<Answer>), Status> {
        let operation = RequestOp {
            request: Some(operation),
        };
        let request = TxnRequest {
            success: vec![operation],
            ..TxnRequest::default()
        };
        let mut done = self.transact(request).await?;
        Ok((done.header, done.responses.pop().and_then(|response| response.response)))
    }

    async fn transact(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        evaluate::check_outermost(&request)?;
        if !evaluate::is_writing(&request) {
            let (revision, root) = self.shared.newest()?;
            let evaluated = self.shared.evaluate(&request, &root, revision, revision)?;
            return Ok(evaluated.response);
        }
        let shared = self.shared.clone();
        Finished::new(async move { shared.write(&request).await }).await
    }
}

/// A write that goes on in a task of its own when nobody waits for it any more: what is begun is finished and noted, and
/// keeps its place in the order until then.
struct Finished<T: Send + 'static> {
    work: Option<BoxFuture<'static, T>>,
    runtime: Handle,
}

impl<T: Send + 'static> Finished<T> {
    fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            work: Some(Box::pin(work)),
            runtime: Handle::current(),
        }
    }
}

impl<T: Send + 'static> Future for Finished<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let work = self
            .work
            .as_mut()
            .expect("invariant: a future is not polled after its end");
        let result = std::task::ready!(work.as_mut().poll(context));
        self.work = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for Finished<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

impl Shared {
    /// A put that says nothing of what was there: no state is read for it.
    async fn put_unread(&self, put: PutRequest) -> Result<PutResponse, Status> {
        evaluate::check_put(&put)?;
        let _shared = self.order.read().await;
        let operations = vec![Operation::Put(self.put_of(&put, put.value.clone(), put.lease)?)];
        let commit = self.engine.commit(Transaction {
            guards: Vec::new(),
            operations: operations.clone(),
        });
        let commit = commit.await.map_err(|error| errors::commit(&error))?;
        self.leases.note(commit.revision, &operations);
        Ok(PutResponse {
            header: self.header(commit.revision),
            prev_kv: None,
        })
    }

    async fn write(self: Arc<Self>, request: &TxnRequest) -> Result<TxnResponse, Status> {
        if evaluate::is_guardable(request) {
            let _shared = self.order.read().await;
            self.decide(request).await
        } else {
            let _alone = self.order.write().await;
            self.decide(request).await
        }
    }

    /// Decides and commits until nobody was faster.
    async fn decide(&self, request: &TxnRequest) -> Result<TxnResponse, Status> {
        for _ in 0..ATTEMPTS_MAX {
            let (revision, root) = self.newest()?;
            let next = revision + 1;
            let decided = self.evaluate(request, &root, revision, next)?;
            let transaction = Transaction {
                guards: decided.guards,
                operations: decided.operations,
            };
            if transaction.operations.is_empty() {
                // What it read was true at this revision; nothing has to be written to say so.
                return Ok(decided.response);
            }
            let operations = transaction.operations.clone();
            match self.engine.commit(transaction).await {
                Ok(commit) => {
                    if commit.changed {
                        self.leases.note(commit.revision, &operations);
                    }
                    if commit.revision == next {
                        return Ok(decided.response);
                    }
                    // Others came between, but not where this one had read: only its own number is another.
                    return Ok(self.evaluate(request, &root, revision, commit.revision)?.response);
                }
                Err(CommitError::GuardFailed { .. }) => {}
                Err(error) => return Err(errors::commit(&error)),
            }
        }
        Err(errors::too_many_requests())
    }
}
