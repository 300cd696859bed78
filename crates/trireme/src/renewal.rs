//! Certificates that are replaced before they end, while whatever uses them goes on.
//!
//! Invariant: a certificate is replaced at a random moment between seven and nine tenths of its life (so that those made
//! together are not renewed together), and after a failure again and again until it is.
//! Source: `k8s.io/client-go/util/certificate/certificate_manager.go`.

use std::future::Future;
use std::time::Duration;

use apiserver::pki::{Pair, validity};
use base::backoff::Backoff;
use base::{Clock, Random, Shutdown};
use jiff::Timestamp;

use crate::errors::Result;

/// The part of its life after which a certificate may be renewed.
const EARLIEST: f64 = 0.7;
/// The random part of its life that is waited beyond that.
const SPREAD: f64 = 0.2;
/// The first wait after a failure; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest wait between two attempts: what is left of a year's certificate has thousands of them.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Renews one certificate.
pub struct Renewal {
    /// Which one, for the log.
    pub what: &'static str,
    /// Wall time.
    pub clock: Clock,
    /// The moment of renewal.
    pub random: Random,
    /// Ends the renewal.
    pub shutdown: Shutdown,
}

// === impl Renewal ===

impl Renewal {
    /// Keeps the successors of `pair` current in a task of its own: `issue` makes one, `install` puts it to use.
    pub fn keep<I, Fut>(self, pair: Pair, issue: I, install: impl Fn(&Pair) -> Result + Send + Sync + 'static)
    where
        I: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Pair>> + Send,
    {
        let shutdown = self.shutdown.clone();
        shutdown
            .clone()
            .spawn(async move { shutdown.until(self.run(pair, issue, install)).await });
    }

    async fn run<I, Fut>(self, mut pair: Pair, issue: I, install: impl Fn(&Pair) -> Result)
    where
        I: Fn() -> Fut,
        Fut: Future<Output = Result<Pair>>,
    {
        loop {
            let due = match validity(&pair.certificate_pem) {
                Ok((begin, end)) => due(begin, end, self.random.unit()),
                // Not a certificate: any other one is better.
                Err(_) => self.clock.now(),
            };
            self.clock.sleep_until(due).await;
            pair = self.replace(&issue, &install).await;
            tracing::info!(certificate = self.what, "renewed");
        }
    }

    async fn replace<I, Fut>(&self, issue: &I, install: &impl Fn(&Pair) -> Result) -> Pair
    where
        I: Fn() -> Fut,
        Fut: Future<Output = Result<Pair>>,
    {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX).with_jitter(0.5, self.random.fork());
        loop {
            let attempt = issue().await.and_then(|pair| install(&pair).map(|()| pair));
            match attempt {
                Ok(pair) => return pair,
                Err(error) => {
                    let delay = backoff.next_delay();
                    tracing::warn!(certificate = self.what, error = error.what, ?delay, "not renewed yet");
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }
}

fn due(begin: Timestamp, end: Timestamp, chance: f64) -> Timestamp {
    let life = end.as_second() - begin.as_second();
    let waited = (EARLIEST + SPREAD * chance) * life as f64;
    Timestamp::from_second(begin.as_second() + waited.round() as i64).unwrap_or(begin)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use apiserver::pki::{Authority, LEAF_SECONDS};
    use parking_lot::Mutex;

    use super::*;
    use crate::errors::{CliError, Context as _};

    #[test]
    fn the_moment_is_in_the_last_third_and_before_the_end() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (chance, expect) in [(0.0, 1700), (0.5, 1800), (1.0, 1900)] {
            assert_eq!(due(at(1000), at(2000), chance), at(expect));
        }
    }

    /// Four years of simulated time, in which every second attempt fails.
    #[tokio::test(start_paused = true)]
    async fn there_is_a_valid_certificate_at_every_moment() {
        let clock = Clock::simulated("2026-01-02T03:04:05Z".parse().unwrap());
        let (random, shutdown) = (Random::seeded(1), Shutdown::new());
        let authority = Arc::new(Authority::generate("ca", clock.now(), random.fork()).unwrap());
        let first = authority.issue_client("u", None, clock.now()).unwrap();
        let used = Arc::new(Mutex::new(vec![first.clone()]));
        let attempts = Arc::new(AtomicU32::new(0));
        let renewal = Renewal {
            what: "test",
            clock: clock.clone(),
            random,
            shutdown: shutdown.clone(),
        };
        let (issuer, now, count) = (authority.clone(), clock.clone(), attempts.clone());
        let issue = move || {
            let (issuer, now, attempt) = (issuer.clone(), now.clone(), count.fetch_add(1, Ordering::Relaxed));
            async move {
                match attempt % 2 {
                    0 => Err(CliError::internal("no")),
                    _ => issuer.issue_client("u", None, now.now()).doing("issuing"),
                }
            }
        };
        let install = used.clone();
        renewal.keep(first, issue, move |pair| {
            install.lock().push(pair.clone());
            Ok(())
        });
        let days = 4 * LEAF_SECONDS / 86_400;
        for _ in 0..days {
            tokio::time::sleep(Duration::from_secs(86_400)).await;
            let current = used.lock().last().unwrap().clone();
            let (begin, end) = validity(&current.certificate_pem).unwrap();
            assert!(begin <= clock.now() && clock.now() < end);
        }
        let count = used.lock().len();
        assert!((5..=6).contains(&count), "{count}");
        assert_eq!(attempts.load(Ordering::Relaxed) as usize, 2 * (count - 1));
        shutdown.finish().await;
    }
}
