//! Expressions of CEL: whatever a text is, it compiles or is refused, its cost is estimated, and its evaluation ends with a
//! value or an error.

use std::sync::Arc;

use base::Random;
use cel::{
    AUTHORIZER, Attributes, Authorizer, Budget, CALL_COST_MAX, Decision, Environment, Type, UnknownSizes, Value,
};
use serde_json::json;

const EXPRESSIONS: &[&str] = &[
    "object.spec.replicas <= 5 && !has(oldObject.spec) || object.metadata.name.startsWith('a')",
    "request.groups.exists(g, g.matches('^system:.*[0-9]{1,3}$')) ? 'x' : string(1.5e3)",
    "claims.?email.orValue('').split('@').map(x, x.size() > 1, x + 'y').join(',')",
    "object.list.filter(x, x > 1).map(x, x * x).sort().slice(0, 2).sum() + [1, 2u][0]",
    "{'a': [1, 2], ?'b': optional.of(3)}.transformMap(k, v, [k, v]).all(k, v, k in v)",
    "quantity('1.5Gi').add(quantity('2')).isGreaterThan(quantity(object.metadata.name))",
    "timestamp('2023-07-14T10:30:45.123Z').getHours('Europe/Berlin') - int(duration('1h30m').getMinutes())",
    "ip('10.0.0.1') == cidr('10.0.0.1/8').ip() && cidr('fd00::/8').masked().containsCIDR('fd00::/9')",
    "url('https://a:80/b?c=d#e').getQuery() == {'c': ['d']} && isURL(claims.sub)",
    "semver('v1.2', true).compareTo(semver('1.2.3-a.1+b')) + 'abc'.lastIndexOf('c', 1)",
    "'%s %d %.3f %e %x'.format([dyn('a'), -1, 2.5, 1e300, b'\\xff'])",
    "lists.range(9).map(i, lists.range(i)).flatten().distinct().sortBy(x, -x).reverse()[3 - 1]",
    "authorizer.group('apps').resource('x').namespace('y').check('get').allowed() || format.uuid().validate('x').hasValue()",
    "object.any.x[0].y == dyn(null) || type(object.any) == map || object[?'q'].optMap(z, z.r).hasValue()",
    "object.text.replace('', object.text, -1).charAt(-1).lowerAscii().substring(1, 0) in ['a', \"b\", r'''c''', b'd']",
    "-9223372036854775808 / -1 == 0x7F % 0 || !!true && 1.0 / 0.0 > double('NaN') // end",
];

/// Allows what is read.
struct Readers;

impl Authorizer for Readers {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        Decision {
            allowed: attributes.verb == "get",
            ..Decision::default()
        }
    }
}

pub fn make(random: &Random) -> Vec<u8> {
    EXPRESSIONS[random.index(EXPRESSIONS.len())].as_bytes().to_vec()
}

pub fn run(input: &[u8]) -> String {
    let metadata = Type::object(
        "Metadata",
        [
            ("name", Type::String),
            ("labels", Type::map(Type::String, Type::String)),
        ],
    );
    let spec = Type::object("Spec", [("replicas", Type::Int)]);
    let kind = Type::object(
        "Object",
        [
            ("metadata", metadata),
            ("spec", spec),
            ("list", Type::list(Type::Int)),
            ("any", Type::Dyn),
            ("text", Type::String),
            ("time", Type::Timestamp),
        ],
    );
    let claims = Type::map(Type::String, Type::Dyn);
    let request = Type::object("Request", [("groups", Type::list(Type::String))]);
    let environment = Environment::kubernetes(36)
        .with("object", kind.clone())
        .with("oldObject", kind.clone())
        .with("claims", claims.clone())
        .with("request", request.clone())
        .with("authorizer", Type::Opaque(AUTHORIZER))
        .with_bind()
        .with_json_patch();
    let program = match cel::compile(&environment, &String::from_utf8_lossy(input)) {
        Ok(program) => program,
        Err(issues) => {
            return issues
                .list()
                .iter()
                .map(|issue| issue.message.replace('\'', "\""))
                .collect();
        }
    };
    let estimate = program.estimate(&UnknownSizes);
    assert!(estimate.min <= estimate.max, "{estimate:?}");
    let object = json!({
        "metadata": {"name": "a-1", "labels": {"x": "y"}}, "list": [3, 1, 2, 9_007_199_254_740_993_i64],
        "any": {"x": [{"y": null}, 1.5, true]}, "text": "h\u{e9}llo \u{1f600}", "time": "2023-07-14T10:30:45Z",
    });
    let (claims_value, request_value) = (
        json!({"sub": "https://x/", "n": [1]}),
        json!({"groups": ["system:a1", "b"]}),
    );
    let variables = [
        ("object", Value::from_json(&object, &kind)),
        ("oldObject", Value::from_json(&object, &kind)),
        ("claims", Value::from_json(&claims_value, &claims)),
        ("request", Value::from_json(&request_value, &request)),
        ("authorizer", Value::authorizer(Arc::new(Readers))),
    ];
    let mut budget = Budget::new(2 * CALL_COST_MAX);
    match program.evaluate(&variables, &mut budget) {
        Ok(value) => {
            assert!(budget.left() >= CALL_COST_MAX, "it cost more than a call may");
            let _ = value.to_json();
            format!("{} \"{value}\"", value.kind())
        }
        Err(error) => error.to_string().replace('\'', "\""),
    }
}
