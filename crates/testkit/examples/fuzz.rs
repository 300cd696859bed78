//! `cargo run -p testkit --example fuzz -- [--seconds N] [--seed N] [--target NAME] [--jobs N]`: every fuzz target for so many
//! seconds, some beside each other. The seed is printed; the same seed gives the same inputs in the same order.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use base::Random;
use testkit::fuzz::{Enough, TARGETS, Target, run};

/// What each target gets when nobody says otherwise.
const SECONDS: u64 = 60;
/// Targets beside each other on a core: with a core for each, all of them would take half an hour on two.
const JOBS_PER_CORE: u64 = 4;
/// Frames of a debug build are large; the readers' limits are for threads of 2 MiB as tokio's are.
const STACK_BYTES: usize = 2 * 1024 * 1024;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |name: &str| {
        Some(
            words[words.iter().position(|word| word == name)? + 1..]
                .first()?
                .as_str(),
        )
    };
    let number = |name: &str| word(name).map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("--seed").unwrap_or_else(|| Random::real().u64());
    let seconds = number("--seconds").unwrap_or(SECONDS);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let jobs = number("--jobs").unwrap_or(cores * JOBS_PER_CORE);
    let wanted = word("--target");
    let targets = TARGETS
        .iter()
        .filter(|target| wanted.is_none_or(|name| name == target.name));
    let waiting: Vec<&Target> = targets.collect();
    println!(
        "seed {seed}: {} targets, {seconds} s each, {jobs} at a time",
        waiting.len()
    );
    let waiting = Mutex::new(waiting);
    let work = || {
        let mut good = true;
        loop {
            let next = waiting.lock().expect("invariant: nobody panics holding it").pop();
            let Some(target) = next else {
                return good;
            };
            good &= fuzz(target, seed, Duration::from_secs(seconds));
        }
    };
    let good = std::thread::scope(|scope| {
        let start = |_| {
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            builder.spawn_scoped(scope, work).expect("a thread")
        };
        let threads: Vec<_> = (0..jobs).map(start).collect();
        threads.into_iter().all(|thread| thread.join().is_ok_and(|good| good))
    });
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Fuzzes one target; tells what was found and keeps it.
fn fuzz(target: &Target, seed: u64, time: Duration) -> bool {
    let name = target.name;
    match run(target, seed, Enough::Time(time)) {
        Ok(inputs) => {
            println!("{name}: {inputs} inputs");
            true
        }
        Err(found) => {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            let file = folder.join(format!("found-{seed}-{}", found.round));
            let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, &found.input));
            println!(
                "{name}: input {} of seed {seed} is not taken: {:?}",
                found.round,
                file.display()
            );
            println!("{name}: {:?}", String::from_utf8_lossy(&found.input));
            if let Err(error) = kept {
                println!("{name}: it could not be kept: {error}");
            }
            false
        }
    }
}
