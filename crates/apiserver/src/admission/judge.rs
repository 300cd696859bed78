//! Plug-ins that judge what is created and updated, and change nothing of it: those that ask an authorizer whether somebody may
//! write what the request's own verb does not say.

use api::{Status, Value};
use futures::future::BoxFuture;

use crate::pipeline::{Operation, Plugin, Review, Step};

/// A plug-in of that shape.
pub(crate) trait Judge: Send + Sync {
    /// The name, as upstream's flag knows it.
    fn name(&self) -> &'static str;

    /// What it says of an object, whatever that is.
    fn judge(
        &self,
        review: &Review,
        object: &Value,
        old: Option<&Value>,
    ) -> impl Future<Output = Result<(), Status>> + Send;
}

impl<J: Judge> Plugin for J {
    fn name(&self) -> &'static str {
        Judge::name(self)
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Validate
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            match object {
                Some(object) => self.judge(review, object, old).await,
                None => Ok(()),
            }
        })
    }
}
