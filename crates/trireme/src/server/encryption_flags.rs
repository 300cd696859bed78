//! From the flags of encryption at rest to what seals, and the task that takes a changed file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::sealing::{Encryption, EncryptionConfig, Sealing};
use base::Random;

use crate::cli::EncryptionFlags;
use crate::errors::{CliError, Kind, Result, words};
use crate::watched::{Contents, Follow, Refusal, Watched};

// === impl EncryptionFlags ===

impl EncryptionFlags {
    /// Whether they say anything; what says that there is no file says something, too.
    pub fn are_given(&self) -> bool {
        self.encryption_provider_config.is_some()
    }

    /// The same, wherever they are read: the names of files do not depend on a working directory. A name of nothing is
    /// none: that is how a configuration is taken away.
    pub fn anchored(&self) -> Result<EncryptionFlags> {
        let named = self.encryption_provider_config.as_deref();
        let named = named.filter(|file| !file.as_os_str().is_empty());
        let absolute = named.map(std::path::absolute).transpose();
        Ok(EncryptionFlags {
            encryption_provider_config: absolute.map_err(CliError::internal)?,
            ..self.clone()
        })
    }

    /// Whether a server could start with them.
    ///
    /// # Errors
    /// The file cannot be read or used.
    pub fn check(&self) -> Result {
        let file = self.encryption_provider_config.as_deref();
        file.map_or(Ok(()), |file| parse(file, &read(file)?).map(drop))
    }

    /// Puts the file's configuration to use, and follows the file if that is wanted.
    ///
    /// # Errors
    /// As [`EncryptionFlags::check`].
    pub async fn start(&self, sealing: &Arc<Sealing>, random: &Random, follow: &Follow) -> Result {
        let Some(path) = self.encryption_provider_config.clone() else {
            return Ok(());
        };
        let text = read(&path)?;
        sealing.replace(load(&path, &text, random).await?);
        if self.encryption_provider_config_automatic_reload {
            let (sealing, random) = (sealing.clone(), random.fork());
            let watched = Watched::since(vec![path.clone()], vec![text.into_bytes()]);
            follow.start("encryption", watched, move |contents| {
                take(path.clone(), contents, sealing.clone(), random.fork())
            });
        }
        Ok(())
    }
}

/// Takes what the file says now. What seals by a service that does not answer is tried again.
async fn take(
    path: PathBuf,
    contents: Contents,
    sealing: Arc<Sealing>,
    random: Random,
) -> std::result::Result<(), Refusal> {
    let text = String::from_utf8(contents.concat()).map_err(|_| Refusal::Wrong("it is no text".into()))?;
    let config = parse(&path, &text).map_err(|error| Refusal::Wrong(error.what))?;
    let encryption = Encryption::start(config, &random).await;
    let encryption = encryption.map_err(|error| Refusal::NotYet(broken(&path, &error).what))?;
    encryption
        .health()
        .map_err(|why| Refusal::NotYet(broken(&path, &why).what))?;
    sealing.replace(encryption);
    Ok(())
}

async fn load(path: &Path, text: &str, random: &Random) -> Result<Encryption> {
    let started = Encryption::start(parse(path, text)?, random).await;
    started.map_err(|error| broken(path, &error))
}

fn parse(path: &Path, text: &str) -> Result<EncryptionConfig> {
    EncryptionConfig::from_text(text).map_err(|error| broken(path, &error))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| broken(path, &words(&error)))
}

fn broken(path: &Path, why: &dyn std::fmt::Display) -> CliError {
    let what = format!("the encryption provider configuration {}: {why}", path.display());
    CliError::new(Kind::Usage, "ENCRYPTION_CONFIG", what)
        .hint("correct the file; the form is in https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use apiserver::metrics::ReloadMetrics;
    use base::{Clock, Shutdown};
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";

    fn flags(words: &[&str]) -> EncryptionFlags {
        match Cli::try_parse_from(["trireme", "server"].iter().chain(words))
            .unwrap()
            .command
        {
            Command::Server(server) => server.api_server.encryption,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, format!("{HEAD}- resources: [secrets]\n")).unwrap();
        let flag = |path: &Path| flags(&["--encryption-provider-config", &path.display().to_string()]);
        for (path, why) in [
            (&file, "resources[0].providers: Required value"),
            (&dir.path().join("none"), "No such file or directory"),
        ] {
            let error = flag(path).check().unwrap_err();
            assert!(error.id == "ENCRYPTION_CONFIG" && error.what.contains(why), "{error:?}");
        }
        assert!(
            !flags(&["--encryption-provider-config="])
                .anchored()
                .unwrap()
                .are_given()
        );
        assert!(Cli::try_parse_from(["trireme", "server", "--encryption-provider-config-automatic-reload"]).is_err());
    }

    #[tokio::test]
    async fn a_changed_file_is_taken_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        let write = |name: &str| {
            let key = format!("{{name: {name}, secret: AAAAAAAAAAAAAAAAAAAAAA==}}");
            let text = format!("{HEAD}- resources: [secrets]\n  providers: [{{aesgcm: {{keys: [{key}]}}}}]\n");
            std::fs::write(dir.path().join("next"), text).unwrap();
            std::fs::rename(dir.path().join("next"), &file).unwrap();
        };
        write("one");
        let (path, reload) = (
            file.display().to_string(),
            "--encryption-provider-config-automatic-reload",
        );
        let flags = flags(&["--encryption-provider-config", &path, reload]);
        let sealing = Arc::new(Sealing::default());
        let follow = Follow {
            metrics: ReloadMetrics::default(),
            clock: Clock::real(),
            shutdown: Shutdown::new(),
        };
        flags.start(&sealing, &Random::seeded(1), &follow).await.unwrap();
        let secrets = api::GroupResource {
            group: String::new(),
            resource: "secrets".into(),
        };
        let sealed_with = || sealing.seal(&secrets, b"/k", "{}".into()).unwrap().value;
        assert!(sealed_with().starts_with(b"k8s:enc:aesgcm:v1:one:"));
        std::fs::write(&file, "resources: [").unwrap();
        write("two");
        // Looked at again and again: who seals is told of a new file by nothing but what comes out.
        let taken = async {
            while !sealed_with().starts_with(b"k8s:enc:aesgcm:v1:two:") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), taken).await.unwrap();
        follow.shutdown.finish().await;
    }
}
