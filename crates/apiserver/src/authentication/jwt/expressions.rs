//! Expressions (CEL) over claims and over the user that they make.
//!
//! Source: `k8s.io/apiserver/pkg/authentication/cel` and `plugin/pkg/authenticator/token/oidc/oidc.go`.

use std::sync::Arc;

use api::{Map, Value};
use cel::{Budget, Environment, Program, Type, compile};
use serde_json::json;
use tokio::time::Instant;

use crate::metrics::shared;
use crate::request::UserInfo;

/// The version of Kubernetes that expressions are of.
const MINOR: u16 = 36;
const CLAIMS: &str = "claims";
const USER: &str = "user";

/// One expression, compiled.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    program: Arc<Program>,
}

/// An expression that has to be true, and what to say when it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The expression.
    pub expression: Expression,
    /// What to say.
    pub message: String,
}

/// All expressions of an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expressions {
    /// The user's name, in place of a claim.
    pub username: Option<Expression>,
    /// The user's groups, in place of a claim.
    pub groups: Option<Expression>,
    /// The user's uid, in place of a claim.
    pub uid: Option<Expression>,
    /// Further facts by their keys.
    pub extra: Vec<(String, Expression)>,
    /// What has to be true of the claims.
    pub claim_rules: Vec<Rule>,
    /// What has to be true of the user.
    pub user_rules: Vec<Rule>,
}

// === impl Expression ===

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl Expression {
    /// An expression over `claims` that gives anything.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub(crate) fn of_claims(text: &str) -> Result<Expression, String> {
        let environment = Environment::kubernetes(MINOR).with(CLAIMS, claims_type());
        Expression::compiled(&environment, text)
    }

    /// One over `claims` that is true or false.
    ///
    /// # Errors
    /// As [`Expression::of_claims`].
    pub(crate) fn truth_of_claims(text: &str) -> Result<Expression, String> {
        Expression::of_claims(text)?.of_truth()
    }

    /// One over `user` that is true or false.
    ///
    /// # Errors
    /// As [`Expression::of_claims`].
    pub(crate) fn truth_of_user(text: &str) -> Result<Expression, String> {
        let environment = Environment::kubernetes(MINOR).with(USER, user_type());
        Expression::compiled(&environment, text)?.of_truth()
    }

    fn compiled(environment: &Environment, text: &str) -> Result<Expression, String> {
        let began = Instant::now();
        let compiled = compile(environment, text);
        shared().expressions.compiled(began.elapsed());
        let program = compiled.map_err(|issues| format!("compilation failed: {issues}"))?;
        Ok(Expression {
            text: text.to_owned(),
            program: Arc::new(program),
        })
    }

    fn of_truth(self) -> Result<Expression, String> {
        match self.program.result_type() {
            Type::Bool => Ok(self),
            _ => Err("must evaluate to bool".into()),
        }
    }

    /// Whether it reads that claim.
    pub(crate) fn reads(&self, claim: &str) -> bool {
        self.program.selects(CLAIMS, claim)
    }

    fn evaluate<'a>(&self, name: &str, value: &'a Value, kind: &Type) -> Result<cel::Value<'a>, String> {
        let variables = [(name, cel::Value::from_json(value, kind))];
        let began = Instant::now();
        let given = self.program.evaluate(&variables, &mut Budget::for_one_call());
        shared().expressions.evaluated(began.elapsed());
        given.map_err(|error| format!("expression '{}' resulted in error: {error}", self.text))
    }

    fn text_of(&self, claims: &Value) -> Result<Option<String>, String> {
        let value = self.evaluate(CLAIMS, claims, &claims_type())?;
        Ok(value.as_str().map(str::to_owned))
    }

    /// One text or several; empty ones are none.
    fn texts_of(&self, claims: &Value) -> Result<Vec<String>, String> {
        const OTHER: &str = "expression must return a string or a list of strings";
        let value = self.evaluate(CLAIMS, claims, &claims_type())?;
        let texts = match &value {
            cel::Value::Null => Vec::new(),
            cel::Value::String(text) => vec![text.to_string()],
            cel::Value::List(all) => {
                let texts = all.iter().map(|one| one.as_str().map(str::to_owned));
                texts.collect::<Option<Vec<_>>>().ok_or(OTHER)?
            }
            _ => return Err(OTHER.into()),
        };
        Ok(texts.into_iter().filter(|text| !text.is_empty()).collect())
    }
}

// === impl Expressions ===

