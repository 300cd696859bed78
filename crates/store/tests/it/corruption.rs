//! Whatever rots or is cut off in whichever file: the store opens with every acknowledged write, or it refuses and says
//! what to do. It never opens with less.
//!
//! Every bit and every length of a small store's files, a sample of a larger one's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::Random;
use base::disk::{Disk, OpenMode, SimDisk, read_all};
use store::{Driver, Embedded, EmbeddedOptions, Engine, KeyRange, OpenError, Record, Revision, Transaction, Tuning};
use tracing::{Level, Metadata, Subscriber, span};

use crate::support::{World, put, small};

const ROOT: &str = "/store";

/// The files of a store, and what was acknowledged in it.
struct Written {
    files: Vec<(PathBuf, Vec<u8>)>,
    revision: Revision,
    records: Vec<Arc<Record>>,
}

/// Counts what an operator would read.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicU64>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn options(world: &World, tuning: Tuning) -> EmbeddedOptions {
    EmbeddedOptions {
        driver: Driver::Task,
        tuning,
        ..world.options()
    }
}

/// Writes a store of several files and closes it, or kills its process.
async fn written(writes: u64, value_bytes: usize, tuning: Tuning, close: bool) -> Written {
    let world = World::new(1);
    let engine = Embedded::open(options(&world, tuning)).await.unwrap();
    for index in 0..writes {
        let key = format!("k{}", index % 5);
        // The last one's is not met anywhere else, and not a bit away from the filling of room.
        let letter = if index + 1 == writes { "q" } else { "x" };
        match index % 7 {
            6 => drop(
                engine
                    .commit(Transaction::new().operation(store::Operation::Delete(key.into())))
                    .await
                    .unwrap(),
            ),
            _ => drop(put(&engine, &key, &letter.repeat(value_bytes)).await),
        }
        // A snapshot is written beside the writes.
        tokio::task::yield_now().await;
    }
    let answer = engine.range(KeyRange::all(), None).await.unwrap();
    if !close {
        world.disk.crash();
    }
    engine.close().await;
    world.disk.process_restart();
    let names = world.disk.list(Path::new(ROOT)).unwrap();
    // What is unfinished, or kept for its space, is removed at opening.
    let lasting = names.into_iter().filter(|name| !name.ends_with(".tmp"));
    let files = lasting.map(|name| {
        let path = Path::new(ROOT).join(name);
        let file = world.disk.open(&path, OpenMode::Read).unwrap();
        let bytes = read_all(file.as_ref()).unwrap();
        (path, bytes)
    });
    Written {
        files: files.collect(),
        revision: answer.revision,
        records: answer.records,
    }
}

