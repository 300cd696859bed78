//! Values of objects by their declared types, values that the host computes, and what makes an evaluation too expensive.

use std::cell::Cell;
use std::sync::Arc;

use cel::{Budget, CALL_COST_MAX, Environment, Error, ErrorKind, Field, ObjectType, Type, Value, Variables, compile};
use serde_json::{Value as Json, json};

fn evaluate(kind: &Type, value: &Json, text: &str) -> String {
    let environment = Environment::kubernetes(36).with("self", kind.clone()).with_bind();
    let program = match compile(&environment, text) {
        Ok(program) => program,
        Err(issues) => return format!("issues: {}", issues.list()[0].message),
    };
    let variables = [("self", Value::from_json(value, kind))];
    match program.evaluate(&variables, &mut Budget::for_one_call()) {
        Ok(value) => value.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn objects_are_seen_by_their_types() {
    let object = ObjectType {
        name: "Rule".into(),
        fields: [
            ("when", "when", Type::Timestamp),
            ("day", "day", Type::Timestamp),
            ("timeout", "timeout", Type::Duration),
            ("data", "data", Type::Bytes),
            ("ratio", "ratio", Type::Double),
            ("port", "port", Type::Dyn),
            ("x__dash__prop", "x-prop", Type::String),
            ("items", "items", Type::list(Type::Int)),
            ("labels", "labels", Type::map(Type::String, Type::String)),
        ]
        .into_iter()
        .map(|(name, key, kind)| {
            (
                name.to_owned(),
                Field {
                    key: key.to_owned(),
                    kind,
                },
            )
        })
        .collect(),
        open: false,
    };
    let kind = Type::Object(Arc::new(object));
    let value = json!({
        "when": "2023-07-14T10:30:45Z", "day": "2023-07-14", "timeout": "1m30s", "data": "aGk=", "ratio": 2,
        "port": "http", "x-prop": "y", "items": [1, 2], "labels": {"a": "b"}, "undeclared": 1,
    });
    for (text, expect) in [
        ("self.when.getHours()", "10"),
        ("self.day.getDate()", "14"),
        ("self.timeout == duration('90s')", "true"),
        ("string(self.data)", "hi"),
        ("self.ratio / 4.0", "0.5"),
        ("type(self.port) == string || self.port > 1", "true"),
        ("self.port == 80", "false"),
        ("self.x__dash__prop", "y"),
        ("has(self.x__dash__prop) && 'a' in self.labels", "true"),
        ("self.items.all(i, i > 0) && self.items[1] == 2", "true"),
        ("self.labels.all(k, v, k < v)", "true"),
        ("self.undeclared", "issues: undefined field 'undeclared'"),
        ("self.items[0].x", "issues: type 'int' does not support field selection"),
        ("cel.bind(x, self.items, x + x)", "[1, 2, 1, 2]"),
        ("self == self", "true"),
    ] {
        assert_eq!(evaluate(&kind, &value, text), expect, "{text}");
    }
}

#[test]
fn a_number_that_does_not_fit_its_type_is_no_panic() {
    let kind = Type::map(Type::String, Type::Int);
    let value = json!({"large": u64::MAX, "double": 1.5, "text": "a", "nothing": null});
    for (text, expect) in [
        ("self.large == self.large", "true"),
        ("self.double + 1", "error: no such overload"),
        ("self.text - 1", "error: no such overload"),
        (
            "self.nothing == null",
            "issues: found no matching overload for '_==_' applied to '(int, null)'",
        ),
    ] {
        let found = evaluate(&kind, &value, text);
        assert_eq!(found, expect, "{text}");
    }
}

#[test]
fn records_are_made_and_written() {
    let metadata = ObjectType::new("Object.metadata", [("labels", Type::map(Type::String, Type::String))]);
    let metadata = Arc::new(metadata);
    let object = ObjectType::new(
        "Object",
        [("metadata", Type::Object(metadata.clone())), ("replicas", Type::Int)],
    );
    let environment = Environment::kubernetes(36)
        .with_object(metadata)
        .with_object(Arc::new(object));
    for (text, expect) in [
        (
            "Object{metadata: Object.metadata{labels: {'a': 'b'}}, ?replicas: optional.none()}",
            Ok(json!({"metadata": {"labels": {"a": "b"}}})),
        ),
        ("Object{replicas: 1 + 1}", Ok(json!({"replicas": 2}))),
        (
            "[timestamp('2023-01-01T00:00:00Z'), duration('90s'), b'hi', quantity('1k'), null, 1.5]
            .map(x, dyn(x))",
            Err("expected type 'timestamp' but found 'duration'"),
        ),
        (
            "[dyn(timestamp('2023-01-01T00:00:00Z')), dyn(duration('90s')), dyn(b'hi'), dyn(quantity('1k'))]",
            Ok(json!(["2023-01-01T00:00:00Z", "90s", "aGk=", "1k"])),
        ),
        (
            "Object{replicas: 'x'}",
            Err("expected type of field 'replicas' is 'int' but provided type is 'string'"),
        ),
        ("Object{nothing: 1}", Err("undefined field 'nothing'")),
        ("Nothing{}", Err("undeclared reference to 'Nothing' (in container '')")),
    ] {
        let found = compile(&environment, text).map(|program| {
            let value = program.evaluate(&[], &mut Budget::for_one_call()).expect(text);
            value.to_json().expect(text)
        });
        let found = found.as_ref().map_err(|issues| issues.list()[0].message.as_str());
        assert_eq!(found, expect.as_ref().map_err(|message| *message), "{text}");
    }
}

/// `variables.x`, which is computed when it is asked for.
struct Lazy {
    asked: Cell<u32>,
}

impl<'a> Variables<'a> for Lazy {
    fn variable(&self, _: &str) -> Option<Value<'a>> {
        None
    }

    fn field(&self, variable: &str, field: &str) -> Option<Result<Value<'a>, Error>> {
        self.asked.set(self.asked.get() + 1);
        match (variable, field) {
            ("variables", "good") => Some(Ok(Value::Int(3))),
            ("variables", "bad") => Some(Err(Error::evaluation("it failed"))),
            _ => None,
        }
    }
}

