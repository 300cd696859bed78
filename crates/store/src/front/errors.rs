//! etcd's errors, word for word: clients recognise them by code and text.
//!
//! Source: `api/v3rpc/rpctypes/error.go` of etcd 3.5.

use tonic::{Code, Status};

use crate::engine::EngineError;
use crate::transaction::CommitError;

macro_rules! errors {
    ($($name:ident: $code:ident $text:literal;)*) => {
        $(
            #[doc = $text]
            pub(super) fn $name() -> Status {
                Status::new(Code::$code, concat!("etcdserver: ", $text))
            }
        )*
    };
}

errors! {
    empty_key: InvalidArgument "key is not provided";
    key_not_found: InvalidArgument "key not found";
    value_provided: InvalidArgument "value is provided";
    lease_provided: InvalidArgument "lease is provided";
    too_many_ops: InvalidArgument "too many operations in txn request";
    duplicate_key: InvalidArgument "duplicate key given in txn request";
    invalid_sort_option: InvalidArgument "invalid sort option";
    compacted: OutOfRange "mvcc: required revision has been compacted";
    future_revision: OutOfRange "mvcc: required revision is a future revision";
    no_space: ResourceExhausted "mvcc: database space exceeded";
    lease_not_found: NotFound "requested lease not found";
    lease_exists: FailedPrecondition "lease already exists";
    lease_ttl_too_large: OutOfRange "too large lease TTL";
    request_too_large: InvalidArgument "request is too large";
    too_many_requests: ResourceExhausted "too many requests";
    permission_denied: PermissionDenied "permission denied";
    timeout: Unavailable "request timed out";
    stopped: Unavailable "server stopped";
    auth_not_enabled: FailedPrecondition "authentication is not enabled";
    bad_leader_transferee: FailedPrecondition "bad leader transferee";
}

/// The word for an engine's error.
pub(super) fn engine(error: &EngineError) -> Status {
    match error {
        EngineError::Compacted { .. } => compacted(),
        EngineError::Future { .. } => future_revision(),
        EngineError::Unavailable(_) => timeout(),
        EngineError::Closed => stopped(),
    }
}

/// The word for a commit's error. A failed guard is not among them: it is tried again.
pub(super) fn commit(error: &CommitError) -> Status {
    match error {
        CommitError::Full => no_space(),
        CommitError::TooLarge { .. } => request_too_large(),
        CommitError::Overloaded | CommitError::GuardFailed { .. } => too_many_requests(),
        // "Timed out" is etcd's word for "it may have happened".
        CommitError::UnknownOutcome(_) | CommitError::Unavailable(_) => timeout(),
        CommitError::Invalid(why) => Status::invalid_argument(format!("etcdserver: {why}")),
    }
}
