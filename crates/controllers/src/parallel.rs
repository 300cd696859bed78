//! Doing many things side by side, but not all at once when the first ones fail.

use std::future::Future;

use futures::stream::{FuturesUnordered, StreamExt};

/// Requests of one controller that run side by side.
const CONCURRENT_MAX: usize = 64;

/// Runs `count` times `work`, in batches of 1, 2, 4, ..., and stops after a batch in which one failed: what fails for all
/// (a quota) is then not tried for all. Returns what succeeded, and the first error.
/// Source: `pkg/controller/replicaset/replica_set.go` `slowStartBatch`.
pub(crate) async fn slow_start<T, E, F, Fut>(count: usize, work: F) -> (Vec<T>, Option<E>)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let mut done = Vec::with_capacity(count);
    let mut batch = 1;
    let mut next = 0;
    while next < count {
        let end = (next + batch).min(count);
        let (successes, error) = all(next..end, &work).await;
        done.extend(successes);
        if error.is_some() {
            return (done, error);
        }
        next = end;
        batch = (batch * 2).min(CONCURRENT_MAX);
    }
    (done, None)
}

/// Runs `work` for each item side by side; returns what succeeded, and the first error.
pub(crate) async fn all<I, T, E, F, Fut>(items: impl IntoIterator<Item = I>, work: F) -> (Vec<T>, Option<E>)
where
    F: Fn(I) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let mut items = items.into_iter();
    let mut running: FuturesUnordered<Fut> = items.by_ref().take(CONCURRENT_MAX).map(&work).collect();
    let (mut done, mut first_error) = (Vec::new(), None);
    while let Some(outcome) = running.next().await {
        match outcome {
            Ok(value) => done.push(value),
            Err(error) => first_error = first_error.or(Some(error)),
        }
        if let Some(item) = items.next() {
            running.push(work(item));
        }
    }
    (done, first_error)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn stops_after_the_batch_that_failed() {
        for (count, fails_at, tried) in [(10, 0, 1), (10, 1, 3), (10, 2, 3), (10, 3, 7), (10, 99, 10), (0, 0, 0)] {
            let calls = Cell::new(0);
            let (done, error) = slow_start(count, |n| {
                calls.set(calls.get() + 1);
                async move { if n == fails_at { Err(n) } else { Ok(n) } }
            })
            .await;
            assert_eq!(calls.get(), tried, "{count} {fails_at}");
            assert_eq!(error, (fails_at < count).then_some(fails_at));
            assert_eq!(done.len() + usize::from(error.is_some()), tried);
        }
    }
}
