//! Kubernetes' libraries. Expressions of the API server's own tests (`pkg/cel/library/*_test.go`), and cel-go's of the
//! extensions.

use std::sync::{Arc, Mutex};

use cel::{Attributes, Authorizer, Budget, Decision, Environment, Target, Type, Value, compile};

use crate::{check, evaluate_in};

#[test]
fn lists() {
    check(&[
        (
            "[1, 2, 3].isSorted() && !['b', 'a'].isSorted() && [].map(x, 1).isSorted()",
            "true",
        ),
        ("[1, 2, 3].sum()", "6"),
        ("[1.5, 2.5].sum()", "4"),
        ("[duration('1m'), duration('1s')].sum() == duration('61s')", "true"),
        ("[9223372036854775807, 1].sum()", "error: integer overflow"),
        ("[1, 3, 2].max()", "3"),
        ("['b', 'a'].min()", "a"),
        ("[1].filter(x, x > 1).max()", "error: max called on empty list"),
        ("[1, 2, 2].indexOf(2)", "1"),
        ("[1, 2, 2].lastIndexOf(2)", "2"),
        ("[1].indexOf(3)", "-1"),
        ("[1, 2, 3, 4].slice(1, 3)", "[2, 3]"),
        ("[1].slice(0, 2)", "error: cannot slice(0, 2), list is length 1"),
        (
            "[1].slice(-1, 0)",
            "error: cannot slice(-1, 0), negative indexes not supported",
        ),
        ("[[1], [2, 3]].flatten()", "[1, 2, 3]"),
        ("[[[1]], [[2]]].flatten(2)", "[1, 2]"),
        ("[[1]].flatten(-1)", "error: level must be non-negative"),
        ("[3, 1, 2].sort()", "[1, 2, 3]"),
        ("['aa', 'b', 'ccc'].sortBy(x, -size(x))", "[ccc, aa, b]"),
        ("lists.range(3)", "[0, 1, 2]"),
        (
            "lists.range(2000000)",
            "error: operation cancelled: actual cost limit exceeded",
        ),
        ("[1, 2].reverse()", "[2, 1]"),
        ("[1, 1, 2].distinct()", "[1, 2]"),
        ("[1, 2].first().value() + [1, 2].last().value()", "3"),
        (
            "sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && !sets.intersects([1], [2])",
            "true",
        ),
        ("'12 %'.substring(1)", "2 %"),
    ]);
}

#[test]
fn addresses() {
    check(&[
        ("ip('192.168.0.1')", "192.168.0.1"),
        (
            "ip('192.168.0.1.0')",
            "error: IP Address \"192.168.0.1.0\" parse error during conversion from string: ParseAddr(\"192.168.0.1.0\"): unable to parse IP",
        ),
        (
            "ip('::ffff:1.2.3.4')",
            "error: IPv4-mapped IPv6 address \"::ffff:1.2.3.4\" is not allowed",
        ),
        (
            "ip('fe80::1%eth0')",
            "error: IP address \"fe80::1%eth0\" with zone value is not allowed",
        ),
        ("ip('192.168.0.1').family() + ip('2001:db8::68').family()", "10"),
        (
            "ip.isCanonical('127.0.0.1') && !ip.isCanonical('2001:DB8::ABCD')",
            "true",
        ),
        ("ip('0.0.0.0').isUnspecified() && ip('::1').isLoopback()", "true"),
        (
            "ip('224.0.0.1').isLinkLocalMulticast() && ip('ff02::1').isLinkLocalMulticast()",
            "true",
        ),
        (
            "ip('169.254.169.254').isLinkLocalUnicast() && ip('fe80::1').isLinkLocalUnicast()",
            "true",
        ),
        (
            "ip('192.168.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast()",
            "true",
        ),
        ("isIP('::1') && !isIP('1.2.3')", "true"),
        ("string(ip('::1'))", "::1"),
        ("type(ip('::1')) == net.IP", "true"),
        ("cidr('192.168.0.0/24').containsIP('192.168.0.1')", "true"),
        ("cidr('192.168.0.0/24').containsIP(ip('192.168.1.1'))", "false"),
        ("cidr('192.168.0.0/24').containsCIDR('192.168.0.0/25')", "true"),
        ("cidr('192.168.0.0/24').containsCIDR(cidr('192.168.0.0/23'))", "false"),
        (
            "cidr('2001:db8::/32').containsIP('2001:db8::1') && !cidr('::/0').containsIP('1.2.3.4')",
            "true",
        ),
        ("cidr('192.168.1.5/24').ip()", "192.168.1.5"),
        ("cidr('192.168.1.5/24').masked()", "192.168.1.0/24"),
        ("cidr('192.168.1.5/24').prefixLength()", "24"),
        (
            "isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0') && !isCIDR('10.0.0.0/33')",
            "true",
        ),
        (
            "ip('1.2.3.4') == ip('1.2.3.4') && cidr('1.0.0.0/8') != cidr('1.0.0.0/9')",
            "true",
        ),
    ]);
}

