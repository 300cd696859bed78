//! What backup, restore, migration and `history` stand on: whole states read and made, and the past of one key.

use std::io;
use std::sync::Arc;

use base::disk::{Disk, SimDisk};
use store::{
    Embedded, EmbeddedOptions, Engine, EngineError, ImportError, ImportedState, OpenError, Operation, Record, Revision,
    Stamp, Transaction, key_history,
};

use crate::support::{World, put};

/// A state, read in parts of some bytes.
async fn read(engine: &dyn Engine, revision: Option<Revision>, bytes_min: usize) -> (Revision, Vec<Arc<Record>>) {
    let mut reader = engine.state(revision).await.unwrap();
    let mut records = Vec::new();
    loop {
        let part = reader.next(bytes_min).await.unwrap();
        if part.is_empty() {
            return (reader.revision(), records);
        }
        records.extend(part);
    }
}

async fn import(world: &World, state: ImportedState, records: &[Arc<Record>]) -> Result<Revision, ImportError> {
    let records: Vec<io::Result<Record>> = records.iter().map(|record| Ok(Record::clone(record))).collect();
    Embedded::import(world.options(), state, records.into_iter()).await
}

#[tokio::test(start_paused = true)]
async fn a_state_is_read_in_parts_while_others_write() {
    let world = World::new(1);
    let engine = world.open().await.unwrap();
    for index in 0..60 {
        put(&*engine, &format!("k{index:02}"), "1").await;
    }
    let mut reader = engine.state(Some(50)).await.unwrap();
    let first = reader.next(30).await.unwrap();
    assert!(!first.is_empty() && first.len() < 50);
    for index in 0..60 {
        put(&*engine, &format!("k{index:02}"), "2").await;
    }
    engine.compact(120).await.unwrap();
    let mut records = first;
    while let part @ [_, ..] = &*reader.next(30).await.unwrap() {
        records.extend_from_slice(part);
    }
    let seen: Vec<_> = records
        .iter()
        .map(|record| (record.mod_revision, &*record.value))
        .collect();
    let expect: Vec<_> = (1..=50).map(|revision| (revision, &b"1"[..])).collect();
    assert_eq!((reader.revision(), seen), (50, expect));
    assert_eq!(
        engine.state(Some(50)).await.err(),
        Some(EngineError::Compacted { oldest: 120 })
    );
    assert_eq!(
        engine.state(Some(121)).await.err(),
        Some(EngineError::Future { newest: 120 })
    );
}

