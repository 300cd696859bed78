//! Upstream's cases (`labels/selector_test.go`) and random texts.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn texts_print_in_normal_form() {
    for (text, expect) in [
        ("x=a,y=b,z=c", "x=a,y=b,z=c"),
        ("", ""),
        ("x!=a,y=b", "x!=a,y=b"),
        ("x=", "x="),
        ("x= ,z= ", "x=,z="),
        ("!x", "!x"),
        ("x>1,z<5", "x>1,z<5"),
        ("x=a,a=x", "a=x,x=a"),
        ("\rx", "x"),
        (
            "this-is-another-dns.domain.com/key-with-dash in (so,what)",
            "this-is-another-dns.domain.com/key-with-dash in (so,what)",
        ),
        (
            "0.1.2.domain/99 notin (10.10.100.1, tick.tack.clock)",
            "0.1.2.domain/99 notin (10.10.100.1,tick.tack.clock)",
        ),
        ("x notin\n (abc)", "x notin (abc)"),
        ("x in (abc,abc)", "x in (abc)"),
        ("x in (abc,)", "x in (,abc)"),
        ("x in ()", "x in ()"),
        ("x in (a,,,)", "x in (,a)"),
        ("x in (a,,a,,a,,a,,)", "x in (,a)"),
        ("x notin (abc,,def),bar,z in (),w", "bar,w,x notin (,abc,def),z in ()"),
        ("x notin (, a)", "x notin (,a)"),
        ("a in (x,y,notin, z,in)", "a in (in,notin,x,y,z)"),
        ("x==a", "x==a"),
    ] {
        let selector = LabelSelector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selector.to_string(), expect, "{text}");
    }
}

#[test]
fn bad_texts_are_refused_in_upstreams_words() {
    for (text, expect) in [
        ("x=a=y", "found '=', expected: ',' or 'end of string'"),
        ("x==a==b", "found '==', expected: ',' or 'end of string'"),
        ("!x=a", "found '=', expected: ',' or 'end of string'"),
        (
            "x<a",
            "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        ("x,,y", "found ',', expected: identifier after ','"),
        (",x,y", "found ',', expected: !, identifier, or 'end of string'"),
        (
            "x nott in (y)",
            "unable to parse requirement: found 'nott', expected: in, notin, =, ==, !=, gt, lt",
        ),
        ("a in (xyz),", "found '', expected: identifier after ','"),
        ("a in (xyz)b notin ()", "found 'b', expected: ',' or 'end of string'"),
        (
            "a in (xyz abc)",
            "unable to parse requirement: found 'abc', expected: ',' or ')'",
        ),
        (
            "a notin(",
            "unable to parse requirement: found '', expected: ',', ')' or identifier",
        ),
        (
            "a (",
            "unable to parse requirement: found '(', expected: in, notin, =, ==, !=, gt, lt",
        ),
        ("(", "found '(', expected: !, identifier, or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        (
            "a/b/c",
            "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        ),
        (
            "x=-",
            "unable to parse requirement: values[0][x]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
    ] {
        let error = LabelSelector::parse(text).map(|s| s.to_string()).expect_err(text);
        assert_eq!(error.to_string(), expect, "{text}");
    }
}

#[test]
fn labels_match() {
    let labels = json!({"metadata": {"labels": {"foo": "bar", "baz": "blah", "notin": "in", "n": "2", "v": "v2"}}});
    for (text, expect) in [
        ("", true),
        ("foo=bar", true),
        ("foo=bar,baz=blah", true),
        ("foo=blah", false),
        ("foo=bar,foobar=bar,baz=blah", false),
        ("notin=in", true),
        ("foo!=x,other!=x", true),
        ("foo", true),
        ("!foo", false),
        ("!other", true),
        ("n>1", true),
        ("n<2", false),
        ("v>1", false),
        ("other>1", false),
        ("foo in (bar,x)", true),
        ("other notin (x)", true),
        ("other in ()", false),
    ] {
        let selector = LabelSelector::parse(text).unwrap();
        assert_eq!(selector.matches_object(&labels), expect, "{text}");
    }
    assert!(!LabelSelector::nothing().matches_object(&labels));
}

#[test]
fn objects_become_selectors() {
    for (object, expect) in [
        (json!(null), Ok(None)),
        (json!({}), Ok(Some(""))),
        (
            json!({"matchLabels": {"b": "x"}, "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["2", "1"]},
                {"key": "c", "operator": "DoesNotExist"}
            ]}),
            Ok(Some("a in (1,2),b=x,!c")),
        ),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "Gt"}]}),
            Err("\"Gt\" is not a valid label selector operator"),
        ),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            Err("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"),
        ),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}),
            Err("values: Invalid value: [\"x\"]: values set must be empty for exists and does not exist"),
        ),
    ] {
        let got = LabelSelector::from_object(&object);
        match (got, expect) {
            (Ok(selector), Ok(None)) => assert!(selector.is_nothing()),
            (Ok(selector), Ok(Some(text))) => assert_eq!(selector.to_string(), text),
            (Err(error), Err(text)) => assert_eq!(error.to_string(), text),
            (got, expect) => panic!("{got:?} {expect:?}"),
        }
    }
}

#[test]
fn exact_values_are_found() {
    let selector = LabelSelector::parse("a=1,b in (2),c in (3,4),d").unwrap();
    for (key, expect) in [
        ("a", Some("1")),
        ("b", Some("2")),
        ("c", None),
        ("d", None),
        ("e", None),
    ] {
        assert_eq!(selector.exact_value(key), expect);
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_read_prints_and_reads_the_same(text in "[a-c/.!=<>(), \\t\0]{0,24}|(a|in|notin|,|!|=|\\(|\\)| ){0,12}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            let again = LabelSelector::parse(&selector.to_string());
            prop_assert_eq!(again.map(|s| s.to_string()), Ok(selector.to_string()));
        }
    }
}