#[test]
fn quantities_and_versions() {
    check(&[
        ("quantity('12Mi')", "12Mi"),
        (
            "quantity('10Mo')",
            "error: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        ("isQuantity('20') && !isQuantity('20x')", "true"),
        ("quantity('200M').compareTo(quantity('0.2G'))", "0"),
        ("quantity('200M') == quantity('0.2G')", "true"),
        (
            "quantity('50k').isGreaterThan(quantity('1k')) && quantity('1').isLessThan(quantity('2'))",
            "true",
        ),
        ("quantity('50k').add(quantity('20k')).sub(10)", "69990"),
        ("quantity('50k').asInteger()", "50000"),
        ("quantity('50m').isInteger()", "false"),
        ("quantity('50m').asInteger()", "error: cannot convert value to integer"),
        ("quantity('50k').asApproximateFloat()", "50000"),
        ("sign(quantity('-1'))", "-1"),
        ("semver('1.2.3')", "1.2.3"),
        ("semver('v1.0')", "error: No Major.Minor.Patch elements found"),
        ("isSemver('1.2.3-beta.1+build.1')", "true"),
        (
            "isSemver('') || isSemver('v1.0.0') || isSemver('01.01.01') || isSemver('1.1') || isSemver('1. 0.0')",
            "false",
        ),
        (
            "isSemver('v1.0.0', true) && isSemver('01.01.01', true) && isSemver('1', true)",
            "true",
        ),
        (
            "isSemver('', true) || isSemver(' 1.0.0', true) || isSemver('1.0.0 ', true)",
            "false",
        ),
        ("semver('v01.01', true) == semver('1.1.0')", "true"),
        (
            "semver('1.0.0-alpha').isLessThan(semver('1.0.0')) && semver('1.0.0-2').isLessThan(semver('1.0.0-a'))",
            "true",
        ),
        (
            "semver('1.2.3').compareTo(semver('1.0.0')) + semver('1.2.3').minor()",
            "3",
        ),
    ]);
}

#[test]
fn urls_and_formats() {
    check(&[
        ("url('https://example.com:80/path').getScheme()", "https"),
        ("url('https://user@[::1]:8080/').getHost()", "[::1]:8080"),
        (
            "url('https://[::1]:8080/').getHostname() + url('https://[::1]:8080/').getPort()",
            "::18080",
        ),
        (
            "url('https://example.com/with space/').getEscapedPath()",
            "/with%20space/",
        ),
        (
            "url('https://example.com/p?k1=a&k2=b&k2=c#frag').getQuery()",
            "{k1: [a], k2: [b, c]}",
        ),
        (
            "url('../relative')",
            "error: URL parse error during conversion from string: parse \"../relative\": invalid URI for request",
        ),
        (
            "isURL('https://a:80/') && isURL('/path') && !isURL('a') && !isURL('https://a:x/')",
            "true",
        ),
        ("url('https://a/') == url('https://a/')", "true"),
        ("format.dns1123Label().validate('my-label').hasValue()", "false"),
        ("format.dns1123Label().validate('My').hasValue()", "true"),
        (
            "format.named('dns1123Subdomain').value().validate('a.b').hasValue()",
            "false",
        ),
        ("format.named('nothing').hasValue()", "false"),
        (
            "format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()",
            "false",
        ),
        (
            "format.uuid().validate('x').value()",
            "[does not match the UUID format]",
        ),
        ("format.date().validate('2021-02-30').value()", "[invalid date]"),
        ("format.byte().validate('aGVsbG8=').hasValue()", "false"),
        (
            "jsonpatch.escapeKey('a/b')",
            "issues: undeclared reference to 'jsonpatch' (in container '')",
        ),
    ]);
    let environment = Environment::kubernetes(36).with_json_patch();
    assert_eq!(
        evaluate_in(environment, "jsonpatch.escapeKey('k8s.io/my~label')"),
        "k8s.io~1my~0label"
    );
}

#[test]
fn formatted_texts() {
    check(&[
        ("'%s and %d'.format([dyn('a'), 42])", "a and 42"),
        (
            "'%s'.format([[dyn(1), 'b', 2.5, true, null]])",
            "[1, \"b\", 2.500000, true, null]",
        ),
        ("'%s'.format([{'b': 'x', 'a': 'y'}])", "{\"a\":\"y\", \"b\":\"x\"}"),
        ("'%s'.format([[1.5]])", "[1.500000]"),
        ("'%.2f'.format([1234.567])", "1,234.57"),
        (
            "'%e'.format([2.71828])",
            "2.718280\u{202f}\u{d7}\u{202f}10\u{2070}\u{2070}",
        ),
        ("'%x %X %o %b'.format([26, 26, 30, 5])", "1a 1A 36 101"),
        ("'%x'.format(['ab'])", "6162"),
        ("'%%'.format([])", "%"),
        (
            "'%%'.format([1])",
            "issues: too many arguments supplied to string.format (expected 0, got 1)",
        ),
        (
            "'%d'.format(['a'])",
            "issues: error during formatting: decimal clause can only be used on integers, was given string",
        ),
        (
            "'%b'.format([dyn('a')])",
            "error: error during formatting: only integers and bools can be formatted as binary, was given string",
        ),
        (
            "'%.'.format([1])",
            "issues: could not parse formatting clause: error while parsing precision: could not find end of precision specifier",
        ),
        ("'%f %e'.format(['NaN', '-Infinity'])", "NaN -\u{221e}"),
        (
            "'%s'.format([dyn(optional.of(1))])",
            "error: error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given optional_type",
        ),
        ("'%s %s'.format([1])", "issues: index 1 out of range"),
        (
            "'%q'.format([1])",
            "issues: could not parse formatting clause: unrecognized formatting clause \"q\"",
        ),
        (
            "'%s'.format([timestamp('2023-02-03T23:31:20+00:00')])",
            "2023-02-03T23:31:20Z",
        ),
    ]);
}

#[derive(Default)]
struct Asked {
    attributes: Mutex<Vec<String>>,
}

impl Authorizer for Asked {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let target = match attributes.target {
            Target::Path(path) => path.to_owned(),
            Target::Resource(of) => {
                format!(
                    "{}/{}/{} in {} with {}",
                    of.group, of.resource, of.name, of.namespace, of.label_selector
                )
            }
        };
        let asked = format!("{:?} {} {target}", attributes.service_account, attributes.verb);
        self.attributes.lock().expect("nobody panics").push(asked);
        Decision {
            allowed: attributes.verb == "get",
            reason: "because".into(),
            error: None,
        }
    }
}

