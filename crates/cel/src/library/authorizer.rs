//! The authorizer as expressions see it: `authorizer.group('apps').resource('deployments').check('create').allowed()`.
//! Source: `k8s.io/apiserver/pkg/cel/library/authz.go`. Who decides is the host's.

use std::fmt;
use std::sync::Arc;

use api::validation::{dns1123_label, dns1123_subdomain};

use super::Native::Plain;
use super::opaque::Opaque;
use super::strings::text;
use super::{Line, Outcome, no_overload};
use crate::program::Error;
use crate::value::Value;

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("authorizer_path", "kubernetes.authorization.Authorizer::path(string) -> kubernetes.authorization.PathCheck", Plain(path)),
    ("authorizer_group", "kubernetes.authorization.Authorizer::group(string) -> kubernetes.authorization.GroupCheck", Plain(group)),
    ("authorizer_serviceaccount", "kubernetes.authorization.Authorizer::serviceAccount(string, string) -> kubernetes.authorization.Authorizer", Plain(service_account)),
    ("groupcheck_resource", "kubernetes.authorization.GroupCheck::resource(string) -> kubernetes.authorization.ResourceCheck", Plain(resource)),
    ("resourcecheck_subresource", "kubernetes.authorization.ResourceCheck::subresource(string) -> kubernetes.authorization.ResourceCheck", Plain(subresource)),
    ("resourcecheck_namespace", "kubernetes.authorization.ResourceCheck::namespace(string) -> kubernetes.authorization.ResourceCheck", Plain(namespace)),
    ("resourcecheck_name", "kubernetes.authorization.ResourceCheck::name(string) -> kubernetes.authorization.ResourceCheck", Plain(name)),
    ("pathcheck_check", "kubernetes.authorization.PathCheck::check(string) -> kubernetes.authorization.Decision", Plain(check)),
    ("resourcecheck_check", "kubernetes.authorization.ResourceCheck::check(string) -> kubernetes.authorization.Decision", Plain(check)),
    ("decision_errored", "kubernetes.authorization.Decision::errored() -> bool", Plain(errored)),
    ("decision_error", "kubernetes.authorization.Decision::error() -> string", Plain(error)),
    ("decision_allowed", "kubernetes.authorization.Decision::allowed() -> bool", Plain(allowed)),
    ("decision_reason", "kubernetes.authorization.Decision::reason() -> string", Plain(reason)),
];

/// What came with 1.31.
#[rustfmt::skip]
pub(super) const SELECTORS: &[Line] = &[
    ("authorizer_fieldselector", "kubernetes.authorization.ResourceCheck::fieldSelector(string) -> kubernetes.authorization.ResourceCheck", Plain(field_selector)),
    ("authorizer_labelselector", "kubernetes.authorization.ResourceCheck::labelSelector(string) -> kubernetes.authorization.ResourceCheck", Plain(label_selector)),
];

/// Who decides. Expressions are evaluated without `async`: a host whose authorizer waits answers from what it knows, or
/// evaluates where it may block.
pub trait Authorizer: Send + Sync {
    /// Whether the user of the request, or the service account that is named, may do what is asked.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// The namespace and name of a service account; `None` means the user of the request.
    pub service_account: Option<(&'a str, &'a str)>,
    /// What is to be done: `get`, `create`; an HTTP method for paths.
    pub verb: &'a str,
    /// A resource or a path.
    pub target: Target<'a>,
}

/// What a check is about.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A path that is no resource.
    Path(&'a str),
    /// A resource, in any version of its group.
    Resource(&'a ResourceAttributes),
}

/// A resource. What is empty was not named.
#[derive(Clone, Debug, Default)]
pub struct ResourceAttributes {
    /// Its API group.
    pub group: String,
    /// Its plural name.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// A field selector, not read yet.
    pub field_selector: String,
    /// A label selector, not read yet.
    pub label_selector: String,
}

/// What the authorizer said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// Why the authorizer could not tell.
    pub error: Option<String>,
}

/// An authorizer, and on whose behalf it is asked.
#[derive(Clone)]
pub struct Authorizing {
    authorizer: Arc<dyn Authorizer>,
    service_account: Option<(String, String)>,
}

/// A check of a resource that is being put together.
#[derive(Clone, Debug)]
pub struct ResourceCheck {
    by: Authorizing,
    attributes: ResourceAttributes,
}

impl fmt::Debug for Authorizing {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Authorizing({:?})", self.service_account)
    }
}

impl Authorizing {
    fn ask(&self, verb: &str, target: Target<'_>) -> Decision {
        let service_account = self.service_account.as_ref();
        self.authorizer.authorize(&Attributes {
            service_account: service_account.map(|(namespace, name)| (namespace.as_str(), name.as_str())),
            verb,
            target,
        })
    }
}

