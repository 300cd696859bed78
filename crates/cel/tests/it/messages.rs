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
