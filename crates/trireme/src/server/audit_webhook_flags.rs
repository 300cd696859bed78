//! From the flags of the audit log's webhook to the task that tells it.

use std::sync::Arc;
use std::time::Duration;

use apiserver::audit::{Batch, Truncate, WebhookSink};
use apiserver::hook::{Hook, TIMEOUT, Target};
use apiserver::metrics::AuditMetrics;
use base::Random;

use super::authorization_flags::files;
use crate::cli::AuditWebhookFlags;
use crate::errors::{CliError, Kind, Result};

// === impl AuditWebhookFlags ===

impl AuditWebhookFlags {
    /// Starts to tell the service; `None`: the flags name none. Needs a runtime.
    ///
    /// # Errors
    /// The flags or the file cannot be used.
    pub fn start(&self, metrics: &AuditMetrics) -> Result<Option<Arc<WebhookSink>>> {
        let Some(file) = &self.audit_webhook_config_file else {
            return Ok(None);
        };
        let path = std::path::absolute(file).map_err(CliError::internal)?;
        let hook = || -> Result<Hook, String> {
            let pause = time("--audit-webhook-initial-backoff", &self.audit_webhook_initial_backoff)?;
            let target = Target::from_kubeconfig(&path, &files())?;
            Hook::new(target, TIMEOUT, pause, Random::real())
        };
        let started = hook().and_then(|hook| Ok(WebhookSink::start(hook, self.batch()?, metrics.clone())));
        let started = started.map_err(|why| {
            CliError::new(Kind::Usage, "AUDIT_WEBHOOK", format!("the audit webhook: {why}"))
                .hint("look at what --audit-webhook-config-file names")
        })?;
        Ok(Some(Arc::new(started)))
    }

    fn batch(&self) -> Result<Batch, String> {
        let throttle = (
            f64::from(self.audit_webhook_batch_throttle_qps),
            f64::from(self.audit_webhook_batch_throttle_burst),
        );
        let truncate = Truncate {
            event_bytes_max: self.audit_webhook_truncate_max_event_size,
            batch_bytes_max: self.audit_webhook_truncate_max_batch_size,
        };
        Ok(Batch {
            buffer_events: self.audit_webhook_batch_buffer_size as usize,
            events_max: self.audit_webhook_batch_max_size as usize,
            wait_max: time("--audit-webhook-batch-max-wait", &self.audit_webhook_batch_max_wait)?,
            throttle: self.audit_webhook_batch_throttle_enable.then_some(throttle),
            truncate: self.audit_webhook_truncate_enabled.then_some(truncate),
        })
    }
}

fn time(flag: &str, text: &str) -> Result<Duration, String> {
    api::duration::parse(text).ok_or_else(|| format!("{flag} {text:?} is no duration such as 10s"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn flags_are_upstreams_defaults() {
        match Cli::try_parse_from(["trireme", "server"]).unwrap().command {
            Command::Server(server) => assert_eq!(server.audit_webhook.batch(), Ok(Batch::default())),
            other => panic!("{other:?}"),
        }
    }
}
