//! The simulated disk keeps its promises, and nothing else.

use super::*;
use crate::disk::read_all;

const ROOT: &str = "/d";

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn contents(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    Some(read_all(disk.open(&path(name), OpenMode::Read).ok()?.as_ref()).unwrap())
}

/// Runs `work` under many seeds and returns the states of `name` that were seen after the loss of power.
fn outcomes(name: &str, work: impl Fn(&SimDisk)) -> HashSet<Option<Vec<u8>>> {
    let after = |seed| {
        let disk = SimDisk::new(Random::seeded(seed));
        work(&disk);
        disk.power_loss();
        contents(&disk, name)
    };
    (0..200).map(after).collect()
}

#[test]
fn synced_content_under_a_synced_name_survives() {
    let seen = outcomes("a", |disk| {
        let mut file = disk.open(&path("a"), OpenMode::CreateNew).unwrap();
        file.append(b"kept").unwrap();
        file.sync_data().unwrap();
        disk.sync_directory(Path::new(ROOT)).unwrap();
        file.append(b"+").unwrap();
    });
    assert_eq!(seen, HashSet::from([Some(b"kept".to_vec()), Some(b"kept+".to_vec())]));
}

#[test]
fn an_unsynced_name_may_vanish() {
    let seen = outcomes("a", |disk| {
        let mut file = disk.open(&path("a"), OpenMode::CreateNew).unwrap();
        file.append(b"kept").unwrap();
        file.sync_data().unwrap();
    });
    assert_eq!(seen, HashSet::from([Some(b"kept".to_vec()), None]));
}

#[test]
fn an_unsynced_rename_is_old_or_new() {
    let work = |disk: &SimDisk| {
        for (name, content) in [("a", b"old"), ("b", b"new")] {
            let mut file = disk.open(&path(name), OpenMode::CreateNew).unwrap();
            file.append(content).unwrap();
            file.sync_data().unwrap();
        }
        disk.sync_directory(Path::new(ROOT)).unwrap();
        disk.rename(&path("b"), &path("a")).unwrap();
    };
    assert_eq!(
        outcomes("a", work),
        HashSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())])
    );
}

#[test]
fn unsynced_writes_tear_within_and_between_sectors() {
    let seen = outcomes("a", |disk| {
        let mut file = disk.open(&path("a"), OpenMode::CreateNew).unwrap();
        disk.sync_directory(Path::new(ROOT)).unwrap();
        file.append(&[1; 3 * SECTOR_BYTES]).unwrap();
    });
    let lengths: HashSet<_> = seen.iter().flatten().map(Vec::len).collect();
    assert!(lengths.contains(&0) && lengths.contains(&(3 * SECTOR_BYTES)));
    assert!(lengths.iter().any(|length| length % SECTOR_BYTES != 0), "{lengths:?}");
    let holes = |bytes: &Vec<u8>| bytes.contains(&0) && bytes.last() == Some(&1);
    assert!(
        seen.iter().flatten().any(holes),
        "a later sector survives without an earlier one"
    );
}

#[test]
fn room_is_filled_by_appends_and_tears_as_they_do() {
    let seen = outcomes("a", |disk| {
        let mut file = disk.open(&path("a"), OpenMode::CreateNew).unwrap();
        disk.sync_directory(Path::new(ROOT)).unwrap();
        file.append(b"kept").unwrap();
        file.make_room(4, b"####").unwrap();
        file.sync_data().unwrap();
        assert_eq!(contents(disk, "a").unwrap(), b"kept####");
        file.append(b"12").unwrap();
        assert_eq!(contents(disk, "a").unwrap(), b"kept12##");
    });
    let expect = [&b"kept####"[..], b"kept1###", b"kept12##"].map(|bytes| Some(bytes.to_vec()));
    assert_eq!(seen, HashSet::from(expect));
}

#[test]
fn a_failed_sync_is_not_healed_by_the_next() {
    let seen = outcomes("a", |disk| {
        let mut file = disk.open(&path("a"), OpenMode::CreateNew).unwrap();
        disk.sync_directory(Path::new(ROOT)).unwrap();
        file.append(b"x").unwrap();
        disk.set_faults(Faults {
            sync_error: 1.0,
            ..Faults::default()
        });
        file.sync_data().unwrap_err();
        disk.set_faults(Faults::default());
        file.sync_data().unwrap();
        assert_eq!(contents(disk, "a").unwrap(), b"x");
    });
    assert!(seen.contains(&Some(b"x".to_vec())));
    assert!(seen.contains(&Some(Vec::new())), "{seen:?}");
}

#[test]
fn a_lying_sync_loses() {
    let seen = outcomes("a", |disk| {
        disk.set_faults(Faults {
            syncs_lie: true,
            ..Faults::default()
        });
        let mut file = disk.open(&path("a"), OpenMode::CreateNew).unwrap();
        disk.sync_directory(Path::new(ROOT)).unwrap();
        file.append(b"x").unwrap();
        file.sync_data().unwrap();
    });
    assert!(seen.contains(&Some(Vec::new())));
}

#[test]
fn a_crash_stops_everything_until_the_restart() {
    let disk = SimDisk::new(Random::seeded(1));
    let mut file = disk.open(&path("a"), OpenMode::CreateNew).unwrap();
    let _lock = disk.lock(&path("LOCK")).unwrap();
    assert!(disk.lock(&path("LOCK")).is_err());
    disk.crash_at(disk.operations() + 2);
    file.append(b"one").unwrap();
    file.append(b"two").unwrap_err();
    assert!(disk.is_crashed());
    file.sync_data().unwrap_err();
    assert!(disk.list(Path::new(ROOT)).is_err());
    disk.process_restart();
    file.append(b"ghost").unwrap_err();
    let content = contents(&disk, "a").unwrap();
    assert!(b"onetwo".starts_with(&content) && content.len() >= 3, "{content:?}");
    disk.lock(&path("LOCK")).unwrap();
}

#[test]
fn a_full_disk_says_so() {
    let disk = SimDisk::new(Random::seeded(1));
    disk.set_faults(Faults {
        capacity_bytes: Some(4),
        ..Faults::default()
    });
    let mut file = disk.open(&path("a"), OpenMode::CreateNew).unwrap();
    file.append(b"1234").unwrap();
    assert_eq!(disk.free_bytes(Path::new(ROOT)).unwrap(), 0);
    assert_eq!(file.append(b"5").unwrap_err().kind(), ErrorKind::StorageFull);
}

#[test]
fn removed_files_are_freed_when_nobody_can_see_them_any_more() {
    let disk = SimDisk::new(Random::seeded(1));
    let file = disk.open(&path("a"), OpenMode::CreateNew).unwrap();
    let inodes = || disk.state.lock().inodes.len();
    disk.sync_directory(Path::new(ROOT)).unwrap();
    disk.remove(&path("a")).unwrap();
    disk.sync_directory(Path::new(ROOT)).unwrap();
    assert_eq!(inodes(), 1);
    assert_eq!(file.length().unwrap(), 0);
    drop(file);
    disk.sync_directory(Path::new(ROOT)).unwrap();
    assert_eq!(inodes(), 0);
}