#[test]
fn the_authorizer_is_asked() {
    let environment = Environment::kubernetes(36).with("authorizer", Type::Opaque(cel::AUTHORIZER));
    for (text, expect, asked) in [
        (
            "authorizer.group('apps').resource('deployments').namespace('n').name('x').labelSelector('a=b').check('get').allowed()",
            "true",
            Some("None get apps/deployments/x in n with a=b"),
        ),
        (
            "authorizer.path('/healthz').check('post').allowed()",
            "false",
            Some("None post /healthz"),
        ),
        (
            "authorizer.serviceAccount('default', 'robot').group('').resource('pods').check('get').reason()",
            "because",
            Some("Some((\"default\", \"robot\")) get /pods/ in  with "),
        ),
        (
            "authorizer.path(' ').check('get').allowed()",
            "error: path must not be empty",
            None,
        ),
        (
            "authorizer.serviceAccount('a.b', 'c').path('/').check('get').allowed()",
            "error: Invalid service account namespace",
            None,
        ),
        (
            "[1, 2, 3].all(i, authorizer.path('/').check('get').allowed())",
            "error: operation cancelled: actual cost limit exceeded",
            Some("None get /"),
        ),
    ] {
        let host = Arc::new(Asked::default());
        let program = compile(&environment, text)
            .map_err(|issues| issues.to_string())
            .expect(text);
        let variables = [("authorizer", Value::authorizer(host.clone()))];
        let found = match program.evaluate(&variables, &mut Budget::for_one_call()) {
            Ok(value) => value.to_string(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(found, expect, "{text}");
        let all = host.attributes.lock().expect("nobody panics");
        assert_eq!(all.first().map(String::as_str), asked, "{text}");
    }
}
