//! A store of a million objects: that it opens, and what it takes of memory for that. How long it takes is not looked at.
//!
//! A process of its own opens it (this program once more, as in `kill.rs`): memory is a process's.

use std::path::Path;
use std::process::Command;

use store::{Embedded, EmbeddedOptions, Engine as _, ImportedState, KeyRange, Record, Stamp};

const DIRECTORY: &str = "STORE_MILLION_TEST_DIRECTORY";
const RECORDS: u64 = 1_000_000;
const VALUE_BYTES: u64 = 100;
/// What a record may take beside its key and value: itself, its parts' allocations, its share of the map.
const BESIDE_A_RECORD_BYTES_MAX: u64 = 256;
/// What else opening may take at any time: blocks of files on their way, and the program itself, as tests are built. It took
/// 342 MiB in all when this was written, of 430; a snapshot that is held whole is 170 more.
const BESIDE_ALL_BYTES_MAX: u64 = 64 * 1024 * 1024;

fn key(number: u64) -> String {
    format!("/registry/pods/default/{number:07}")
}

fn bound() -> u64 {
    RECORDS * (key(0).len() as u64 + VALUE_BYTES + BESIDE_A_RECORD_BYTES_MAX) + BESIDE_ALL_BYTES_MAX
}

/// Opens the store, and says the most that this took.
#[tokio::test]
async fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let engine = Embedded::open(EmbeddedOptions::new(Path::new(&directory)))
        .await
        .unwrap();
    let last = KeyRange::prefix(key(RECORDS - 1).as_bytes());
    assert_eq!(engine.range(last, None).await.unwrap().records.len(), 1);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let highest = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    println!("\n{highest}");
    engine.close().await;
}

#[tokio::test]
async fn it_opens_within_its_bound() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let value = bytes::Bytes::from(vec![b'x'; VALUE_BYTES as usize]);
    let records = (0..RECORDS).map(move |number| {
        Ok(Record {
            key: key(number).into(),
            value: value.clone(),
            create_revision: number + 1,
            mod_revision: number + 1,
            version: 1,
            stamp: Stamp::default(),
            expires_at_ms: None,
        })
    });
    let state = ImportedState {
        revision: RECORDS,
        raise_by: 0,
    };
    Embedded::import(EmbeddedOptions::new(&store), state, records)
        .await
        .unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "million::child", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, &store)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout);
    let highest = told.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = highest.trim().trim_end_matches(" kB").trim().parse().unwrap();
    println!("{} of {} MiB", kilobytes / 1024, bound() >> 20);
    assert!(
        kilobytes * 1024 <= bound(),
        "{} MiB, and {} MiB are its bound",
        kilobytes / 1024,
        bound() >> 20
    );
}
