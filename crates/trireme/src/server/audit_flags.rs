//! From the flags of the audit log to an auditor and the thread that writes its lines.

use std::convert::Infallible;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::audit::{
    AuditSink, Auditor, LogFile, LogOptions, LogSink, Policy, Rotation, Strictness, Truncate, WebhookSink,
};
use apiserver::metrics::AuditMetrics;
use base::Clock;
use base::disk::RealDisk;

use crate::cli::{AuditFlags, AuditFormat, AuditMode, AuditWebhookFlags};
use crate::errors::{CliError, Context as _, Kind, Result, words};

/// As upstream's flags count.
const MEGABYTE: u64 = 1024 * 1024;
/// How long the log gets when nobody says: upstream's.
const MEGABYTES_MAX: u64 = 100;
/// The path that is no file.
const STANDARD_OUTPUT: &str = "-";

/// The audit log of a running server.
pub struct AuditLog {
    /// What the API server asks.
    pub auditor: Arc<Auditor>,
    log: Option<Arc<LogSink>>,
    webhook: Option<Arc<WebhookSink>>,
}

// === impl AuditLog ===

impl AuditLog {
    /// Returns when all that was told is written.
    pub async fn close(self) {
        if let Some(webhook) = self.webhook {
            webhook.close().await;
        }
        if let Some(log) = self.log {
            // A writer that fell over is told of by the sink.
            let _ = tokio::task::spawn_blocking(move || log.close()).await;
        }
    }
}

// === impl AuditFlags ===

impl AuditFlags {
    /// Whether they say anything; what says that there is no file says something, too.
    pub fn are_given(&self) -> bool {
        self.audit_policy_file.is_some() || self.audit_log_path.is_some()
    }

    /// The same, wherever they are read: the names of files do not depend on a working directory. A name of nothing is
    /// none: that is how an audit log is turned off.
    pub fn anchored(&self) -> Result<AuditFlags> {
        let anchor = |file: &Option<PathBuf>| {
            let named = file.as_deref().filter(|file| !file.as_os_str().is_empty());
            let absolute = named.map(|file| match is_standard_output(file) {
                true => Ok(file.to_owned()),
                false => std::path::absolute(file),
            });
            absolute.transpose().map_err(CliError::internal)
        };
        Ok(AuditFlags {
            audit_policy_file: anchor(&self.audit_policy_file)?,
            audit_log_path: anchor(&self.audit_log_path)?,
            ..self.clone()
        })
    }

    /// Whether events go to standard output.
    pub fn go_to_standard_output(&self) -> bool {
        self.audit_log_path.as_deref().is_some_and(is_standard_output)
    }