/// A disk with these files.
fn disk(files: &[(PathBuf, Vec<u8>)]) -> SimDisk {
    let disk = SimDisk::new(Random::seeded(1));
    for (path, bytes) in files {
        let mut file = disk.open(path, OpenMode::CreateNew).unwrap();
        file.append(bytes).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_directory(Path::new(ROOT)).unwrap();
    disk
}

#[derive(Default)]
struct Counts {
    refused: u64,
    warned: u64,
    unharmed: u64,
}

/// Opens damaged files.
async fn open(written: &Written, files: &[(PathBuf, Vec<u8>)], what: &str, counts: &mut Counts) {
    let world = World {
        disk: disk(files),
        ..World::new(2)
    };
    let warnings = Warnings::default();
    let guard = tracing::subscriber::set_default(warnings.clone());
    let opened = Embedded::open(options(&world, small())).await;
    drop(guard);
    match opened {
        Ok(engine) => {
            let answer = engine.range(KeyRange::all(), None).await.unwrap();
            assert_eq!(answer.revision, written.revision, "{what}: opened with fewer revisions");
            assert_eq!(answer.records, written.records, "{what}: opened with another content");
            if warnings.0.load(Ordering::Relaxed) > 0 {
                counts.warned += 1;
            } else {
                counts.unharmed += 1;
            }
            engine.close().await;
        }
        Err(error @ OpenError::Corrupt { .. }) => {
            let text = error.to_string();
            assert!(
                text.contains("Nothing was changed") && text.contains("trireme restore"),
                "{what}: {text}"
            );
            // It said so: what was there is there.
            for (path, bytes) in files {
                let file = world.disk.open(path, OpenMode::Read).unwrap();
                assert!(
                    read_all(file.as_ref()).unwrap() == *bytes,
                    "{what}: {} was changed",
                    path.display()
                );
            }
            counts.refused += 1;
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Damages one file at a time: flips the bits that `flips` names, cuts it to the lengths that `cuts` names, removes it.
async fn damage(written: &Written, flips: impl Fn(usize) -> Vec<usize>, cuts: impl Fn(usize) -> Vec<usize>) -> Counts {
    let mut counts = Counts::default();
    open(written, &written.files, "undamaged", &mut counts).await;
    assert_eq!(counts.unharmed, 1);
    for index in 0..written.files.len() {
        let (path, bytes) = &written.files[index];
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut files = written.files.clone();
        for bit in flips(bytes.len() * 8) {
            files[index].1[bit / 8] ^= 1 << (bit % 8);
            open(written, &files, &format!("{name} with bit {bit} flipped"), &mut counts).await;
            files[index].1[bit / 8] ^= 1 << (bit % 8);
        }
        for length in cuts(bytes.len()) {
            files[index].1 = bytes[..length].to_vec();
            open(written, &files, &format!("{name} cut to {length}"), &mut counts).await;
        }
        files.remove(index);
        open(written, &files, &format!("without {name}"), &mut counts).await;
    }
    counts
}

/// So small that a dozen writes make segments and a snapshot.
fn tiny() -> Tuning {
    Tuning {
        segment_bytes: 160,
        log_floor_bytes: 640,
        snapshot_block_bytes: 64,
        history_window_ms: 1,
        ..small()
    }
}

fn has(written: &Written, suffix: &str) -> usize {
    let of = |(path, _): &&(PathBuf, Vec<u8>)| path.to_string_lossy().ends_with(suffix);
    written.files.iter().filter(of).count()
}

/// The newest segment, when it is in the file of an older one.
fn reused(written: &Written) -> Option<usize> {
    let log = |(path, _): &(PathBuf, Vec<u8>)| path.to_string_lossy().ends_with(".log");
    let newest = written.files.iter().rposition(log)?;
    (written.files[newest].1[12] & 0x20 != 0).then_some(newest)
}

#[tokio::test(start_paused = true)]
async fn every_bit_and_every_length_of_a_small_store() {
    for close in [true, false] {
        let mut writes = 12;
        let written = loop {
            let written = written(writes, 12, tiny(), close).await;
            if has(&written, ".log") > 1 && has(&written, ".snapshot") == 1 && reused(&written).is_some() {
                break written;
            }
            writes += 1;
            assert!(writes < 100, "no files of every kind");
        };
        assert_eq!(has(&written, "MARKS"), 1);
        let counts = damage(&written, |bits| (0..bits).collect(), |length| (0..length).collect()).await;
        println!(
            "refused {}, warned {}, unharmed {}",
            counts.refused, counts.warned, counts.unharmed
        );
        assert!(counts.refused > 1000 && counts.warned > 0);
    }
}

const VALUE_BYTES: usize = 50;
/// A frame's head, a record's fields, and a put of a key of two bytes.
const RECORD_BYTES: usize = 8 + 28 + 27 + VALUE_BYTES;
const GRID_BYTES: usize = 4096;

/// Where the last record of a segment is, when it is a put and in one step of the grid, without a tag.
fn last_put(segment: &[u8]) -> Option<(usize, usize)> {
    let end = segment.iter().rposition(|byte| *byte == b'q')? + 1;
    let start = end.checked_sub(RECORD_BYTES)?;
    let whole = segment[end - VALUE_BYTES..end].iter().all(|byte| *byte == b'q');
    (whole && start / GRID_BYTES == (end - 1) / GRID_BYTES).then_some((start, end))
}

/// The process died right after it had acknowledged a batch: no mark names that one, and nothing follows it. Whatever of it
/// has rotted, it is not taken for one that was never synced.
#[tokio::test(start_paused = true)]
async fn every_bit_of_a_last_batch_that_nothing_names() {
    let tuning = Tuning {
        segment_bytes: 4 * GRID_BYTES as u64,
        ..small()
    };
    let mut written = written(10, VALUE_BYTES, tuning, false).await;
    written.files.retain(|(path, _)| !path.ends_with("MARKS"));
    assert_eq!(has(&written, ".log"), 1, "one segment");
    damage_last_put(&written, 0, 4).await;
}

/// The same where the batch was written over what an older segment left.
#[tokio::test(start_paused = true)]
async fn every_bit_of_a_last_batch_in_a_file_that_is_used_again() {
    let tuning = Tuning {
        segment_bytes: 4 * GRID_BYTES as u64,
        log_floor_bytes: 8 * GRID_BYTES as u64,
        ..small()
    };
    let mut writes = 300;
    let (written, log) = loop {
        let mut written = written(writes, VALUE_BYTES, tuning, false).await;
        written.files.retain(|(path, _)| !path.ends_with("MARKS"));
        match reused(&written) {
            Some(log) if last_put(&written.files[log].1).is_some() => break (written, log),
            _ => writes += 1,
        }
        assert!(writes < 2000, "no file is used again");
    };
    // What an old segment left in a sector can rot without a word, when it is not the sector's end.
    damage_last_put(&written, log, 3).await;
}

/// `told`: of four places in the room behind it, those whose rot has to be told.
async fn damage_last_put(written: &Written, log: usize, told: u64) {
    let whole = written.files[log].1.clone();
    let (start, end) = last_put(&whole).expect("the last write is a put");
    let mut counts = Counts::default();
    open(written, &written.files, "undamaged", &mut counts).await;
    assert_eq!((counts.unharmed, whole.len() % GRID_BYTES), (1, 0));
    let mut damaged = Vec::new();
    for bit in start * 8..end * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        damaged.push((format!("bit {bit}"), bytes));
    }
    for length in start..end + 1 {
        damaged.push((format!("cut to {length}"), whole[..length].to_vec()));
        // Zeros from the beginning of the batch, or of its length.
        let mut bytes = whole.clone();
        bytes[start..length.max(start + 4)].fill(0);
        damaged.push((format!("zeros to {length}"), bytes));
    }
    let times = damaged.len() as u64;
    for (what, bytes) in damaged {
        let mut files = written.files.clone();
        files[log].1 = bytes;
        open(written, &files, &what, &mut counts).await;
    }
    assert_eq!((counts.refused, counts.warned), (times, 0));
    // What rots in the room behind it harms nothing, and is told.
    for place in [end, end + 1, end + 600, whole.len() - 1] {
        let mut files = written.files.clone();
        files[log].1[place] ^= 8;
        open(written, &files, &format!("room at {place}"), &mut counts).await;
    }
    assert_eq!(counts.refused, times);
    assert!(counts.warned >= told, "{}", counts.warned);
}

#[tokio::test(start_paused = true)]
async fn a_sample_of_a_larger_store() {
    for close in [true, false] {
        let written = written(400, 300, small(), close).await;
        assert!(has(&written, ".log") > 1 && has(&written, ".snapshot") == 1);
        let random = Random::seeded(7);
        let sample = |most: usize, times: usize| (0..times.min(most)).map(|_| random.index(most)).collect();
        let counts = damage(&written, |bits| sample(bits, 120), |length| sample(length, 40)).await;
        println!(
            "refused {}, warned {}, unharmed {}",
            counts.refused, counts.warned, counts.unharmed
        );
        assert!(counts.refused > 100);
    }
}
