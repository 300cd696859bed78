//! What is said about expressions that do not compile, with the place and the line.

use cel::{Environment, Type, compile};

fn check(text: &str, expect: &str) {
    let environment = Environment::kubernetes(36)
        .with("m", Type::map(Type::String, Type::Int))
        .with("s", Type::String);
    let issues = compile(&environment, text).err().map(|issues| issues.to_string());
    assert_eq!(issues.as_deref(), Some(expect), "{text}");
}

#[test]
fn issues_show_their_place() {
    check(
        "x",
        "ERROR: <input>:1:1: undeclared reference to 'x' (in container '')\n | x\n | ^",
    );
    check(
        "true &&\n  foo(1)",
        "ERROR: <input>:2:6: undeclared reference to 'foo' (in container '')\n |   foo(1)\n | .....^",
    );
    check(
        "m.a + s",
        "ERROR: <input>:1:5: found no matching overload for '_+_' applied to '(int, string)'\n | m.a + s\n | ....^",
    );
    check(
        "s.a",
        "ERROR: <input>:1:2: type 'string' does not support field selection\n | s.a\n | .^",
    );
    check(
        "1 +",
        "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', \
         'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
    );
    check(
        "'\u{e9}' + 1 + z",
        "ERROR: <input>:1:5: found no matching overload for '_+_' applied to '(string, int)'\n | '\u{e9}' + 1 + z\n | .\u{ff0e}..^\nERROR: <input>:1:11: undeclared reference to 'z' (in container '')\n | '\u{e9}' + 1 + z\n | .\u{ff0e}........^",
    );
    const START: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, \
                         IDENTIFIER}";
    check(
        "*s",
        &format!("ERROR: <input>:1:1: Syntax error: extraneous input '*' expecting {START}\n | *s\n | ^"),
    );
    check(
        "s m",
        "ERROR: <input>:1:3: Syntax error: extraneous input 'm' expecting <EOF>\n | s m\n | ..^",
    );
    check(
        "s m s",
        "ERROR: <input>:1:3: Syntax error: mismatched input 'm' expecting <EOF>\n | s m s\n | ..^",
    );
    check(
        "{s}",
        "ERROR: <input>:1:3: Syntax error: mismatched input '}' expecting ':'\n | {s}\n | ..^",
    );
    check(
        r#""\xFh"#,
        &format!(
            "ERROR: <input>:1:1: Syntax error: token recognition error at: '\"\\xFh'\n | \"\\xFh\n | ^\nERROR: <input>:1:6: \
             Syntax error: mismatched input '<EOF>' expecting {START}\n | \"\\xFh\n | .....^"
        ),
    );
    check("for", "ERROR: <input>:1:1: reserved identifier: for\n | for\n | ^");
}

#[test]
fn what_is_too_much_is_refused() {
    let deep = format!("{}1{}", "(".repeat(300), ")".repeat(300));
    let chain = vec!["1"; 300].join(" + ");
    let limit = "ERROR: <input>:-1:0: expression recursion limit exceeded: 250";
    for text in [
        &deep,
        &chain,
        &format!("{}x", "!(".repeat(400)),
        &format!("[{}]", "[".repeat(1000)),
    ] {
        check(text, limit);
    }
    check(
        &" ".repeat(100_001),
        "ERROR: <input>:-1:0: expression code point size exceeds limit: size: 100001, limit 100000",
    );
    let doubled = format!("optional.of(1){}", ".optMap(x, x)".repeat(40));
    check(&doubled, limit);
}

#[test]
fn only_a_hundred_issues_are_told() {
    let text = vec!["x"; 120].join(" || ");
    let issues = compile(&Environment::kubernetes(36), &text).expect_err("nothing is declared");
    assert_eq!(issues.list().len(), 100);
    assert!(
        issues.to_string().ends_with("\n20 more errors were truncated"),
        "{issues}"
    );
}

/// As high a tree as may be, and types as large: everything that recurses has room on a test's stack of 2 MiB.
#[test]
fn what_is_just_not_too_much_is_taken() {
    let nested = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    for text in [
        nested("[", "", "]", 249),
        nested("{1: ", "2", "}", 249),
        nested("!(", "true", ")", 249),
        nested("[1].map(x, ", "x", ")", 60),
        nested("[1].all(x, ", "true", ")", 80),
        nested("(true ? ", "1", " : 2)", 200),
        format!("{{'a': 1}}{}", ".?a".repeat(240)),
        nested("size([", "1", "])", 120),
    ] {
        let program = compile(&Environment::kubernetes(36), &text);
        let program = match program {
            Ok(program) => program,
            Err(issues) => {
                let message = &issues.list()[0].message;
                assert!(
                    message.starts_with("found no matching") || message.starts_with("type '"),
                    "{message}"
                );
                continue;
            }
        };
        let estimate = program.estimate(&cel::UnknownSizes);
        assert!(estimate.min <= estimate.max);
        let value = program.evaluate(&[], &mut cel::Budget::for_one_call());
        assert!(value.is_ok(), "{text}: {value:?}");
        let _ = value.map(|value| (value.to_string(), value.equals(&value)));
    }
    let doubling = format!("[1]{}", ".map(x, {x: x})".repeat(40));
    let issues = compile(&Environment::kubernetes(36), &doubling).expect_err("its type would have 2^40 parts");
    assert_eq!(issues.list()[0].message, "the type of this expression is too large");
}

#[test]
fn versions_have_their_libraries() {
    let compiles = |minor, text: &str| compile(&Environment::kubernetes(minor), text).is_ok();
    for (since, text) in [
        (28, "{'a': 1}.?a.hasValue()"),
        (32, "[1].all(i, v, true)"),
        (29, "strings.quote('a') == 'a'"),
    ] {
        assert!(compiles(since, text), "{text}");
        assert!(!compiles(since - 1, text), "{text}");
    }
}
