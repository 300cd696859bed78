//! What proves that a table in the kernel is still as it was written.
//!
//! The kernel is never listed. Whoever flushes the ruleset or deletes a table takes its handle along, so the handle is the
//! proof; it is looked at only when the kernel's generation shows that somebody else committed something.

use sys::netlink::{Error, Socket};
use sys::nftables::{self, TableFamily};

/// A table of a network namespace as it was after the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    handle: u64,
    generation: u32,
}

// === impl Standing ===

impl Standing {
    /// What is to be remembered after a commit on `table`. `before`: what was remembered, when the commit did not make the
    /// table anew.
    pub(crate) fn after_commit(
        socket: &mut Socket,
        family: TableFamily,
        table: &str,
        before: Option<Standing>,
    ) -> Result<Standing, Error> {
        let handle = match before {
            Some(before) => before.handle,
            None => nftables::table_handle(socket, family, table)?
                .ok_or(Error::Protocol("the table is gone right after it was written"))?,
        };
        let generation = nftables::generation(socket)?;
        Ok(Standing { handle, generation })
    }

    /// Whether the table is still the same one.
    pub(crate) fn holds(&mut self, socket: &mut Socket, family: TableFamily, table: &str) -> Result<bool, Error> {
        let generation = nftables::generation(socket)?;
        if generation == self.generation {
            return Ok(true);
        }
        let same = nftables::table_handle(socket, family, table)? == Some(self.handle);
        if same {
            self.generation = generation;
        } else {
            tracing::warn!(table, "packet rules were removed by somebody else; writing them anew");
        }
        Ok(same)
    }
}
