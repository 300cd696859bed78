//! What the store reads from outside: backups, and the requests of etcd's API.

use std::sync::{Arc, LazyLock};

use base::disk::SimDisk;
use base::{Clock, Random};
use parking_lot::Mutex;
use prost::Message as _;
use rpc::etcd::etcdserverpb::kv_server::Kv as _;
use rpc::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, compare, request_op::Request,
};
use store::{
    Backup, BackupCheck, Driver, Embedded, EmbeddedOptions, Engine as _, Front, FrontOptions, Operation,
    RestoreOptions, Transaction, restore,
};
use tokio::runtime::Runtime;
use tonic::Status;

pub(super) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.expect("a runtime of one thread")
});

fn options(seed: u64) -> EmbeddedOptions {
    let random = Random::seeded(seed);
    let disk = Arc::new(SimDisk::new(random.fork()));
    EmbeddedOptions {
        driver: Driver::Task,
        ..EmbeddedOptions::simulated(disk, Clock::real(), random)
    }
}

async fn engine() -> Arc<Embedded> {
    let opened = Embedded::open(options(1)).await;
    Arc::new(opened.expect("a store in memory opens"))
}

// --- backups ---

/// Bytes of a backup's header, and of a frame before what is packed.
const HEADER_BYTES: usize = 64;
const HEAD_BYTES: usize = 12;
/// A revision above all that a spoiled backup has.
const NEWEST: u64 = 1 << 40;

fn number(bytes: &[u8]) -> usize {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
}

/// The payloads of a good backup, unpacked, each after its length.
static PAYLOADS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let bytes = RUNTIME.block_on(async {
        let engine = engine().await;
        for index in 0..5 {
            let write = Transaction::new().put(format!("/a/{index}"), format!("value {index}"));
            engine.commit(write).await.expect("a write");
        }
        engine.compact(2).await.expect("a compaction");
        let delete = Transaction::new().operation(Operation::Delete("/a/1".into()));
        engine.commit(delete).await.expect("a delete");
        let backup = Backup::take(&*engine, &Clock::real()).await.expect("a backup");
        let pieces: Result<Vec<_>, _> = backup.collect();
        pieces.expect("packing").concat()
    });
    let (mut rest, mut payloads) = (&bytes[HEADER_BYTES..], Vec::new());
    while rest.len() > HEAD_BYTES {
        let end = 8 + number(rest);
        let payload = zstd::bulk::decompress(&rest[HEAD_BYTES..end], number(&rest[8..])).expect("a good frame");
        payloads.extend((payload.len() as u32).to_le_bytes());
        payloads.extend(payload);
        rest = &rest[end..];
    }
    payloads
});

pub fn make_backup(_: &Random) -> Vec<u8> {
    PAYLOADS.clone()
}

/// The payloads with a header and checksums that are right, so that what is spoiled is read at all.
fn framed(mut payloads: &[u8]) -> Vec<u8> {
    let mut file = vec![0; HEADER_BYTES];
    file[..8].copy_from_slice(b"TRIREMEB");
    file[8] = 1;
    file[16] = 2;
    file[24..32].copy_from_slice(&NEWEST.to_le_bytes());
    let mut crc = crc32c::crc32c(&file[..60]);
    file[60..].copy_from_slice(&crc.to_le_bytes());
    while payloads.len() > 4 {
        let (length, rest) = (number(payloads), &payloads[4..]);
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        payloads = rest;
        let packed = zstd::bulk::compress(payload, 1).expect("packing");
        let length = (packed.len() as u32 + 4).to_le_bytes();
        let sized = [&(payload.len() as u32).to_le_bytes()[..], &packed].concat();
        crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &length), &sized);
        file.extend(length.iter().chain(&crc.to_le_bytes()).chain(&sized));
    }
    file
}

/// What the check takes is restored, or refused for what it says; never half.
pub fn backup(input: &[u8]) -> String {
    let file = framed(input);
    let mut check = BackupCheck::new();
    let pushed = file.chunks(97).try_for_each(|piece| check.push(piece));
    if let Err(error) = pushed.and_then(|()| check.finish().map(drop)) {
        return error.to_string();
    }
    let options = RestoreOptions {
        store: options(2),
        revision: None,
        known_revision: 0,
    };
    match RUNTIME.block_on(restore(std::io::Cursor::new(file), options)) {
        Ok(restored) => format!("restored {}", restored.keys),
        Err(error) => error.to_string(),
    }
}

