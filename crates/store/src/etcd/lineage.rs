//! Which history is being read, and what the engine's revisions are above etcd's.
//!
//! An etcd that was restored from a snapshot, or replaced by another cluster, goes on at a lower revision than clients have
//! seen; a resource version must never go back. So there is an offset, kept in etcd under a key of the engine's own, that
//! is added to every revision. When the cluster's id changes or its revision falls, whichever server sees it raises the
//! offset above everything it has answered; the others read it there. Each such change is a new *era*: streams of an older
//! one end as compacted, so that replicas are rebuilt and watches expire. `trireme migrate` sets the same key.

use parking_lot::Mutex;
use rpc::etcd::etcdserverpb::ResponseHeader;
use tokio::sync::watch;

use super::value::unsigned;
use crate::engine::Revision;

/// What is known of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Era {
    /// Counts the changes.
    pub(super) number: u64,
    /// The cluster.
    pub(super) cluster: u64,
    /// What the engine's revisions are above etcd's.
    pub(super) offset: u64,
    /// The engine's revision at which it began: nothing can be followed from before it.
    pub(super) floor: Revision,
}

/// The era that is now, and how far it has been seen.
pub(super) struct Lineage {
    era: watch::Sender<Era>,
    /// etcd's highest revision in a quorum answer of this era.
    highest: Mutex<Revision>,
    /// One change at a time.
    pub(super) changing: tokio::sync::Mutex<()>,
}

/// The answer is of another history than the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replaced;

impl Lineage {
    pub(super) fn new(cluster: u64, offset: u64, highest: Revision) -> Self {
        let era = Era {
            number: 0,
            cluster,
            offset,
            floor: 0,
        };
        Self {
            era: watch::Sender::new(era),
            highest: Mutex::new(highest),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// The era that is now.
    pub(super) fn now(&self) -> Era {
        *self.era.borrow()
    }

    /// Tells of new eras.
    pub(super) fn follow(&self) -> watch::Receiver<Era> {
        self.era.subscribe()
    }

    /// etcd's highest revision so far; taken before a question, it is what the answer must not be below.
    pub(super) fn highest(&self) -> Revision {
        *self.highest.lock()
    }

    /// Judges the header of a quorum answer to a question asked in `era`, when `before` was the highest revision.
    pub(super) fn judge(
        &self,
        era: Era,
        before: Revision,
        header: Option<&ResponseHeader>,
    ) -> Result<Revision, Replaced> {
        let header = header.ok_or(Replaced)?;
        let revision = unsigned(header.revision);
        if header.cluster_id != era.cluster || revision < before || self.now().number != era.number {
            return Err(Replaced);
        }
        let mut highest = self.highest.lock();
        *highest = revision.max(*highest);
        Ok(revision)
    }

    /// The offset that puts `revision` of the new history above all that was answered in the old one.
    pub(super) fn needed(&self, stored: u64, revision: Revision) -> u64 {
        let answered = self.now().offset + self.highest();
        stored.max((answered + 1).saturating_sub(revision))
    }

    /// Begins an era at etcd's revision `revision`.
    pub(super) fn begin(&self, cluster: u64, offset: u64, revision: Revision) -> Era {
        *self.highest.lock() = revision;
        self.era.send_modify(|era| {
            *era = Era {
                number: era.number + 1,
                cluster,
                offset,
                floor: revision + offset,
            }
        });
        self.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cluster_id: u64, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id,
            revision,
            ..ResponseHeader::default()
        }
    }

    #[test]
    fn another_history_is_noticed() {
        for (before, answer, expect) in [
            (0, Some(header(1, 10)), Ok(10)),
            (10, Some(header(1, 10)), Ok(10)),
            (11, Some(header(1, 10)), Err(Replaced)),
            (0, Some(header(2, 10)), Err(Replaced)),
            (0, None, Err(Replaced)),
        ] {
            let lineage = Lineage::new(1, 0, 0);
            assert_eq!(lineage.judge(lineage.now(), before, answer.as_ref()), expect);
        }
    }

    #[test]
    fn versions_never_go_back() {
        for (offset, highest, stored, restored, expect) in [
            // Below what was answered: just above it.
            (0, 100, 0, 40, 61),
            (50, 100, 50, 40, 111),
            // Another server has already raised it.
            (0, 100, 500, 40, 500),
            // A cluster that is ahead needs none.
            (0, 100, 0, 200, 0),
        ] {
            let lineage = Lineage::new(1, offset, highest);
            let needed = lineage.needed(stored, restored);
            assert_eq!(needed, expect);
            assert!(restored + needed > highest + offset);
            let old = lineage.now();
            let era = lineage.begin(2, needed, restored);
            assert_eq!((era.number, era.floor), (1, restored + needed));
            // Answers to questions of the old era count for nothing.
            assert_eq!(lineage.judge(old, 0, Some(&header(2, 1_000))), Err(Replaced));
        }
    }
}
