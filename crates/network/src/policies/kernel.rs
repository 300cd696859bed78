//! Commits changes of the rules of policies, and notices when somebody else changed or removed them.
//!
//! The record of what was written is [`super::plan::Plan`]; [`crate::standing`] proves that it still holds. Rules that a daemon left
//! behind stay in force until the next one has written its own.

use std::io;

use sys::netlink::{Error, Family, Socket};
use sys::netns::NetworkNamespace;
use sys::nftables;

use super::delta::Delta;
use super::plan::{Plan, Stage};
use super::rules::{self, FAMILY, RulesConfig, TABLES};
use crate::standing::Standing;

/// The table in the kernel of one network namespace.
#[derive(Debug)]
pub struct Kernel {
    socket: Socket,
    config: RulesConfig,
    /// Absent: nothing written yet, or the last commit failed.
    known: Option<Known>,
    /// Whether it was seen that no table is left of before.
    is_clean: bool,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    table: &'static str,
    standing: Standing,
}

// === impl Kernel ===

impl Kernel {
    /// Opens the table of `namespace`; writes nothing.
    pub fn open(namespace: &NetworkNamespace, config: RulesConfig) -> io::Result<Kernel> {
        Ok(Kernel {
            socket: namespace.run(|| Socket::open(Family::Netfilter))??,
            config,
            known: None,
            is_clean: false,
        })
    }

    /// Makes the kernel's rules what `plan` wants: by the smallest change while the record holds, else anew. While policies
    /// are not all known, nothing is touched; where there are none, no table is left.
    pub fn sync(&mut self, plan: &mut Plan) -> Result<(), Error> {
        match plan.stage() {
            Stage::Learning => return Ok(()),
            Stage::Idle if self.is_clean => return Ok(()),
            Stage::Idle => return self.remove(),
            Stage::Enforcing => {}
        }
        if !self.record_holds()? {
            return self.rebuild(plan);
        }
        let delta = plan.plan();
        match self.commit(&delta) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "a change of the rules of policies was refused; writing all of them anew");
                self.rebuild(plan)
            }
        }
    }

    /// Removes all rules.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.known = None;
        for table in TABLES {
            self.remove_one(table)?;
        }
        self.is_clean = true;
        Ok(())
    }

    fn record_holds(&mut self) -> Result<bool, Error> {
        match &mut self.known {
            Some(known) => known.standing.holds(&mut self.socket, FAMILY, known.table),
            None => Ok(false),
        }
    }

    /// A new table beside the one that is there; while both are, a packet has to pass both.
    fn rebuild(&mut self, plan: &mut Plan) -> Result<(), Error> {
        (self.known, self.is_clean) = (None, false);
        let first_is_there = nftables::table_handle(&mut self.socket, FAMILY, TABLES[0])?.is_some();
        // When both are there, a daemon ended in between: the first one is written anew under the other's eyes.
        let both = first_is_there && nftables::table_handle(&mut self.socket, FAMILY, TABLES[1])?.is_some();
        let (table, other) = match first_is_there && !both {
            true => (TABLES[1], TABLES[0]),
            false => (TABLES[0], TABLES[1]),
        };
        rules::whole(table, &self.config, &plan.rebuild()).commit(&mut self.socket)?;
        self.remove_one(other)?;
        let standing = Standing::after_commit(&mut self.socket, FAMILY, table, None)?;
        self.known = Some(Known { table, standing });
        Ok(())
    }

    fn commit(&mut self, delta: &Delta) -> Result<(), Error> {
        let Some(known) = self.known else { return Ok(()) };
        let steps = rules::steps(known.table, delta);
        if steps.is_empty() {
            return Ok(());
        }
        self.known = None;
        for step in steps {
            step.commit(&mut self.socket)?;
        }
        let standing = Standing::after_commit(&mut self.socket, FAMILY, known.table, Some(known.standing))?;
        self.known = Some(Known { standing, ..known });
        Ok(())
    }

    fn remove_one(&mut self, table: &str) -> Result<(), Error> {
        if nftables::table_handle(&mut self.socket, FAMILY, table)?.is_some() {
            rules::removal(table).commit(&mut self.socket)?;
        }
        Ok(())
    }
}
