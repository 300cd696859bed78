//! When a webhook is asked: its `matchConditions`, CEL over the spec of the review.
//!
//! Source: `k8s.io/apiserver/pkg/authorization/cel` (`compile.go`, `matcher.go`).

use api::Value;
use cel::{Budget, Environment, Program, Type, compile};
use serde_json::json;
use tokio::time::Instant;

use crate::metrics::shared;

/// Expressions are compiled as those that are stored: with all that v1.36 knows.
const MINOR: u16 = 36;

/// Compiled conditions. None of them: the webhook is always asked.
pub(in crate::authorization) struct Conditions(Vec<(String, Program)>);

// === impl Conditions ===

impl Conditions {
    /// Compiles expressions that were checked before.
    ///
    /// # Errors
    /// One of them cannot be compiled.
    pub(in crate::authorization) fn new(expressions: &[String]) -> Result<Conditions, String> {
        let compiled = expressions.iter().map(|text| Ok((text.clone(), check(text)?)));
        compiled.collect::<Result<Vec<_>, String>>().map(Conditions)
    }

    /// Whether there are none.
    pub(super) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of them hold for a review. One that is false decides, whatever fails beside it.
    ///
    /// # Errors
    /// None is false, and some cannot be evaluated.
    pub(super) fn hold(&self, spec: &Value) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let (request, kind) = (whole(spec), request());
        let mut errors = Vec::new();
        for (text, program) in &self.0 {
            let variables = [("request", cel::Value::from_json(&request, &kind))];
            let began = Instant::now();
            let value = program.evaluate(&variables, &mut Budget::for_one_call());
            shared().expressions.evaluated(began.elapsed());
            match value {
                Ok(value) if value.as_bool() == Some(false) => return Ok(false),
                Ok(_) => {}
                Err(error) => errors.push(format!(
                    "cel evaluation error: expression '{text}' resulted in error: {error}"
                )),
            }
        }
        match &errors[..] {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

/// Compiles one expression, which must be a condition.
///
/// # Errors
/// Why it cannot be one, as upstream words it.
pub(in crate::authorization) fn check(text: &str) -> Result<Program, String> {
    let environment = Environment::kubernetes(MINOR).with("request", request());
    let began = Instant::now();
    let compiled = compile(&environment, text);
    shared().expressions.compiled(began.elapsed());
    let program = compiled.map_err(|issues| format!("compilation failed: {issues}"))?;
    match program.result_type() {
        Type::Bool => Ok(program),
        other => Err(format!("must evaluate to bool but got {other}")),
    }
}

/// `SubjectAccessReviewSpec`, as expressions see it.
fn request() -> Type {
    let texts = |names: &[&'static str]| names.iter().map(|name| (*name, Type::String)).collect::<Vec<_>>();
    let requirement = || {
        let values = ("values", Type::list(Type::String));
        let fields = texts(&["key", "operator"]).into_iter().chain([values]);
        Type::object("kubernetes.SelectorRequirement", fields)
    };
    let selector = |name: &str| {
        let requirements = ("requirements", Type::list(requirement()));
        Type::object(name, texts(&["rawSelector"]).into_iter().chain([requirements]))
    };
    let names = [
        "namespace",
        "verb",
        "group",
        "version",
        "resource",
        "subresource",
        "name",
    ];
    let selectors = [
        ("fieldSelector", selector("kubernetes.FieldSelectorAttributes")),
        ("labelSelector", selector("kubernetes.LabelSelectorAttributes")),
    ];
    let resource = Type::object(
        "kubernetes.ResourceAttributes",
        texts(&names).into_iter().chain(selectors),
    );
    let other = Type::object("kubernetes.NonResourceAttributes", texts(&["path", "verb"]));
    let fields = [
        ("resourceAttributes", resource),
        ("nonResourceAttributes", other),
        ("groups", Type::list(Type::String)),
        ("extra", Type::map(Type::String, Type::list(Type::String))),
    ];
    let fields = texts(&["user", "uid"]).into_iter().chain(fields);
    Type::object("kubernetes.SubjectAccessReviewSpec", fields)
}

/// The spec with the empty fields, too: expressions need not ask whether they are there.
fn whole(spec: &Value) -> Value {
    let mut all = json!({"user": "", "uid": "", "groups": [], "extra": {}});
    let fill = |of: &mut Value, with: &Value| {
        for (field, value) in with.as_object().into_iter().flatten() {
            of[field] = value.clone();
        }
    };
    fill(&mut all, spec);
    if let Some(resource) = spec.get("resourceAttributes") {
        let mut whole = json!({"namespace": "", "verb": "", "group": "", "version": "", "resource": "",
            "subresource": "", "name": ""});
        fill(&mut whole, resource);
        all["resourceAttributes"] = whole;
    }
    if let Some(other) = spec.get("nonResourceAttributes") {
        let mut whole = json!({"path": "", "verb": ""});
        fill(&mut whole, other);
        all["nonResourceAttributes"] = whole;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_look_at_the_review() {
        let pods = json!({"user": "jane", "groups": ["dev"], "resourceAttributes": {"verb": "list", "resource": "pods",
            "labelSelector": {"requirements": [{"key": "app", "operator": "In", "values": ["x"]}]}}});
        let path = json!({"user": "jane", "nonResourceAttributes": {"verb": "get", "path": "/healthz"}});
        for (expressions, pods_match, path_matches) in [
            (&[][..], Ok(true), Ok(true)),
            (&["request.user == 'jane'"], Ok(true), Ok(true)),
            (&["has(request.resourceAttributes)"], Ok(true), Ok(false)),
            (&["!('dev' in request.groups)"], Ok(false), Ok(true)),
            (&["request.uid == ''", "request.extra.size() == 0"], Ok(true), Ok(true)),
            (
                &["has(request.resourceAttributes) && request.resourceAttributes.namespace == ''"],
                Ok(true),
                Ok(false),
            ),
            (
                &["request.resourceAttributes.labelSelector.requirements.exists(r, r.key == 'app')"],
                Ok(true),
                Err("cel evaluation error: expression"),
            ),
            // What is false decides.
            (
                &["request.resourceAttributes.verb == 'list'", "request.user == 'bob'"],
                Ok(false),
                Ok(false),
            ),
        ] {
            let texts: Vec<String> = expressions.iter().map(|text| (*text).to_owned()).collect();
            let conditions = Conditions::new(&texts).unwrap();
            for (spec, expect) in [(&pods, pods_match), (&path, path_matches)] {
                match (conditions.hold(spec), expect) {
                    (Ok(got), Ok(expect)) => assert_eq!(got, expect, "{texts:?} {spec}"),
                    (Err(got), Err(expect)) => assert!(got.starts_with(expect), "{texts:?}: {got}"),
                    (got, expect) => panic!("{texts:?} {spec}: {got:?}, not {expect:?}"),
                }
            }
        }
    }

    #[test]
    fn what_is_no_condition_is_told() {
        for (text, expect) in [
            ("request.user", "must evaluate to bool but got string"),
            (
                "request.nobody == ''",
                "compilation failed: ERROR: <input>:1:8: undefined field 'nobody'",
            ),
        ] {
            let got = check(text).err().unwrap_or_default();
            assert!(got.starts_with(expect), "{got}");
        }
    }
}
