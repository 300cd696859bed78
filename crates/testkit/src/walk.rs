//! ARCHITECTURE.md tells one `kubectl apply` with file names; this compares the page with what was recorded of one.
//!
//! A stage is a place in the code that says so: `tracing::trace!(target: "walk", ...)`. The page names the file of each
//! stage in the order in which the stages are first passed. A stage that is dropped, moved to another file, added or
//! passed in another order makes the page wrong.

use std::collections::HashSet;
use std::path::Path;

use crate::record::Mark;

/// The heading of the story.
const HEADING: &str = "## One `kubectl apply`, followed";

/// A file that the story names, and the number of the paragraph that does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The number of the paragraph.
    pub step: usize,
    /// The file.
    pub file: String,
}

/// ARCHITECTURE.md of this workspace.
///
/// # Errors
/// It cannot be read.
pub fn page() -> std::io::Result<String> {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md"))
}

/// The files that the story names, in their order.
pub fn told(page: &str) -> Vec<Named> {
    let story = page.split_once(HEADING).map_or("", |(_, story)| story);
    let story = story.split("\n## ").next().unwrap_or_default();
    let mut named = Vec::new();
    let mut step = 0;
    for line in story.lines() {
        if let Some((number, _)) = line.split_once(". ")
            && let Ok(number) = number.parse()
        {
            step = number;
        }
        let quoted = line.split('`').skip(1).step_by(2);
        for file in quoted.filter(|word| word.starts_with("crates/") && word.ends_with(".rs")) {
            named.push(Named {
                step,
                file: file.to_owned(),
            });
        }
    }
    named
}

/// The stages that concern `subjects`, each where it was first passed. A mark that is about nothing in particular concerns
/// everybody. What is about a version up to `rest` belongs to the story's predecessor, of which somebody may hear late.
pub fn passed<'a>(marks: &'a [Mark], subjects: &[&str], rest: u64) -> Vec<&'a Mark> {
    let mut seen = HashSet::new();
    let concerns = |mark: &&Mark| mark.about.is_empty() || subjects.iter().any(|subject| mark.about.contains(subject));
    let new = |mark: &&Mark| mark.version().is_none_or(|version| version > rest);
    let first = |mark: &&Mark| seen.insert((mark.file.clone(), mark.line));
    marks.iter().filter(concerns).filter(new).filter(first).collect()
}

/// Compares the page's files with the stages that were passed.
///
/// # Errors
/// Both in two columns, with the first place where they part.
pub fn compare(told: &[Named], passed: &[&Mark]) -> Result<(), String> {
    let same = told
        .iter()
        .zip(passed)
        .take_while(|(named, mark)| named.file == mark.file);
    let same = same.count();
    if same == told.len() && same == passed.len() {
        return Ok(());
    }
    let mut text = "ARCHITECTURE.md and the program part ways at the line with `!`:\n".to_owned();
    for row in 0..told.len().max(passed.len()) {
        let left = told
            .get(row)
            .map_or(String::new(), |named| format!("{}. {}", named.step, named.file));
        let right = passed.get(row).map_or(String::new(), |mark| {
            format!("{} ({}){}", mark.file, mark.message, mark.about)
        });
        let sign = if row == same { '!' } else { ' ' };
        text += &format!("{sign} {left:60} {right}\n");
    }
    Err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n`crates/z.rs`\n\n## One `kubectl apply`, followed\n\n1. A connection (`crates/a.rs`), then\n   `crates/b.rs` and \
        `GET /x`.\n2. At the end `crates/a.rs` again.\n\n## More\n`crates/c.rs`\n";

    fn mark(file: &str, line: u64, about: &str) -> Mark {
        Mark {
            file: file.into(),
            line,
            message: String::new(),
            about: about.into(),
        }
    }

    #[test]
    fn a_page_names_the_stages_in_their_order() {
        let told = told(PAGE);
        let names: Vec<_> = told.iter().map(|named| (named.step, &*named.file)).collect();
        assert_eq!(names, [(1, "crates/a.rs"), (1, "crates/b.rs"), (2, "crates/a.rs")]);
    }

    #[test]
    fn every_difference_is_seen() {
        let told = told(PAGE);
        let good = [
            mark("crates/a.rs", 1, ""),
            mark("crates/x.rs", 1, " pod=other"),
            mark("crates/a.rs", 1, " pod=web-1"),
            mark("crates/b.rs", 1, " pod=web-1"),
            mark("crates/a.rs", 2, " pod=web-1 version=\"8\""),
        ];
        let verdict = |marks: &[Mark]| compare(&told, &passed(marks, &["web"], 7)).is_ok();
        assert!(verdict(&good));
        let mut late = good.to_vec();
        late.insert(0, mark("crates/a.rs", 2, " pod=web-1 version=\"7\""));
        assert!(verdict(&late), "somebody heard late of what was before");
        for (what, spoil) in [
            (
                "a stage is dropped",
                (|marks| drop(marks.remove(3))) as fn(&mut Vec<Mark>),
            ),
            ("the last one", |marks| drop(marks.pop())),
            ("another order", |marks| marks.swap(3, 4)),
            ("a file has another name", |marks| marks[3].file = "crates/c.rs".into()),
            ("one that is not told", |marks| marks.push(mark("crates/c.rs", 1, ""))),
            ("the last one is of before", |marks| {
                marks[4].about = " pod=web-1 version=\"7\"".into()
            }),
        ] {
            let mut marks = good.to_vec();
            spoil(&mut marks);
            assert!(!verdict(&marks), "{what}");
        }
    }
}
