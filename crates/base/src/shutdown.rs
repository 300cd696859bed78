//! Orderly ends: one handle that tells tasks to stop and waits until they have.
//!
//! A child ends with its parent, or alone. Invariant: [`Shutdown::wait`] of a handle returns only after every task spawned
//! through it *or any of its children* has ended.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Tells tasks to stop, and knows which still run. Cheap to clone; clones are the same handle.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
    /// This handle's tracker first, then its ancestors'.
    trackers: Vec<TaskTracker>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A handle of its own.
    pub fn new() -> Self {
        Self {
            token: CancellationToken::new(),
            trackers: vec![TaskTracker::new()],
        }
    }

    /// A handle that ends when this one does and can end earlier. Its tasks count as this one's too.
    pub fn child(&self) -> Self {
        let mut trackers = vec![TaskTracker::new()];
        trackers.extend(self.trackers.iter().cloned());
        Self {
            token: self.token.child_token(),
            trackers,
        }
    }

    /// Asks everything under this handle to stop. Idempotent.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Triggers when the returned guard is dropped, whatever way its holder ends.
    pub fn trigger_on_drop(&self) -> DropGuard {
        self.token.clone().drop_guard()
    }

    /// Whether the end was asked for.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns when the end is asked for; at once when it already was.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// The token, for interfaces that take one.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs `future` until it ends or the end is asked for; then `None`. The future is dropped in that case, so it must
    /// not hold anything that has to be finished.
    pub async fn until<F: Future>(&self, future: F) -> Option<F::Output> {
        self.token.run_until_cancelled(future).await
    }

    /// Starts a task that [`Shutdown::wait`] waits for. It must itself watch [`Shutdown::cancelled`].
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let tokens: Vec<_> = self.trackers.iter().map(TaskTracker::token).collect();
        tokio::spawn(async move {
            let _counted = tokens;
            future.await
        })
    }

    /// Returns when every task spawned through this handle and its children has ended. Does not ask them to.
    pub async fn wait(&self) {
        let own = &self.trackers[0];
        own.close();
        own.wait().await;
    }

    /// Asks for the end and waits for it.
    pub async fn finish(&self) {
        self.trigger();
        self.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_its_tasks_and_those_of_children() {
        let shutdown = Shutdown::new();
        let child = shutdown.child();
        let ended = Arc::new(AtomicBool::new(false));
        child.spawn({
            let (child, ended) = (child.clone(), ended.clone());
            async move {
                child.cancelled().await;
                tokio::time::sleep(Duration::from_secs(5)).await;
                ended.store(true, Ordering::SeqCst);
            }
        });
        shutdown.finish().await;
        assert!(ended.load(Ordering::SeqCst));
        assert!(child.is_triggered());
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_ends_alone() {
        let shutdown = Shutdown::new();
        let child = shutdown.child();
        drop(child.trigger_on_drop());
        child.wait().await;
        assert!(child.is_triggered() && !shutdown.is_triggered());
    }

    #[tokio::test(start_paused = true)]
    async fn until_stops_waiting() {
        let shutdown = Shutdown::new();
        assert_eq!(shutdown.until(async { 3 }).await, Some(3));
        shutdown.trigger();
        assert_eq!(shutdown.until(std::future::pending::<u32>()).await, None);
    }
}
