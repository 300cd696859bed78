//! Fuzzing of everything that reads bytes from outside, without a compiler's help.
//!
//! A [`Target`] takes bytes and says in a few words what became of them; it panics when something is wrong. An input is one
//! that the target makes from nothing, or one of the corpus, spoiled. An input whose outcome was not seen before joins the
//! corpus for the rest of the run: what gets further is spoiled further. The order of inputs depends on the seed alone, so a
//! run that ended in an abort repeats itself under its seed.
//!
//! The corpus in `corpus/TARGET/` is replayed by this crate's tests. Whoever mends what fuzzing found leaves the input there.

mod access;
mod decoders;
mod etcd_streams;
mod expressions;
mod mutate;
mod patches;
mod paths;
mod storage;
mod streams;
mod texts;
mod writers;

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use apiserver::fuzzing;
use base::Random;
use tokio::time::Instant;

/// Something that reads bytes from outside.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Makes a good input.
    pub make: fn(&Random) -> Vec<u8>,
    /// Reads an input and says what became of it. The words that vary with the input (numbers, what is quoted) do not count.
    pub run: fn(&[u8]) -> String,
}

/// All of them: a reader of bytes is fuzzed by adding its line.
#[rustfmt::skip]
pub const TARGETS: &[Target] = &[
    Target { name: "json", make: decoders::make_json, run: decoders::json },
    Target { name: "yaml", make: decoders::make_yaml, run: decoders::yaml },
    Target { name: "protobuf", make: decoders::make_protobuf, run: decoders::protobuf },
    Target { name: "json_patch", make: patches::make_json, run: patches::json },
    Target { name: "merge_patch", make: patches::make_object, run: patches::merge },
    Target { name: "strategic_patch", make: patches::make_object, run: patches::strategic },
    Target { name: "apply", make: patches::make_object, run: patches::apply },
    Target { name: "label_selector", make: texts::make_labels, run: texts::labels },
    Target { name: "field_selector", make: texts::make_fields, run: texts::fields },
    Target { name: "quantity", make: texts::make_quantity, run: texts::quantity },
    Target { name: "schedule", make: texts::make_schedule, run: texts::schedule },
    Target { name: "duration", make: texts::make_duration, run: texts::duration },
    Target { name: "cel", make: expressions::make, run: expressions::run },
    Target { name: "path", make: paths::make, run: paths::run },
    Target { name: "access_file", make: access::make_file, run: access::file },
    Target { name: "token", make: access::make_token, run: access::token },
    Target { name: "sealed", make: access::make_sealed, run: access::sealed },
    Target { name: "certificate_request", make: access::make_certificate_request, run: access::certificate_request },
    Target { name: "certificate", make: access::make_certificate, run: access::certificate },
    Target { name: "admission_answer", make: fuzzing::make_admission_answer, run: fuzzing::admission_answer },
    Target { name: "authorization_answer", make: fuzzing::make_authorization_answer, run: fuzzing::authorization_answer },
    Target { name: "authentication_answer", make: fuzzing::make_authentication_answer, run: fuzzing::authentication_answer },
    Target { name: "conversion_answer", make: fuzzing::make_conversion_answer, run: fuzzing::conversion_answer },
    Target { name: "discovery", make: fuzzing::make_discovery, run: fuzzing::discovery },
    Target { name: "key_set", make: fuzzing::make_key_set, run: fuzzing::key_set },
    Target { name: "foreign_token", make: fuzzing::make_foreign_token, run: fuzzing::foreign_token },
    Target { name: "spdy", make: streams::make_spdy, run: streams::spdy },
    Target { name: "channels", make: streams::make_channels, run: streams::channels },
    Target { name: "table", make: writers::make_table, run: writers::table },
    Target { name: "openapi", make: writers::make_openapi, run: writers::openapi },
    Target { name: "log", make: store::fuzzing::make_segment, run: store::fuzzing::segment },
    Target { name: "snapshot", make: store::fuzzing::make_snapshot, run: store::fuzzing::snapshot },
    Target { name: "marks", make: store::fuzzing::make_marks, run: store::fuzzing::read_marks },
    Target { name: "backup", make: storage::make_backup, run: storage::backup },
    Target { name: "etcd", make: storage::make_etcd, run: storage::etcd },
    Target { name: "etcd_watch", make: etcd_streams::make_watch, run: etcd_streams::watch },
    Target { name: "etcd_lease", make: etcd_streams::make_lease, run: etcd_streams::lease },
];

