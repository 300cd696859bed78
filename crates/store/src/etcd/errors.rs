//! What an error of etcd means: whether the request may have happened, whether another member may answer it, and what the
//! caller is told.
//!
//! etcd's errors are texts behind "etcdserver: " (its `api/v3rpc/rpctypes/error.go`); their gRPC codes are too coarse. What
//! does not begin so was made on the way.

use tonic::{Code, Status};

/// What went wrong, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The history before the wanted revision is gone.
    Compacted,
    /// The wanted revision has not happened.
    Future,
    /// The quota of etcd's database is used up; only deletes are taken.
    NoSpace,
    /// etcd has too many proposals under way.
    TooManyRequests,
    /// More bytes than a member takes (`--max-request-bytes`), or more operations (`--max-txn-ops`).
    TooLarge,
    /// A key twice in one transaction.
    DuplicateKey,
    /// The lease has ended.
    LeaseNotFound,
    /// The token of the user has ended, or users have changed.
    TokenExpired,
    /// The user may not, or is not known, or nobody may because etcd found its data corrupt.
    Denied,
    /// This member cannot now (no leader, a learner, stopping before it took the request): nothing happened.
    NotHere,
    /// The request may have happened, or may still.
    Unclear,
    /// Anything else that etcd said: nothing happened.
    Refused,
}

/// A failed attempt.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{member}: {message}")]
pub(super) struct Failure {
    /// What it means.
    pub(super) cause: Cause,
    /// Who said it.
    pub(super) member: String,
    /// The text.
    pub(super) message: String,
}

impl Failure {
    /// What a member answered, or what happened on the way to it.
    pub(super) fn of(member: &str, status: &Status) -> Self {
        Self {
            cause: classify(status),
            member: member.to_owned(),
            message: status.message().to_owned(),
        }
    }

    /// The request was never sent.
    pub(super) fn not_sent(member: &str, why: impl ToString) -> Self {
        Self {
            cause: Cause::NotHere,
            member: member.to_owned(),
            message: why.to_string(),
        }
    }

    /// No answer in time.
    pub(super) fn timed_out(member: &str) -> Self {
        Self {
            cause: Cause::Unclear,
            member: member.to_owned(),
            message: "no answer in time".to_owned(),
        }
    }

    /// Whether another member may do better with a question that changes nothing.
    pub(super) fn elsewhere(&self) -> bool {
        matches!(self.cause, Cause::NotHere | Cause::Unclear)
    }

    /// Whether the member is to be looked after before it is asked again.
    pub(super) fn blames_member(&self) -> bool {
        self.elsewhere()
    }
}

fn classify(status: &Status) -> Cause {
    let message = status.message();
    let Some(reason) = message.strip_prefix("etcdserver: ") else {
        return match status.code() {
            // A member that does not know a call, or a proxy in between that refuses it.
            Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated => Cause::Denied,
            // The client's own limit of an answer, and a server's of a request.
            Code::OutOfRange | Code::ResourceExhausted => Cause::TooLarge,
            // The raft loop says so before it takes a proposal.
            _ if message.contains("raft proposal dropped") => Cause::NotHere,
            // Members before 3.5 do not dress this one up.
            _ if message.contains("auth: revision in header is old") => Cause::TokenExpired,
            _ => Cause::Unclear,
        };
    };
    match reason {
        "mvcc: required revision has been compacted" => Cause::Compacted,
        "mvcc: required revision is a future revision" => Cause::Future,
        "mvcc: database space exceeded" => Cause::NoSpace,
        "too many requests" => Cause::TooManyRequests,
        "request is too large" | "too many operations in txn request" => Cause::TooLarge,
        "duplicate key given in txn request" => Cause::DuplicateKey,
        "requested lease not found" => Cause::LeaseNotFound,
        "invalid auth token" | "revision of auth store is old" | "user name is empty" => Cause::TokenExpired,
        "no leader" | "not capable" | "rpc not supported for learner" | "unhealthy cluster" => Cause::NotHere,
        "server stopped"
        | "leader changed"
        | "request timed out"
        | "request timed out, possibly due to previous leader failure"
        | "request timed out, possibly due to connection lost"
        | "request timed out, waiting for the applied index took too long" => Cause::Unclear,
        "corrupt cluster" => Cause::Denied,
        _ => match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Cause::Denied,
            Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown => Cause::Unclear,
            _ => Cause::Refused,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_they_mean() {
        for (code, message, cause) in [
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                Cause::Compacted,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
                Cause::Future,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                Cause::NoSpace,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                Cause::TooManyRequests,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: request is too large",
                Cause::TooLarge,
            ),
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (2 vs. 1)",
                Cause::TooLarge,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: duplicate key given in txn request",
                Cause::DuplicateKey,
            ),
            (
                Code::NotFound,
                "etcdserver: requested lease not found",
                Cause::LeaseNotFound,
            ),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                Cause::TokenExpired,
            ),
            (Code::PermissionDenied, "etcdserver: permission denied", Cause::Denied),
            (Code::Unavailable, "etcdserver: no leader", Cause::NotHere),
            (Code::Unknown, "raft proposal dropped", Cause::NotHere),
            (Code::Unavailable, "etcdserver: request timed out", Cause::Unclear),
            (Code::Unavailable, "etcdserver: leader changed", Cause::Unclear),
            (Code::Unavailable, "etcdserver: something new", Cause::Unclear),
            (Code::InvalidArgument, "etcdserver: key is not provided", Cause::Refused),
            (Code::Unavailable, "connection reset", Cause::Unclear),
            (Code::Cancelled, "h2 protocol error", Cause::Unclear),
        ] {
            assert_eq!(classify(&Status::new(code, message)), cause, "{message}");
        }
    }
}
