//! Expressions of admission: match conditions of webhooks, and everything that admission policies say in CEL. Which
//! variables they have, of which types, and what they may give.
//!
//! Used by whoever checks policies when they are written, evaluates them when others write, and checks their types.
//! Source: `k8s.io/apiserver/pkg/admission/plugin/cel` (`compile.go`, `composition.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::environment::Environment;
use crate::program::{Program, compile};
use crate::types::{Field, ObjectType, Type};

/// The version whose libraries stored expressions have: the server's.
pub const STORED: u16 = 36;
/// The version whose libraries new expressions have: the one before, so that a rollback understands them.
pub const NEW: u16 = 35;

/// The variable that composes others.
pub const VARIABLES: &str = "variables";
/// The variable that is a check of what the request is about.
pub const REQUEST_RESOURCE: &str = "authorizer.requestResource";

/// Which variables an expression has besides those that all have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Declared {
    /// `params`: the policy has a kind of parameters.
    pub params: bool,
    /// `authorizer`, and `authorizer.requestResource`.
    pub authorizer: bool,
    /// The types that patches are made of.
    pub patches: bool,
}

/// What an expression has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// A verdict.
    Bool,
    /// A message.
    Text,
    /// An annotation, or none.
    TextOrNull,
    /// A variable.
    Anything,
    /// An apply configuration.
    Configuration,
    /// The operations of a JSON patch.
    Patches,
}

/// Why an expression cannot be used, as upstream words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub detail: String,
    /// Whether upstream takes it for a failure of its own.
    pub internal: bool,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.detail)
    }
}

impl std::error::Error for Refusal {}

/// The variables of expressions about requests, with the libraries of a version.
pub fn environment(minor: u16, declared: Declared) -> Environment {
    let mut environment = Environment::kubernetes(minor)
        .with("object", Type::Dyn)
        .with("oldObject", Type::Dyn)
        .with("namespaceObject", namespace())
        .with("request", request());
    if declared.params {
        environment = environment.with("params", Type::Dyn);
    }
    if declared.authorizer {
        environment = environment
            .with("authorizer", Type::Opaque(crate::AUTHORIZER))
            .with(REQUEST_RESOURCE, Type::Opaque(crate::RESOURCE_CHECK));
    }
    match declared.patches {
        true => environment.with_json_patch(),
        false => environment,
    }
}

/// Compiles an expression, which has to give a value of some type.
///
/// # Errors
/// Why it cannot be used.
pub fn compile_to(environment: &Environment, text: &str, gives: Gives) -> Result<Program, Refusal> {
    const INSTANTIATION: &str = "program instantiation failed: ";
    let program = compile(environment, text).map_err(|issues| {
        let of_host = issues
            .list()
            .iter()
            .find(|issue| issue.message.starts_with(INSTANTIATION));
        Refusal {
            detail: match of_host {
                Some(issue) => issue.message.clone(),
                None => format!("compilation failed: {issues}"),
            },
            internal: of_host.is_some(),
        }
    })?;
    let found = program.result_type().declared();
    let wanted: &[&str] = match gives {
        Gives::Bool => &["bool"],
        Gives::Text => &["string"],
        Gives::TextOrNull => &["string", "null_type"],
        Gives::Anything => return Ok(program),
        Gives::Configuration => &["Object"],
        Gives::Patches => &["list(JSONPatch)"],
    };
    if wanted.contains(&&*found) {
        return Ok(program);
    }
    let detail = match wanted {
        [only] => format!("must evaluate to {only} but got {found}"),
        many => format!("must evaluate to one of [{}] but got {found}", many.join(" ")),
    };
    Err(Refusal {
        detail,
        internal: false,
    })
}

/// The named expressions of a policy, as those after them see them: fields of `variables`.
#[derive(Clone, Debug, Default)]
pub struct Composition {
    fields: BTreeMap<String, Field>,
}

// === impl Composition ===

impl Composition {
    /// One more of them; of one that does not compile nothing is known.
    pub fn add(&mut self, name: &str, program: Option<&Program>) {
        let kind = program.map_or(Type::Dyn, |program| known(program.result_type()));
        let field = Field {
            key: name.to_owned(),
            kind,
        };
        self.fields.insert(name.to_owned(), field);
    }

    /// An environment with `variables`.
    pub fn declare(&self, environment: Environment) -> Environment {
        let object = ObjectType {
            name: "kubernetes.variables".into(),
            fields: self.fields.clone(),
            open: false,
        };
        environment.with(VARIABLES, Type::Object(Arc::new(object)))
    }
}

/// What is kept of a variable's type: values of JSON, and times.
fn known(kind: &Type) -> Type {
    match kind {
        Type::Bool
        | Type::Bytes
        | Type::Double
        | Type::Duration
        | Type::Int
        | Type::Null
        | Type::String
        | Type::Timestamp
        | Type::Uint => kind.clone(),
        Type::List(element, _) => Type::list(known(element)),
        Type::Map(key, value) => Type::map(known(key), known(value)),
        _ => Type::Dyn,
    }
}

