//! `trireme migrate`: the cluster's state into an etcd, or from there into the embedded store.
//!
//! Invariants: the source is only read; at no moment can control planes be started on both sides; what was interrupted is
//! begun again by the same command.

use std::time::Duration;

use base::Clock;
use serde_json::Value;
use store::{
    Begun, Contents, Digest, Embedded, EmbeddedOptions, Engine, Etcd, EtcdOptions, KeyRange, MigrateError, OpenError,
    ToEtcd, revision_after, to_embedded,
};

use crate::cli::{EtcdFlags, Migrate, MigrateTo};
use crate::errors::{CliError, Kind, Result};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::server::backing::{self, refused_etcd};
use crate::settings::Settings;
use crate::state_home::{EtcdName, Home, StateHome};

use super::store_place::{self, Place};

/// What the keys of all kinds begin with.
const ROOT: &str = "/registry";
/// Keys of the API server that are of no kind: a store's own, which an etcd has no use for.
const OWN: &[u8] = b"/trireme/";

/// Moves the state.
pub async fn run(arguments: Migrate, layout: &Layout, quiet: bool) -> Result {
    let settings = Settings::read(layout)?;
    let of_up = settings.as_ref().and_then(|settings| settings.etcd.clone());
    let flags = Some(arguments.etcd).filter(EtcdFlags::are_given).or(of_up);
    let Some((flags, Some(mut etcd))) = flags
        .map(|flags| Ok((flags.anchored()?, flags.options()?)))
        .transpose()?
    else {
        return Err(CliError::new(Kind::Usage, "USAGE", "the etcd is not named").hint("--etcd-servers URL,..."));
    };
    // Nobody's history is forgotten by this.
    etcd.compaction_interval = None;
    store_place::refuse_running(layout)?;
    match arguments.to {
        MigrateTo::Etcd if arguments.replace => Err(CliError::new(
            Kind::Usage,
            "USAGE",
            "--replace is for --to embedded: an etcd has to be empty",
        )
        .hint("choose another --etcd-prefix, or empty this one: etcdctl del --prefix ...")),
        MigrateTo::Etcd => into_etcd(etcd, layout, quiet).await,
        MigrateTo::Embedded => into_embedded(etcd, arguments.replace, layout, quiet).await,
    }?;
    // The next `up` finds the state where it is now.
    let Some(mut settings) = settings else { return Ok(()) };
    settings.etcd = (arguments.to == MigrateTo::Etcd).then_some(flags);
    settings.write(layout)
}

async fn into_etcd(etcd: EtcdOptions, layout: &Layout, quiet: bool) -> Result {
    let mut progress = Progress::start(quiet);
    let name = EtcdName::from(&etcd);
    let before = StateHome::read(layout)?;
    let moved_before = before.is_some_and(|before| before.home == Home::Etcd);
    let place = layout.store();
    if !store_place::holds_files(&place)? {
        let what = format!("there is no store in {}", place.display());
        return Err(CliError::new(Kind::Missing, "NO_STORE", what).hint("is it in another directory? --dir DIR"));
    }
    // Open, it is locked: no control plane starts on it meanwhile.
    let source = match Embedded::open(EmbeddedOptions::new(&place)).await {
        Ok(source) => source,
        Err(error @ OpenError::Locked(_)) => return Err(store_place::running(&error.to_string())),
        Err(error) => {
            let what = format!("the store in {}: {error}", place.display());
            return Err(CliError::new(Kind::Machine, "STORE", what).hint(
                "nothing was changed; does the cluster start on it? put a backup in its place: trireme restore",
            ));
        }
    };
    let contents = read(&source).await?;
    let mut foreign = contents.outside().iter().filter(|key| !key.starts_with(OWN));
    if let Some(first) = foreign.next() {
        let what = format!(
            "{} keys outside of {ROOT}/ were written through etcd's API, such as {:?}",
            foreign.count() + 1,
            String::from_utf8_lossy(first)
        );
        return Err(CliError::new(Kind::Usage, "FOREIGN_KEYS", what)
            .hint("they would be left behind: copy them with etcdctl, and delete them here"));
    }
    let (revision, above) = (
        contents.revision,
        revision_after(contents.revision, Clock::real().now_ms()),
    );
    progress.done(&format!(
        "{} keys read at revision {revision}",
        contents.records().len()
    ));
    let begun = ToEtcd::begin(etcd, source.store_id(), contents, above, moved_before).await;
    let moving = match begun.map_err(refused)? {
        Begun::Open(moving) => moving,
        Begun::Done(revision) if moved_before => {
            progress.done(&format!("it is there already, at revision {revision}"));
            return Ok(());
        }
        Begun::Done(_) => {
            let what = "this store was moved into this etcd before, and what is there may be newer";
            return Err(CliError::new(Kind::Usage, "NOT_EMPTY", what)
                .hint("choose another --etcd-prefix, or empty this one: etcdctl del --prefix ..."));
        }
    };
    let written = moving.copy().await.map_err(refused)?;
    progress.done(&format!("{written} keys written"));
    let digest = moving.verify().await.map_err(refused)?;
    progress.done("read back: all of them are as they were");
    // From here on nothing starts on the embedded store, and on the etcd only after the next step.
    StateHome::new(Home::Etcd, Some(name.clone())).write(layout)?;
    let revision = moving.finish().await.map_err(refused)?;
    progress.done(&format!("done, revisions go on at {revision}"));
    source.close().await;
    tell(&digest, quiet);
    if !quiet {
        eprintln!("  the embedded store is kept as it was: {}", place.display());
        eprintln!(
            "  start: trireme server --etcd-servers {} --etcd-prefix {}",
            name.servers.join(","),
            name.prefix
        );
    }
    Ok(())
}

