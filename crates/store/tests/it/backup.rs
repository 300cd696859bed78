//! Backups: consistent under writes, every revision of theirs restorable, and no damage passes.

use base::disk::SimDisk;
use store::{
    Backup, BackupCheck, BackupError, Embedded, EmbeddedOptions, Engine, EngineError, ImportError, KeyRange, Operation,
    Put, RestoreError, RestoreOptions, Restored, Stamp, Transaction, restore,
};

use crate::support::{World, dump, put};

async fn taken(world: &World, engine: &dyn Engine) -> Vec<u8> {
    let backup = Backup::take(engine, &world.clock).await.unwrap();
    backup.map(|piece| piece.unwrap()).collect::<Vec<_>>().concat()
}

async fn restored(world: &World, bytes: Vec<u8>, revision: Option<u64>) -> Result<(Restored, Embedded), RestoreError> {
    let disk = SimDisk::new(world.random.fork());
    let store = EmbeddedOptions {
        disk: std::sync::Arc::new(disk),
        ..world.options()
    };
    let options = RestoreOptions {
        store: store.clone(),
        revision,
        known_revision: 0,
    };
    let restored = restore(std::io::Cursor::new(bytes), options).await?;
    Ok((restored, Embedded::open(store).await.unwrap()))
}

/// A store with a base, some history, a delete and a sealed value.
async fn lived(world: &World) -> std::sync::Arc<Embedded> {
    let engine = world.open().await.unwrap();
    for index in 0..6 {
        put(&*engine, &format!("/a/{index}"), &format!("first {index}")).await;
    }
    engine.compact(4).await.unwrap();
    let sealed = Put {
        key: "/a/secret".into(),
        value: "sealed".into(),
        expires_at_ms: None,
        stamp: Stamp {
            sealing_key: 7,
            schema_epoch: 1,
        },
    };
    engine
        .commit(Transaction::new().operation(Operation::Put(sealed)))
        .await
        .unwrap();
    engine
        .commit(Transaction::new().operation(Operation::Delete("/a/1".into())))
        .await
        .unwrap();
    put(&*engine, "/a/2", "second 2").await;
    engine
}

#[tokio::test]
async fn every_revision_of_a_backup_can_be_restored() {
    let world = World::new(1);
    let engine = lived(&world).await;
    let bytes = taken(&world, &*engine).await;
    for revision in 4..=9 {
        let then = engine.range(KeyRange::all(), Some(revision)).await.unwrap().records;
        let (told, store) = restored(&world, bytes.clone(), Some(revision)).await.unwrap();
        let now = store.range(KeyRange::all(), None).await.unwrap();
        assert_eq!((told.revision, told.new_revision), (revision, now.revision));
        // 2026 in milliseconds: above whatever has been.
        assert!(now.revision >= 1_767_225_600_000, "{}", now.revision);
        let raise = told.new_revision - revision;
        assert_eq!(now.records.len(), then.len());
        for (now, then) in now.records.iter().zip(&then) {
            let mut expect = (**then).clone();
            expect.create_revision += raise;
            expect.mod_revision += raise;
            assert_eq!(**now, expect);
        }
        for old in [0, 4, 9] {
            let refused = store.stream(old).await.err();
            assert_eq!(refused, Some(EngineError::Compacted { oldest: now.revision }));
        }
        // It is a store like any other.
        assert_eq!(put(&store, "/a/new", "1").await, now.revision + 1);
    }
    for revision in [3, 10] {
        let refused = restored(&world, bytes.clone(), Some(revision)).await.err().unwrap();
        let expect = format!("the backup has the revisions 4 to 9, not {revision}");
        assert_eq!(refused.to_string(), expect);
    }
}

#[tokio::test]
async fn a_second_restore_is_above_the_first_ones_writes() {
    let world = World::new(2);
    let bytes = taken(&world, &*lived(&world).await).await;
    let (first, store) = restored(&world, bytes.clone(), None).await.unwrap();
    let written = put(&store, "/a/new", "1").await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let (second, _) = restored(&world, bytes, None).await.unwrap();
    assert!(second.new_revision > written && written > first.new_revision);
}

#[tokio::test]
async fn a_directory_that_holds_a_store_is_left_alone() {
    let world = World::new(3);
    let engine = lived(&world).await;
    let bytes = taken(&world, &*engine).await;
    engine.close().await;
    let before = dump(&*world.open().await.unwrap()).await;
    let options = RestoreOptions {
        store: world.options(),
        revision: None,
        known_revision: 0,
    };
    let refused = restore(std::io::Cursor::new(bytes), options).await.unwrap_err();
    assert!(
        matches!(refused, RestoreError::Import(ImportError::NotEmpty(_))),
        "{refused}"
    );
    assert_eq!(dump(&*world.open().await.unwrap()).await, before);
}

#[tokio::test]
async fn no_flipped_bit_and_no_cut_passes() {
    let world = World::new(4);
    let bytes = taken(&world, &*lived(&world).await).await;
    let check = |bytes: &[u8], piece: usize| {
        let mut check = BackupCheck::new();
        bytes.chunks(piece).try_for_each(|piece| check.push(piece))?;
        check.finish()
    };
    for piece in [1, 7, 4096] {
        let summary = check(&bytes, piece).unwrap();
        let counted = (
            summary.header.oldest,
            summary.header.newest,
            summary.keys,
            summary.revisions,
        );
        assert_eq!(counted, (4, 9, 4, 5));
        assert_eq!(summary.sealing_keys.into_iter().collect::<Vec<_>>(), [7]);
        assert_eq!(summary.bytes, bytes.len() as u64);
    }
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&bytes, 4096).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        let cut = BackupError::Truncated { bytes: length as u64 };
        assert_eq!(check(&bytes[..length], 4096), Err(cut), "length {length}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert_eq!(
        check(&longer, 4096),
        Err(BackupError::Damaged {
            offset: bytes.len() as u64
        })
    );
    let refused = restored(&world, bytes[..bytes.len() - 1].to_vec(), None)
        .await
        .err()
        .unwrap();
    assert!(matches!(refused, RestoreError::Backup(BackupError::Truncated { .. })));
}

#[tokio::test]
async fn a_backup_under_writes_is_of_one_revision() {
    let world = World::new(5);
    let engine = world.open().await.unwrap();
    let writer = {
        let engine = engine.clone();
        tokio::spawn(async move {
            // Both sides of each write are equal at every revision; the values do not pack.
            for index in 0..200 {
                let value = format!("{index} {}", "ab".repeat(index));
                let both = Transaction::new().put("/a/left", value.clone()).put("/a/right", value);
                engine.commit(both).await.unwrap();
            }
        })
    };
    let mut newest = 0;
    while !writer.is_finished() {
        tokio::task::yield_now().await;
        let bytes = taken(&world, &*engine).await;
        let (told, store) = restored(&world, bytes, None).await.unwrap();
        let both = dump(&store).await;
        assert!(told.revision >= newest);
        newest = told.revision;
        assert_eq!(
            both.first().map(|left| &left.1),
            both.get(1).map(|right| &right.1),
            "at {newest}"
        );
    }
    assert!(newest > 0);
}
