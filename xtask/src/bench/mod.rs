//! `cargo xtask bench [FILTER...] [--json FILE] [--update]`: measured figures beside the design's targets.
//!
//! The measurements lie beside their subjects, as programs that print `figure NAME VALUE CONDITIONS`; here is the table
//! that says what each figure is, what was aimed at, and what others reach. `cargo xtask bench etcd` makes another table: our
//! store beside etcd ([`beside`]).

pub mod beside;
mod targets;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use self::targets::{Bound, TARGETS, Target};
use crate::{cargo, child, workspace};

/// The programs: package and bench. Only the first takes filters; of the others the package's name is asked for.
const PROGRAMS: &[(&str, &str)] = &[
    ("trireme", "targets"),
    ("store", "commits"),
    ("network", "services"),
    ("scheduler", "decisions"),
];
/// Where the table stands.
const PAGE: &str = "docs/benchmarks.md";
const BEGIN: &str = "<!-- table: begin (cargo xtask bench --update writes this) -->";
const END: &str = "<!-- table: end -->";
/// A machine on which others use more than this share of the processors gives figures that mean little.
const BUSY_SHARE_MAX: f64 = 0.05;
/// For how long it is looked at.
const BUSY_SPAN: Duration = Duration::from_secs(2);

/// A figure of a program's.
struct Figure {
    name: String,
    value: f64,
    conditions: String,
}

/// The words of the command line.
#[derive(Default)]
struct Wanted {
    filters: Vec<String>,
    json: Option<String>,
    update: bool,
}

/// Measures, prints the table, and writes it where it was asked for.
pub fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let wanted = Wanted::read(arguments)?;
    let programs: Vec<_> = PROGRAMS.iter().filter(|program| wanted.has(program)).collect();
    // Building is work too: all of it is done before the machine has to be quiet.
    for (package, bench) in &programs {
        crate::run(
            &cargo(),
            &["bench", "--locked", "--no-run", "--package", package, "--bench", bench],
        )?;
    }
    let machine = look_at_machine()?;
    let (mut figures, mut failed) = (Vec::new(), Vec::new());
    for (package, bench) in programs {
        if !measure(package, bench, &wanted.filters, &mut figures)? {
            failed.push(*package);
        }
    }
    for target in TARGETS {
        if let Some(figure) = figures.iter().find(|figure| figure.name == target.name) {
            print!("{}", for_terminal(target, figure, &figures));
        }
    }
    for figure in &figures {
        if !TARGETS.iter().any(|target| target.name == figure.name) {
            bail!("{} is not in the table of targets", figure.name);
        }
    }
    if let Some(path) = &wanted.json {
        std::fs::write(path, format!("{:#}\n", to_json(&machine, &figures))).with_context(|| path.clone())?;
    }
    if figures.is_empty() && failed.is_empty() {
        bail!("no measurement is called {}", wanted.filters.join(" or "));
    }
    if !failed.is_empty() {
        bail!("measurements of {} failed, see above", failed.join(", "));
    }
    if wanted.update {
        update(BEGIN, &for_page(&machine, &figures))?;
    }
    Ok(())
}

// === impl Wanted ===

impl Wanted {
    fn read(arguments: &[&str]) -> anyhow::Result<Wanted> {
        let (mut wanted, mut words) = (Wanted::default(), arguments.iter());
        while let Some(word) = words.next() {
            match *word {
                "--json" => wanted.json = Some(words.next().context("--json needs a file")?.to_string()),
                "--update" => wanted.update = true,
                flag if flag.starts_with('-') => bail!("{flag}: unknown; bench [FILTER...] [--json FILE] [--update]"),
                filter => wanted.filters.push(filter.to_owned()),
            }
        }
        if wanted.update && !wanted.filters.is_empty() {
            bail!("--update writes the whole table: it takes no filter");
        }
        Ok(wanted)
    }

