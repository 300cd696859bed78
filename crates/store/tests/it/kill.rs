//! Real processes on the real disk: a child that writes is killed at any moment, again and again; what it acknowledged
//! must be there.
//!
//! The test executes its own program as the child, with a directory in the environment; without one the child's test has
//! nothing to do.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use base::Random;
use store::{Embedded, EmbeddedOptions, OpenError};

use crate::support::{dump, put, small, sweep_times};

const DIRECTORY: &str = "STORE_KILL_TEST_DIRECTORY";
const CLIENTS: u64 = 8;
const ROUNDS: u64 = 12;

fn options(directory: &Path) -> EmbeddedOptions {
    EmbeddedOptions {
        tuning: small(),
        ..EmbeddedOptions::new(directory)
    }
}

/// Writes ever higher numbers until it is killed, and says which were acknowledged.
#[tokio::test]
async fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let engine = Arc::new(Embedded::open(options(Path::new(&directory))).await.unwrap());
    let stored = numbers(&dump(&*engine).await);
    let clients = (0..CLIENTS).map(|client| {
        let engine = engine.clone();
        let mut number = stored.get(&client).copied().unwrap_or(0);
        tokio::spawn(async move {
            loop {
                number += 1;
                let padding = "x".repeat(number as usize % 300);
                put(
                    &*engine,
                    &format!("{client}/{}", number % 3),
                    &format!("{number} {padding}"),
                )
                .await;
                writeln!(std::io::stdout().lock(), "\nack {client} {number}").unwrap();
            }
        })
    });
    futures::future::join_all(clients).await;
}

/// The highest number of each client.
fn numbers(content: &[(String, String)]) -> HashMap<u64, u64> {
    let mut highest = HashMap::new();
    for (key, value) in content {
        let client = key.split('/').next().unwrap().parse().unwrap();
        let number: u64 = value.split(' ').next().unwrap().parse().unwrap();
        let known = highest.entry(client).or_insert(0);
        *known = number.max(*known);
    }
    highest
}

fn start(directory: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

#[tokio::test]
async fn acknowledged_writes_survive_kill_minus_nine() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("store");
    let random = Random::real();
    let mut acknowledged: HashMap<u64, u64> = HashMap::new();
    for round in 0..ROUNDS * sweep_times() {
        let mut child = start(&directory);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut remaining = random.range(1..400);
        while let Some(line) = lines.next() {
            let line = line.unwrap();
            let Some(rest) = line.strip_prefix("ack ") else {
                continue;
            };
            let (client, number) = rest.split_once(' ').unwrap();
            acknowledged.insert(client.parse().unwrap(), number.parse().unwrap());
            remaining -= 1;
            if remaining == 0 {
                if round == 0 {
                    assert!(matches!(
                        Embedded::open(options(&directory)).await,
                        Err(OpenError::Locked(_))
                    ));
                }
                child.kill().unwrap();
                // What it said before it died counts, too.
                for line in lines.by_ref() {
                    if let Some((client, number)) =
                        line.unwrap().strip_prefix("ack ").and_then(|rest| rest.split_once(' '))
                    {
                        acknowledged.insert(client.parse().unwrap(), number.parse().unwrap());
                    }
                }
            }
        }
        child.wait().unwrap();
        assert_eq!(remaining, 0, "the child ended by itself");
        let engine = Embedded::open(options(&directory)).await.unwrap();
        let stored = numbers(&dump(&engine).await);
        engine.close().await;
        for (client, number) in &acknowledged {
            let found = stored.get(client).copied().unwrap_or(0);
            let possible = *number..=*number + 1;
            assert!(
                possible.contains(&found),
                "round {round}: client {client} was told {number} and finds {found}"
            );
        }
        // What was under way when it died may have happened.
        acknowledged = stored;
    }
}
