//! `cargo run -p testkit --example fuzz -- [--seconds N] [--seed N] [--target NAME] [--jobs N]`: every group of fuzz targets
//! for so many seconds, a group a job. The seed is printed; the same seed gives the same inputs in the same order.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use base::Random;
use testkit::fuzz::{Enough, TARGETS, Target, run};

/// What each group gets when nobody says otherwise.
const SECONDS: u64 = 60;
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
    let jobs = number("--jobs").unwrap_or(cores);
    let wanted = word("--target");
    let mut groups: BTreeMap<&str, Vec<&Target>> = BTreeMap::new();
    for target in TARGETS
        .iter()
        .filter(|target| wanted.is_none_or(|name| name == target.name))
    {
        groups.entry(target.group).or_default().push(target);
    }
    println!("seed {seed}: {} groups of {seconds} s, {jobs} at a time", groups.len());
    let waiting = Mutex::new(groups.into_values().collect::<Vec<_>>());
    let work = || {
        let mut good = true;
        loop {
            let next = waiting.lock().expect("invariant: nobody panics holding it").pop();
            let Some(group) = next else {
                return good;
            };
            let time = Duration::from_secs(seconds) / u32::try_from(group.len()).expect("a few targets");
            for target in group {
                good &= fuzz(target, seed, time);
            }
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
