//! `Status`: how every error of the API is told.
//!
//! Source of codes and texts: `k8s.io/apimachinery/pkg/api/errors/errors.go`. Clients match on reason and code, and
//! people on the message.

use serde::{Deserialize, Serialize};

use crate::field;
use crate::{GroupKind, GroupResource};

/// Why a request failed, in one word that clients match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unknown => "",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Invalid => "Invalid",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::StoreReadError => "StorageReadError",
            Reason::Timeout => "Timeout",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::BadRequest => "BadRequest",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::InternalError => "InternalError",
            Reason::Expired => "Expired",
            Reason::ServiceUnavailable => "ServiceUnavailable",
        }
    }

    /// The HTTP code that goes with the reason.
    pub fn code(self) -> u16 {
        match self {
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Gone | Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::BadRequest => 400,
            Reason::Unknown | Reason::InternalError | Reason::StoreReadError | Reason::ServerTimeout => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
        }
    }
}

/// One cause of a failure, usually a field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusCause {
    /// A word for the kind of cause, such as `FieldValueInvalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The cause for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field's path in the submitted object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the failure is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusDetails {
    /// The object's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its kind; for most reasons upstream puts the resource's plural here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its uid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The single causes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// When to try again.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// The answer to a request that failed, or that has nothing else to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Always `Status`.
    #[serde(default)]
    pub kind: String,
    /// Always `v1`.
    #[serde(default)]
    pub api_version: String,
    /// Empty on errors.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// `Success` or `Failure`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// More for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// The HTTP code.
    #[serde(default)]
    pub code: u16,
}

impl Status {
    /// A failure with a message and no details.
    pub fn failure(reason: Reason, message: impl Into<String>) -> Status {
        Status {
            kind: "Status".into(),
            api_version: "v1".into(),
            metadata: Default::default(),
            status: "Failure".into(),
            message: message.into(),
            reason: reason.as_str().into(),
            details: None,
            code: reason.code(),
        }
    }

    /// A success, with details of what was done.
    pub fn success(details: Option<StatusDetails>) -> Status {
        Status {
            status: "Success".into(),
            details,
            code: 200,
            reason: String::new(),
            ..Status::failure(Reason::Unknown, "")
        }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Status {
        self.details = Some(StatusDetails {
            name: name.into(),
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            ..Default::default()
        });
        self
    }

    /// 404: `pods "x" not found`.
    pub fn not_found(resource: &GroupResource, name: &str) -> Status {
        Status::failure(Reason::NotFound, format!("{resource} {} not found", field::quote(name))).about(resource, name)
    }

    /// 404 for a path that leads nowhere.
    pub fn no_such_path() -> Status {
        let mut status = Status::failure(Reason::NotFound, "the server could not find the requested resource");
        status.details = Some(StatusDetails::default());
        status
    }

    /// 409: `pods "x" already exists`.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Status {
        Status::failure(
            Reason::AlreadyExists,
            format!("{resource} {} already exists", field::quote(name)),
        )
        .about(resource, name)
    }

    /// 409: `Operation cannot be fulfilled on pods "x": why`.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Status {
        let message = format!(
            "Operation cannot be fulfilled on {resource} {}: {why}",
            field::quote(name)
        );
        Status::failure(Reason::Conflict, message).about(resource, name)
    }

    /// The conflict of a write that lost its race, as every client knows it.
    pub fn modified(resource: &GroupResource, name: &str) -> Status {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(resource, name, why)
    }

    /// 403: `pods "x" is forbidden: why`.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Status {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {} is forbidden: {why}", field::quote(name)),
        };
        Status::failure(Reason::Forbidden, message).about(resource, name)
    }

    /// 422: `Pod "x" is invalid: [field errors]`, each field a cause.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[field::Error]) -> Status {
        let message = format!("{kind} {} is invalid: {}", field::quote(name), field::aggregate(errors));
        let mut status = Status::failure(Reason::Invalid, message);
        status.details = Some(StatusDetails {
            name: name.into(),
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            causes: errors.iter().map(field::Error::cause).collect(),
            ..Default::default()
        });
        status
    }

    /// 400 with a message.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::failure(Reason::BadRequest, message)
    }

    /// 401 `Unauthorized`.
    pub fn unauthorized() -> Status {
        Status::failure(Reason::Unauthorized, "Unauthorized")
    }

    /// 500: `Internal error occurred: why`, the cause once more as a cause.
    pub fn internal(why: impl std::fmt::Display) -> Status {
        let why = why.to_string();
        let mut status = Status::failure(Reason::InternalError, format!("Internal error occurred: {why}"));
        let cause = StatusCause {
            message: why,
            ..Default::default()
        };
        status.details = Some(StatusDetails {
            causes: vec![cause],
            ..Default::default()
        });
        status
    }

    /// 410 `Expired`: the resource version is no longer held.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::failure(Reason::Expired, message)
    }

    /// 405: `verb is not supported on resources of kind "x"`.
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Status {
        let message = format!(
            "{verb} is not supported on resources of kind {}",
            field::quote(&resource.to_string())
        );
        Status::failure(Reason::MethodNotAllowed, message).about(resource, "")
    }

    /// 429 with the seconds to wait.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Status {
        let mut status = Status::failure(Reason::TooManyRequests, message);
        status.details = Some(StatusDetails {
            retry_after_seconds,
            ..Default::default()
        });
        status
    }

    /// 504: the request did not finish in time.
    pub fn timeout(message: impl Into<String>, retry_after_seconds: i32) -> Status {
        let mut status = Status::failure(Reason::Timeout, format!("Timeout: {}", message.into()));
        status.details = Some(StatusDetails {
            retry_after_seconds,
            ..Default::default()
        });
        status
    }

    /// 413 with upstream's message and the limit.
    pub fn too_large(message: impl std::fmt::Display) -> Status {
        Status::failure(
            Reason::RequestEntityTooLarge,
            format!("Request entity is too large: {message}"),
        )
    }

    /// Whether this is that reason.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason == reason.as_str()
    }

    /// The JSON on the wire.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: a Status has only text keys")
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Error, Path};

    #[test]
    fn messages_are_upstreams() {
        let deployments = GroupResource {
            group: "apps".into(),
            resource: "deployments".into(),
        };
        let kind = GroupKind {
            group: "apps".into(),
            kind: "Deployment".into(),
        };
        let errors = [Error::required(&Path::new("spec").child("selector"), "")];
        for (status, code, message) in [
            (
                Status::not_found(&deployments, "web"),
                404,
                "deployments.apps \"web\" not found",
            ),
            (
                Status::already_exists(&deployments, "web"),
                409,
                "deployments.apps \"web\" already exists",
            ),
            (
                Status::invalid(&kind, "web", &errors),
                422,
                "Deployment.apps \"web\" is invalid: spec.selector: Required value",
            ),
        ] {
            assert_eq!((status.code, &*status.message), (code, message));
        }
    }

    #[test]
    fn a_status_reads_itself_back() {
        let status = Status::too_many_requests("slow down", 1);
        let back: Status = serde_json::from_slice(&status.to_json()).unwrap();
        assert_eq!(back, status);
    }
}