#[tokio::test(start_paused = true)]
async fn an_imported_state_is_the_same_one_raised() {
    let source = World::new(2);
    let engine = source.open().await.unwrap();
    let stamp = Stamp {
        sealing_key: 3,
        schema_epoch: 4,
    };
    let sealed = Operation::Put(store::Put {
        key: "sealed".into(),
        value: "v".into(),
        expires_at_ms: Some(i64::MAX),
        stamp,
    });
    engine.commit(Transaction::new().operation(sealed)).await.unwrap();
    for index in 0..300 {
        put(&*engine, &format!("k{}", index % 70), &"x".repeat(index % 50)).await;
    }
    let (revision, records) = read(&*engine, None, 700).await;
    assert_eq!((revision, records.len()), (301, 71));
    for raise_by in [0, 1_000_000] {
        let world = World::new(3);
        let begins = import(&world, ImportedState { revision, raise_by }, &records)
            .await
            .unwrap();
        assert_eq!(begins, 301 + raise_by);
        let engine = world.open().await.unwrap();
        let expect: Vec<Record> = records
            .iter()
            .map(|record| Record {
                create_revision: record.create_revision + raise_by,
                mod_revision: record.mod_revision + raise_by,
                ..Record::clone(record)
            })
            .collect();
        let (at, found) = read(&*engine, None, usize::MAX).await;
        assert!(at == begins && found.iter().map(|record| &**record).eq(&expect));
        // Whoever watched the old store has to begin anew.
        assert_eq!(
            engine.stream(begins - 1).await.err(),
            Some(EngineError::Compacted { oldest: begins })
        );
        assert_eq!(put(&*engine, "k", "new").await, begins + 1);
        engine.close().await;
        let again = world.open().await.unwrap();
        assert_eq!(
            (again.revision_offset(), again.progress().await.unwrap().revision),
            (raise_by, begins + 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_state_is_not_imported() {
    let record = |key: &'static str, mod_revision| {
        Arc::new(Record {
            key: key.into(),
            value: "v".into(),
            create_revision: 1,
            mod_revision,
            version: 1,
            stamp: Stamp::default(),
            expires_at_ms: None,
        })
    };
    let state = ImportedState {
        revision: 5,
        raise_by: 0,
    };
    for records in [
        vec![record("b", 1), record("a", 2)],
        vec![record("a", 1), record("a", 2)],
        vec![record("a", 6)],
        vec![record("a", 0)],
    ] {
        let world = World::new(4);
        let refused = import(&world, state, &records).await;
        assert!(matches!(refused, Err(ImportError::Misplaced(_))), "{refused:?}");
    }
    let world = World::new(5);
    let broken = [
        Ok(Record::clone(&record("a", 1))),
        Err(io::Error::other("the backup ends")),
    ];
    let refused = Embedded::import(world.options(), state, broken.into_iter()).await;
    assert!(matches!(refused, Err(ImportError::Io(_))), "{refused:?}");
    // What it left is no store, and no place for one.
    assert!(matches!(
        import(&world, state, &[]).await,
        Err(ImportError::NotEmpty(_))
    ));
    let world = World::new(6);
    world.open().await.unwrap().close().await;
    assert!(matches!(
        import(&world, state, &[]).await,
        Err(ImportError::NotEmpty(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn an_import_that_is_cut_short_is_no_store() {
    let (mut operations, mut whole) = (1, false);
    while !whole {
        let world = World::new(operations);
        world.disk.crash_at(operations);
        let record = Record {
            key: "k".into(),
            value: "v".into(),
            create_revision: 1,
            mod_revision: 2,
            version: 2,
            stamp: Stamp::default(),
            expires_at_ms: None,
        };
        let state = ImportedState {
            revision: 7,
            raise_by: 10,
        };
        let imported = import(&world, state, &[Arc::new(record)]).await.is_ok();
        whole = !world.disk.is_crashed();
        world.disk.power_loss();
        match world.open().await {
            Ok(engine) => {
                let empty = engine.progress().await.unwrap().revision == 0;
                assert!(!empty || !imported, "operation {operations}");
                let (revision, records) = read(&*engine, None, 1).await;
                assert!(
                    empty && records.is_empty() || (revision, records.len()) == (17, 1),
                    "{revision}"
                );
            }
            Err(OpenError::Corrupt { .. }) => assert!(!imported),
            Err(error) => panic!("{error}"),
        }
        operations += 1;
    }
    assert!(operations > 8);
}

#[tokio::test(start_paused = true)]
async fn the_history_of_a_key() {
    let world = World::new(7);
    let engine = world.open().await.unwrap();
    for index in 1..=20 {
        let key = ["a", "b"][index % 2];
        put(&*engine, key, &format!("{index}")).await;
    }
    engine.commit(Transaction::delete("a", 20)).await.unwrap();
    engine.compact(15).await.unwrap();
    let history = key_history(&*engine, &"a".into()).await.unwrap();
    assert_eq!((history.oldest, history.newest), (15, 21));
    assert_eq!(history.at_oldest.unwrap().value.as_ref(), b"14");
    let text = |change: &store::KeyChange| {
        let after = change
            .after
            .as_ref()
            .map(|after| String::from_utf8_lossy(&after.value).into_owned());
        (change.revision, after)
    };
    let changes: Vec<_> = history.changes.iter().map(text).collect();
    let expect = [(16, Some("16")), (18, Some("18")), (20, Some("20")), (21, None)];
    assert_eq!(
        changes,
        expect.map(|(revision, after)| (revision, after.map(str::to_owned)))
    );
    let unknown = key_history(&*engine, &"unknown".into()).await.unwrap();
    assert!(unknown.at_oldest.is_none() && unknown.changes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_log_whose_end_is_gone_is_refused() {
    let world = World::new(8);
    let engine = world.open().await.unwrap();
    for index in 0..3 {
        put(&*engine, "k", &format!("{index}")).await;
    }
    world.disk.crash();
    engine.close().await;
    world.disk.process_restart();
    let names = world.disk.list("/store".as_ref()).unwrap();
    let segment = names.iter().find(|name| name.ends_with(".log")).unwrap();
    let path = std::path::Path::new("/store").join(segment);
    let refused_of = async |what: &str| {
        let refused = world.open().await.err().map(|error| error.to_string()).unwrap();
        assert!(
            refused.contains(what) && refused.contains("trireme restore"),
            "{refused}"
        );
    };
    let whole = {
        let file = world.disk.open(&path, base::disk::OpenMode::Read).unwrap();
        base::disk::read_all(file.as_ref()).unwrap()
    };
    let end = whole.iter().rposition(|byte| *byte != ROOM).unwrap() + 1;
    replace(&world.disk, &path, &whole[..end - 20]);
    refused_of("the room behind the last records was cut off").await;
    // As if the last one had never been written.
    let mut emptied = whole.clone();
    emptied[end - RECORD_BYTES..end].fill(ROOM);
    replace(&world.disk, &path, &emptied);
    refused_of("acknowledged writes are missing").await;
    // Without any of the log, too.
    world.disk.remove(&path).unwrap();
    let refused = world.open().await.err().map(|error| error.to_string()).unwrap();
    assert!(refused.contains("the log that belongs to it is missing"), "{refused}");
}

/// What room in the log is filled with.
const ROOM: u8 = 0xfa;
/// A frame's head, a record's fields, and a put of a key and a value of one byte each.
const RECORD_BYTES: usize = 8 + 28 + 25 + 2;

fn replace(disk: &SimDisk, path: &std::path::Path, content: &[u8]) {
    let mut file = disk.open(path, base::disk::OpenMode::Append).unwrap();
    file.truncate(0).unwrap();
    file.append(content).unwrap();
    file.sync_data().unwrap();
}

#[tokio::test]
async fn a_state_is_imported_on_the_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions::new(directory.path().join("store"));
    let records = (0..2000).map(|index| {
        Ok(Record {
            key: format!("k{index:05}").into(),
            value: vec![b'x'; 500].into(),
            create_revision: 1,
            mod_revision: index + 1,
            version: 1,
            stamp: Stamp::default(),
            expires_at_ms: None,
        })
    });
    let state = ImportedState {
        revision: 2000,
        raise_by: 5,
    };
    assert_eq!(Embedded::import(options.clone(), state, records).await.unwrap(), 2005);
    let engine = Embedded::open(options).await.unwrap();
    assert_eq!(read(&engine, None, 10_000).await.1.len(), 2000);
    engine.close().await;
}
