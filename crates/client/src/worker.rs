//! The loop that every reconciler shares: take a key, work on it, put it back when it failed.

use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use base::Shutdown;
use futures::FutureExt;
use tokio::sync::Semaphore;

use crate::queue::{Key, WorkQueue};

/// What a reconciler wants next for a key it worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something happens.
    Wait,
    /// To look again after this long.
    After(Duration),
    /// To try again as after a failure, without it being one worth a word in the log.
    Retry,
}

/// Works on the keys of a queue, at most `concurrency` at a time, until the end is asked for; then lets running work
/// finish its current await point (it is dropped there: every write is one request, whole or not at all).
pub async fn run<K, F, Fut, E>(queue: WorkQueue<K>, concurrency: usize, shutdown: Shutdown, work: F)
where
    K: Key + std::fmt::Debug,
    F: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Next, E>> + Send,
    E: Display + Send,
{
    let seats = Arc::new(Semaphore::new(concurrency));
    let work = Arc::new(work);
    loop {
        let Some(Ok(seat)) = shutdown.until(seats.clone().acquire_owned()).await else {
            break;
        };
        let Some(Some(item)) = shutdown.until(queue.next()).await else {
            break;
        };
        let (queue, work, stop) = (queue.clone(), work.clone(), shutdown.clone());
        shutdown.spawn(async move {
            let key = item.key().clone();
            let guarded = AssertUnwindSafe(work(key.clone())).catch_unwind();
            match stop.until(guarded).await {
                None => {}
                // One bad object must not end the reconciler; its key is tried again like any that failed.
                Some(Err(_panic)) => {
                    let delay = queue.add_rate_limited(key.clone());
                    tracing::error!(?key, ?delay, "work panicked, will be tried again");
                }
                Some(Ok(outcome)) => settle(&queue, key, outcome),
            }
            drop(item);
            drop(seat);
        });
    }
    queue.shut_down();
}

fn settle<K: Key + std::fmt::Debug, E: Display>(queue: &WorkQueue<K>, key: K, outcome: Result<Next, E>) {
    match outcome {
        Ok(Next::Wait) => queue.forget(&key),
        Ok(Next::After(delay)) => {
            queue.forget(&key);
            queue.add_after(key, delay);
        }
        Ok(Next::Retry) => {
            queue.add_rate_limited(key);
        }
        Err(error) => {
            let delay = queue.add_rate_limited(key.clone());
            tracing::warn!(?key, %error, ?delay, "work failed, will be tried again");
        }
    }
}