async fn into_embedded(etcd: EtcdOptions, replace: bool, layout: &Layout, quiet: bool) -> Result {
    let mut progress = Progress::start(quiet);
    let name = EtcdName::from(&etcd);
    if StateHome::read(layout)?.is_some_and(|before| before.home == Home::Embedded) {
        let what = "the state of this cluster is in the embedded store; the etcd holds what was before";
        return Err(CliError::new(Kind::Usage, "STATE_MOVED", what).hint(format!(
            "when another cluster's etcd is meant, remove {}",
            layout.state_home().display()
        )));
    }
    let source = Etcd::open(etcd).await.map_err(|error| refused_etcd(&error))?;
    refuse_leader(&source).await?;
    let contents = read(&source).await?;
    if contents.records().is_empty() {
        let what = format!("there is nothing below {} in that etcd", name.prefix);
        return Err(CliError::new(Kind::Usage, "NO_STATE", what).hint("is it another --etcd-prefix?"));
    }
    let place = Place::claim(layout, replace, "put the state in its place").await?;
    place.tell_unreadable(quiet);
    let beside = place.beside("migrating")?;
    let options = EmbeddedOptions::new(&beside);
    let made = async {
        let moved = to_embedded(&contents, options, place.newest_revision).await?;
        contents.check_unchanged(&source).await.map(|()| moved)
    };
    let moved = match made.await {
        Ok(moved) => moved,
        Err(error) => {
            // It is no store, and the next attempt would remove it, too.
            let _ = std::fs::remove_dir_all(&beside);
            return Err(refused(error));
        }
    };
    progress.done(&format!(
        "{} keys read at revision {} and compared",
        moved.digest.lasting + moved.digest.expiring,
        moved.revision
    ));
    let aside = place.take(&beside).await?;
    StateHome::new(Home::Embedded, Some(name)).write(layout)?;
    progress.done(&format!("in place, revisions go on at {}", moved.new_revision));
    tell(&moved.digest, quiet);
    if !quiet {
        if let Some(aside) = aside {
            eprintln!("  the store that was there is kept: {}", aside.display());
        }
        eprintln!("  the etcd is as it was: start no server on it any more");
    }
    Ok(())
}

async fn read(source: &dyn Engine) -> Result<Contents> {
    let contents = Contents::read(source, ROOT).await;
    contents.map_err(|error| refused(error.into()))
}

fn tell(digest: &Digest, quiet: bool) {
    if quiet {
        return;
    }
    let sum: String = digest.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    eprintln!(
        "  {} keys and {} that expire, {} bytes, sha256 {sum}",
        digest.lasting, digest.expiring, digest.bytes
    );
}

