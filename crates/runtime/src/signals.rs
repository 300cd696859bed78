//! Signals by their names, as images and CRI write them.

use rpc::cri;

/// The signal that asks a container to end: CRI's, the image's, or SIGTERM.
pub(crate) fn stop_signal(asked: cri::Signal, image: &str) -> i32 {
    const TERM: i32 = 15;
    if asked != cri::Signal::RuntimeDefault {
        return signal_number(asked.as_str_name()).unwrap_or(TERM);
    }
    image.parse().ok().or_else(|| signal_number(image)).unwrap_or(TERM)
}

/// A signal's number on x86-64 by its name, with or without `SIG`.
fn signal_number(name: &str) -> Option<i32> {
    const NAMES: &[&str] = &[
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    const MIN: i32 = 34;
    const MAX: i32 = 64;
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let relative = |rest: &str, words: [&str; 2]| -> Option<i32> {
        if rest.is_empty() {
            return Some(0);
        }
        words.iter().find_map(|word| rest.strip_prefix(word)?.parse().ok())
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return relative(rest, ["PLUS", "+"]).map(|offset| MIN + offset);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return relative(rest, ["MINUS", "-"]).map(|offset| MAX - offset);
    }
    let alias = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    NAMES
        .iter()
        .position(|known| *known == alias)
        .map(|index| index as i32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        let check = |asked, image: &str, expect| assert_eq!(stop_signal(asked, image), expect, "{asked:?} {image}");
        check(cri::Signal::RuntimeDefault, "", 15);
        check(cri::Signal::RuntimeDefault, "SIGQUIT", 3);
        check(cri::Signal::RuntimeDefault, "3", 3);
        check(cri::Signal::RuntimeDefault, "SIGRTMIN+3", 37);
        check(cri::Signal::RuntimeDefault, "nonsense", 15);
        check(cri::Signal::Sigusr1, "SIGQUIT", 10);
        check(cri::Signal::Sigrtminplus2, "", 36);
        check(cri::Signal::Sigrtmaxminus1, "", 63);
        check(cri::Signal::Sigrtmax, "", 64);
        check(cri::Signal::Sigwinch, "", 28);
    }
}
