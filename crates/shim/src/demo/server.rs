//! An HTTP server that names its pod, counts requests, and can be told to be unready, slow, or to crash.
//!
//! On SIGTERM it says that it is unready but goes on serving for `DRAIN_SECONDS` (the endpoints of a Service need a moment
//! to forget it), then stops accepting, finishes what is in flight, prints its count and ends: so no request of a rolling
//! update fails, and the counts of all pods add up to the number of answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::kernel;

/// Requests handled at once; more wait in the kernel's queue.
const THREADS_MAX: usize = 512;
/// A handler needs little, and a pod's memory limit may be small.
const STACK_BYTES: usize = 128 * 1024;
/// Longest request head.
const HEAD_BYTES_MAX: u64 = 16 * 1024;
/// How long a silent client may hold a thread.
const IDLE: Duration = Duration::from_secs(30);

struct Server {
    pod: String,
    ready: AtomicBool,
    stopping: AtomicBool,
    count: AtomicU64,
    in_flight: InFlight,
}

/// How many requests are being answered, with a way to wait for fewer.
#[derive(Default)]
struct InFlight {
    count: Mutex<usize>,
    fewer: Condvar,
}

impl InFlight {
    /// Waits until there are at most so many, and counts one more if `and_enter`.
    fn until_at_most(&self, most: usize, and_enter: bool) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.fewer.wait_while(count, |count| *count > most);
        *waited.unwrap_or_else(PoisonError::into_inner) += usize::from(and_enter);
    }

    fn leave(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.fewer.notify_all();
    }
}

/// Serves until SIGTERM. The port is the first argument or `PORT`, 8080 otherwise.
pub fn serve(args: &[String]) -> i32 {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let port = args
        .first()
        .cloned()
        .or_else(|| variable("PORT"))
        .unwrap_or_else(|| "8080".into());
    let drain = variable("DRAIN_SECONDS")
        .and_then(|text| text.parse().ok())
        .unwrap_or(2);
    let listener = match port.parse().map_err(io::Error::other).and_then(|port: u16| {
        // Both families where the kernel has both.
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
    }) {
        Ok(listener) => listener,
        Err(err) => {
            eprintln!("cannot listen on port {port}: {err}");
            return 1;
        }
    };
    let server = Arc::new(Server {
        pod: variable("POD_NAME").unwrap_or_else(hostname),
        ready: AtomicBool::new(variable("UNREADY").is_none()),
        stopping: AtomicBool::new(false),
        count: AtomicU64::new(0),
        in_flight: InFlight::default(),
    });
    // Before any thread exists, so that all of them have the signals blocked.
    let signals = match kernel::signal_fd(&[libc::SIGTERM, libc::SIGINT]) {
        Ok(signals) => signals,
        Err(err) => {
            eprintln!("cannot wait for signals: {err}");
            return 1;
        }
    };
    println!("{} serves port {port}", server.pod);
    let acceptor = Arc::clone(&server);
    std::thread::spawn(move || acceptor.accept(&listener));
    let mut entry = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
    while kernel::read_signal(signals.as_fd()).is_none() {
        let _ = rustix::event::poll(&mut entry, None);
    }
    server.ready.store(false, Ordering::SeqCst);
    println!("{} drains for {drain} s", server.pod);
    std::thread::sleep(Duration::from_secs(drain));
    server.stopping.store(true, Ordering::SeqCst);
    // Wakes the acceptor, which then closes the port.
    let _ = port.parse().map(|port: u16| TcpStream::connect(("127.0.0.1", port)));
    server.in_flight.until_at_most(0, false);
    println!("{} served {}", server.pod, server.count.load(Ordering::SeqCst));
    0
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl Server {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            self.in_flight.until_at_most(THREADS_MAX - 1, true);
            let server = Arc::clone(self);
            let handler = move || {
                let _ = server.converse(stream);
                server.in_flight.leave();
            };
            if std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn(handler)
                .is_err()
            {
                self.in_flight.leave();
            }
        }
    }

    /// One request a connection, so that every request is load-balanced anew.
    fn converse(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_write_timeout(Some(IDLE))?;
        let mut reader = BufReader::new((&stream).take(HEAD_BYTES_MAX));
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let target = line.split_ascii_whitespace().nth(1).unwrap_or_default().to_owned();
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        if target.is_empty() {
            return Ok(());
        }
        let (status, body) = self.answer(&target);
        let mut stream = &stream;
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        stream.flush()
    }

    fn answer(&self, target: &str) -> (&'static str, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parameter = |name: &str| -> Option<u64> {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        const OK: &str = "200 OK";
        match path {
            "/" => {
                let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
                (OK, format!("{} has answered {count}\n", self.pod))
            }
            "/count" => (OK, format!("{}\n", self.count.load(Ordering::SeqCst))),
            "/hostname" => (OK, format!("{}\n", hostname())),
            "/healthz" | "/readyz" => {
                if self.ready.load(Ordering::SeqCst) {
                    (OK, "ok\n".into())
                } else {
                    ("503 Service Unavailable", "unready\n".into())
                }
            }
            "/livez" => (OK, "ok\n".into()),
            "/unready" | "/ready" => {
                self.ready.store(path == "/ready", Ordering::SeqCst);
                (OK, format!("{} is {} now\n", self.pod, &path[1..]))
            }
            "/slow" => {
                std::thread::sleep(Duration::from_millis(parameter("ms").unwrap_or(1000).min(60_000)));
                let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
                (OK, format!("{} has answered {count} slowly\n", self.pod))
            }
            "/crash" => {
                println!("{} crashes as told", self.pod);
                kernel::exit_now(parameter("code").unwrap_or(1) as i32);
            }
            "/env" => {
                let mut lines: Vec<String> = std::env::vars()
                    .map(|(key, value)| format!("{key}={value}\n"))
                    .collect();
                lines.sort();
                (OK, lines.concat())
            }
            _ => ("404 Not Found", format!("there is no {path}\n")),
        }
    }
}
