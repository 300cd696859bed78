//! The options of the verbs, as query parameters and bodies.

use api::Value;

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListParams {
    /// Only objects with these labels; empty for all.
    pub label_selector: String,
    /// Only objects with these fields; empty for all.
    pub field_selector: String,
    /// At most so many; zero for all.
    pub limit: u32,
    /// Where the previous page ended.
    pub continue_token: String,
    /// Empty: the newest state. `0`: whatever the server has at hand.
    pub resource_version: String,
}

impl ListParams {
    /// Only objects with these labels.
    pub fn labels(selector: impl Into<String>) -> ListParams {
        ListParams {
            label_selector: selector.into(),
            ..Default::default()
        }
    }

    /// Only objects with these fields.
    pub fn fields(selector: impl Into<String>) -> ListParams {
        ListParams {
            field_selector: selector.into(),
            ..Default::default()
        }
    }

    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let limit = if self.limit == 0 {
            String::new()
        } else {
            self.limit.to_string()
        };
        present([
            ("labelSelector", self.label_selector.clone()),
            ("fieldSelector", self.field_selector.clone()),
            ("limit", limit),
            ("continue", self.continue_token.clone()),
            ("resourceVersion", self.resource_version.clone()),
        ])
    }
}

/// A page of objects, or all of them.
#[derive(Clone, Debug)]
pub struct List<T> {
    /// The revision the list shows; a watch from here misses nothing.
    pub resource_version: String,
    /// Where the next page begins; empty on the last one.
    pub continue_token: String,
    /// The objects.
    pub items: Vec<T>,
}

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchParams {
    /// Only objects with these labels; empty for all.
    pub label_selector: String,
    /// Only objects with these fields; empty for all.
    pub field_selector: String,
    /// Events after this revision; empty begins with the present objects.
    pub resource_version: String,
    /// First every present object as ADDED, then a bookmark that says so (a "watch list").
    pub send_initial_events: bool,
    /// Bookmarks now and then, so that a reconnect need not begin far back.
    pub allow_bookmarks: bool,
    /// The server ends the watch after so long; zero leaves it to the server.
    pub timeout_seconds: u32,
}

impl WatchParams {
    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let timeout = if self.timeout_seconds == 0 {
            String::new()
        } else {
            self.timeout_seconds.to_string()
        };
        let flag = |on: bool| if on { "true".to_string() } else { String::new() };
        let matching = if self.send_initial_events {
            "NotOlderThan".to_string()
        } else {
            String::new()
        };
        present([
            ("watch", "true".to_string()),
            ("labelSelector", self.label_selector.clone()),
            ("fieldSelector", self.field_selector.clone()),
            ("resourceVersion", self.resource_version.clone()),
            ("resourceVersionMatch", matching),
            ("sendInitialEvents", flag(self.send_initial_events)),
            (
                "allowWatchBookmarks",
                flag(self.allow_bookmarks || self.send_initial_events),
            ),
            ("timeoutSeconds", timeout),
        ])
    }
}

fn present<const N: usize>(pairs: [(&'static str, String); N]) -> Vec<(&'static str, String)> {
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// How a patch is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patch {
    /// A list of operations (RFC 6902).
    Json,
    /// A partial object; null removes (RFC 7386).
    Merge,
    /// A partial object whose lists are merged by their keys.
    Strategic,
    /// Server-side apply: the fields this manager has an opinion about.
    Apply {
        /// Who owns the fields.
        manager: String,
        /// Take fields from other managers instead of failing with a conflict.
        force: bool,
    },
}

impl Patch {
    /// Applies with force, as controllers do.
    pub fn apply(manager: impl Into<String>) -> Patch {
        Patch::Apply {
            manager: manager.into(),
            force: true,
        }
    }

    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Patch::Json => "application/json-patch+json",
            Patch::Merge => "application/merge-patch+json",
            Patch::Strategic => "application/strategic-merge-patch+json",
            // JSON is YAML; `application/apply-patch+yaml` is the name every version of the API accepts.
            Patch::Apply { .. } => "application/apply-patch+yaml",
        }
    }
}

/// Which object exactly a delete means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only the object at this revision.
    pub resource_version: Option<String>,
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They lose their owner and stay.
    Orphan,
    /// They are deleted after it.
    Background,
    /// It stays until they are gone.
    Foreground,
}

impl Propagation {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        }
    }
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteParams {
    /// Which object exactly.
    pub preconditions: Preconditions,
    /// What happens to its dependents; absent: the resource's default.
    pub propagation: Option<Propagation>,
    /// Seconds the object has to end; absent: its own.
    pub grace_seconds: Option<i64>,
}

impl DeleteParams {
    /// Only the object with this uid.
    pub fn uid(uid: impl Into<String>) -> DeleteParams {
        let preconditions = Preconditions {
            uid: Some(uid.into()),
            resource_version: None,
        };
        DeleteParams {
            preconditions,
            ..Default::default()
        }
    }

    /// With this propagation.
    pub fn propagation(mut self, propagation: Propagation) -> DeleteParams {
        self.propagation = Some(propagation);
        self
    }

    /// With so many seconds to end.
    pub fn grace(mut self, seconds: i64) -> DeleteParams {
        self.grace_seconds = Some(seconds);
        self
    }

    /// The `DeleteOptions` body; `None` when there is nothing to say.
    pub(crate) fn body(&self) -> Option<Value> {
        if *self == DeleteParams::default() {
            return None;
        }
        let mut body = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(uid) = &self.preconditions.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(resource_version) = &self.preconditions.resource_version {
            body["preconditions"]["resourceVersion"] = resource_version.as_str().into();
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = propagation.as_str().into();
        }
        if let Some(seconds) = self.grace_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        Some(body)
    }
}
