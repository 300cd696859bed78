//! Histograms of how long something was how much: each nanosecond counts once, under what held at its end.
//!
//! Source: `k8s.io/component-base/metrics/prometheusextension` (`timing_histogram.go`), as flow control uses it.

use std::fmt::{self, Debug};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use tokio::time::Instant;

/// One histogram. Cheap to clone; clones are told together.
#[derive(Clone)]
pub struct Timing(Arc<Mutex<State>>);

struct State {
    bounds: &'static [f64],
    /// Nanoseconds, by the first bound that is not less; the last is for what is above all of them.
    spent: Vec<u64>,
    /// Of the value over the nanoseconds.
    sum: f64,
    value: f64,
    since: Instant,
}

// === impl Timing ===

impl Timing {
    /// Nothing, from now on.
    pub fn new(bounds: &'static [f64]) -> Timing {
        Timing(Arc::new(Mutex::new(State {
            bounds,
            spent: vec![0; bounds.len() + 1],
            sum: 0.0,
            value: 0.0,
            since: Instant::now(),
        })))
    }

    /// This much from now on.
    pub fn set(&self, value: f64, now: Instant) {
        let mut state = self.0.lock();
        state.pass(now);
        state.value = value;
    }
}

impl State {
    fn pass(&mut self, now: Instant) {
        let spent = now.saturating_duration_since(self.since).as_nanos();
        let spent = u64::try_from(spent).unwrap_or(u64::MAX);
        let at = self.bounds.iter().position(|bound| self.value <= *bound);
        self.spent[at.unwrap_or(self.bounds.len())] += spent;
        self.sum += self.value * spent as f64;
        self.since = self.since.max(now);
    }

    fn encode(&mut self, now: Instant, encoder: &mut MetricEncoder) -> fmt::Result {
        self.pass(now);
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.spent.iter().copied()).collect();
        encoder.encode_histogram::<NoLabelSet>(self.sum, self.spent.iter().sum(), &buckets, None)
    }
}

impl Debug for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timing").field(&self.0.lock().value).finish()
    }
}

impl TypedMetric for Timing {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Timing {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        self.0.lock().encode(Instant::now(), &mut encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::EncodeLabelSet;
    use prometheus_client::metrics::family::Family;

    use super::*;
    use crate::metrics::names::Names;

    #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
    struct Labels {
        level: &'static str,
    }

    #[tokio::test(start_paused = true)]
    async fn time_counts_under_what_held() {
        let new: fn() -> Timing = || Timing::new(&[0.0, 0.5, 1.0]);
        let family = Family::<Labels, Timing, _>::new_with_constructor(new);
        let timing = family.get_or_create(&Labels { level: "a" }).clone();
        let hold = |nanoseconds| tokio::time::advance(Duration::from_nanos(nanoseconds));
        hold(1_000_000).await;
        timing.set(0.25, Instant::now());
        hold(2_000_000).await;
        timing.set(2.0, Instant::now());
        hold(4_000_000).await;
        let mut names = Names::default();
        names.add("used", "How full", family);
        let text = names.text();
        for line in [
            "# TYPE used histogram",
            r#"used_sum{level="a"} 8500000.0"#,
            r#"used_count{level="a"} 7000000"#,
            r#"used_bucket{le="0.0",level="a"} 1000000"#,
            r#"used_bucket{le="0.5",level="a"} 3000000"#,
            r#"used_bucket{le="1.0",level="a"} 3000000"#,
            r#"used_bucket{le="+Inf",level="a"} 7000000"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
