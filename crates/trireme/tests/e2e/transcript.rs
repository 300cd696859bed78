//! Transcripts: what a person types and what has to appear, in files that people can read.
//!
//! A line that begins with `$ ` is typed (lines with `> ` go on with it), lines with `# ` say which source of upstream
//! the expected text follows, everything else is the expected text, to the character. What differs from run to run
//! stands as a placeholder such as `‹age›` (see [`PLACEHOLDERS`]); spaces beside one may be more or fewer, because
//! kubectl pads. `TRIREME_BLESS=1` writes what came in place of what was expected, for a person to judge.

use std::path::PathBuf;

use regex::Regex;

use crate::cluster::Workplace;

/// Placeholders and what they stand for.
const PLACEHOLDERS: [(&str, &str); 10] = [
    ("‹age›", r"(?:\d+[smhd](?:\d+[sm])?)"),
    ("‹uid›", r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    ("‹time›", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"),
    (
        "‹date›",
        r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000",
    ),
    ("‹ip›", r"10\.\d+\.\d+\.\d+"),
    ("‹hash›", r"[bcdf2456789]{6,10}"),
    ("‹id›", r"[bcdfghjklmnpqrstvwxz2456789]{5}"),
    ("‹number›", r"\d+"),
    ("‹any›", r".*"),
    ("‹namespace›", r"[a-z-]+"),
];

/// What `TRIREME_BLESS` writes in place of what it finds. Ages only where a column begins and ends.
const MASKS: [(&str, &str); 10] = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "‹uid›"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(Z| \+0000)", "‹time›"),
    (
        r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000",
        "‹date›",
    ),
    (r#"(resourceVersion"?: ?")\d+"#, "${1}‹number›"),
    (r"10\.(9[6-9]|1[01]\d|244)\.\d+\.\d+", "‹ip›"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:‹number›"),
    (r"kube-api-access-[a-z0-9]{5}", "kube-api-access-‹id›"),
    (
        r"\b([a-z]+)-[bcdf2456789]{8,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\b",
        "${1}-‹hash›-‹id›",
    ),
    (r"\b(web-|solo-|pod-template-hash=)[bcdf2456789]{8,10}\b", "${1}‹hash›"),
    (r"(?m)(^|  )\d+s(  |$)", "${1}‹age›${2}"),
];

struct Step {
    /// Comments and empty lines before the command.
    before: String,
    command: String,
    expected: String,
}

/// Runs a transcript's commands in a namespace and compares.
pub fn check(place: &Workplace, name: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/e2e/transcripts")
        .join(name)
        .with_extension("txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let (mut seen, mut differences) = (String::new(), String::new());
    let steps = parse(&text);
    assert!(!steps.is_empty(), "{name} has no commands");
    assert!(text.contains("# Source: "), "{name} does not name its source");
    for step in &steps {
        let (output, code) = place.shell(&step.command.replace("‹namespace›", &place.namespace));
        let mut output = output.trim_end_matches('\n').to_owned();
        if code != 0 {
            output = format!("{output}\n[exit {code}]").trim_start_matches('\n').to_owned();
        }
        let expected = step.expected.replace("‹namespace›", &place.namespace);
        if let Some(difference) = difference(&expected, &output) {
            differences += &format!("$ {}\n{difference}\n\n", step.command);
        }
        let typed = step.command.replace('\n', "\n> ");
        seen += &format!("{}$ {typed}\n{}\n\n", step.before, mask(&output, &place.namespace));
    }
    if std::env::var_os("TRIREME_BLESS").is_some() {
        std::fs::write(&path, seen.trim_end().to_owned() + "\n").unwrap();
    } else if !differences.is_empty() {
        panic!("transcript {name}:\n{differences}");
    }
}

fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut before = String::new();
    let mut typing = false;
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                before: std::mem::take(&mut before),
                command: command.into(),
                expected: String::new(),
            });
            typing = true;
        } else if let (true, Some(more), Some(step)) = (typing, line.strip_prefix("> "), steps.last_mut()) {
            step.command += &format!("\n{more}");
        } else if line.starts_with("# ") {
            before += &format!("{line}\n");
        } else if let (true, Some(step)) = (before.is_empty(), steps.last_mut()) {
            typing = false;
            step.expected += &format!("{line}\n");
        }
    }
    for step in &mut steps {
        step.expected = step.expected.trim_end_matches('\n').to_owned();
    }
    steps
}

/// The first line that is not as expected, with both texts.
fn difference(expected: &str, output: &str) -> Option<String> {
    let (wanted, got): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), output.lines().collect());
    let at = (0..wanted.len().max(got.len())).find(|at| match (wanted.get(*at), got.get(*at)) {
        (Some(wanted), Some(got)) => !matches(wanted, got),
        _ => true,
    })?;
    let none = "(no line)";
    let (wanted, got) = (wanted.get(at).unwrap_or(&none), got.get(at).unwrap_or(&none));
    Some(format!(
        "line {}\n  expected: {wanted}\n  came:     {got}\n--- all that came:\n{output}",
        at + 1
    ))
}

fn matches(expected: &str, line: &str) -> bool {
    if !expected.contains('‹') {
        // Pads of a header depend on the widths of what stands below it.
        return expected == line || squeezed(expected) == squeezed(line) && expected.contains("  ");
    }
    let mut pattern = regex::escape(expected);
    for (placeholder, meaning) in PLACEHOLDERS {
        pattern = pattern.replace(&format!("{placeholder} "), &format!("{meaning} +"));
        pattern = pattern.replace(placeholder, meaning);
    }
    let pads = Regex::new(" {2,}| \\+ +").unwrap();
    let pattern = pads.replace_all(&pattern, " +").into_owned();
    Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(line)
}

fn squeezed(line: &str) -> String {
    Regex::new(" {3,}").unwrap().replace_all(line, "   ").into_owned()
}

fn mask(output: &str, namespace: &str) -> String {
    let mut text = output.to_owned();
    for (pattern, placeholder) in MASKS {
        text = Regex::new(pattern)
            .unwrap()
            .replace_all(&text, placeholder)
            .into_owned();
    }
    if namespace.starts_with("t-") {
        text.replace(namespace, "‹namespace›")
    } else {
        text
    }
}

#[test]
fn what_varies_may_vary_and_nothing_else() {
    for (expected, line, same) in [
        ("pod/web created", "pod/web created", true),
        ("pod/web created", "pod/web created ", false),
        ("web   ‹ip›   80/TCP   ‹age›", "web   10.96.0.1   80/TCP   3s", true),
        (
            "web   ‹ip›   80/TCP   ‹age›",
            "web   10.96.110.103   80/TCP   3m2s",
            true,
        ),
        (
            "web   ‹ip›   80/TCP   ‹age›",
            "web   10.96.110.103   81/TCP   3m2s",
            false,
        ),
        ("NAME   CLUSTER-IP   AGE", "NAME   CLUSTER-IP      AGE", true),
        ("  a: ‹number›", "  a: 12", true),
        ("  a: ‹number›", "  a: b", false),
    ] {
        assert_eq!(matches(expected, line), same, "{expected:?} {line:?}");
    }
}