/// The variable `request`: an `AdmissionRequest` without its objects and its uid.
pub fn request() -> Type {
    let texts = |names: [&'static str; 3]| names.map(|name| (name, Type::String));
    let kind = || Type::object("kubernetes.GroupVersionKind", texts(["group", "version", "kind"]));
    let resource = || {
        Type::object(
            "kubernetes.GroupVersionResource",
            texts(["group", "version", "resource"]),
        )
    };
    let user = Type::object(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", Type::list(Type::String)),
            ("extra", Type::map(Type::String, Type::list(Type::String))),
        ],
    );
    Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", Type::String),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

/// The variable `namespaceObject`: a Namespace without managers and owners.
pub fn namespace() -> Type {
    let texts = || Type::list(Type::String);
    let condition = Type::object(
        "kubernetes.NamespaceCondition",
        [
            ("status", Type::String),
            ("type", Type::String),
            ("lastTransitionTime", Type::Timestamp),
            ("message", Type::String),
            ("reason", Type::String),
        ],
    );
    let status = Type::object(
        "kubernetes.NamespaceStatus",
        [("conditions", Type::list(condition)), ("phase", Type::String)],
    );
    let metadata = Type::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", Type::map(Type::String, Type::String)),
            ("annotations", Type::map(Type::String, Type::String)),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", texts()),
        ],
    );
    let spec = Type::object("kubernetes.NamespaceSpec", [("finalizers", texts())]);
    Type::object(
        "kubernetes.Namespace",
        [("metadata", metadata), ("spec", spec), ("status", status)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Declared = Declared {
        params: true,
        authorizer: true,
        patches: true,
    };

    #[test]
    fn expressions_have_their_variables_and_give_their_types() {
        let none = Declared::default();
        for (declared, text, gives, expect) in [
            (none, "object.spec.replicas > 1", Gives::Bool, ""),
            (
                none,
                "oldObject == null && request.operation == 'CREATE'",
                Gives::Bool,
                "",
            ),
            (none, "namespaceObject.metadata.labels['a'] == 'b'", Gives::Bool, ""),
            (none, "request.userInfo.groups.exists(g, g == 'a')", Gives::Bool, ""),
            (
                none,
                "params.x == 1",
                Gives::Bool,
                "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n \
                 | params.x == 1\n | ^",
            ),
            (ALL, "params.x == 1", Gives::Bool, ""),
            (
                ALL,
                "authorizer.requestResource.check('get').allowed()",
                Gives::Bool,
                "",
            ),
            (none, "1", Gives::Bool, "must evaluate to bool but got int"),
            (none, "object.x", Gives::Bool, "must evaluate to bool but got dyn"),
            (none, "null", Gives::TextOrNull, ""),
            (
                none,
                "timestamp('2026-01-01T00:00:00Z')",
                Gives::TextOrNull,
                "must evaluate to one of [string null_type] but got google.protobuf.Timestamp",
            ),
            (none, "[1]", Gives::Anything, ""),
            (
                ALL,
                "Object{metadata: Object.metadata{labels: {'a': 'b'}}}",
                Gives::Configuration,
                "",
            ),
            (
                ALL,
                "Object.spec{}",
                Gives::Configuration,
                "must evaluate to Object but got Object.spec",
            ),
            (
                ALL,
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 1}]",
                Gives::Patches,
                "",
            ),
            (
                ALL,
                "has(object.x) ? [JSONPatch{op: 'remove', path: '/x'}] : []",
                Gives::Patches,
                "",
            ),
            (
                ALL,
                "[]",
                Gives::Patches,
                "must evaluate to list(JSONPatch) but got list(dyn)",
            ),
        ] {
            let compiled = compile_to(&environment(NEW, declared), text, gives);
            let found = compiled.err().map_or(String::new(), |refusal| refusal.detail);
            assert_eq!(found, expect, "{text}");
        }
    }

    #[test]
    fn variables_see_those_before_them() {
        let mut composition = Composition::default();
        let base = environment(STORED, ALL);
        for (name, text, expect) in [
            ("a", "object.spec.list.map(x, string(x))", ""),
            ("b", "variables.a[0] + 'x'", ""),
            (
                "c",
                "variables.b + 1",
                "found no matching overload for '_+_' applied to '(string, int)'",
            ),
            ("d", "variables.c.anything", ""),
            ("e", "variables.f", "undefined field 'f'"),
        ] {
            let compiled = compile_to(&composition.declare(base.clone()), text, Gives::Anything);
            match &compiled {
                Ok(_) => assert_eq!("", expect, "{text}"),
                Err(refusal) => assert!(
                    !expect.is_empty() && refusal.detail.contains(expect),
                    "{text}: {}",
                    refusal.detail
                ),
            }
            composition.add(name, compiled.as_ref().ok());
        }
    }
}
