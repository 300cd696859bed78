//! What can go wrong with a call to the API.

use api::{Reason, Status};

use crate::TransportError;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a failure.
    #[error("{0}")]
    Api(Box<Status>),
    /// The request or the answer did not get through.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The answer is not what this client understands.
    #[error("decode {what}: {error}")]
    Decode {
        /// What was decoded.
        what: String,
        /// Why it failed.
        error: serde_json::Error,
    },
}

impl Error {
    pub(crate) fn decode(what: impl Into<String>, error: serde_json::Error) -> Error {
        Error::Decode {
            what: what.into(),
            error,
        }
    }

    /// The server's answer, when there was one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Api(status) => Some(status),
            _ => None,
        }
    }

    fn is(&self, reason: Reason) -> bool {
        self.status().is_some_and(|status| status.is(reason))
    }

    /// 404: the object (or the resource) is not there.
    pub fn is_not_found(&self) -> bool {
        self.is(Reason::NotFound)
    }

    /// 409: a precondition failed, or somebody else wrote first, or another field manager owns a field.
    pub fn is_conflict(&self) -> bool {
        self.is(Reason::Conflict)
    }

    /// 409: an object of that name exists.
    pub fn is_already_exists(&self) -> bool {
        self.is(Reason::AlreadyExists)
    }

    /// 403.
    pub fn is_forbidden(&self) -> bool {
        self.is(Reason::Forbidden)
    }

    /// 422.
    pub fn is_invalid(&self) -> bool {
        self.is(Reason::Invalid)
    }

    /// 405: the resource has no such verb.
    pub fn is_method_not_supported(&self) -> bool {
        self.is(Reason::MethodNotAllowed)
    }

    /// 410: the resource version is no longer held.
    pub fn is_expired(&self) -> bool {
        self.is(Reason::Expired) || self.is(Reason::Gone)
    }

    /// 429.
    pub fn is_too_many_requests(&self) -> bool {
        self.is(Reason::TooManyRequests)
    }

    /// 403 with the cause that the namespace is being deleted.
    /// Source: `k8s.io/apimachinery/pkg/api/errors` `HasStatusCause(err, NamespaceTerminatingCause)`.
    pub fn is_namespace_terminating(&self) -> bool {
        self.has_cause("NamespaceTerminating")
    }

    /// Whether one of the causes has this reason.
    pub fn has_cause(&self, reason: &str) -> bool {
        let details = self.status().and_then(|status| status.details.as_ref());
        details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == reason))
    }

    /// Seconds the server asks to wait before the next attempt.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        let seconds = self.status()?.details.as_ref()?.retry_after_seconds;
        u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error::Api(Box::new(status))
    }
}