    /// What has no effect: upstream takes a policy without a log and a log without a policy, and tells nothing then.
    pub fn without_effect(&self, webhook: &AuditWebhookFlags) -> Option<&'static str> {
        let has_webhook = webhook.audit_webhook_config_file.is_some();
        match (&self.audit_policy_file, &self.audit_log_path) {
            (Some(_), None) if !has_webhook => Some("--audit-policy-file without --audit-log-path: nothing is audited"),
            (None, Some(_)) => Some("--audit-log-path without --audit-policy-file: nothing is audited"),
            (None, None) if has_webhook => {
                Some("--audit-webhook-config-file without --audit-policy-file: nothing is audited")
            }
            _ => None,
        }
    }

    /// Whether a server could start with them.
    ///
    /// # Errors
    /// The policy cannot be used or the log cannot be written.
    pub fn check(&self) -> Result {
        let (event, batch) = (
            self.audit_log_truncate_max_event_size,
            self.audit_log_truncate_max_batch_size,
        );
        if batch < event {
            let what = format!(
                "invalid audit truncate log max batch size {batch}, must be greater than max event size ({event})"
            );
            return Err(CliError::new(Kind::Usage, "AUDIT_LOG", what).hint("make the batch the larger of both"));
        }
        self.options()?;
        self.policy()?;
        if !self.go_to_standard_output() {
            self.file()?;
        }
        Ok(())
    }

    /// Opens the log and starts its writer, and the webhook's sender; `None`: nothing is audited.
    ///
    /// # Errors
    /// As [`AuditFlags::check`], and the webhook cannot be told as its file says.
    pub fn start(&self, webhook: &AuditWebhookFlags) -> Result<Option<AuditLog>> {
        let (policy, file, metrics) = (self.policy()?, self.file()?, AuditMetrics::default());
        let has_backend = self.audit_log_path.is_some() || webhook.audit_webhook_config_file.is_some();
        let Some(policy) = policy.filter(|_| has_backend) else {
            return Ok(None);
        };
        let options = self.options()?;
        let log = self
            .audit_log_path
            .is_some()
            .then(|| log(file, options, metrics.clone()));
        let (log, webhook) = (log.transpose()?, webhook.start(&metrics)?);
        let mut sinks: Vec<Arc<dyn AuditSink>> = Vec::new();
        sinks.extend(log.clone().map(|sink| sink as Arc<dyn AuditSink>));
        sinks.extend(webhook.clone().map(|sink| sink as Arc<dyn AuditSink>));
        let auditor = Auditor::new(policy, sinks, Clock::real(), metrics);
        Ok(Some(AuditLog {
            auditor: Arc::new(auditor),
            log,
            webhook,
        }))
    }

    /// How the log is written.
    fn options(&self) -> Result<LogOptions> {
        let truncate = Truncate {
            event_bytes_max: self.audit_log_truncate_max_event_size,
            batch_bytes_max: self.audit_log_truncate_max_batch_size,
        };
        let waits = match self.audit_log_mode {
            AuditMode::Batch => None,
            AuditMode::Blocking => Some(Strictness::Lax),
            AuditMode::BlockingStrict => Some(Strictness::Strict),
        };
        let wrong = |what: String, hint: &str| CliError::new(Kind::Usage, "AUDIT_LOG", what).hint(hint);
        let wait = &self.audit_log_batch_max_wait;
        let wait_max = api::duration::parse(wait).ok_or_else(|| {
            let what = format!("--audit-log-batch-max-wait {wait:?} is no duration such as 10s");
            wrong(what, "give a duration such as 10s")
        })?;
        let throttle = (self.audit_log_batch_throttle_qps, self.audit_log_batch_throttle_burst);
        let throttled = waits.is_none() && self.audit_log_batch_throttle_enable;
        for (what, value) in [("QPS", throttle.0), ("burst", throttle.1)] {
            if throttled && value == 0 {
                let what = format!("invalid audit batch log throttle {what} {value}, must be a positive number");
                return Err(wrong(
                    what,
                    "--audit-log-batch-throttle-enable takes --audit-log-batch-throttle-qps and -burst",
                ));
            }
        }
        Ok(LogOptions {
            format: self.audit_log_format.into(),
            waits,
            buffer_events: self.audit_log_batch_buffer_size as usize,
            events_max: self.audit_log_batch_max_size as usize,
            wait_max,
            throttle: throttled.then_some((f64::from(throttle.0), f64::from(throttle.1))),
            truncate: self.audit_log_truncate_enabled.then_some(truncate),
        })
    }

    fn policy(&self) -> Result<Option<Policy>> {
        let Some(path) = &self.audit_policy_file else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what = format!("the audit policy {}: {}", path.display(), words(&error));
            CliError::new(Kind::Usage, "AUDIT_POLICY", what).hint("look at what --audit-policy-file names")
        })?;
        let policy = Policy::from_text(&text).map_err(|error| {
            let what = format!("the audit policy {}: {error}", path.display());
            CliError::new(Kind::Usage, "AUDIT_POLICY", what)
                .hint("correct the file; the forms are in https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/")
        })?;
        Ok(Some(policy))
    }

    /// The log's file; `None`: there is none.
    fn file(&self) -> Result<Option<LogFile>> {
        let Some(path) = self.audit_log_path.as_ref().filter(|path| !is_standard_output(path)) else {
            return Ok(None);
        };
        let megabytes = match self.audit_log_maxsize {
            0 => MEGABYTES_MAX,
            some => some.into(),
        };
        let rotation = Rotation {
            bytes_max: megabytes * MEGABYTE,
            backups_max: self.audit_log_maxbackup as usize,
            days_max: self.audit_log_maxage,
            compress: self.audit_log_compress,
        };
        let file = LogFile::open(Arc::new(RealDisk), Clock::real(), path, rotation);
        let file = file.map_err(|error| {
            let what = format!("the audit log {} cannot be written: {}", path.display(), words(&error));
            CliError::new(Kind::Machine, "AUDIT_LOG", what)
                .hint("name another file with --audit-log-path, one in a directory that can be written")
        })?;
        Ok(Some(file))
    }
}

