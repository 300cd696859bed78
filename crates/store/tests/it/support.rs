//! What several tests need.

use std::sync::Arc;

use base::disk::SimDisk;
use base::{Clock, Random};
use bytes::Bytes;
use store::testing::workload::Text;
use store::{Embedded, EmbeddedOptions, Engine, OpenError, Replica, Transaction, Tuning};

/// Small enough that a few dozen writes roll segments, take snapshots and forget history.
pub fn small() -> Tuning {
    Tuning {
        segment_bytes: 2048,
        log_floor_bytes: 8192,
        reserve_bytes: 0,
        batch_bytes_max: 4096,
        snapshot_block_bytes: 512,
        ..Tuning::default()
    }
}

/// How much more than CI's share the sweeps run: `TRIREME_SWEEP=50 cargo test -p store --test it simulation` is fifty thousand
/// seeds of crashes.
pub fn sweep_times() -> u64 {
    let times = std::env::var("TRIREME_SWEEP").ok();
    times.map_or(1, |times| times.parse().expect("TRIREME_SWEEP is a number"))
}

pub struct World {
    pub disk: SimDisk,
    pub clock: Clock,
    pub random: Random,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let random = Random::seeded(seed);
        let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        Self {
            disk: SimDisk::new(random.fork()),
            clock,
            random,
        }
    }

    pub fn options(&self) -> EmbeddedOptions {
        let disk = Arc::new(self.disk.clone());
        let simulated = EmbeddedOptions::simulated(disk, self.clock.clone(), self.random.fork());
        EmbeddedOptions {
            tuning: small(),
            ..simulated
        }
    }

    pub async fn open(&self) -> Result<Arc<Embedded>, OpenError> {
        Embedded::open(self.options()).await.map(Arc::new)
    }

    pub async fn replica(&self, engine: &Arc<Embedded>) -> Replica<Text> {
        let tables = ["/a/", "/b/"].map(|prefix| Bytes::from_static(prefix.as_bytes()));
        Replica::open(engine.clone(), self.clock.clone(), tables, Text::build)
            .await
            .unwrap()
    }
}

pub async fn put(engine: &dyn Engine, key: &str, value: &str) -> u64 {
    engine
        .commit(Transaction::new().put(key.to_owned(), value.to_owned()))
        .await
        .unwrap()
        .revision
}

pub async fn dump(engine: &dyn Engine) -> Vec<(String, String)> {
    let answer = engine.range(store::KeyRange::all(), None).await.unwrap();
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    answer
        .records
        .iter()
        .map(|record| (text(&record.key), text(&record.value)))
        .collect()
}
