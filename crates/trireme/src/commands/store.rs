//! `trireme store`: the store alone, as an etcd for others.

use std::sync::Arc;

use base::{Clock, Random, Shutdown};
use serde_json::json;
use store::{Embedded, EmbeddedOptions, Tuning};

use crate::cli::Store;
use crate::errors::Result;
use crate::etcd_front;
use crate::layout::Layout;
use crate::process::{allow_many_connections, tell_ready};
use crate::store_errors::not_opened;

use super::Ends;

/// etcd forgets nothing until it is told to; a kube-apiserver tells it every five minutes. What nobody tells is forgotten
/// after an hour, or earlier when it is more than a quarter of the data.
const HISTORY_MS: i64 = 60 * 60 * 1000;

/// Runs until it is asked to end.
pub async fn run(arguments: Store, layout: &Layout) -> Result {
    layout.create()?;
    allow_many_connections()?;
    let mut ends = Ends::listen()?;
    let directory = layout.data().join("etcd");
    // An empty etcd is at revision 1, and clients take 0 for none.
    let raise_revisions_by = u64::from(!directory.exists());
    let (clock, random, shutdown) = (Clock::real(), Random::real(), Shutdown::new());
    let options = EmbeddedOptions {
        raise_revisions_by,
        tuning: Tuning {
            history_window_ms: HISTORY_MS,
            ..Tuning::default()
        },
        ..EmbeddedOptions::new(&directory)
    };
    let engine = Embedded::open(options).await.map_err(|error| {
        let other = "is another `trireme store` running from this directory?";
        not_opened(&directory, &error, other)
    })?;
    let engine = Arc::new(engine);
    let served = etcd_front::serve(
        layout,
        engine.clone(),
        Vec::new(),
        arguments.listen,
        &clock,
        &random,
        &shutdown,
    );
    let address = served.await?;
    let keys = etcd_front::directory(layout);
    tell_ready(&json!({"etcd": format!("https://{address}"), "keys": keys}))?;
    let why = ends.next().await;
    tracing::info!(why, "the store ends");
    shutdown.finish().await;
    engine.close().await;
    Ok(())
}
