//! Variables from files that init containers leave in an emptyDir (`fileKeyRef`).
//!
//! The containers of the pod can put anything there, at any moment: the path is resolved by the kernel within the volume, only
//! a regular file is read, and no more of it than a bound.
//! Source: KEP-3721, `pkg/kubelet/util/env/env_util.go` for the format, `pkg/kubelet/kubelet_pods.go` for the texts.

use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

/// The longest file that is read. Upstream bounds only its lines (64 KiB); all of an environment is 1 MiB at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Resolving is tried again that often when a rename came in between.
const RETRIES_MAX: usize = 16;

/// The text of a file of a volume. A link that leads out of the volume leads to its root instead.
///
/// # Errors
/// Of the file system; `InvalidData` for what is no regular file, too long or not UTF-8.
pub fn read(volume: &Path, path: &str) -> io::Result<String> {
    let root = open(
        volume,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // Opening a pipe must not wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut tries = 0;
    let file = loop {
        match openat2(&root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < RETRIES_MAX => tries += 1,
            other => break other?,
        }
    };
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = String::new();
    let read = std::fs::File::from(file)
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(text)
}

/// The value of a key: empty when it is not there, or set to nothing. What stands behind it is not looked at.
///
/// The format is a part of the shell's: `NAME='value'`, where the value may have several lines, then perhaps a comment; empty
/// lines; lines that are comments. After `NAME= ` nothing is assigned, whatever follows.
///
/// # Errors
/// What is wrong before the key, with its line.
pub fn value(text: &str, key: &str) -> Result<String, String> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let invalid = |why: &str| format!("invalid environment variable format at line {number}: {why}");
        let (name, assigned) = line.split_once('=').ok_or_else(|| invalid("missing '='"))?;
        match name.trim_end_matches([' ', '\t']) {
            "" => return Err(invalid("empty variable name")),
            trimmed if trimmed != name => return Err(invalid("whitespace before '=' is not allowed")),
            _ => {}
        }
        if assigned.starts_with([' ', '\t']) {
            if name == key {
                return Ok(String::new());
            }
            continue;
        }
        let mut rest = assigned
            .strip_prefix('\'')
            .ok_or_else(|| invalid("value must be enclosed in single quotes"))?;
        let mut value = String::new();
        let behind = loop {
            if let Some((end, behind)) = rest.split_once('\'') {
                value.push_str(end);
                break behind;
            }
            value.push_str(rest);
            value.push('\n');
            rest = match lines.next() {
                Some((_, line)) => line,
                None => {
                    return Err(format!(
                        "invalid environment variable format starting at line {number}: unclosed single quote"
                    ));
                }
            };
        };
        let behind = behind.trim_start_matches([' ', '\t']);
        if !behind.is_empty() && !behind.starts_with('#') {
            return Err(invalid("unexpected content after closing quote"));
        }
        if name == key {
            return Ok(value);
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_single_quotes() {
        let at = |line: usize, why: &str| Err(format!("invalid environment variable format at line {line}: {why}"));
        for (text, key, expect) in [
            ("A='1'\nB='2' # two\n", "B", Ok("2".to_owned())),
            ("\n  # no\n\t A='x y' ", "A", Ok("x y".into())),
            ("A='1\n\n2'\n", "A", Ok("1\n\n2".into())),
            ("A=\"$HOME\"", "A", at(1, "value must be enclosed in single quotes")),
            ("A= '1'\nB='2'", "A", Ok(String::new())),
            ("A= '1'\nB='2'", "B", Ok("2".into())),
            ("A='1'", "B", Ok(String::new())),
            ("A='\\n$X'\r\n", "A", Ok("\\n$X".into())),
            ("A ='1'", "A", at(1, "whitespace before '=' is not allowed")),
            ("='1'", "A", at(1, "empty variable name")),
            ("\nA", "A", at(2, "missing '='")),
            ("A='1' 2", "A", at(1, "unexpected content after closing quote")),
            ("A='1'\nB", "A", Ok("1".into())),
            (
                "A='1\n2",
                "A",
                Err("invalid environment variable format starting at line 1: unclosed single quote".into()),
            ),
        ] {
            assert_eq!(value(text, key), expect, "{text:?}");
        }
    }

    #[test]
    fn only_files_of_the_volume_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("volume");
        std::fs::create_dir_all(volume.join("sub")).unwrap();
        std::fs::write(directory.path().join("secret"), "S='1'").unwrap();
        std::fs::write(volume.join("sub/f"), "A='1'").unwrap();
        std::fs::write(volume.join("long"), vec![b'#'; 1 + (1 << 20)]).unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("/sub/f", volume.join("in")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            volume.join("pipe"),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        for (path, there) in [
            ("sub/f", true),
            ("in", true),
            ("out", false),
            ("../secret", false),
            ("sub", false),
            ("pipe", false),
            ("long", false),
            ("none", false),
        ] {
            assert_eq!(read(&volume, path).is_ok(), there, "{path}");
        }
    }
}
