//! Why bytes could not be read as an object, in Go's words.

/// Why bytes could not be read as an object. Its text is the one that upstream's decoder gives, and clients see it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// What kind of failure it is.
    pub kind: DecodeErrorKind,
    /// The text.
    pub message: String,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// The bytes are not of the format.
    Syntax,
    /// More levels than allowed.
    TooDeep,
    /// A value is of another type than its field.
    Type,
    /// A value is of the right type and not well formed, such as a time.
    Format,
    /// There is no type for what the bytes say they are.
    UnknownKind,
}

impl DecodeError {
    pub(crate) fn new(kind: DecodeErrorKind, message: impl Into<String>) -> DecodeError {
        DecodeError {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn syntax(message: impl Into<String>) -> DecodeError {
        DecodeError::new(DecodeErrorKind::Syntax, message)
    }

    pub(crate) fn too_deep() -> DecodeError {
        DecodeError::new(DecodeErrorKind::TooDeep, "exceeded max depth")
    }

    pub(crate) fn format(message: impl Into<String>) -> DecodeError {
        DecodeError::new(DecodeErrorKind::Format, message)
    }
}
