//! As much of `tar` as `kubectl cp` needs: `tar cf - PATH...` and `tar xmf - [-C DIR]`, regular files, directories and
//! symbolic links, in the ustar format.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

const BLOCK: usize = 512;
/// Longest name record of GNU or pax headers.
const NAME_BYTES_MAX: u64 = 64 * 1024;

/// Runs it.
pub fn tar(args: &[String]) -> i32 {
    let mode = args
        .first()
        .map(|mode| mode.trim_start_matches('-').to_owned())
        .unwrap_or_default();
    let mut directory = PathBuf::from(".");
    let mut names = Vec::new();
    let mut rest = args.iter().skip(1).peekable();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-C" => directory = rest.next().map(PathBuf::from).unwrap_or_default(),
            "-" => {}
            _ if arg.starts_with("--") => {}
            _ => names.push(PathBuf::from(arg)),
        }
    }
    let outcome = if mode.contains('c') {
        let mut out = io::BufWriter::new(io::stdout().lock());
        names
            .iter()
            .try_for_each(|name| pack(&directory, name, &mut out))
            .and_then(|()| out.write_all(&[0; 2 * BLOCK]))
            .and_then(|()| out.flush())
    } else if mode.contains('x') {
        unpack(&directory, &mut io::stdin().lock())
    } else {
        Err(io::Error::other("only c and x"))
    };
    match outcome {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("tar: {err}");
            2
        }
    }
}

fn pack(base: &Path, name: &Path, out: &mut impl Write) -> io::Result<()> {
    let path = base.join(name);
    let meta = fs::symlink_metadata(&path).map_err(|err| io::Error::other(format!("{}: {err}", path.display())))?;
    let mut text = name.to_string_lossy().trim_start_matches('/').to_owned();
    if text.len() > 99 {
        // GNU's long name record.
        out.write_all(&header("././@LongLink", 0o644, text.len() as u64 + 1, 0, b'L', ""))?;
        let mut bytes = text.clone().into_bytes();
        bytes.push(0);
        out.write_all(&bytes)?;
        out.write_all(&vec![0; padding(bytes.len() as u64)])?;
        text.truncate(text.floor_char_boundary(99));
    }
    let mode = meta.mode() & 0o7777;
    if meta.is_dir() {
        out.write_all(&header(
            &format!("{}/", text.trim_end_matches('/')),
            mode,
            0,
            meta.mtime(),
            b'5',
            "",
        ))?;
        let mut names: Vec<_> = fs::read_dir(&path)?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        return names.iter().try_for_each(|child| pack(base, &name.join(child), out));
    }
    if meta.is_symlink() {
        let target = fs::read_link(&path)?;
        return out.write_all(&header(&text, mode, 0, meta.mtime(), b'2', &target.to_string_lossy()));
    }
    if meta.is_file() {
        out.write_all(&header(&text, mode, meta.len(), meta.mtime(), b'0', ""))?;
        let copied = io::copy(&mut fs::File::open(&path)?.take(meta.len()), out)?;
        // A file that shrank meanwhile is filled up, so that the archive stays readable.
        out.write_all(&vec![0; (meta.len() - copied) as usize + padding(meta.len())])?;
    }
    Ok(())
}

fn padding(length: u64) -> usize {
    (BLOCK - (length % BLOCK as u64) as usize) % BLOCK
}

fn header(name: &str, mode: u32, size: u64, time: i64, kind: u8, link: &str) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{:011o}", time.max(0)).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &link.as_bytes()[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn unpack(base: &Path, input: &mut impl Read) -> io::Result<()> {
    let mut long_name: Option<String> = None;
    loop {
        let mut block = [0u8; BLOCK];
        if let Err(err) = input.read_exact(&mut block) {
            return if err.kind() == io::ErrorKind::UnexpectedEof {
                Ok(())
            } else {
                Err(err)
            };
        }
        if block.iter().all(|byte| *byte == 0) {
            return io::copy(input, &mut io::sink()).map(drop);
        }
        let text = |from: usize, to: usize| {
            let field = &block[from..to];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        let octal = |from: usize, to: usize| u64::from_str_radix(text(from, to).trim(), 8).unwrap_or_default();
        let (mode, size, kind) = (octal(100, 108) as u32, octal(124, 136), block[156]);
        let prefix = text(345, 500);
        let mut name = text(0, 100);
        if !prefix.is_empty() {
            name = format!("{prefix}/{name}");
        }
        let mut body = input.take(size);
        if kind == b'L' || kind == b'x' || kind == b'g' {
            let mut bytes = Vec::new();
            (&mut body).take(NAME_BYTES_MAX).read_to_end(&mut bytes)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if kind == b'L' {
                long_name = Some(text.trim_end_matches('\0').to_owned());
            } else if kind == b'x' {
                let path = text
                    .lines()
                    .find_map(|line| line.split_once(' ')?.1.strip_prefix("path=").map(str::to_owned));
                long_name = path.or(long_name);
            }
        } else {
            let name = PathBuf::from(long_name.take().unwrap_or(name));
            if name.components().any(|part| matches!(part, Component::ParentDir)) {
                return Err(io::Error::other(format!(
                    "{}: leads out of the directory",
                    name.display()
                )));
            }
            let path = base.join(name.strip_prefix("/").unwrap_or(&name));
            match kind {
                b'5' => fs::create_dir_all(&path)?,
                b'2' => std::os::unix::fs::symlink(text(157, 257), &path)?,
                _ => {
                    if let Some(parent) = path.parent() {
                        fs::create_dir_all(parent)?;
                    }
                    let mut file = fs::File::create(&path)
                        .map_err(|err| io::Error::other(format!("{}: {err}", path.display())))?;
                    io::copy(&mut body, &mut file)?;
                    file.set_permissions(fs::Permissions::from_mode(mode & 0o777))?;
                }
            }
        }
        io::copy(&mut body, &mut io::sink())?;
        io::copy(&mut body.into_inner().take(padding(size) as u64), &mut io::sink())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let dir = std::env::temp_dir().join(format!("shim-tar-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        let long = "d".repeat(60) + "/" + &"f".repeat(80);
        fs::create_dir_all(from.join(&long).parent().unwrap()).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(from.join(&long), vec![7; 1000]).unwrap();
        fs::write(from.join("empty"), "").unwrap();
        std::os::unix::fs::symlink("empty", from.join("link")).unwrap();
        let mut archive = Vec::new();
        pack(&from, Path::new("."), &mut archive).unwrap();
        archive.extend([0; 2 * BLOCK]);
        unpack(&to, &mut archive.as_slice()).unwrap();
        assert_eq!(fs::read(to.join(&long)).unwrap(), vec![7; 1000]);
        assert_eq!(fs::read(to.join("empty")).unwrap(), b"");
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("empty"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_is_unpacked_outside() {
        let mut archive = header("../evil", 0o644, 0, 0, b'0', "").to_vec();
        archive.extend([0; 2 * BLOCK]);
        let error = unpack(Path::new("/nonexistent"), &mut archive.as_slice()).unwrap_err();
        assert!(error.to_string().contains("leads out"), "{error}");
    }
}