    fn has(&self, (package, bench): &(&str, &str)) -> bool {
        let names_others = |filter: &String| PROGRAMS.iter().skip(1).any(|(other, _)| other == filter);
        self.filters.is_empty()
            || self.filters.iter().any(|filter| filter == package)
            || (*bench == PROGRAMS[0].1 && !self.filters.iter().all(names_others))
    }
}

/// Runs a program and takes its figures. False when a measurement of it failed.
fn measure(package: &str, bench: &str, filters: &[String], figures: &mut Vec<Figure>) -> anyhow::Result<bool> {
    let mut command = child(&cargo());
    command.args(["bench", "--quiet", "--locked", "--package", package, "--bench", bench]);
    if bench == PROGRAMS[0].1 {
        command
            .arg("--")
            .args(filters.iter().filter(|filter| *filter != package));
    }
    let mut child = command.current_dir(workspace()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("the output of a child")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        match Figure::read(&line) {
            Some(figure) => figures.push(figure),
            None => eprintln!("  {line}"),
        }
    }
    Ok(child.wait()?.success())
}

impl Figure {
    fn read(line: &str) -> Option<Figure> {
        let mut words = line.strip_prefix("figure ")?.splitn(3, ' ');
        Some(Figure {
            name: words.next()?.to_owned(),
            value: words.next()?.parse().ok()?,
            conditions: words.next().unwrap_or_default().to_owned(),
        })
    }
}

/// What of the processors is in use while we do nothing.
fn busy_share() -> anyhow::Result<f64> {
    let times = || -> anyhow::Result<(f64, f64)> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        let all: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // proc_stat(5): the fourth and fifth are idle and waiting; guest times are in user time already.
        let idle = all.get(3..5).context("/proc/stat")?.iter().sum();
        Ok((idle, all.iter().take(8).sum()))
    };
    let (idle_before, all_before) = times()?;
    std::thread::sleep(BUSY_SPAN);
    let (idle, all) = times()?;
    Ok(1.0 - (idle - idle_before) / (all - all_before).max(1.0))
}

/// As [`machine`], and a warning when the figures will mean little.
fn look_at_machine() -> anyhow::Result<String> {
    let busy = busy_share()?;
    let machine = machine(busy)?;
    if busy > BUSY_SHARE_MAX {
        eprintln!("warning: {machine}: the figures mean little");
    }
    Ok(machine)
}

/// The commit, and how quiet the machine was.
fn machine(busy: f64) -> anyhow::Result<String> {
    let output = Command::new("git")
        .args(["log", "-1", "--format=commit %h of %cs"])
        .current_dir(workspace())
        .output()?;
    let commit = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let quiet = if busy > BUSY_SHARE_MAX { "not quiet" } else { "quiet" };
    Ok(format!(
        "{commit}; machine {quiet}: others used {:.0} % of it before the run",
        busy * 100.0
    ))
}

/// The verdict of a figure: met, missed, or nothing where nothing was aimed at.
fn verdict(target: &Target, figure: &Figure, all: &[Figure]) -> Option<bool> {
    match target.bound {
        Bound::None => None,
        Bound::AtMost(most) => Some(figure.value <= most),
        Bound::AtLeast(least) => Some(figure.value >= least),
        Bound::AtLeastOf(share, other) => {
            let other = all.iter().find(|figure| figure.name == other)?;
            Some(figure.value >= share * other.value)
        }
    }
}

fn word(verdict: Option<bool>) -> &'static str {
    match verdict {
        Some(true) => "met",
        Some(false) => "missed",
        None => "",
    }
}

fn for_terminal(target: &Target, figure: &Figure, all: &[Figure]) -> String {
    let measured = format!("{} {}", rounded(figure.value), target.unit);
    let aimed = target.bound.text(target.unit);
    let verdict = word(verdict(target, figure, all));
    format!(
        "{:<52} {measured:>16}  {aimed:<24} {verdict:<7} {}\n",
        target.what, figure.conditions
    )
}

