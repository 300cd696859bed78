//! A kube-rs program as a client under test: upstream's conformance tests of v1.36 in outline, as far as they need no container,
//! and what else programs of kube-rs do.
//!
//! Upstream's own suite needs Go, which tests cannot expect (`docs/conformance.md` has the results of its runs by hand): so the
//! walks are what CI has against a change that a foreign client would see.
//!
//! `conformance [FILTER...]` walks in the cluster of `KUBECONFIG`, where the administrator calls and a node reports pods as
//! running; the end-to-end tests run it. Every walk has a namespace of its own, which stays.

mod kinds;
mod lifecycle;
mod operations;
mod place;
mod resource;
mod walks;

use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Walks under way at once: each is a person at work for the server, which has a limit of requests under way.
const PARALLEL: usize = 8;

#[tokio::main]
async fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).collect();
    let is_asked = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(&**filter));
    let places = Arc::new(Semaphore::new(PARALLEL));
    let mut walking = Vec::new();
    for walk in walks::all().into_iter().filter(|walk| is_asked(walk.name)) {
        let places = places.clone();
        let task = tokio::spawn(async move {
            let _place = places.acquire().await;
            let begun = tokio::time::Instant::now();
            // A task of its own, because a walk fails by a panic.
            let walked = tokio::spawn((walk.begin)()).await;
            (walked, begun.elapsed())
        });
        walking.push((walk.name, task));
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, task) in walking {
        match task.await.expect("invariant: the task around a walk does not panic") {
            (Ok(()), elapsed) => {
                passed += 1;
                println!("passed {name} in {:.1} s", elapsed.as_secs_f64());
            }
            // The panic itself was told when it happened, with its place.
            (Err(error), _) => {
                failed += 1;
                println!("FAILED {name}: {error}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0 || passed == 0))
}
