//! Commands that tests and users run in images without a shell: the least of each.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use crate::kernel;

/// What there is.
pub const NAMES: &[&str] = &[
    "cat", "date", "echo", "eat", "env", "exit", "false", "hostname", "id", "ls", "mkdir", "orphan", "printenv", "pwd",
    "readlink", "rm", "sh", "sleep", "spam", "stat", "stubborn", "touch", "true", "tty", "write",
];

/// Runs one of [`NAMES`].
pub fn run(name: &str, args: &[String]) -> i32 {
    match command(name, args) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("{name}: {err}");
            1
        }
    }
}

fn command(name: &str, args: &[String]) -> io::Result<i32> {
    let mut out = io::stdout().lock();
    let argument = |index: usize| {
        args.get(index)
            .map(String::as_str)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "missing operand"))
    };
    let number = |index: usize, default: u64| args.get(index).and_then(|text| text.parse().ok()).unwrap_or(default);
    let paths = || args.iter().filter(|arg| !arg.starts_with('-'));
    match name {
        "true" => {}
        "false" => return Ok(1),
        "exit" => return Ok(number(0, 0) as i32),
        "echo" => writeln!(out, "{}", args.join(" "))?,
        "cat" => {
            if args.is_empty() {
                io::copy(&mut io::stdin().lock(), &mut Flushed(&mut out))?;
            }
            for path in args {
                if path == "-" {
                    io::copy(&mut io::stdin().lock(), &mut Flushed(&mut out))?;
                } else {
                    let mut file = File::open(path).map_err(|err| io::Error::other(format!("{path}: {err}")))?;
                    io::copy(&mut file, &mut out)?;
                }
            }
        }
        "sleep" => {
            let text = argument(0)?;
            if text == "infinity" || text == "inf" {
                loop {
                    std::thread::park();
                }
            }
            let seconds: f64 = text.trim_end_matches('s').parse().map_err(io::Error::other)?;
            // As the first process of a container it has no default action for SIGTERM, like a real sleep.
            std::thread::sleep(Duration::try_from_secs_f64(seconds).map_err(io::Error::other)?);
        }
        "date" => writeln!(out, "{}", crate::clock::rfc3339(crate::clock::now_ns()))?,
        "hostname" => writeln!(out, "{}", rustix::system::uname().nodename().to_string_lossy())?,
        "pwd" => writeln!(out, "{}", std::env::current_dir()?.display())?,
        "env" | "printenv" => match args.first() {
            Some(key) => match std::env::var(key) {
                Ok(value) => writeln!(out, "{value}")?,
                Err(_) => return Ok(1),
            },
            None => {
                for (key, value) in std::env::vars() {
                    writeln!(out, "{key}={value}")?;
                }
            }
        },
        "id" => {
            let groups = rustix::process::getgroups()?;
            let groups: Vec<String> = groups.iter().map(|group| group.as_raw().to_string()).collect();
            let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            writeln!(out, "uid={uid} gid={gid} groups={}", groups.join(","))?;
        }
        "ls" => {
            let given: Vec<&String> = paths().collect();
            let path = given.first().map_or(".", |path| path.as_str());
            let mut names: Vec<_> = std::fs::read_dir(path)?
                .flatten()
                .map(|entry| entry.file_name())
                .collect();
            names.sort();
            for name in names {
                writeln!(out, "{}", name.to_string_lossy())?;
            }
        }
        "stat" => {
            use std::os::unix::fs::MetadataExt;
            let path = argument(0)?;
            let meta = std::fs::symlink_metadata(path)?;
            writeln!(
                out,
                "{path} {:o} {}:{} {}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.len()
            )?;
        }
        "readlink" => writeln!(out, "{}", std::fs::read_link(argument(0)?)?.display())?,
        "mkdir" => paths().try_for_each(std::fs::create_dir_all)?,
        "touch" => paths().try_for_each(|path| File::options().append(true).create(true).open(path).map(drop))?,
        "rm" => {
            for path in paths() {
                let is_dir = std::fs::symlink_metadata(path)?.is_dir();
                if is_dir {
                    std::fs::remove_dir_all(path)?
                } else {
                    std::fs::remove_file(path)?
                }
            }
        }
        "write" => std::fs::write(argument(0)?, format!("{}\n", args[1..].join(" ")))?,
        "tty" => {
            let tty = rustix::termios::isatty(io::stdin());
            let size = rustix::termios::tcgetwinsize(io::stdin()).ok();
            let size = size
                .map(|size| format!(" {}x{}", size.ws_col, size.ws_row))
                .unwrap_or_default();
            writeln!(out, "{}{size}", if tty { "a terminal" } else { "not a tty" })?;
        }
        // Lines on both streams: `spam COUNT [MILLISECONDS between them]`.
        "spam" => {
            let pause = Duration::from_millis(number(1, 0));
            for index in 0..number(0, 10) {
                writeln!(out, "line {index}")?;
                if !pause.is_zero() {
                    out.flush()?;
                    std::thread::sleep(pause);
                }
            }
            eprintln!("done");
        }
        // Memory that is really used: `eat MEGABYTES [SECONDS to keep it]`.
        "eat" => {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            for _ in 0..number(0, 1) {
                kept.push(vec![1; 1 << 20]);
            }
            writeln!(out, "ate {}", kept.len())?;
            out.flush()?;
            std::thread::sleep(Duration::from_secs(number(1, 0)));
            drop(std::hint::black_box(kept));
        }
        // Says of every SIGTERM that it does not care.
        "stubborn" => {
            let signals = kernel::signal_fd(&[libc::SIGTERM, libc::SIGINT])?;
            writeln!(out, "stubborn")?;
            out.flush()?;
            let mut entry = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
            loop {
                let _ = rustix::event::poll(&mut entry, None);
                while kernel::read_signal(std::os::fd::AsFd::as_fd(&signals)).is_some() {
                    writeln!(out, "no")?;
                    out.flush()?;
                }
            }
        }
        // Leaves a child behind, which ends after its parent: somebody has to reap it.
        "orphan" => {
            let milliseconds = number(0, 100) as f64;
            let seconds = (milliseconds / 1000.0).to_string();
            std::process::Command::new("/proc/self/exe")
                .args(["demo", "sleep", &seconds])
                .spawn()?;
        }
        "sh" => return shell(args),
        _ => return Ok(127),
    }
    out.flush()?;
    Ok(0)
}