// --- etcd's API ---

/// Inputs that one store takes, so that its history does not fill the memory.
pub(super) const INPUTS_MAX: usize = 512;

/// A front, and how many inputs it has taken.
static FRONT: LazyLock<Mutex<(Front, usize)>> = LazyLock::new(|| Mutex::new((front(), 0)));

pub(super) fn front() -> Front {
    RUNTIME.block_on(async {
        let options = FrontOptions {
            read_only: vec!["/registry/".into()],
            advertised: Vec::new(),
            clock: Clock::real(),
            random: Random::seeded(1),
        };
        Front::new(engine().await, options).expect("a front of a store that is open")
    })
}

/// An input is a byte that chooses the message, and the message.
pub fn make_etcd(random: &Random) -> Vec<u8> {
    let keys = ["a", "b", "c", "/registry/x", "\0"];
    let key = || keys[random.index(keys.len())].into();
    let range = RangeRequest {
        key: key(),
        range_end: key(),
        limit: 1,
        sort_order: 2,
        sort_target: 3,
        ..RangeRequest::default()
    };
    let put = PutRequest {
        key: key(),
        value: "1".into(),
        prev_kv: true,
        ..PutRequest::default()
    };
    let delete = DeleteRangeRequest {
        key: key(),
        range_end: "c".into(),
        prev_kv: true,
    };
    let kind = random.index(4) as u8;
    let message = match kind {
        0 => range.encode_to_vec(),
        1 => put.encode_to_vec(),
        2 => delete.encode_to_vec(),
        _ => {
            let operation = |request| RequestOp { request: Some(request) };
            let compare = Compare {
                result: 1,
                target: 2,
                key: key(),
                target_union: Some(compare::TargetUnion::ModRevision(1)),
                range_end: Default::default(),
            };
            let nested = TxnRequest {
                success: vec![operation(Request::RequestPut(put))],
                failure: vec![operation(Request::RequestDeleteRange(delete))],
                ..TxnRequest::default()
            };
            let success = vec![
                operation(Request::RequestRange(range)),
                operation(Request::RequestTxn(nested)),
            ];
            TxnRequest {
                compare: vec![compare],
                success,
                failure: Vec::new(),
            }
            .encode_to_vec()
        }
    };
    [vec![kind], message].concat()
}

/// Whatever is asked: it is answered, and what is counted is what is there.
pub fn etcd(input: &[u8]) -> String {
    let Some((kind, message)) = input.split_first() else {
        return "nothing".into();
    };
    let mut held = FRONT.lock();
    held.1 += 1;
    if held.1 > INPUTS_MAX {
        *held = (front(), 0);
    }
    let front = &held.0;
    RUNTIME.block_on(async {
        let outcome = ask(front, *kind, message).await;
        let all = RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            ..RangeRequest::default()
        };
        let all = front.range(tonic::Request::new(all)).await.expect("a range");
        assert_eq!(all.get_ref().count, all.get_ref().kvs.len() as i64);
        assert!(all.get_ref().kvs.iter().all(|kv| !kv.key.starts_with(b"/registry/")));
        match outcome {
            None => "no message".into(),
            Some(Ok(())) => "answered".into(),
            Some(Err(status)) => status.message().to_owned(),
        }
    })
}

async fn ask(front: &Front, kind: u8, message: &[u8]) -> Option<Result<(), Status>> {
    use tonic::Request as Ask;
    Some(match kind % 4 {
        0 => front
            .range(Ask::new(RangeRequest::decode(message).ok()?))
            .await
            .map(drop),
        1 => front.put(Ask::new(PutRequest::decode(message).ok()?)).await.map(drop),
        2 => front
            .delete_range(Ask::new(DeleteRangeRequest::decode(message).ok()?))
            .await
            .map(drop),
        _ => front.txn(Ask::new(TxnRequest::decode(message).ok()?)).await.map(drop),
    })
}
