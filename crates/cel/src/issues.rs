//! What is wrong with an expression, in cel-go's form: a line with the place, the line of the text, a caret below.

use std::fmt;

/// The most issues that are told (cel-go's limit); the others are counted.
const REPORTED_MAX: usize = 100;
/// Longer lines of an expression are not shown below an error (cel-go's limit).
const SNIPPET_MAX: usize = 16_384;

/// Why an expression does not compile: at least one issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issues {
    list: Vec<Issue>,
    truncated: usize,
    lines: Vec<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The line, from 1; 0 when it is about the whole text.
    pub line: usize,
    /// The column in characters, from 0.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl Issues {
    pub(crate) fn new(text: &str) -> Issues {
        let lines = text.split('\n').map(str::to_owned).collect();
        Issues {
            list: Vec::new(),
            truncated: 0,
            lines,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Reports an issue at so many characters from the start of the text.
    pub(crate) fn add(&mut self, offset: usize, message: impl Into<String>) {
        if self.list.len() >= REPORTED_MAX {
            self.truncated += 1;
            return;
        }
        let (mut line, mut column) = (0, offset);
        while line + 1 < self.lines.len() {
            let length = self.lines[line].chars().count();
            if column <= length {
                break;
            }
            column -= length + 1;
            line += 1;
        }
        let issue = Issue {
            line: line + 1,
            column,
            message: message.into(),
        };
        self.list.push(issue);
    }

    /// Reports an issue that has no place.
    pub(crate) fn add_placeless(&mut self, message: impl Into<String>) {
        self.list.push(Issue {
            line: 0,
            column: 0,
            message: message.into(),
        });
    }

    /// The issues in the order of the text.
    pub fn list(&self) -> &[Issue] {
        &self.list
    }

    /// Orders them by place, as cel-go prints them.
    pub(crate) fn sorted(mut self) -> Issues {
        self.list.sort_by_key(|issue| (issue.line, issue.column));
        self.list.dedup();
        self
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.list.iter().enumerate() {
            if index > 0 {
                to.write_str("\n")?;
            }
            match issue.line {
                // cel-go's words for no place.
                0 => write!(to, "ERROR: <input>:-1:0: {}", issue.message)?,
                line => write!(to, "ERROR: <input>:{line}:{}: {}", issue.column + 1, issue.message)?,
            }
            let Some(line) = issue.line.checked_sub(1).and_then(|line| self.lines.get(line)) else {
                continue;
            };
            if line.len() > SNIPPET_MAX {
                continue;
            }
            let line = line.replace('\t', " ");
            let wide = |character: Option<char>| character.is_some_and(|one| one.len_utf8() > 1);
            write!(to, "\n | {line}\n | ")?;
            for character in line.chars().take(issue.column) {
                to.write_str(if wide(Some(character)) { "\u{ff0e}" } else { "." })?;
            }
            to.write_str(if wide(line.chars().nth(issue.column)) {
                "\u{ff3e}"
            } else {
                "^"
            })?;
        }
        if self.truncated > 0 {
            write!(to, "\n{} more errors were truncated", self.truncated)?;
        }
        Ok(())
    }
}

impl std::error::Error for Issues {}
