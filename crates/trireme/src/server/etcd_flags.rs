//! From the flags of an etcd to the options of its engine.

use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use store::{Credentials, EtcdOptions, TlsFiles};

use crate::cli::EtcdFlags;
use crate::errors::{CliError, Kind, Result};

impl EtcdFlags {
    /// Whether they name an etcd.
    pub fn are_given(&self) -> bool {
        !self.etcd_servers.is_empty()
    }

    /// The same, wherever they are read: the names of files do not depend on a working directory.
    pub fn anchored(&self) -> Result<EtcdFlags> {
        let anchor = |file: &Option<PathBuf>| {
            let absolute = file.as_ref().map(std::path::absolute);
            absolute.transpose().map_err(CliError::internal)
        };
        Ok(EtcdFlags {
            etcd_cafile: anchor(&self.etcd_cafile)?,
            etcd_certfile: anchor(&self.etcd_certfile)?,
            etcd_keyfile: anchor(&self.etcd_keyfile)?,
            etcd_password_file: anchor(&self.etcd_password_file)?,
            ..self.clone()
        })
    }

    /// The options of the etcd that the flags name, if they name one.
    pub fn options(&self) -> Result<Option<EtcdOptions>> {
        if !self.are_given() {
            return Ok(None);
        }
        let mut options = EtcdOptions::new(self.etcd_servers.iter().cloned());
        options.prefix.clone_from(&self.etcd_prefix);
        options.compaction_interval = interval(&self.etcd_compaction_interval)?;
        options.tls = TlsFiles {
            ca: self.etcd_cafile.clone(),
            certificate: self.etcd_certfile.clone(),
            key: self.etcd_keyfile.clone(),
        };
        if let (Some(name), Some(file)) = (&self.etcd_user, &self.etcd_password_file) {
            let password = std::fs::read_to_string(file).map_err(|error| CliError::file(file, &error))?;
            options.credentials = Some(Credentials {
                name: name.clone(),
                // An editor's newline is no part of it.
                password: password.trim_end_matches(['\r', '\n']).to_owned(),
            });
        }
        Ok(Some(options))
    }
}

/// A duration as Kubernetes' flags write it; none when it is zero.
fn interval(text: &str) -> Result<Option<Duration>> {
    if text == "0" {
        return Ok(None);
    }
    let parsed = text.parse::<SignedDuration>().ok();
    match parsed.and_then(|duration| Duration::try_from(duration).ok()) {
        Some(duration) if duration.is_zero() => Ok(None),
        Some(duration) => Ok(Some(duration)),
        None => Err(CliError::new(
            Kind::Usage,
            "DURATION",
            format!("--etcd-compaction-interval {text} is not a duration"),
        )
        .hint("write it like 5m0s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_kubernetes() {
        for (text, seconds) in [
            ("5m0s", Some(300)),
            ("5m", Some(300)),
            ("90s", Some(90)),
            ("1h30m", Some(5400)),
        ] {
            assert_eq!(interval(text).unwrap(), seconds.map(Duration::from_secs), "{text}");
        }
        for text in ["0", "0s", "0m0s"] {
            assert_eq!(interval(text).unwrap(), None, "{text}");
        }
        for text in ["five", "", "-5m"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
