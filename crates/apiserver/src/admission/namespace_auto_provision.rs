//! NamespaceAutoProvision: whoever writes into a namespace that is not there gets it made first. Off unless enabled.
//!
//! The namespace is an object of its own and stays when what was to go into it is refused afterwards, as upstream's does. It is
//! made through the API as anybody would make one, in the name of the server itself.
//!
//! Source: `plugin/pkg/admission/namespace/autoprovision/admission.go`.

use std::sync::OnceLock;

use api::{GroupResource, Status, Value};
use client::{Client, Resource};
use futures::future::BoxFuture;
use serde_json::json;

use crate::pipeline::{Operation, Plugin, Review, Step};
use crate::request::UserInfo;
use crate::transport::Own;

const NAMESPACES: Resource = Resource::new("", "v1", "namespaces", "Namespace", false);

/// The plug-in.
#[derive(Default)]
pub struct NamespaceAutoProvision {
    /// Set once the server is there.
    own: OnceLock<Own>,
}

impl Plugin for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Admit
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn started(&self, own: &Own) {
        // A server starts once.
        let _ = self.own.set(own.clone());
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        _object: &'a mut Option<Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            match is_missing(review) {
                true => self.make(review).await,
                false => Ok(()),
            }
        })
    }
}

impl NamespaceAutoProvision {
    async fn make(&self, review: &Review) -> Result<(), Status> {
        let own = self.own.get();
        let Some(transport) = own.and_then(|own| own.transport(UserInfo::api_server())) else {
            return Err(review.forbidden("not yet ready to handle request"));
        };
        let namespace = json!({"metadata": {"name": review.namespace}});
        let made: client::Result<Value> = Client::new(transport).create_in(&NAMESPACES, "", &namespace).await;
        match made {
            Err(error) if !error.is_already_exists() => Err(review.forbidden(&error.to_string())),
            _ => Ok(()),
        }
    }
}

/// Whether the write goes into a namespace that is not there. A dry run makes none.
fn is_missing(review: &Review) -> bool {
    if review.dry_run || review.namespace.is_empty() || review.is_about("", "namespaces", &review.subresource) {
        return false;
    }
    let namespaces = GroupResource {
        group: String::new(),
        resource: "namespaces".into(),
    };
    review.cluster.get(&namespaces, "", &review.namespace).is_none()
}
