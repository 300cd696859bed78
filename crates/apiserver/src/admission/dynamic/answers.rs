//! What expressions ask the authorizer.
//!
//! Expressions are evaluated without waiting, and an authorizer may have to wait for a webhook. So an expression that asks
//! something new gets no for an answer, its result is thrown away, the authorizer is asked, and it is evaluated again: what
//! it gives depends on nothing but its variables. Each question is asked once a request, as upstream's caching authorizer
//! has it. The rounds are bounded because questions are: a check costs a third of what an expression may.

use std::collections::HashMap;
use std::sync::Arc;

use api::selector::{FieldSelector, LabelSelector};
use parking_lot::Mutex;

use crate::pipeline::{Authorizer, Decision};
use crate::request::{Attributes, UserInfo};

/// The answers to what one request's expressions ask.
pub struct Answers {
    user: Arc<UserInfo>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<Question, cel::Decision>,
    open: Option<Question>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    service_account: Option<(String, String)>,
    verb: String,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Path(String),
    /// Group, resource, subresource, namespace, name, field selector and label selector.
    Resource([String; 7]),
}

// === impl Answers ===

impl Answers {
    /// No answers yet, on behalf of a user.
    pub fn new(user: Arc<UserInfo>) -> Arc<Answers> {
        Arc::new(Answers {
            user,
            state: Mutex::default(),
        })
    }

    /// Evaluates as often as there is something new to ask.
    pub async fn complete<T>(&self, authorizer: &dyn Authorizer, evaluate: impl Fn() -> T) -> T {
        loop {
            let result = evaluate();
            let open = self.state.lock().open.take();
            let Some(question) = open else { return result };
            let (user, attributes) = question.put(&self.user);
            let decision = match authorizer.authorize(&user, &attributes).await {
                Decision::Allow(reason) => cel::Decision {
                    allowed: true,
                    reason,
                    error: None,
                },
                Decision::Deny(reason) | Decision::NoOpinion(reason) => cel::Decision {
                    allowed: false,
                    reason,
                    error: None,
                },
                Decision::Failed { reason, error, .. } => cel::Decision {
                    allowed: false,
                    reason,
                    error: Some(error),
                },
            };
            self.state.lock().known.insert(question, decision);
        }
    }
}

impl cel::Authorizer for Answers {
    fn authorize(&self, attributes: &cel::Attributes<'_>) -> cel::Decision {
        let question = Question::of(attributes);
        let mut state = self.state.lock();
        if let Some(known) = state.known.get(&question) {
            return known.clone();
        }
        state.open.get_or_insert(question);
        cel::Decision::default()
    }
}

// === impl Question ===

impl Question {
    fn of(attributes: &cel::Attributes<'_>) -> Question {
        let service_account = attributes.service_account;
        Question {
            service_account: service_account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
            verb: attributes.verb.to_owned(),
            target: match attributes.target {
                cel::Target::Path(path) => Target::Path(path.to_owned()),
                cel::Target::Resource(of) => Target::Resource([
                    of.group.clone(),
                    of.resource.clone(),
                    of.subresource.clone(),
                    of.namespace.clone(),
                    of.name.clone(),
                    of.field_selector.clone(),
                    of.label_selector.clone(),
                ]),
            },
        }
    }

    /// The question as authorizers take it: of the request's user, or of the service account that is named.
    fn put(&self, user: &Arc<UserInfo>) -> (Arc<UserInfo>, Attributes) {
        let user = match &self.service_account {
            None => user.clone(),
            Some((namespace, name)) => Arc::new(UserInfo {
                name: format!("system:serviceaccount:{namespace}:{name}"),
                groups: vec![
                    "system:serviceaccounts".into(),
                    format!("system:serviceaccounts:{namespace}"),
                ],
                ..UserInfo::default()
            }),
        };
        let attributes = match &self.target {
            Target::Path(path) => Attributes {
                path: path.clone(),
                ..Attributes::default()
            },
            Target::Resource([group, resource, subresource, namespace, name, fields, labels]) => Attributes {
                prefix: "apis".into(),
                group: group.clone(),
                version: "*".into(),
                resource: resource.clone(),
                subresource: subresource.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
                // One that cannot be read narrows nothing down: the question is then for everything.
                field_selector: FieldSelector::parse(fields).unwrap_or_default().requirements().to_vec(),
                label_selector: LabelSelector::parse(labels).unwrap_or_default(),
                is_resource: true,
                ..Attributes::default()
            },
        };
        let attributes = Attributes {
            verb: self.verb.clone(),
            ..attributes
        };
        (user, attributes)
    }
}
