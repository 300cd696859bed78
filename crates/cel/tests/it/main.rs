//! The language from outside: tables of expressions with what they give or what is said about them.

mod kubernetes;
mod language;
mod messages;
mod values;

use cel::{Budget, Environment, Type, Value, compile};
use serde_json::json;

/// Evaluates an expression without variables: its value as text, or its error.
fn evaluate(text: &str) -> String {
    evaluate_in(Environment::kubernetes(36), text)
}

fn evaluate_in(environment: Environment, text: &str) -> String {
    let program = match compile(&environment, text) {
        Ok(program) => program,
        Err(issues) => return format!("issues: {}", issues.list()[0].message),
    };
    match program.evaluate(&[], &mut Budget::for_one_call()) {
        Ok(value) => value.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

fn check(table: &[(&str, &str)]) {
    for (text, expect) in table {
        assert_eq!(evaluate(text), *expect, "{text}");
    }
}

#[test]
fn the_expressions_of_configuration_files() {
    let claims = json!({"sub": "jane", "groups": ["system:masters", "devs"], "roles": "a,b", "extra": {"x": 1}});
    let user = Type::object(
        "kubernetes.UserInfo",
        [("username", Type::String), ("groups", Type::list(Type::String))],
    );
    let attributes = Type::object(
        "kubernetes.ResourceAttributes",
        [("verb", Type::String), ("namespace", Type::String)],
    );
    let request = Type::object(
        "kubernetes.SubjectAccessReviewSpec",
        [
            ("user", Type::String),
            ("groups", Type::list(Type::String)),
            ("resourceAttributes", attributes),
        ],
    );
    let environment = Environment::kubernetes(36)
        .with("claims", Type::map(Type::String, Type::Dyn))
        .with("user", user.clone())
        .with("request", request.clone());
    let user_value = json!({"username": "xavier", "groups": ["a"]});
    let request_value = json!({"user": "jane", "groups": ["devs"], "resourceAttributes": {"verb": "get"}});
    for (text, expect) in [
        ("claims.sub", "jane"),
        ("claims.?email.orValue('')", ""),
        ("claims.?sub.orValue('')", "jane"),
        ("claims.email", "error: no such key: email"),
        ("claims.roles.split(',')", "[a, b]"),
        ("claims.groups", "[system:masters, devs]"),
        ("claims.?extra.?x.hasValue()", "true"),
        ("claims.?extra.x", "optional(1)"),
        ("claims.?nothing.x.y", "optional.none()"),
        ("has(claims.email) || claims.sub == 'jane'", "true"),
        ("'devs' in claims.groups", "true"),
        ("claims.groups.exists(g, g.startsWith('system:'))", "true"),
        ("claims.extra.x == 1", "true"),
        ("has(request.resourceAttributes)", "true"),
        ("has(request.resourceAttributes.namespace)", "false"),
        ("request.resourceAttributes.verb == 'get'", "true"),
        ("!('system:masters' in request.groups)", "true"),
        ("user.username.startsWith('x')", "true"),
        ("!user.username.startsWith('system:')", "true"),
        ("user.groups.all(group, !group.startsWith('system:'))", "true"),
        ("user.name", "issues: undefined field 'name'"),
        (
            "request.groups.contains('x')",
            "issues: found no matching overload for 'contains' applied to 'list(string).(string)'",
        ),
    ] {
        let program = match compile(&environment, text) {
            Ok(program) => program,
            Err(issues) => {
                assert_eq!(format!("issues: {}", issues.list()[0].message), expect, "{text}");
                continue;
            }
        };
        let variables = [
            ("claims", Value::from_json(&claims, &Type::map(Type::String, Type::Dyn))),
            ("user", Value::from_json(&user_value, &user)),
            ("request", Value::from_json(&request_value, &request)),
        ];
        let found = match program.evaluate(&variables, &mut Budget::for_one_call()) {
            Ok(value) => value.to_string(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(found, expect, "{text}");
    }
}