/// The most inputs of new outcomes that are kept: a message with the input in it must not fill the memory.
const KEPT_MAX: usize = 4096;

/// An input that a target could not take.
#[derive(Debug)]
pub struct Found {
    /// The input.
    pub input: Vec<u8>,
    /// How many inputs came before it.
    pub round: u64,
}

/// Runs a target until `enough` is reached; the number of inputs.
///
/// # Errors
/// The first input that made it panic.
pub fn run(target: &Target, seed: u64, enough: Enough) -> Result<u64, Found> {
    let mut hasher = DefaultHasher::new();
    (seed, target.name).hash(&mut hasher);
    let random = Random::seeded(hasher.finish());
    let mut kept: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, input)| input).collect();
    let mut seen = HashSet::new();
    let start = Instant::now();
    let mut round = 0;
    while !enough.is_reached(round, start) {
        let mut input = if kept.is_empty() || random.chance(0.3) {
            (target.make)(&random)
        } else {
            kept[random.index(kept.len())].clone()
        };
        if round > 0 && !random.chance(0.05) {
            mutate::spoil(&mut input, &kept, &random);
        }
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) else {
            return Err(Found { input, round });
        };
        if kept.len() < KEPT_MAX && seen.insert(essence(&outcome)) {
            kept.push(input);
        }
        round += 1;
    }
    Ok(round)
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Enough {
    /// After so many inputs.
    Inputs(u64),
    /// After so long.
    Time(Duration),
}

impl Enough {
    fn is_reached(self, round: u64, start: Instant) -> bool {
        match self {
            Enough::Inputs(inputs) => round >= inputs,
            Enough::Time(time) => start.elapsed() >= time,
        }
    }
}

/// A target's corpus: the names of its files and what is in them.
pub fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    // A target without a folder has no corpus yet.
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let read = |path: PathBuf| {
        let input = std::fs::read(&path).expect("a file of the corpus can be read");
        (path, input)
    };
    files.into_iter().map(read).collect()
}

/// An outcome without what varies with the input.
fn essence(outcome: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (place, part) in outcome.split('"').enumerate() {
        if place % 2 == 0 {
            part.chars()
                .filter(|char| !char.is_numeric())
                .for_each(|char| char.hash(&mut hasher));
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_told_apart_by_their_words() {
        assert_eq!(essence("line 3: bad \"x\""), essence("line 17: bad \"yy\""));
        assert_ne!(essence("line 3: bad \"x\""), essence("line 3: good \"x\""));
    }

    /// A reader that falls over when it gets far enough is found, and found again under the same seed.
    #[test]
    fn a_fault_is_found_again() {
        fn fragile(input: &[u8]) -> String {
            let depth = input.iter().take_while(|byte| **byte == b'[').count();
            assert!(depth < 12, "too deep");
            // Guides by depth: as words, for numbers do not count.
            "deeper ".repeat(depth)
        }
        let target = Target {
            name: "fragile",
            make: |_| b"[]".to_vec(),
            run: fragile,
        };
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let runs = [1, 1].map(|seed| run(&target, seed, Enough::Inputs(200_000)));
        std::panic::set_hook(hook);
        let [first, second] = runs.map(|run| run.expect_err("the fault was not found"));
        assert_eq!((first.round, &first.input), (second.round, &second.input));
    }
}
