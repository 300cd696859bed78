//! Spans for an OpenTelemetry collector, when `--tracing-config-file` asks for them.
//!
//! What is to be told are the `tracing` spans of the target `otel`: requests to the API server and their stages. Without a
//! configuration nothing listens to that target, and such a span costs a look at a flag. Who is sampled is decided where a
//! trace begins, as upstream does: by what the client says, if it may, or by the rate of the configuration.

mod config;
mod context;
mod export;
mod layer;

use std::path::Path;

use base::{Clock, Random};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use crate::errors::{CliError, Kind, Result, words};
use config::TracingConfiguration;
pub use export::Exporter;
use layer::SpanLayer;

/// The target of spans that are told.
const TARGET: &str = "otel";

/// What a file asks for: a layer that collects spans, and who sends them.
///
/// # Errors
/// The file cannot be read or used.
pub fn start<S>(path: &Path) -> Result<(impl Layer<S> + use<S>, Exporter)>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let broken = |why: &dyn std::fmt::Display| {
        let what = format!("the tracing configuration {}: {why}", path.display());
        CliError::new(Kind::Usage, "TRACING_CONFIG", what)
            .hint("correct the file; the form is in https://kubernetes.io/docs/concepts/cluster-administration/system-traces/")
    };
    let text = std::fs::read_to_string(path).map_err(|error| broken(&words(&error)))?;
    let config = TracingConfiguration::from_text(&text).map_err(|error| broken(&error))?;
    let random = Random::real();
    let (exporter, queue) = Exporter::start(&config, &random).map_err(|error| broken(&error))?;
    let layer = SpanLayer::new(config.rate(), queue, Clock::real(), random);
    let filter = Targets::new().with_target(TARGET, LevelFilter::TRACE);
    Ok((layer.with_filter(filter), exporter))
}