fn to_json(machine: &str, figures: &[Figure]) -> Value {
    let rows = TARGETS.iter().filter_map(|target| {
        let figure = figures.iter().find(|figure| figure.name == target.name)?;
        Some(json!({
            "name": target.name, "what": target.what, "unit": target.unit, "value": figure.value,
            "target": target.bound.text(target.unit), "met": verdict(target, figure, figures),
            "conditions": figure.conditions, "anchor": target.anchor, "limit": target.limit,
        }))
    });
    json!({"machine": machine, "figures": rows.collect::<Vec<_>>()})
}

/// Writes a table into its place in the page.
fn update(begin: &str, table: &str) -> anyhow::Result<()> {
    let path = workspace().join(PAGE);
    let page = std::fs::read_to_string(&path)?;
    let (before, rest) = page.split_once(begin).context("the page has no table")?;
    let (_, after) = rest.split_once(END).context("the page's table has no end")?;
    std::fs::write(&path, format!("{before}{begin}\n{table}{END}{after}"))?;
    eprintln!("wrote {PAGE}");
    Ok(())
}

fn for_page(machine: &str, figures: &[Figure]) -> String {
    let mut page = format!(
        "Measured at {machine}.\n\n| what | measured | target | verdict | others today | conditions | what limits it |\n|---|---|---|---|---|---|---|\n"
    );
    for target in TARGETS {
        let Some(figure) = figures.iter().find(|figure| figure.name == target.name) else {
            continue;
        };
        page += &format!(
            "| {} | {} {} | {} | {} | {} | {} | {} |\n",
            target.what,
            rounded(figure.value),
            target.unit,
            target.bound.text(target.unit),
            word(verdict(target, figure, figures)),
            target.anchor,
            figure.conditions,
            target.limit
        );
    }
    page
}

/// Three digits that mean something.
fn rounded(value: f64) -> String {
    match value.abs() {
        0.0..1.0 => format!("{value:.3}"),
        1.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_judged() {
        let figures: Vec<Figure> = [
            "figure machine.encrypt 2000 one thread",
            "noise",
            "figure list.1.rate 900.5 10000 pods",
        ]
        .iter()
        .filter_map(|line| Figure::read(line))
        .collect();
        assert_eq!(figures.len(), 2);
        assert_eq!(figures[1].conditions, "10000 pods");
        let target = |bound| Target {
            name: "list.1.rate",
            what: "",
            unit: "MB/s",
            bound,
            anchor: "",
            limit: "",
        };
        for (bound, expect) in [
            (Bound::None, None),
            (Bound::AtMost(900.5), Some(true)),
            (Bound::AtMost(900.0), Some(false)),
            (Bound::AtLeast(901.0), Some(false)),
            (Bound::AtLeastOf(0.25, "machine.encrypt"), Some(true)),
            (Bound::AtLeastOf(0.5, "machine.encrypt"), Some(false)),
            (Bound::AtLeastOf(0.5, "not.measured"), None),
        ] {
            assert_eq!(verdict(&target(bound), &figures[1], &figures), expect, "{bound:?}");
        }
    }

    #[test]
    fn filters_choose_programs() {
        for (words, expect) in [
            (&[][..], &["trireme", "store", "network", "scheduler"][..]),
            (&["store"], &["store"]),
            (&["get"], &["trireme"]),
            (&["get", "store"], &["trireme", "store"]),
        ] {
            let wanted = Wanted::read(words).unwrap();
            let chosen: Vec<&str> = PROGRAMS
                .iter()
                .filter(|program| wanted.has(program))
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(chosen, expect, "{words:?}");
        }
        for words in [&["--json"][..], &["--wrong"], &["get", "--update"]] {
            assert!(Wanted::read(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn every_target_has_one_row() {
        for (at, target) in TARGETS.iter().enumerate() {
            assert!(
                !TARGETS[..at].iter().any(|other| other.name == target.name),
                "{}",
                target.name
            );
        }
    }
}
