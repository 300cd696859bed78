//! Keeps `docs/metrics.md` true: it is made of the names that are served.

use std::path::Path;

use super::{
    AggregationMetrics, AllocationMetrics, AuditMetrics, ClientCertificateMetrics, HealthMetrics, Metrics,
    ReloadMetrics, SealingMetrics,
};

/// What the page begins with.
const HEAD: &str = "\
# Metrics

Generated from the metrics themselves (`TRIREME_BLESS=1 cargo test -p apiserver metrics_page`); do not edit.

The API server serves these at `/metrics`, in the text format of Prometheus or, for whoever asks for it, in OpenMetrics. Names,
labels and buckets are upstream's where upstream has the same thing, so that dashboards and alerts made for Kubernetes show it;
what upstream has no name for has one of ours (`apiserver_storage_revision`, `apiserver_storage_write_retries_total`,
`apiserver_watch_frames_total`, `apiserver_whole_answers_*`). The whole control plane is one process: requests of its
controllers and their work queues (`rest_client_*`, `workqueue_*`) are told here, too, with the host `in-process`.

What has no meaning here is left out: Go's garbage collection, the growing and shrinking of a watch cache that is the store
itself, numbers of metrics and of controllers of other processes. `apiserver_cel_*` count all
expressions, and `authentication_token_cache_*` the tokens of service accounts, too. `etcd_request_*` are writes to the store, whichever it is;
nothing is read from it to answer a request.
";

/// Health checks have a path of their own.
const HEALTH: &str = "
`/metrics/slis` tells how health checks came out that somebody has asked for:

| metric | type | what |
|---|---|---|
| `kubernetes_healthcheck` | gauge | How a health check came out the last time: 1 is well |
| `kubernetes_healthchecks_total` | counter | Health checks, by how they came out |
";

#[test]
fn metrics_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let metrics = Metrics::new(AuditMetrics::default(), std::iter::empty());
    metrics.add_reloads(&ReloadMetrics::default());
    metrics.add_aggregation(&AggregationMetrics::default());
    metrics.add_allocation(&AllocationMetrics::default());
    metrics.add_sealing(&SealingMetrics::default());
    metrics.add_client_certificates(&ClientCertificateMetrics::default());
    let mut names = metrics.names();
    names.sort_by(|a, b| a.name.cmp(&b.name));
    let mut page = HEAD.to_owned() + "\n| metric | type | what |\n|---|---|---|\n";
    for name in names {
        page += &format!("| `{}` | {} | {} |\n", name.name, name.kind, name.help);
    }
    page += HEALTH;
    if std::env::var_os("TRIREME_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/metrics.md is not what is served: TRIREME_BLESS=1 cargo test -p apiserver metrics_page"
    );
    let health = HealthMetrics::default().names();
    assert!(
        health
            .iter()
            .all(|name| page.contains(&format!("| `{}` | {} | {} |", name.name, name.kind, name.help)))
    );
}