#[test]
fn lazy_fields_are_asked_for_when_they_are_reached() {
    let variables = Type::object("Variables", [("good", Type::Int), ("bad", Type::Int)]);
    let environment = Environment::kubernetes(36).with("variables", variables);
    for (text, expect, asked) in [
        ("variables.good + 1", "4", 1),
        ("false && variables.bad > 1", "false", 0),
        ("variables.bad > 1 || variables.good == 3", "true", 2),
        ("variables.bad > 1", "error: it failed", 1),
        ("variables.?good.orValue(1)", "3", 1),
    ] {
        let program = compile(&environment, text)
            .map_err(|issues| issues.to_string())
            .expect(text);
        let host = Lazy { asked: Cell::new(0) };
        let found = match program.evaluate(&host, &mut Budget::for_one_call()) {
            Ok(value) => value.to_string(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!((found.as_str(), host.asked.get()), (expect, asked), "{text}");
    }
}

#[test]
fn budgets_are_spent() {
    let program = compile(&Environment::kubernetes(36), "[1, 2].map(x, x + 1).size() > 1").expect("a good expression");
    let mut budget = Budget::new(100);
    assert!(program.evaluate(&[], &mut budget).is_ok());
    let cost = 100 - budget.left();
    assert!(cost > 10);
    budget = Budget::new(cost);
    assert!(program.evaluate(&[], &mut budget).is_ok());
    let error = program.evaluate(&[], &mut budget).expect_err("nothing is left");
    assert_eq!(error.kind(), ErrorKind::Budget);
}

/// None of these runs for long, whatever upstream's cost says of them.
#[test]
fn expensive_evaluations_are_cancelled() {
    let items: Vec<i64> = (0..100_000).collect();
    let value = json!({"items": items, "text": "a".repeat(100_000)});
    let kind = Type::object("Large", [("items", Type::list(Type::Int)), ("text", Type::String)]);
    for text in [
        "self.items.all(x, self.items.all(y, x + y >= 0))",
        "lists.range(1000).all(x, size(self.items + self.items) > 0)",
        "lists.range(1000).all(x, [self.items] == [self.items])",
        "lists.range(1000).all(x, self.text.replace('a', 'bbbbbbbbbbbbbbbb').size() > 0)",
        "[1].map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x])
            .map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x])
            .map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x])",
        "lists.range(1000).all(x, self.items in [self.items])",
        "self.items.distinct().size() > 0",
        "sets.contains(self.items, self.items)",
        "lists.range(2000).all(x, ''.matches('(a{50}){' + string(x % 40) + '}') || true)",
    ] {
        let found = evaluate(&kind, &value, text);
        assert_eq!(
            found, "error: operation cancelled: actual cost limit exceeded",
            "{text}"
        );
    }
    assert_eq!(CALL_COST_MAX, 1_000_000);
}
