//! Upstream's own good and bad values (`validation_test.go`).

use super::*;

fn check(rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
    for value in good {
        assert_eq!(rule(value), Vec::<String>::new(), "{value:?}");
    }
    for value in bad {
        assert_ne!(rule(value), Vec::<String>::new(), "{value:?}");
    }
}

fn errors(rule: fn(&Path, &str) -> ErrorList, good: &[&str], bad: &[&str]) {
    let path = Path::new("f");
    for value in good {
        assert_eq!(rule(&path, value), vec![], "{value:?}");
    }
    for value in bad {
        assert_ne!(rule(&path, value), vec![], "{value:?}");
    }
}

#[test]
fn dns_names() {
    let (a63, a64, a253, a254) = ("a".repeat(63), "a".repeat(64), "a".repeat(253), "a".repeat(254));
    check(
        dns1123_label,
        &[
            "a",
            "ab",
            "a1",
            "a-1",
            "a--1--2--b",
            "0",
            "01",
            "1a",
            "1--a--b--2",
            &a63,
        ],
        &[
            "", "A", "aBc", "-", "a-", "-a", "_", "a_b", ".", "a.", "a.b", " ", "a b", "1 ", "é", &a64,
        ],
    );
    check(
        dns1123_subdomain,
        &["a", "a.a", "a--1--2--b.a", "0.1", "1.2.3.4.5", "aa.bb.cc.dd.ee", &a253],
        &[
            "", "A", "a.B", ".", "a.", ".a", "a..b", "a@b", "a_b", "a b", "a:b", &a254,
        ],
    );
    check(
        dns1035_label,
        &["a", "ab", "a1", "a--1--2--b", &a63],
        &["0", "1a", "", "A", "a-", "-a", "a.b", "1-a", &a64],
    );
    check(
        dns1123_subdomain_underscore,
        &["a", "_a.b", "a_b.c", "_sip._tcp.example.com"],
        &["", "__a", "a_", "A", "_", "a._"],
    );
    check(
        wildcard_dns1123_subdomain,
        &["*.example.com", "*.bar.com"],
        &["*.*.bar.com", "*.foo.*.com", "*bar.com", "f*.bar.com", "*"],
    );
}

#[test]
fn keys_and_values() {
    let long = format!("{}/{}", "a".repeat(253), "b".repeat(63));
    let (a63, a64, prefix) = ("a".repeat(63), "a".repeat(64), format!("{}/abc", "a".repeat(254)));
    check(
        qualified_name,
        &[
            "simple",
            "1234",
            "now.with.dots/simple",
            "1.2.3.4/5678",
            "Uppercase_Is_OK_123",
            "requests.storage-foo",
            &a63,
            &long,
        ],
        &[
            "nospecialchars%^=@",
            "cantendwithadash-",
            "only/one/slash",
            "Example.com/abc",
            "example_com/abc",
            "example.com/",
            "/simple",
            "",
            &a64,
            &prefix,
        ],
    );
    check(
        label_value,
        &["simple", "end-with-num-1", "1234", "", &a63],
        &[
            "nospecialchars%^=@",
            "Tama-nui-te-rā.is.Māori.sun",
            "\\back",
            "-dash",
            "dash-",
            ".dot",
            "dot.",
            &a64,
        ],
    );
    check(
        config_map_key,
        &["a", "still.good", ".so.is.this", "THIS_IS_GOOD", "so_is_this_17"],
        &["", ".", "..", "..bad", "b*d", "bad!&bad"],
    );
    check(path_segment_name, &["a:b", "x y", "..."], &[".", "..", "a/b", "a%b"]);
}

#[test]
fn other_identifiers() {
    check(
        port_name,
        &["telnet", "re-mail-ck", "pop3", "a", "1-a-2-b-3"],
        &[
            "longerthan15characters",
            "",
            "12345",
            "1-2-3-4",
            "-begin",
            "end-",
            "two--hyphens",
            "whois++",
            "A",
        ],
    );
    check(
        http_header_name,
        &["Accept-Encoding", "a", "-a", "--123-ABC"],
        &["Host:", "X-@Home", "", "_", "a b", "a.b", ";"],
    );
    check(c_identifier, &["a", "_a", "MY_NAME", "a1"], &["", "1a", "a-b", "a.b"]);
    check(
        env_var_name,
        &["a", "my.env-name", "_", "MyEnvName1"],
        &["", "1a", "a b", "..", "..a", ".", "a=b"],
    );
    check(
        relaxed_env_var_name,
        &["a", "1", "a b", "-$%", "a.b", "."],
        &["", "a=b", "é", "a\tb"],
    );
    errors(
        fully_qualified_domain_name,
        &["a.com", "dev.k8s.io.", "10.0.0.1"],
        &[
            "",
            ".",
            "...",
            ".io",
            "com",
            "Dev.k8s.io",
            "*.example.com",
            "underscores_are_bad.k8s.io",
        ],
    );
    errors(
        fully_qualified_name,
        &["dev.k8s.io", "10.0.0.1"],
        &["", "dev.k8s.io.", "k8s.io", "http://foo.example.com"],
    );
    errors(
        domain_prefixed_path,
        &["a/b", "a/b/c/d", "k8s.io/FOO/BAR"],
        &[
            "",
            ".",
            "/b",
            "com",
            "a.b.c.d/foo?a=b",
            "Dev.k8s.io/a",
            "example.com/foo{}[]@^`",
        ],
    );
    errors(
        domain_prefixed_key,
        &["a/b", "k8s.io/B_b"],
        &["", "a", "/b", "a/", "a/b/c"],
    );
}

#[test]
fn messages_are_upstreams() {
    assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
    assert_eq!(
        dns1123_label("A"),
        [
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        ]
    );
    assert_eq!(
        dns1123_subdomain("A"),
        [
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        ]
    );
    assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
    assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    assert_eq!(
        qualified_name(&"a".repeat(64)),
        ["name part must be no more than 63 bytes"]
    );
    assert_eq!(config_map_key("..a"), ["must not start with '..'"]);
    assert_eq!(path_segment_name(".."), ["may not be '..'"]);
    assert_eq!(path_segment_name("a/%"), ["may not contain '/'", "may not contain '%'"]);
}

#[test]
fn generated_names_may_end_in_a_dash() {
    assert!(name_is_dns_subdomain("foo-", true).is_empty());
    assert!(!name_is_dns_subdomain("foo-", false).is_empty());
    assert!(!name_is_dns_label("-", true).is_empty());
    assert!(!name_is_dns1035_label("1a-", true).is_empty());
    assert!(!name_is_path_segment(".", false).is_empty() && name_is_path_segment(".", true).is_empty());
}
