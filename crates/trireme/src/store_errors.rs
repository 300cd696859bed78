//! Why an embedded store was not opened, with advice that fits the reason.

use std::io::ErrorKind;
use std::path::Path;

use store::OpenError;

use crate::errors::{CliError, Kind};

/// The error for people; `other` is who else may have the store open, as a question.
pub fn not_opened(directory: &Path, error: &OpenError, other: &str) -> CliError {
    let hint = match error {
        OpenError::Locked(_) => other.to_owned(),
        OpenError::UnsupportedVersion { .. } => {
            "start it with the version of trireme that wrote it, or a newer one".into()
        }
        OpenError::Corrupt { .. } => {
            "take the state of a backup: trireme restore FILE --replace, which keeps these files aside".into()
        }
        // The words and the advice are those of any file; which file it is says the message.
        OpenError::Io { file, error } if error.kind() != ErrorKind::Other => CliError::file(file, error).hint,
        OpenError::Io { .. } => format!("look at the disk: findmnt -T {}; dmesg", directory.display()),
        OpenError::Panicked(_) => "this is a fault of trireme; keep a copy of the directory, and see its log".into(),
    };
    let what = format!("the store in {}: {error}", directory.display());
    CliError::new(Kind::Machine, "STORE", what).hint(hint)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn advice_fits_the_reason() {
        let directory = Path::new("/d/store");
        let io = |kind: ErrorKind| OpenError::Io {
            file: "/d/store/0.log".into(),
            error: kind.into(),
        };
        for (error, hint) in [
            (OpenError::Locked("/d/store".into()), "is another one running?"),
            (
                OpenError::Corrupt {
                    file: "/d/store/0.log".into(),
                    offset: 7,
                    what: "a bad checksum",
                },
                "trireme restore FILE --replace",
            ),
            (
                OpenError::UnsupportedVersion {
                    file: "/d/store/0.log".into(),
                    found: 9,
                    supported: 1,
                    writer: "version 9".into(),
                },
                "or a newer one",
            ),
            (io(ErrorKind::StorageFull), "make room: df -h "),
            (
                OpenError::Io {
                    file: "/d".into(),
                    error: io::Error::other("?"),
                },
                "findmnt -T /d/store",
            ),
            (OpenError::Panicked("at a place".into()), "a fault of trireme"),
        ] {
            let told = not_opened(directory, &error, "is another one running?");
            assert!(told.hint.contains(hint), "{error:?}: {}", told.hint);
            assert!(told.what.starts_with("the store in /d/store: "), "{}", told.what);
        }
    }
}
