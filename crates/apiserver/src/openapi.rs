//! `/openapi/v2` and `/openapi/v3`: the schemas of everything that is served, for `kubectl explain`, apply and diff.

use http::Response;

use api::{Reason, Status};
use client::Body;

use crate::call::Call;

fn not_yet() -> Status {
    Status::failure(Reason::NotFound, "OpenAPI documents are not available yet")
}

/// `/openapi/v2`.
pub fn v2(_call: &Call) -> Result<Response<Body>, Status> {
    Err(not_yet())
}

/// `/openapi/v3`.
pub fn v3_index(_call: &Call) -> Result<Response<Body>, Status> {
    Err(not_yet())
}

/// `/openapi/v3/<group version>`.
pub fn v3(_call: &Call, _path: &str) -> Result<Response<Body>, Status> {
    Err(not_yet())
}