fn log(file: Option<LogFile>, options: LogOptions, metrics: AuditMetrics) -> Result<Arc<LogSink>> {
    let sink = match file {
        Some(mut file) => LogSink::start(options, metrics, move |line| file.write(line)),
        None => LogSink::start(options, metrics, |line| {
            let mut output = std::io::stdout().lock();
            output.write_all(line)?;
            output.flush()
        }),
    };
    sink.map(Arc::new).doing("starting the audit log's writer")
}

impl From<AuditFormat> for apiserver::audit::Format {
    fn from(format: AuditFormat) -> apiserver::audit::Format {
        match format {
            AuditFormat::Json => apiserver::audit::Format::Json,
            AuditFormat::Legacy => apiserver::audit::Format::Legacy,
        }
    }
}

/// A file's name, or nothing.
pub fn file_or_nothing(text: &str) -> Result<PathBuf, Infallible> {
    Ok(text.into())
}

fn is_standard_output(path: &Path) -> bool {
    path == Path::new(STANDARD_OUTPUT)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn flags(words: &[&str]) -> AuditFlags {
        match Cli::try_parse_from(["trireme", "server"].iter().chain(words))
            .unwrap()
            .command
        {
            Command::Server(server) => server.api_server.audit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_absolute_and_nothing_turns_it_off() {
        let here = std::env::current_dir().unwrap();
        let given = flags(&["--audit-policy-file", "policy.yaml", "--audit-log-path", "-"]);
        let kept = given.anchored().unwrap();
        assert_eq!(kept.audit_policy_file, Some(here.join("policy.yaml")));
        assert!(kept.go_to_standard_output() && kept.without_effect(&AuditWebhookFlags::default()).is_none());
        let off = flags(&["--audit-log-path", "", "--audit-policy-file="]);
        assert!(off.are_given());
        assert!(!off.anchored().unwrap().are_given());
        assert!(!flags(&[]).are_given());
        // What nobody says is as upstream has it.
        assert_eq!(given.options().unwrap(), LogOptions::default());
        // What would have no effect is refused.
        let alone = ["trireme", "server", "--audit-log-maxsize", "5"];
        assert!(Cli::try_parse_from(alone).is_err());
    }

    #[test]
    fn one_without_the_other_audits_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let name = |name: &str| dir.path().join(name).display().to_string();
        let (policy, log) = (name("policy.yaml"), name("logs/audit.log"));
        std::fs::write(
            &policy,
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]",
        )
        .unwrap();
        for (words, told, starts) in [
            (vec![], false, false),
            (vec!["--audit-policy-file", &policy], true, false),
            (vec!["--audit-log-path", &log], true, false),
            (
                vec!["--audit-policy-file", &policy, "--audit-log-path", &log],
                false,
                true,
            ),
        ] {
            let flags = flags(&words);
            let none = AuditWebhookFlags::default();
            assert_eq!(flags.without_effect(&none).is_some(), told, "{words:?}");
            assert_eq!(flags.start(&none).unwrap().is_some(), starts, "{words:?}");
        }
        let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&log), mode(&name("logs"))), (0o600, 0o700));
    }

    #[test]
    fn what_cannot_be_used_is_told_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        let name = |name: &str| dir.path().join(name).display().to_string();
        let (policy, taken) = (name("policy.yaml"), name("policy.yaml/audit.log"));
        std::fs::write(&policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{}]").unwrap();
        for (words, id, what) in [
            (
                ["--audit-policy-file", &policy],
                "AUDIT_POLICY",
                "rules[0].level: Required value",
            ),
            (
                ["--audit-policy-file", &name("none")],
                "AUDIT_POLICY",
                "none: No such file or directory",
            ),
            (["--audit-log-path", &taken], "AUDIT_LOG", "cannot be written: "),
            (["--audit-log-path", &name("")], "AUDIT_LOG", "cannot be written: "),
            (["--audit-log-batch-max-wait", "soon"], "AUDIT_LOG", "is no duration"),
        ] {
            let error = flags(&words).check().unwrap_err();
            assert!(error.id == id && error.what.contains(what), "{words:?}: {error:?}");
        }
        // Where nothing is batched, nothing is throttled.
        let throttled = |mode: &str| {
            let mode = format!("--audit-log-mode={mode}");
            let words = ["--audit-log-path=-", &mode, "--audit-log-batch-throttle-enable"];
            flags(&words).check().map_err(|error| error.what)
        };
        let why = "invalid audit batch log throttle QPS 0, must be a positive number";
        assert_eq!(throttled("batch"), Err(why.to_owned()));
        assert_eq!(throttled("blocking"), Ok(()));
    }
}
