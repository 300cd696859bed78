//! Why the engine refused, in the classes that CRI clients tell apart.

use crate::image::ImageError;
use crate::shim::ShimError;

/// An error of the engine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no such sandbox, container or image.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Not in the state that the object is in.
    #[error("{0}")]
    State(String),
    /// There is one already.
    #[error("{0}")]
    Exists(String),
    /// Took longer than it may.
    #[error("{0}")]
    Deadline(String),
    /// Not made yet.
    #[error("{0}")]
    Unsupported(String),
    /// The machine, the disk, the kernel.
    #[error("{0}")]
    Internal(String),
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Error> for tonic::Status {
    fn from(error: Error) -> tonic::Status {
        let text = error.to_string();
        match error {
            Error::NotFound(_) => tonic::Status::not_found(text),
            Error::Invalid(_) => tonic::Status::invalid_argument(text),
            Error::State(_) => tonic::Status::failed_precondition(text),
            Error::Exists(_) => tonic::Status::already_exists(text),
            Error::Deadline(_) => tonic::Status::deadline_exceeded(text),
            Error::Unsupported(_) => tonic::Status::unimplemented(text),
            Error::Internal(_) => tonic::Status::internal(text),
        }
    }
}

impl From<ShimError> for Error {
    fn from(error: ShimError) -> Error {
        match error {
            ShimError::Timeout => Error::Deadline(error.to_string()),
            other => Error::Internal(other.to_string()),
        }
    }
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Error {
        let text = error.to_string();
        match error {
            ImageError::NotFound(_) => Error::NotFound(text),
            ImageError::Name(_) | ImageError::Archive(_) => Error::Invalid(text),
            ImageError::InUse(_) => Error::State(text),
            ImageError::Io(..) => Error::Internal(text),
        }
    }
}

/// An internal error that says what was being done.
pub(crate) fn doing(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.to_string();
    move |err| Error::Internal(format!("{what}: {err}"))
}
