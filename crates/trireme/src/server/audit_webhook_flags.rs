//! From the flags of the audit log's webhook to the task that tells it.

use std::sync::Arc;
use std::time::Duration;

use apiserver::audit::{Batch, Strictness, Truncate, WebhookSink};
use apiserver::hook::{Hook, TIMEOUT, Target};
use apiserver::metrics::AuditMetrics;
use base::Random;

use super::authorization_flags::files;
use crate::cli::{AuditMode, AuditWebhookFlags};
use crate::errors::{CliError, Kind, Result};

// === impl AuditWebhookFlags ===

impl AuditWebhookFlags {
    /// Whether they say anything; what says that there is no file says something, too.
    pub fn are_given(&self) -> bool {
        self.audit_webhook_config_file.is_some()
    }

    /// The same, wherever they are read: the name of the file does not depend on a working directory. A name of nothing is
    /// none: that is how the webhook is taken away.
    pub fn anchored(&self) -> Result<AuditWebhookFlags> {
        Ok(AuditWebhookFlags {
            audit_webhook_config_file: super::anchor(self.audit_webhook_config_file.as_deref())?,
            ..self.clone()
        })
    }

    /// Whether a server could start with them.
    ///
    /// # Errors
    /// The flags or the file cannot be used.
    pub fn check(&self) -> Result {
        self.hook().map(drop)
    }

    /// Starts to tell the service; `None`: the flags name none. Needs a runtime.
    ///
    /// # Errors
    /// The flags or the file cannot be used.
    pub fn start(&self, metrics: &AuditMetrics) -> Result<Option<Arc<WebhookSink>>> {
        let Some((hook, batch)) = self.hook()? else {
            return Ok(None);
        };
        let sink = match self.audit_webhook_mode {
            AuditMode::Batch => WebhookSink::start(hook, batch, metrics.clone()),
            AuditMode::Blocking => WebhookSink::blocking(hook, batch, Strictness::Lax, metrics.clone()),
            AuditMode::BlockingStrict => WebhookSink::blocking(hook, batch, Strictness::Strict, metrics.clone()),
        };
        Ok(Some(Arc::new(sink)))
    }

    /// The service, and how events are put together for it.
    fn hook(&self) -> Result<Option<(Hook, Batch)>> {
        let Some(file) = &self.audit_webhook_config_file else {
            return Ok(None);
        };
        let path = std::path::absolute(file).map_err(CliError::internal)?;
        let made = || -> Result<(Hook, Batch), String> {
            let pause = time("--audit-webhook-initial-backoff", &self.audit_webhook_initial_backoff)?;
            let target = Target::from_kubeconfig(&path, &files())?;
            Ok((Hook::new(target, TIMEOUT, pause, Random::real())?, self.batch()?))
        };
        let made = made().map_err(|why| {
            CliError::new(Kind::Usage, "AUDIT_WEBHOOK", format!("the audit webhook: {why}"))
                .hint("look at what --audit-webhook-config-file names")
        });
        made.map(Some)
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
            Command::Server(server) => assert_eq!(server.api_server.audit_webhook.batch(), Ok(Batch::default())),
            other => panic!("{other:?}"),
        }
    }
}
