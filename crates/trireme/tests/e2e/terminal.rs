//! `kubectl exec -it` as a person at a terminal has it: sizes, echo, Ctrl-C, Ctrl-D and exit codes, over a real pseudo-terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Child;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::cluster::Workplace;
use crate::node_cluster::{create, shared};

/// How long an answer on the screen may take.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };
/// How often the size is asked for: a new one travels beside what is typed, not before it.
const ASKED_MAX: usize = 50;

/// A terminal in which `kubectl` runs.
pub struct Terminal {
    master: File,
    kubectl: Child,
    /// What was shown and not looked at yet.
    shown: String,
}

impl Terminal {
    /// Runs the program of the test image in a pod, in a terminal of that size.
    fn exec(place: &Workplace, pod: &str, words: &[&str], size: (u16, u16)) -> Terminal {
        Terminal::kubectl(place, &[&["exec", "-it", pod, "--", "/bin/demo"], words].concat(), size)
    }

    /// Runs `kubectl` in a terminal of that size.
    pub fn kubectl(place: &Workplace, words: &[&str], size: (u16, u16)) -> Terminal {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let path = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .open(path.to_str().unwrap())
            .unwrap();
        // A session of its own whose terminal this is: Ctrl-C and new sizes are signals to it.
        let mut command = place.command("setsid");
        command
            .args(["--ctty", "--wait", "kubectl"])
            .args(words)
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave);
        let terminal = Terminal {
            master: master.into(),
            kubectl: command.spawn().expect("setsid (util-linux) and kubectl in PATH"),
            shown: String::new(),
        };
        terminal.resize(size);
        terminal
    }

    /// Another size of the window.
    pub fn resize(&self, (columns, rows): (u16, u16)) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    /// Types.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until a text is shown; what was shown up to its end.
    pub fn see(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
            let count = rustix::event::poll(&mut ready, Some(&PATIENCE)).unwrap();
            let mut bytes = [0; 4096];
            // Nobody has the other side any more: an error, as Linux has it.
            let length = self.master.read(&mut bytes).ok().filter(|_| count > 0);
            let Some(length) = length else {
                panic!("{text:?} is not shown, but: {:?}", self.shown);
            };
            self.shown += &String::from_utf8_lossy(&bytes[..length]);
        }
    }

    /// Asks the shell in the pod for its terminal's size until it is the expected one.
    pub fn has_size(&mut self, (columns, rows): (u16, u16)) {
        let expect = format!("{columns}x{rows}");
        for _ in 0..ASKED_MAX {
            self.press("tty\n");
            self.see("a terminal ");
            if self.see("\n").trim() == expect {
                return;
            }
        }
        panic!("the size never became {expect}");
    }

    /// The exit code of `kubectl`, after what it shows last.
    pub fn end(mut self, last: &str) -> i32 {
        self.see(last);
        self.kubectl.wait().unwrap().code().unwrap()
    }
}

#[test]
fn a_terminal_is_one_in_the_pod_too() {
    let place = shared().workplace("terminal");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: 'IMAGE'}]}}",
    );
    place.wait("pod/p", "condition=Ready");

    let mut shell = Terminal::exec(&place, "p", &["sh"], (101, 31));
    shell.see("# ");
    shell.has_size((101, 31));
    shell.resize((61, 17));
    shell.has_size((61, 17));
    shell.press("exit 7\n");
    assert_eq!(shell.end("command terminated with exit code 7"), 7);

    let mut cat = Terminal::exec(&place, "p", &["cat"], (80, 24));
    cat.press("hello\n");
    // Once by the terminal's echo, once by the program.
    cat.see("hello");
    cat.see("hello");
    cat.press("\x03");
    assert_eq!(cat.end("command terminated with exit code 130"), 130);

    let mut cat = Terminal::exec(&place, "p", &["cat"], (80, 24));
    cat.press("again\n");
    cat.see("again");
    cat.see("again");
    cat.press("\x04");
    assert_eq!(cat.end(""), 0);

    let mut stubborn = Terminal::exec(&place, "p", &["stubborn"], (80, 24));
    stubborn.see("stubborn");
    stubborn.press("\x03");
    stubborn.see("no");
    stubborn.kubectl.kill().unwrap();
    stubborn.kubectl.wait().unwrap();
}
