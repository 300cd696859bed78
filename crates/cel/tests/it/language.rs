//! Values: the language's own operators, macros and functions. Expressions of cel-spec's conformance tests and of cel-go's.

use crate::check;

#[test]
fn arithmetic() {
    check(&[
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("-7 % 3", "-1"),
        ("7u % 3u", "1"),
        ("1.5 + 2.5", "4"),
        ("0x1F", "31"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("-(-9223372036854775807 - 1)", "error: integer overflow"),
        ("0u - 1u", "error: unsigned integer overflow"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("1.0 / 0.0", "+Inf"),
        ("!!true", "true"),
        ("--1", "1"),
        (
            "1 + 2u",
            "issues: found no matching overload for '_+_' applied to '(int, uint)'",
        ),
        ("9223372036854775808", "issues: invalid int literal"),
    ]);
}

#[test]
fn comparisons() {
    check(&[
        ("1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3", "true"),
        ("1 < 1.5", "true"),
        ("dyn(1) == 1u", "true"),
        ("dyn(1) == 1.0", "true"),
        (
            "1 == 1.0",
            "issues: found no matching overload for '_==_' applied to '(int, double)'",
        ),
        ("'a' < 'b'", "true"),
        ("b'a' < b'b'", "true"),
        ("[1, 2] == [1, 2]", "true"),
        ("{'a': 1, 'b': 2} == {'b': 2, 'a': 1}", "true"),
        ("null == null", "true"),
        ("dyn('a') == dyn(1)", "false"),
        ("dyn('a') < dyn(1)", "error: no such overload"),
        ("duration('1h') == duration('60m')", "true"),
        (
            "timestamp('2009-02-13T23:31:30Z') < timestamp('2009-02-13T23:31:31Z')",
            "true",
        ),
    ]);
}

#[test]
fn logic_absorbs_errors() {
    check(&[
        ("true || 1 / 0 > 1", "true"),
        ("1 / 0 > 1 || true", "true"),
        ("false && 1 / 0 > 1", "false"),
        ("1 / 0 > 1 && false", "false"),
        ("1 / 0 > 1 || false", "error: division by zero"),
        ("true ? 1 : 1 / 0", "1"),
        ("false ? 1 / 0 : 2", "2"),
        (
            "true ? 1 : 'a'",
            "issues: found no matching overload for '_?_:_' applied to '(bool, int, string)'",
        ),
        ("1 && true", "issues: expected type 'bool' but found 'int'"),
    ]);
}

#[test]
fn conversions() {
    check(&[
        ("int('42')", "42"),
        ("int(3.99)", "3"),
        ("int(-3.99)", "-3"),
        ("int(timestamp('1970-01-01T00:00:01Z'))", "1"),
        ("[1e99].exists(x, int(x) > 0)", "error: integer overflow"),
        ("uint('7') + 1u", "8"),
        ("[-1].exists(x, uint(x) > 0u)", "error: unsigned integer overflow"),
        ("double('1.5')", "1.5"),
        ("string(1.5)", "1.5"),
        ("string(-1.23e4)", "-12300"),
        ("string(1e10)", "1e+10"),
        ("string(123u)", "123"),
        ("string(true)", "true"),
        ("string(b'abc')", "abc"),
        ("string(duration('1h30m'))", "5400s"),
        ("string(timestamp(0))", "1970-01-01T00:00:00Z"),
        ("bool('true')", "true"),
        (
            "[b'\\xff'].exists(x, string(x) == '')",
            "error: invalid UTF-8 in bytes, cannot convert to string",
        ),
        ("type(1) == int", "true"),
        ("type(type(1)) == type", "true"),
        ("type([]) == list && type({}) == map && type(null) == null_type", "true"),
        (
            "int('x')",
            "issues: program instantiation failed: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        ("duration('x')", "issues: invalid duration argument"),
        ("timestamp('x')", "issues: invalid timestamp argument"),
        ("'a'.matches('(')", "issues: invalid matches argument"),
    ]);
}

#[test]
fn macros() {
    check(&[
        ("[1, 2, 3].all(x, x > 0)", "true"),
        ("[1, 2, 3].exists(x, x == 2)", "true"),
        ("[1, 2, 2].exists_one(x, x == 2)", "false"),
        ("[1, 2, 2].existsOne(x, x == 1)", "true"),
        ("[1, 2, 3].map(x, x * 2)", "[2, 4, 6]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]"),
        ("[1, 2, 3].filter(x, x > 1)", "[2, 3]"),
        ("{'a': 1, 'b': 2}.map(k, k)", "[a, b]"),
        ("{'a': 1}.all(k, k == 'a')", "true"),
        ("[1, 0].exists(x, 1 / x > 0)", "true"),
        ("[0, 1].exists(x, 1 / x > 0)", "true"),
        ("[0].all(x, 1 / x > 0)", "error: division by zero"),
        ("[[1, 2], [3]].map(x, x.map(y, y + 1))", "[[2, 3], [4]]"),
        ("has({'a': 1}.a) && !has({'a': 1}.b)", "true"),
        ("[1, 2].all(i, v, i < v)", "true"),
        ("{'a': 1}.exists(k, v, k == 'a' && v == 1)", "true"),
        ("[1, 2, 3].transformList(i, v, i > 0, v * 10)", "[20, 30]"),
        ("{'a': 1}.transformMap(k, v, v + 1)", "{a: 2}"),
        ("{'a': 'b'}.transformMapEntry(k, v, {v: k})", "{b: a}"),
        (
            "{'a': 'x', 'b': 'x'}.transformMapEntry(k, v, {v: k})",
            "error: insert failed: key x already exists",
        ),
        ("[1].all(1, true)", "issues: argument must be a simple name"),
        ("has(1)", "issues: invalid argument to has() macro"),
        (
            "[1].map(__result__, 1)",
            "issues: iteration variable overwrites accumulator variable",
        ),
        (
            "1.all(x, true)",
            "issues: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
    ]);
}

#[test]
fn optional_values() {
    check(&[
        ("optional.of(1).value()", "1"),
        ("optional.none().hasValue()", "false"),
        ("optional.none().orValue(2)", "2"),
        ("optional.of(1).or(optional.of(2))", "optional(1)"),
        ("optional.ofNonZeroValue('')", "optional.none()"),
        ("{'a': {'b': 1}}.?a.?b", "optional(1)"),
        ("{'a': {'b': 1}}.?x.b", "optional.none()"),
        ("[1, 2][?5].orValue(0)", "0"),
        ("{'a': 1}[?'a']", "optional(1)"),
        ("[?optional.of(1), ?optional.none(), 3]", "[1, 3]"),
        ("{?'a': optional.none(), 'b': 2}", "{b: 2}"),
        ("optional.of(2).optMap(x, x * 2)", "optional(4)"),
        ("optional.of(2).optFlatMap(x, optional.of(x))", "optional(2)"),
        ("optional.none().value()", "error: optional.none() dereference"),
        ("has({'a': optional.of({'b': 1})}.a.b)", "true"),
    ]);
}

#[test]
fn texts() {
    check(&[
        ("size('h\u{e9}llo')", "5"),
        (
            "'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')",
            "true",
        ),
        ("'123-456'.matches('^[0-9]+(-[0-9]+)?$')", "true"),
        ("matches('hello', '^h.*o$')", "true"),
        ("'hello'.charAt(1)", "e"),
        ("'hello'.charAt(5)", ""),
        ("'hello'.charAt(6)", "error: index out of range: 6"),
        ("'hello mellow'.indexOf('ello')", "1"),
        ("'hello mellow'.indexOf('ello', 2)", "7"),
        ("'hello mellow'.lastIndexOf('ello')", "7"),
        ("'hello mellow'.lastIndexOf('ello', 6)", "1"),
        ("'hello'.indexOf('')", "0"),
        ("'tacocat'.indexOf('', 30)", "7"),
        ("'tacocat'.indexOf('a', 30)", "-1"),
        ("'tacocat'.indexOf('a', -1)", "error: index out of range: -1"),
        ("'tacocat'.lastIndexOf('', 30)", "7"),
        ("'tacocat'.lastIndexOf('t', 7)", "-1"),
        ("'ta\u{a9}o\u{a9}\u{3b1}T'.lastIndexOf('\u{a9}', 4)", "4"),
        ("'hello hello'.replace('he', 'we', 1)", "wello hello"),
        ("'abc'.replace('', '_')", "_a_b_c_"),
        ("'hello hello'.split(' ')", "[hello, hello]"),
        ("'abc'.split('')", "[a, b, c]"),
        ("'a b c'.split(' ', 2)", "[a, b c]"),
        ("'a b'.split(' ', 0)", "[]"),
        ("'tacocat'.substring(4)", "cat"),
        ("'tacocat'.substring(0, 4)", "taco"),
        (
            "'tacocat'.substring(4, 3)",
            "error: invalid substring range. start: 4, end: 3",
        ),
        ("'  \\ttrim\\n '.trim()", "trim"),
        ("'TacoCat'.lowerAscii() + 'x'.upperAscii()", "tacocatX"),
        ("['a', 'b'].join('-')", "a-b"),
        ("strings.quote('a\\n\"b')", "\"a\\n\\\"b\""),
        ("'abc 123'.find('[0-9]+')", "123"),
        ("'123 abc 456'.findAll('[0-9]+')", "[123, 456]"),
        ("'123 abc 456'.findAll('[0-9]+', 1)", "[123]"),
    ]);
}

#[test]
fn lists_and_maps() {
    check(&[
        ("[1, 2] + [3]", "[1, 2, 3]"),
        ("[1, 2, 3][1]", "2"),
        ("[1, 2, 3][5]", "error: index out of bounds: 5"),
        ("{'a': 1}['b']", "error: no such key: b"),
        ("{'a': 1}.b", "error: no such key: b"),
        ("2 in [1, 2] && !(3 in [1, 2])", "true"),
        ("'a' in {'a': 1}", "true"),
        ("size([1, 2]) + {'a': 1}.size()", "3"),
        ("{1: 'a', 2: 'b'}[2]", "b"),
        ("{1: 'a'}[dyn(1.0)]", "a"),
        ("[1, 'a']", "issues: expected type 'int' but found 'string'"),
        ("[dyn(1), 'a']", "issues: expected type 'dyn' but found 'string'"),
        ("[dyn(1), dyn('a')]", "[1, a]"),
    ]);
}

#[test]
fn times() {
    check(&[
        ("timestamp('2009-02-13T23:31:30Z').getFullYear()", "2009"),
        ("timestamp('2009-02-13T23:31:30Z').getMonth()", "1"),
        ("timestamp('2009-02-13T23:31:30Z').getDayOfMonth()", "12"),
        ("timestamp('2009-02-13T23:31:30Z').getDate('Australia/Sydney')", "14"),
        ("timestamp('2009-02-13T02:00:00Z').getHours('02:00')", "4"),
        ("timestamp('2009-02-13T23:31:30Z').getDayOfWeek()", "5"),
        ("timestamp('2009-02-13T23:31:30Z').getDayOfYear()", "43"),
        ("timestamp('2009-02-13T23:31:20.123456789Z').getMilliseconds()", "123"),
        ("duration('3h10m').getMinutes()", "190"),
        (
            "timestamp('9999-12-31T23:59:59Z') + duration('1s')",
            "error: timestamp overflow",
        ),
        (
            "timestamp('2009-02-13T23:31:30Z') - timestamp('2009-02-13T23:31:00Z') == duration('30s')",
            "true",
        ),
        (
            "timestamp('2009-02-13T23:31:30Z').getHours('Nowhere')",
            "error: unknown time zone Nowhere",
        ),
    ]);
}
