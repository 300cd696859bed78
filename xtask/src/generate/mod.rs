//! Generated files: made here, checked in, and compared by tests.

mod schema;

use std::path::Path;

use anyhow::bail;

use crate::workspace;

/// `cargo xtask generate WHAT`.
pub fn run(arguments: &[&str]) -> anyhow::Result<()> {
    match arguments {
        ["schema", facts] => schema::run(Path::new(facts), &workspace().join("crates/api/data")),
        ["kinds"] => Ok(std::fs::write(
            workspace().join("docs/kinds.md"),
            kinds::table_of_kinds(),
        )?),
        _ => bail!("generate what? `schema FACTS` or `kinds`"),
    }
}

/// `cargo xtask fields KIND`: the rule and the test of each field.
pub fn fields(kind: &str) -> anyhow::Result<()> {
    let Some(rules) = kinds::fields::account(kind) else {
        bail!(
            "{kind} is not a deep kind; these are: {}",
            kinds::fields::deep_kinds().join(", ")
        );
    };
    for rule in rules {
        println!("{:<60} {:<50} {}", rule.path, rule.rule, rule.test);
    }
    Ok(())
}
