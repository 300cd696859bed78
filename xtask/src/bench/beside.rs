//! `cargo xtask bench etcd [--update] [--seconds N] [--keys N] [--only NAME]`: our store beside Debian's etcd, measured by one
//! client program in one run (`crates/store/benches/engines.rs`), as a table with the goals that were set.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::{look_at_machine, rounded, update};
use crate::{cargo, workspace};

/// Where the table stands in the page.
const BEGIN: &str = "<!-- table: begin (cargo xtask bench etcd --update writes this) -->";
const COLUMNS: [&str; 4] = ["engine", "floor", "front", "etcd"];
const BENCH: [&str; 6] = ["bench", "--locked", "--package", "store", "--bench", "engines"];

/// What the front is to reach, as a multiple of etcd's figure: rows that begin so, and whether more is better.
const GOALS: [(&str, f64, bool); 3] = [
    ("puts/s", 3.0, true),
    ("deliveries/s", 10.0, true),
    ("memory", 0.5, false),
];

/// A line of the program's.
#[derive(Debug, PartialEq)]
struct Measured {
    row: String,
    column: String,
    value: f64,
    conditions: String,
}

/// Measures, prints the table, and writes it into its page when that was asked for.
pub fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let (updates, passed): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|word| **word == "--update");
    if !updates.is_empty() && !passed.is_empty() {
        bail!("--update writes the whole table: it takes no other option");
    }
    // Building is work too: it is done before the machine has to be quiet.
    crate::run(&cargo(), &[&BENCH[..], &["--no-run"]].concat())?;
    let machine = look_at_machine()?;
    let mut child = Command::new(cargo())
        .args(BENCH)
        .arg("--quiet")
        .arg("--")
        .args(passed)
        .current_dir(workspace())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("the output of a child")?;
    let mut all = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        eprintln!("  {line}");
        all.extend(Measured::read(&line));
    }
    if !child.wait()?.success() {
        bail!("the measurement failed, see above");
    }
    let table = format!("Measured at {machine}.\n\n{}", table(&all));
    print!("{table}");
    if !updates.is_empty() {
        update(BEGIN, &table)?;
    }
    Ok(())
}

impl Measured {
    fn read(line: &str) -> Option<Measured> {
        let mut fields = line.strip_prefix("beside ")?.splitn(4, '|');
        Some(Measured {
            row: fields.next()?.to_owned(),
            column: fields.next()?.to_owned(),
            value: fields.next()?.parse().ok()?,
            conditions: fields.next()?.to_owned(),
        })
    }
}

/// The rows in the order in which they were measured first.
fn table(all: &[Measured]) -> String {
    let mut rows: Vec<&str> = Vec::new();
    for measured in all {
        if !rows.contains(&measured.row.as_str()) {
            rows.push(&measured.row);
        }
    }
    let mut table = "| what | engine alone | empty gRPC server | front | etcd | front to etcd | goal | conditions |\n\
                     |---|---:|---:|---:|---:|---:|---|---|\n"
        .to_owned();
    for row in rows {
        let of_row = all.iter().filter(|measured| measured.row == row);
        let of_row: BTreeMap<&str, &Measured> = of_row.map(|measured| (measured.column.as_str(), measured)).collect();
        let cells = COLUMNS.map(|column| of_row.get(column).map_or("".into(), |measured| rounded(measured.value)));
        let share = of_row
            .get("front")
            .zip(of_row.get("etcd"))
            .map(|(ours, theirs)| ours.value / theirs.value);
        let conditions: Vec<String> = COLUMNS
            .iter()
            .filter_map(|column| of_row.get(column))
            .filter(|measured| !measured.conditions.is_empty())
            .map(|measured| format!("{}: {}", measured.column, measured.conditions))
            .collect();
        table += &format!(
            "| {row} | {} | {} | {} | {} |\n",
            cells.join(" | "),
            share.map_or("".into(), |share| format!("{share:.2}x")),
            goal(row, share),
            conditions.join("; ")
        );
    }
    table
}

/// What was aimed at in a row, and whether it was met.
fn goal(row: &str, share: Option<f64>) -> String {
    let Some((_, goal, more)) = GOALS.iter().find(|(begin, ..)| row.starts_with(begin)) else {
        return String::new();
    };
    let verdict = share.map(|share| if *more { share >= *goal } else { share <= *goal });
    let word = match verdict {
        Some(true) => ", met",
        Some(false) => ", missed",
        None => "",
    };
    format!("{goal}x{word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_beside_each_other() {
        let all: Vec<Measured> = [
            "beside puts/s, 1 clients, 256 B|engine|2000|p50 1 ms",
            "noise",
            "beside memory|engine|100|",
            "beside puts/s, 1 clients, 256 B|front|1500|",
            "beside memory|front|300|",
            "beside puts/s, 1 clients, 256 B|etcd|500|p50 2 ms",
            "beside memory|etcd|400|",
        ]
        .iter()
        .filter_map(|line| Measured::read(line))
        .collect();
        let table = table(&all);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| puts/s, 1 clients, 256 B | 2000 |  | 1500 | 500 | 3.00x | 3x, met | engine: p50 1 ms; etcd: p50 2 ms |",
                "| memory | 100 |  | 300 | 400 | 0.75x | 0.5x, missed |  |",
            ]
        );
    }
}
