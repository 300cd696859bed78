//! The corpus, and a few new inputs for each target: that what they are made of is good, and what was found stays mended.
//! `cargo xtask test` lets each target run for a minute.

use testkit::fuzz::{Enough, TARGETS, corpus, run};

/// Some of them are spoiled beyond recognition, some are not.
const INPUTS: u64 = 200;

#[test]
fn the_corpus_is_taken() {
    for target in TARGETS {
        for (path, input) in corpus(target) {
            println!("{}", path.display());
            (target.run)(&input);
        }
    }
}

#[test]
fn every_folder_of_the_corpus_is_a_targets() {
    let folders = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).unwrap();
    for folder in folders {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|target| target.name == name), "{name}");
    }
}

#[test]
fn every_target_takes_what_it_makes() {
    for target in TARGETS {
        run(target, 1, Enough::Inputs(INPUTS)).unwrap_or_else(|found| panic!("{}: {found:?}", target.name));
    }
}