impl Value<'_> {
    /// The variable `authorizer`.
    pub fn authorizer(authorizer: Arc<dyn Authorizer>) -> Self {
        Value::Opaque(Opaque::Authorizer(Arc::new(Authorizing {
            authorizer,
            service_account: None,
        })))
    }

    /// The variable `authorizer.requestResource`: a check of what the request is about.
    pub fn resource_check(authorizer: Arc<dyn Authorizer>, attributes: ResourceAttributes) -> Self {
        let by = Authorizing {
            authorizer,
            service_account: None,
        };
        Value::Opaque(Opaque::ResourceCheck(Arc::new(ResourceCheck { by, attributes })))
    }
}

fn authorizing<'v>(value: &'v Value<'_>) -> Result<&'v Authorizing, Error> {
    match value {
        Value::Opaque(Opaque::Authorizer(by)) => Ok(by),
        _ => Err(no_overload()),
    }
}

fn path<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (by, path) = (authorizing(&arguments[0])?, text(&arguments[1])?);
    if path.trim().is_empty() {
        return Err(Error::evaluation("path must not be empty"));
    }
    Ok(Value::Opaque(Opaque::PathCheck(Arc::new((
        by.clone(),
        path.to_owned(),
    )))))
}

fn group<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (by, group) = (authorizing(&arguments[0])?, text(&arguments[1])?);
    Ok(Value::Opaque(Opaque::GroupCheck(Arc::new((
        by.clone(),
        group.to_owned(),
    )))))
}

fn service_account<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let by = authorizing(&arguments[0])?;
    let (namespace, name) = (text(&arguments[1])?, text(&arguments[2])?);
    if !dns1123_subdomain(name).is_empty() {
        return Err(Error::evaluation("Invalid service account name"));
    }
    if !dns1123_label(namespace).is_empty() {
        return Err(Error::evaluation("Invalid service account namespace"));
    }
    let service_account = Some((namespace.to_owned(), name.to_owned()));
    let by = Authorizing {
        authorizer: by.authorizer.clone(),
        service_account,
    };
    Ok(Value::Opaque(Opaque::Authorizer(Arc::new(by))))
}

fn resource<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let Value::Opaque(Opaque::GroupCheck(group)) = &arguments[0] else {
        return Err(no_overload());
    };
    let resource = text(&arguments[1])?;
    if resource.trim().is_empty() {
        return Err(Error::evaluation("resource must not be empty"));
    }
    let attributes = ResourceAttributes {
        group: group.1.clone(),
        resource: resource.to_owned(),
        ..Default::default()
    };
    Ok(Value::Opaque(Opaque::ResourceCheck(Arc::new(ResourceCheck {
        by: group.0.clone(),
        attributes,
    }))))
}

/// A check with one more attribute.
fn with<'a>(arguments: &[Value<'a>], field: fn(&mut ResourceAttributes) -> &mut String) -> Outcome<'a> {
    let Value::Opaque(Opaque::ResourceCheck(check)) = &arguments[0] else {
        return Err(no_overload());
    };
    let mut check = ResourceCheck::clone(check);
    *field(&mut check.attributes) = text(&arguments[1])?.to_owned();
    Ok(Value::Opaque(Opaque::ResourceCheck(Arc::new(check))))
}

fn subresource<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    with(arguments, |attributes| &mut attributes.subresource)
}

fn namespace<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    with(arguments, |attributes| &mut attributes.namespace)
}

fn name<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    with(arguments, |attributes| &mut attributes.name)
}

fn field_selector<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    with(arguments, |attributes| &mut attributes.field_selector)
}

fn label_selector<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    with(arguments, |attributes| &mut attributes.label_selector)
}

fn check<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let verb = text(&arguments[1])?;
    let decision = match &arguments[0] {
        Value::Opaque(Opaque::PathCheck(check)) => check.0.ask(verb, Target::Path(&check.1)),
        Value::Opaque(Opaque::ResourceCheck(check)) => check.by.ask(verb, Target::Resource(&check.attributes)),
        _ => return Err(no_overload()),
    };
    Ok(Value::Opaque(Opaque::Decision(Arc::new(decision))))
}

fn decision<'v>(value: &'v Value<'_>) -> Result<&'v Decision, Error> {
    match value {
        Value::Opaque(Opaque::Decision(decision)) => Ok(decision),
        _ => Err(no_overload()),
    }
}

fn errored<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(decision(&arguments[0])?.error.is_some()))
}

fn error<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(decision(&arguments[0])?.error.clone().unwrap_or_default().into())
}

fn allowed<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(decision(&arguments[0])?.allowed))
}

fn reason<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(decision(&arguments[0])?.reason.clone().into())
}