/// Refuses when a control plane leads on this etcd. One that does not lead writes, too, sooner or later: that is found when
/// the etcd is read for the second time.
async fn refuse_leader(source: &Etcd) -> Result {
    let (namespace, name) = backing::LEADER_LEASE;
    let range = KeyRange::prefix(format!("{ROOT}/leases/{namespace}/{name}").as_bytes());
    let found = source.range(range, None).await.map_err(|error| refused(error.into()))?;
    let lease = found
        .records
        .first()
        .map(|record| serde_json::from_slice::<Value>(&record.value));
    let Some(Ok(lease)) = lease else { return Ok(()) };
    let Some(left) = held_for(&lease, Clock::real().now_ms()) else {
        return Ok(());
    };
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    Err(
        store_place::running(&format!("a control plane leads on this etcd ({holder})")).hint(format!(
            "end all servers that use it; one that was killed counts for {} s more",
            left.as_secs() + 1
        )),
    )
}

/// For how long a Lease is held; none: it is not.
fn held_for(lease: &Value, now_ms: i64) -> Option<Duration> {
    let spec = &lease["spec"];
    spec["holderIdentity"].as_str().filter(|holder| !holder.is_empty())?;
    let renewed: jiff::Timestamp = spec["renewTime"].as_str()?.parse().ok()?;
    let end_ms = renewed.as_millisecond() + spec["leaseDurationSeconds"].as_i64()? * 1000;
    let left_ms = u64::try_from(end_ms - now_ms).ok().filter(|left| *left > 0)?;
    Some(Duration::from_millis(left_ms))
}

/// The words for a migration that did not happen.
fn refused(error: MigrateError) -> CliError {
    let again = "the source is as it was; call the same command again";
    let (kind, id, hint) = match &error {
        MigrateError::NotEmpty(_) => (
            Kind::Usage,
            "NOT_EMPTY",
            "choose another --etcd-prefix, or empty this one: etcdctl del --prefix ...",
        ),
        MigrateError::AnotherStore => (
            Kind::Usage,
            "NOT_EMPTY",
            "finish that one, choose another --etcd-prefix, or empty this one: etcdctl del --prefix ...",
        ),
        MigrateError::NotThere => (
            Kind::Usage,
            "STATE_MOVED",
            "the embedded store holds what was before: move the state back first, trireme migrate --to embedded",
        ),
        MigrateError::TakenOver => (Kind::Usage, "TAKEN_OVER", "let that one finish"),
        MigrateError::Different(_) => (
            Kind::Machine,
            "DIFFERENT",
            "the source is as it was; end what writes to the etcd, and call the same command again",
        ),
        MigrateError::Written(_) => (
            Kind::Usage,
            "RUNNING",
            "end all servers that use it, and call the same command again",
        ),
        MigrateError::TooLarge { .. } => (
            Kind::Machine,
            "TOO_LARGE",
            "start etcd with a higher --max-request-bytes, and call the same command again",
        ),
        MigrateError::Full => (
            Kind::Machine,
            "ETCD_FULL",
            "start etcd with a higher --quota-backend-bytes, disarm its alarm, and call the same command again",
        ),
        MigrateError::Etcd(error) => return refused_etcd(error),
        MigrateError::Engine(_) | MigrateError::Import(_) | MigrateError::Open(_) => {
            (Kind::Machine, "MIGRATION_FAILED", again)
        }
    };
    CliError::new(kind, id, error.to_string()).hint(hint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lease_is_held_until_it_ends() {
        let now: jiff::Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        for (holder, renewed, left) in [
            ("a", "2026-01-01T00:00:00.000000Z", Some(5)),
            ("a", "2026-01-01T00:00:10.000000Z", Some(15)),
            ("a", "2025-12-31T23:59:55.000000Z", None),
            ("", "2026-01-01T00:00:10.000000Z", None),
            ("a", "yesterday", None),
        ] {
            let lease = json!({"spec": {
                "holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15
            }});
            let found = held_for(&lease, now.as_millisecond()).map(|left| left.as_secs());
            assert_eq!(found, left, "{holder} {renewed}");
        }
        assert_eq!(held_for(&json!({}), 0), None);
    }
}