/// Not a shell: runs `-c 'COMMAND ARGS'` and lines of standard input, split at blanks, `;` and `&&`, nothing more. Enough
/// for `kubectl exec -it POD -- sh` to show that a terminal works, and for probes written as `sh -c`.
fn shell(args: &[String]) -> io::Result<i32> {
    if args.first().is_some_and(|arg| arg == "-c") {
        return Ok(args.get(1).map_or(0, |line| shell_line(line)));
    }
    let interactive = rustix::termios::isatty(io::stdin());
    let mut code = 0;
    let mut pending = String::new();
    let mut byte = [0u8; 1];
    let prompt = || {
        if interactive {
            print!("# ");
            let _ = io::stdout().flush();
        }
    };
    prompt();
    while io::stdin().lock().read(&mut byte)? > 0 {
        if byte[0] != b'\n' {
            pending.push(char::from(byte[0]));
            continue;
        }
        let line = std::mem::take(&mut pending);
        if let Some(rest) = line.trim().strip_prefix("exit") {
            return Ok(rest.trim().parse().unwrap_or(code));
        }
        code = shell_line(&line);
        prompt();
    }
    Ok(code)
}

fn shell_line(line: &str) -> i32 {
    let mut code = 0;
    for sequence in line.split(';') {
        for part in sequence.split("&&") {
            let words: Vec<String> = part
                .split_ascii_whitespace()
                .map(|word| word.trim_matches(['"', '\'']).to_owned())
                .collect();
            let Some(name) = words.first() else { continue };
            if name == "exit" {
                std::process::exit(words.get(1).and_then(|text| text.parse().ok()).unwrap_or(code));
            }
            let _ = io::stdout().flush();
            let status = std::process::Command::new("/proc/self/exe")
                .arg("demo")
                .args(&words)
                .status();
            code = status.ok().and_then(|status| status.code()).unwrap_or(126);
            if code != 0 {
                break;
            }
        }
    }
    code
}

/// Flushes after every write, for a terminal on the other side.
struct Flushed<'a, W: Write>(&'a mut W);

impl<W: Write> Write for Flushed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.0.flush()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
