//! Order, deduplication and delays, in paused time.

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn taken<K: Key>(queue: &WorkQueue<K>) -> Option<Item<K>> {
    futures::FutureExt::now_or_never(queue.next()).flatten()
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_once_and_in_order() {
    let queue = WorkQueue::new();
    for key in ["b", "a", "b", "c", "a"] {
        queue.add(key);
    }
    let mut order = Vec::new();
    while let Some(item) = taken(&queue) {
        order.push(*item.key());
    }
    assert_eq!(order, ["b", "a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_worked_on_comes_again_afterwards() {
    let queue = WorkQueue::new();
    queue.add("a");
    let item = taken(&queue).unwrap();
    queue.add("a");
    queue.add("a");
    assert!(taken(&queue).is_none(), "not while it is worked on");
    assert!(!queue.is_idle());
    drop(item);
    drop(taken(&queue).expect("once more"));
    assert!(taken(&queue).is_none() && queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn the_earliest_wish_counts() {
    let queue = WorkQueue::new();
    let start = Instant::now();
    queue.add_after("a", MS(500));
    queue.add_after("a", MS(100));
    queue.add_after("a", MS(300));
    queue.add_after("b", MS(200));
    assert_eq!(*queue.next().await.unwrap(), "a");
    assert_eq!(start.elapsed(), MS(100));
    assert_eq!(*queue.next().await.unwrap(), "b");
    assert_eq!(start.elapsed(), MS(200));
    tokio::time::sleep(MS(1000)).await;
    assert!(taken(&queue).is_none(), "the later wishes were replaced");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_notices_an_earlier_deadline() {
    let queue = WorkQueue::new();
    let start = Instant::now();
    queue.add_after("late", MS(10_000));
    let reader = tokio::spawn({
        let queue = queue.clone();
        async move { *queue.next().await.unwrap().key() }
    });
    tokio::task::yield_now().await;
    queue.add_after("early", MS(10));
    assert_eq!(reader.await.unwrap(), "early");
    assert_eq!(start.elapsed(), MS(10));
}

#[tokio::test(start_paused = true)]
async fn failures_wait_longer_and_longer() {
    let queue = WorkQueue::new();
    let delays: Vec<Duration> = (0..4).map(|_| queue.add_rate_limited("a")).collect();
    assert_eq!(delays, [MS(5), MS(10), MS(20), MS(40)]);
    assert_eq!(queue.failures(&"a"), 4);
    for _ in 0..40 {
        assert!(queue.add_rate_limited("a") <= RETRY_MAX);
    }
    assert_eq!(queue.add_rate_limited("a"), RETRY_MAX);
    queue.forget(&"a");
    assert_eq!(queue.add_rate_limited("a"), MS(5));
}

#[tokio::test(start_paused = true)]
async fn the_end_wakes_every_reader() {
    let queue = WorkQueue::<&str>::new();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.next().await.is_none() })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.shut_down();
    for reader in readers {
        assert!(reader.await.unwrap());
    }
}

mod worker {
    use std::sync::Mutex;

    use base::Shutdown;

    use super::*;
    use crate::worker::{Next, run};

    /// Panics and errors are tried again; keys run side by side, one key never twice at once.
    #[tokio::test(start_paused = true)]
    async fn failures_do_not_end_the_loop() {
        let queue = WorkQueue::new();
        let shutdown = Shutdown::new();
        let log = Arc::new(Mutex::new(Vec::new()));
        let work = {
            let log = log.clone();
            move |key: &'static str| {
                let log = log.clone();
                async move {
                    let earlier = log.lock().unwrap().iter().filter(|seen| **seen == key).count();
                    log.lock().unwrap().push(key);
                    match (key, earlier) {
                        ("panics", 0) => panic!("a bug"),
                        ("fails", 0 | 1) => Err("not yet"),
                        ("again", 0) => Ok(Next::After(MS(100))),
                        _ => Ok(Next::Wait),
                    }
                }
            }
        };
        for key in ["panics", "fails", "again", "works"] {
            queue.add(key);
        }
        let start = Instant::now();
        shutdown.spawn(run(queue.clone(), 4, shutdown.clone(), work));
        tokio::time::sleep(MS(1000)).await;
        let mut seen = log.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(
            seen,
            ["again", "again", "fails", "fails", "fails", "panics", "panics", "works"]
        );
        assert!(queue.is_idle() && start.elapsed() == MS(1000));
        shutdown.finish().await;
    }
}
