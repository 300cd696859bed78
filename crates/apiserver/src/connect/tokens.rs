//! `serviceaccounts/token`: TokenRequest, issued by whoever the composition root gave.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage/token.go`.

use std::sync::Arc;

use http::Response;

use api::field::{Error, ErrorList, Path};
use api::schema::SchemaRef;
use api::{GroupResource, GroupVersionKind, Reason, Status, meta};
use client::Body;

use crate::call::{Call, RequestBody, read_body};
use crate::decode;
use crate::options::WriteOptions;
use crate::pipeline::Review;
use crate::registry::Served;
use crate::respond;
use crate::tokens;
use crate::verbs::write::{run_admit, run_validate};

/// The shortest and the longest life of a token, and the one when none is asked for, in seconds.
const EXPIRATION_SECONDS_MIN: i64 = 600;
const EXPIRATION_SECONDS_MAX: i64 = 1 << 32;
const EXPIRATION_SECONDS_DEFAULT: i64 = 3600;

/// `POST serviceaccounts/<name>/token`.
pub async fn issue(call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let bytes = read_body(body).await?;
    let options = WriteOptions::parse(call, "CreateOptions", false)?;
    let gvk = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
    let schema = SchemaRef::builtin(&gvk).expect("invariant: the schema has authentication.k8s.io/v1 TokenRequest");
    let mut request = decode::object(call, &bytes, &gvk, &schema, options.field_validation)?;
    let attributes = &call.attributes;
    let Some(issuer) = &call.server.tokens else {
        return Err(Status::failure(
            Reason::ServiceUnavailable,
            "this server issues no tokens",
        ));
    };
    let account = call
        .server
        .storage
        .get(&served.kind, &attributes.namespace, &attributes.name)?;
    let account = account.ok_or_else(|| Status::not_found(&served.resource(), &attributes.name))?;
    for (field, expected) in [("name", &attributes.name), ("namespace", &attributes.namespace)] {
        let given = meta::text(&request, field);
        if !given.is_empty() && given != expected {
            let why = format!("must match the service account {field} if specified");
            let error = Error::invalid(&Path::new("metadata").child(field), given, &why);
            return Err(Status::invalid(&gvk.group_kind(), &attributes.name, &[error]));
        }
    }
    let uid = meta::text(&request, "uid");
    if !uid.is_empty() && uid != account.uid() {
        let why = format!(
            "the UID in the token request ({uid}) does not match the UID of the service account ({})",
            account.uid()
        );
        // Upstream names the kind where other conflicts name the resource.
        let resource = GroupResource {
            group: gvk.group.clone(),
            resource: gvk.kind.clone(),
        };
        return Err(Status::conflict(&resource, &attributes.name, &why));
    }
    meta::set_text(&mut request, "uid", account.uid());
    meta::set_text(&mut request, "name", &attributes.name);
    meta::set_text(&mut request, "namespace", &attributes.namespace);
    meta::set_text(&mut request, "creationTimestamp", &call.now());
    let seconds = match request["spec"]["expirationSeconds"].as_i64() {
        None | Some(0) => EXPIRATION_SECONDS_DEFAULT,
        Some(seconds) => seconds,
    };
    request["spec"]["expirationSeconds"] = seconds.into();
    let errors = check(seconds);
    if !errors.is_empty() {
        return Err(Status::invalid(&gvk.group_kind(), &attributes.name, &errors));
    }
    let review = Review {
        kind: gvk,
        resource: served.gvr.clone(),
        name: attributes.name.clone(),
        dry_run: options.dry_run,
        options: options.to_value("CreateOptions"),
        ..Review::of(call)
    };
    let mut slot = Some(request);
    run_admit(call, &review, &mut slot, None).await?;
    run_validate(call, &review, slot.as_ref(), None).await?;
    let request = slot.ok_or_else(|| Status::internal("an admission plug-in removed the object"))?;
    let wanted = request["spec"]["expirationSeconds"].as_i64();
    let answer = if options.dry_run {
        request
    } else {
        issuer.issue(&account, request, &call.user).await?
    };
    let given = answer["spec"]["expirationSeconds"].as_i64();
    if let (Some(wanted), Some(given)) = (wanted, given)
        && given < wanted
    {
        call.warn(format!(
            "requested expiration of {wanted} seconds shortened to {given} seconds"
        ));
    }
    // Who uses the token is told of with the same id.
    if let Some(trail) = &call.audit
        && let Some(id) = answer["status"]["token"].as_str().and_then(tokens::id_of)
    {
        trail.annotate(
            "authentication.kubernetes.io/issued-credential-id",
            &format!("JTI={id}"),
        );
    }
    Ok(respond::tree(call, &answer, 201))
}

fn check(seconds: i64) -> ErrorList {
    let path = Path::new("spec").child("expirationSeconds");
    let mut errors = ErrorList::new();
    if seconds < EXPIRATION_SECONDS_MIN {
        errors.push(Error::invalid(
            &path,
            seconds,
            "may not specify a duration less than 10 minutes",
        ));
    }
    if seconds > EXPIRATION_SECONDS_MAX {
        errors.push(Error::invalid(
            &path,
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_limited() {
        for (seconds, count) in [(599, 1), (600, 0), (1 << 32, 0), ((1 << 32) + 1, 1)] {
            assert_eq!(check(seconds).len(), count, "{seconds}");
        }
    }
}