impl Expressions {
    /// What expressions make of claims, beyond what single claims made of them; then all rules are looked at.
    ///
    /// # Errors
    /// An expression fails, gives something of another kind, or a rule is not true.
    pub(super) fn apply(&self, claims: &Map, user: &mut UserInfo) -> Result<(), String> {
        if *self == Expressions::default() {
            return Ok(());
        }
        let claims = Value::Object(claims.clone());
        if let Some(expression) = &self.username {
            let failed = |why: &str| format!("oidc: error evaluating username claim expression: {why}");
            let name = expression.text_of(&claims).map_err(|why| failed(&why))?;
            let name = name.ok_or_else(|| failed("username claim expression must return a string"))?;
            if name.is_empty() {
                return Err("oidc: empty username via CEL expression is not allowed".into());
            }
            user.name = name;
        }
        if let Some(expression) = &self.groups {
            let groups = expression.texts_of(&claims);
            user.groups = groups.map_err(|why| format!("oidc: error evaluating group claim expression: {why}"))?;
        }
        if let Some(expression) = &self.uid {
            let failed = |why: &str| format!("oidc: error evaluating uid claim expression: {why}");
            let uid = expression.text_of(&claims).map_err(|why| failed(&why))?;
            user.uid = uid.ok_or_else(|| failed("uid claim expression must return a string"))?;
        }
        for (key, expression) in &self.extra {
            let values = expression.texts_of(&claims);
            let values = values.map_err(|why| format!("oidc: error evaluating extra claim expression: {why}"))?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        hold(&self.claim_rules, CLAIMS, &claims, &claims_type())
            .map_err(|why| format!("oidc: error evaluating claim validation expression: {why}"))?;
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let shown = json!({"username": &*user.name, "uid": &user.uid, "groups": &user.groups, "extra": &user.extra});
        hold(&self.user_rules, USER, &shown, &user_type())
            .map_err(|why| format!("oidc: error evaluating user info validation rule: {why}"))
    }
}

fn hold(rules: &[Rule], name: &str, value: &Value, kind: &Type) -> Result<(), String> {
    for Rule { expression, message } in rules {
        let given = expression.evaluate(name, value, kind)?;
        match given.as_bool() {
            Some(true) => {}
            Some(false) => return Err(format!("validation expression '{}' failed: {message}", expression.text)),
            None => return Err("validation expression must return a boolean".into()),
        }
    }
    Ok(())
}

fn claims_type() -> Type {
    Type::map(Type::String, Type::Dyn)
}

fn user_type() -> Type {
    Type::object(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", Type::list(Type::String)),
            ("extra", Type::map(Type::String, Type::list(Type::String))),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Map {
        let claims = json!({
            "sub": "jane", "hd": "example.com", "roles": ["a", "", "b"], "n": 5, "email": "j@x", "email_verified": true,
        });
        claims.as_object().unwrap().clone()
    }

    fn apply(expressions: &Expressions) -> Result<UserInfo, String> {
        let mut user = UserInfo::default();
        expressions.apply(&claims(), &mut user).map(|()| user)
    }

    fn of(text: &str) -> Option<Expression> {
        Some(Expression::of_claims(text).unwrap())
    }

    #[test]
    fn expressions_make_users() {
        let all = Expressions {
            username: of("claims.hd + ':' + claims.sub"),
            groups: of("claims.roles.map(r, r == '' ? '' : 'g-' + r)"),
            uid: of("string(claims.n)"),
            extra: vec![
                ("example.com/one".into(), of("claims.hd").unwrap()),
                (
                    "example.com/none".into(),
                    of("has(claims.x) ? claims.x : null").unwrap(),
                ),
            ],
            claim_rules: vec![Rule {
                expression: Expression::truth_of_claims("claims.hd == 'example.com'").unwrap(),
                message: "another domain".into(),
            }],
            user_rules: vec![Rule {
                expression: Expression::truth_of_user("!user.username.startsWith('system:') && size(user.groups) == 2")
                    .unwrap(),
                message: "reserved".into(),
            }],
        };
        let user = apply(&all).unwrap();
        assert_eq!((&*user.name, &*user.uid), ("example.com:jane", "5"));
        assert_eq!(user.groups, ["g-a", "g-b"]);
        assert_eq!(user.extra.len(), 1);
        assert_eq!(user.extra["example.com/one"], ["example.com"]);
    }

    #[test]
    fn what_fails_makes_nobody() {
        let rule = |expression: Expression| {
            vec![Rule {
                expression,
                message: "no".into(),
            }]
        };
        let empty = Expressions::default;
        for (expressions, expect) in [
            (
                Expressions {
                    username: of("claims.n"),
                    ..empty()
                },
                "username claim expression must return a string",
            ),
            (
                Expressions {
                    username: of("''"),
                    ..empty()
                },
                "empty username via CEL expression is not allowed",
            ),
            (
                Expressions {
                    username: of("claims.missing"),
                    ..empty()
                },
                "resulted in error: no such key: missing",
            ),
            (
                Expressions {
                    groups: of("[claims.n]"),
                    ..empty()
                },
                "must return a string or a list of strings",
            ),
            (
                Expressions {
                    uid: of("claims.n"),
                    ..empty()
                },
                "uid claim expression must return a string",
            ),
            (
                Expressions {
                    claim_rules: rule(Expression::truth_of_claims("claims.hd == 'x'").unwrap()),
                    ..empty()
                },
                "validation expression 'claims.hd == 'x'' failed: no",
            ),
            (
                Expressions {
                    user_rules: rule(Expression::truth_of_user("user.username == 'x'").unwrap()),
                    ..empty()
                },
                "oidc: error evaluating user info validation rule: validation expression",
            ),
        ] {
            let why = apply(&expressions).unwrap_err();
            assert!(why.contains(expect), "{why}");
        }
        for text in ["claims.", "user.username", "claims.sub +", "x"] {
            assert!(
                Expression::of_claims(text)
                    .unwrap_err()
                    .starts_with("compilation failed: "),
                "{text}"
            );
        }
        assert_eq!(Expression::truth_of_claims("'a'").unwrap_err(), "must evaluate to bool");
        assert!(Expression::truth_of_user("user.nothing == ''").is_err());
    }
}
