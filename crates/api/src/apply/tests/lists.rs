//! Order of merged sets: upstream's table (`typed/merge_test.go`).

use serde_json::json;

use super::super::merge::merge;
use super::*;
use crate::schema::{Builder, FieldSpec, Flags, Scalar};

/// An object with a field `s`: a set of strings.
fn set_of_strings() -> SchemaRef {
    let mut builder = Builder::default();
    let flags = Flags::default();
    let string = builder.scalar(Scalar::String, flags);
    let set = builder.list(string, true, flags);
    let root = builder.object("test.v1.Root", flags);
    builder.set_fields(root, &[FieldSpec::as_given("s", set)]);
    SchemaRef::own(std::sync::Arc::new(builder.finish()), root)
}

#[test]
fn sets_merge_in_upstreams_order() {
    let schema = set_of_strings();
    let list = |text: &str| json!({"s": text.chars().map(|c| c.to_string()).collect::<Vec<_>>()});
    for (live, applied, expect) in [
        ("abc", "ab", "abc"),
        ("ab", "abc", "abc"),
        ("abc", "", "abc"),
        ("", "abc", "abc"),
        ("ab", "ba", "ba"),
        ("abc", "def", "abcdef"),
        ("abc", "cdef", "abcdef"),
        ("abcgf", "cdef", "abcgdef"),
        ("abc", "defxyz", "abcdefxyz"),
        ("cdef", "ace", "acdef"),
        ("abcxyz", "def", "abcxyzdef"),
        ("abcxyz", "defxyz", "abcdefxyz"),
        ("cagf", "cfag", "cfag"),
        ("abcd", "defa", "bcdefa"),
        ("cdefghij", "2h3e4kl", "cdfg2hij3e4kl"),
        ("abcdefghij", "1b2h3e4kl", "a1bcdfg2hij3e4kl"),
        ("abb", "c", "abbc"),
        ("abb", "b", "ab"),
        ("abb", "a", "abb"),
        ("abcdec", "1b2ed", "a1bc2ecd"),
        ("abcdec", "1b2ced", "a1b2ced"),
        ("aabb", "bcd", "aabcd"),
        ("aabb", "", "aabb"),
        ("cagfca", "cfag", "cfag"),
    ] {
        let got = merge(&list(live), &list(applied), Type::Node(schema.node()));
        assert_eq!(got, list(expect), "{live} {applied}");
    }
}
