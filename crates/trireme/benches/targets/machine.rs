//! What the machine itself can do, beside which the other figures stand.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use sys::netns::NetworkNamespace;
use tokio::time::Instant;

use crate::figure;

const SPAN: Duration = Duration::from_secs(2);
/// As large as the objects of the write measurement.
const WRITE_BYTES: usize = 2048;
/// The largest record of TLS.
const RECORD_BYTES: usize = 16 * 1024;
const NAME: &str = "bench.invalid";

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    tokio::task::spawn_blocking(|| {
        let cores = std::thread::available_parallelism()?.get();
        figure("machine.cores", cores as f64, &processor());
        let directory = tempfile::tempdir_in("/var/tmp")?;
        let mut file = std::fs::File::create(directory.path().join("anchor"))?;
        let syncs = rate(|| {
            file.write_all(&[7; WRITE_BYTES])?;
            Ok(file.sync_data()?)
        })?;
        figure(
            "machine.fdatasync",
            syncs,
            "2 kB appended and synced, one thread, the disk of /var/tmp",
        );
        let tls = Tls::new()?;
        let handshakes = rate(|| tls.handshake().map(drop))?;
        figure(
            "machine.handshakes",
            handshakes,
            "TLS 1.3, P-256 certificate, both sides on one thread, in memory",
        );
        let (mut client, mut server) = tls.handshake()?;
        let record = vec![7; RECORD_BYTES];
        let mut sink = Vec::new();
        let records = rate(|| {
            server.writer().write_all(&record)?;
            sink.clear();
            while server.wants_write() {
                server.write_tls(&mut sink)?;
            }
            Ok(())
        })?;
        client.send_close_notify();
        let conditions = "records of 16 kB encrypted by rustls with ring, one thread, nothing sent";
        figure("machine.encrypt", records * RECORD_BYTES as f64 / 1e6, conditions);
        if rustix::process::geteuid().is_root() {
            let namespaces = rate(|| Ok(NetworkNamespace::create().map(drop)?))?;
            figure(
                "machine.netns",
                namespaces,
                "network namespaces made and dropped, one thread",
            );
        }
        anyhow::Ok(())
    })
    .await?
}

/// How often a second something can be done, one after the other.
fn rate(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < SPAN {
        work()?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

/// The processor's name.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    line.unwrap_or("unknown")
        .trim_start_matches(['\t', ' ', ':'])
        .to_owned()
}

/// Both sides of connections in memory.
struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    fn new() -> anyhow::Result<Tls> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()])?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone())?;
        let key = PrivateKeyDer::try_from(signing_key.serialize_der())
            .ok()
            .context("a key of our own")?;
        let mut client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Each handshake is a full one, as a new client's is.
        client.resumption = rustls::client::Resumption::disabled();
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        Ok(Tls {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    fn handshake(&self) -> anyhow::Result<(Connection, Connection)> {
        let name = ServerName::try_from(NAME)?;
        let mut client: Connection = ClientConnection::new(self.client.clone(), name)?.into();
        let mut server: Connection = ServerConnection::new(self.server.clone())?.into();
        while client.is_handshaking() || server.is_handshaking() {
            pass(&mut client, &mut server)?;
            pass(&mut server, &mut client)?;
        }
        Ok((client, server))
    }
}

/// Hands over what one side has to say.
fn pass(from: &mut Connection, to: &mut Connection) -> anyhow::Result<()> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire)?;
    }
    let mut unread = &wire[..];
    while !unread.is_empty() {
        to.read_tls(&mut unread)?;
        to.process_new_packets()?;
    }
    Ok(())
}
