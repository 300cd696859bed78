//! Where the engine's keys are in etcd, and the few that are the engine's own.
//!
//! The engine's keys begin with a root (`/registry/`), which is a prefix of the operator's choice in etcd (kube-apiserver's
//! `--etcd-prefix`). What lies outside of the prefix belongs to others and is never read or written, except
//! [`COMPACT_KEY`], which all API servers share. Own keys are under a segment that no Kubernetes group can be named.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};

use crate::engine::KeyRange;

/// The key through which API servers, upstream's too, agree on who compacts (`compactRevKey` of upstream's storage/etcd3).
pub(super) const COMPACT_KEY: &str = "compact_rev_key";
/// The segment of the engine's own keys. It is not a DNS name, so no API group has it.
const OWN: &str = ".trireme/";

/// The way from the engine's keys to etcd's and back.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    root: Bytes,
    prefix: Bytes,
    own: Bytes,
}

impl Keys {
    /// Both end with a slash.
    pub(super) fn new(root: &str, prefix: &str) -> Self {
        let slashed = |text: &str| Bytes::from(format!("{}/", text.trim_end_matches('/')));
        let prefix = slashed(prefix);
        Self {
            root: slashed(root),
            own: [&prefix[..], OWN.as_bytes()].concat().into(),
            prefix,
        }
    }

    /// Written to make the watch reach a revision.
    pub(super) fn fence(&self) -> Bytes {
        [&self.own[..], b"fence"].concat().into()
    }

    /// Holds what the API's versions are above etcd's revisions.
    pub(super) fn offset(&self) -> Bytes {
        [&self.own[..], b"revision-offset"].concat().into()
    }

    /// Tells of a migration into this etcd.
    pub(super) fn migration(&self) -> Bytes {
        [&self.own[..], b"migration"].concat().into()
    }

    /// A key that is never written.
    pub(super) fn nothing(&self) -> Bytes {
        [&self.own[..], b"nothing"].concat().into()
    }

    /// The range of everything of ours.
    pub(super) fn all(&self) -> (Bytes, Bytes) {
        (self.prefix.clone(), end_of(&self.prefix))
    }

    /// The ranges of everything of ours but the engine's own keys.
    pub(super) fn callers(&self) -> [(Bytes, Bytes); 2] {
        let (first, last) = self.all();
        [(first, self.own.clone()), (end_of(&self.own), last)]
    }

    /// Whether a key in etcd is the engine's own.
    pub(super) fn is_own(&self, key: &[u8]) -> bool {
        key.starts_with(&self.own)
    }

    /// The engine's key in etcd; none when it is outside of the root or not for callers.
    pub(super) fn outward(&self, key: &Bytes) -> Option<Bytes> {
        if !key.starts_with(&self.root) || key.len() == self.root.len() {
            return None;
        }
        let stored = self.moved(key, &self.root, &self.prefix);
        (!self.is_own(&stored)).then_some(stored)
    }

    /// A key of etcd as the engine's; none when it is not one.
    pub(super) fn inward(&self, key: &Bytes) -> Option<Bytes> {
        (key.starts_with(&self.prefix) && !self.is_own(key)).then(|| self.moved(key, &self.prefix, &self.root))
    }

    /// `[start, end)` in etcd of what a range and the root have in common; none when that is nothing.
    pub(super) fn range(&self, range: &KeyRange) -> Option<(Bytes, Bytes)> {
        let whole = KeyRange::prefix(&self.root);
        let (first, last) = self.all();
        let start = match &range.lower {
            Bound::Included(key) if whole.contains(key) => self.moved(key, &self.root, &self.prefix),
            Bound::Excluded(key) if whole.contains(key) => successor(&self.moved(key, &self.root, &self.prefix)),
            Bound::Included(key) | Bound::Excluded(key) if *key > self.root => return None,
            _ => first,
        };
        let end = match &range.upper {
            Bound::Excluded(key) if whole.contains(key) => self.moved(key, &self.root, &self.prefix),
            Bound::Included(key) if whole.contains(key) => successor(&self.moved(key, &self.root, &self.prefix)),
            Bound::Included(key) | Bound::Excluded(key) if *key < self.root => return None,
            _ => last,
        };
        (start < end).then_some((start, end))
    }

    fn moved(&self, key: &Bytes, from: &Bytes, to: &Bytes) -> Bytes {
        if from == to {
            return key.clone();
        }
        let rest = &key[from.len()..];
        let mut moved = BytesMut::with_capacity(to.len() + rest.len());
        moved.put_slice(to);
        moved.put_slice(rest);
        moved.freeze()
    }
}

/// The first key after this one.
pub(super) fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

fn end_of(prefix: &[u8]) -> Bytes {
    crate::engine::prefix_end(prefix).expect("invariant: a prefix ends with a slash")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn keys_move_and_come_back() {
        for (prefix, key, stored) in [
            ("/registry", "/registry/pods/a/b", Some("/registry/pods/a/b")),
            ("/one/two/", "/registry/pods/a/b", Some("/one/two/pods/a/b")),
            ("/one", "/other/pods", None),
            ("/one", "/registry/", None),
            ("/one", "/registry/.trireme/fence", None),
        ] {
            let keys = Keys::new("/registry", prefix);
            assert_eq!(keys.outward(&bytes(key)), stored.map(bytes), "{prefix} {key}");
            if let Some(stored) = stored {
                assert_eq!(keys.inward(&bytes(stored)), Some(bytes(key)));
            }
            for own in [keys.fence(), keys.offset(), keys.migration(), keys.nothing()] {
                assert_eq!(keys.inward(&own), None);
                assert!(keys.callers().iter().all(|(start, end)| !(start..end).contains(&&own)));
            }
            assert_eq!(keys.inward(&bytes("/elsewhere/x")), None);
        }
    }

    #[test]
    fn ranges_stay_inside_of_the_prefix() {
        let keys = Keys::new("/registry", "/k");
        let check = |lower, upper, expect: Option<(&str, &str)>| {
            let found = keys.range(&KeyRange { lower, upper });
            let expect = expect.map(|(start, end)| (bytes(start), bytes(end)));
            assert_eq!(found, expect);
        };
        use Bound::{Excluded, Included, Unbounded};
        check(Unbounded, Unbounded, Some(("/k/", "/k0")));
        check(
            Included(bytes("/registry/a/")),
            Excluded(bytes("/registry/a0")),
            Some(("/k/a/", "/k/a0")),
        );
        check(
            Excluded(bytes("/registry/a")),
            Included(bytes("/registry/b")),
            Some(("/k/a\0", "/k/b\0")),
        );
        check(Included(bytes("/a")), Excluded(bytes("/z")), Some(("/k/", "/k0")));
        check(Included(bytes("/s")), Unbounded, None);
        check(Unbounded, Excluded(bytes("/a")), None);
    }
}
