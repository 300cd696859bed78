//! What happens around a write of a custom resource, in the version that the request speaks.
//!
//! Source: `apiextensions-apiserver/pkg/registry/customresource/{strategy,status_strategy,validator}.go`.

use std::sync::Arc;

use api::field::{Error, ErrorList, ErrorType, Path};
use api::schema::apply_defaults;
use api::validation::qualified_name;
use api::{Value, meta};

use super::ratchet::Correlated;
use super::{Compiled, Version, embedded, lists, openapi};
use crate::generic::keep_all_but_status;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

/// Finalizers of Kubernetes' own, whose names are older than the rule that they have a domain.
const FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// The rules of one version.
pub struct Custom(pub Arc<Version>);

impl Strategy for Custom {
    fn default(&self, object: &mut Value) {
        apply_defaults(object, &self.0.schema);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        if self.0.has_status {
            object.cut("status");
        }
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        if context.subresource == "status" {
            let managers = object.at("metadata.managedFields").clone();
            let version = object.at("metadata.resourceVersion").clone();
            keep_all_but_status(object, old);
            object.copy_from(old, "metadata");
            for (field, value) in [("managedFields", managers), ("resourceVersion", version)] {
                match value {
                    Value::Null => object.cut(&format!("metadata.{field}")),
                    value => object.object("metadata").insert(field.into(), value),
                };
            }
        } else if self.0.has_status {
            object.copy_from(old, "status");
        }
    }

    fn generation_changed(&self, object: &Value, old: &Value) -> bool {
        let rest = |object: &Value| {
            let mut rest = object.clone();
            rest.cut("metadata");
            rest
        };
        rest(object) != rest(old)
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        let compiled = self.0.compiled();
        let mut errors = self.of_type(object);
        if !errors.is_empty() {
            return errors;
        }
        errors.extend(openapi::validate(
            None,
            object,
            &compiled.schema,
            None,
            &compiled.patterns,
        ));
        errors.extend(self.of_scale(object, true));
        errors.extend(embedded::validate(object, &compiled.schema, None, false));
        errors.extend(lists::validate(object, &compiled.schema));
        self.judge(compiled, object, None, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        self.judge_update(object, old, context).0
    }

    fn judge_update(&self, object: &Value, old: &Value, context: &WriteContext) -> (ErrorList, Vec<String>) {
        let compiled = self.0.compiled();
        let mut errors = self.of_type(object);
        if !errors.is_empty() {
            return (errors, Vec::new());
        }
        let schema = &compiled.schema;
        let correlated = Correlated::new(object, old, schema);
        if context.subresource == "status" {
            let of_status = schema.at("properties.status");
            if let Some(status) = object.get("status").filter(|_| of_status.is_object()) {
                let path = Path::new("status");
                let old = correlated.key("status");
                errors.extend(openapi::validate(
                    Some(&path),
                    status,
                    of_status,
                    old.as_ref(),
                    &compiled.patterns,
                ));
            }
            errors.extend(self.of_scale(object, false));
        } else {
            errors.extend(openapi::validate(
                None,
                object,
                schema,
                Some(&correlated),
                &compiled.patterns,
            ));
            errors.extend(self.of_scale(object, true));
            errors.extend(embedded::validate(object, schema, None, false));
        }
        // What was wrong before is not held against an update.
        if lists::validate(old, schema).is_empty() {
            errors.extend(lists::validate(object, schema));
        }
        let forgiven = self.judge(compiled, object, Some(old), &mut errors);
        (errors, forgiven)
    }

    fn reset_fields(&self, subresource: &str) -> Option<&'static [&'static str]> {
        match subresource {
            "" if self.0.has_status => Some(&["status"]),
            "status" => Some(&["metadata", "spec"]),
            _ => Some(&[]),
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        if context.subresource == "status" {
            return Vec::new();
        }
        let known: Vec<&str> = old.map(|old| meta::finalizers(old).collect()).unwrap_or_default();
        let mut added: Vec<&str> = meta::finalizers(object).filter(|name| !known.contains(name)).collect();
        added.sort_unstable();
        added.dedup();
        added.into_iter().flat_map(finalizer_warnings).collect()
    }

    fn is_deep(&self) -> bool {
        true
    }
}

impl Custom {
    fn of_type(&self, object: &Value) -> ErrorList {
        let gvk = &self.0.gvk;
        let mut errors = ErrorList::new();
        for (field, wanted) in [("kind", gvk.kind.clone()), ("apiVersion", gvk.api_version())] {
            if object.text(field) != wanted {
                let detail = format!("must be {wanted}");
                errors.push(Error::invalid(&Path::new(field), object.text(field), detail));
            }
        }
        errors
    }

    fn of_scale(&self, object: &Value, with_spec: bool) -> ErrorList {
        let scale = self.0.scale.as_ref();
        scale.map(|scale| scale.validate(object, with_spec)).unwrap_or_default()
    }

    /// The rules in CEL, unless the object is so wrong that they would fail for that. The answer is what is forgiven.
    fn judge(&self, compiled: &Compiled, object: &Value, old: Option<&Value>, errors: &mut ErrorList) -> Vec<String> {
        use ErrorType::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
        let Some(rules) = &compiled.rules else {
            return Vec::new();
        };
        let blocks = |error: &Error| matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid);
        if errors.iter().any(blocks) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            errors.push(Error::invalid(&Path::root(), Value::Null, why));
            return Vec::new();
        }
        let judged = rules.judged(None, object, old, &compiled.schema, true);
        errors.extend(judged.errors);
        judged.forgiven
    }
}

fn finalizer_warnings(name: &str) -> Vec<String> {
    let told = |why: &str| format!("metadata.finalizers: {}: {why}", api::field::quote(name));
    let mut warnings: Vec<String> = qualified_name(name).iter().map(|why| told(why)).collect();
    if !name.contains('/') && !FINALIZERS.contains(&name) {
        warnings.push(told(match name.contains('.') {
            true => {
                "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"
            }
            false => {
                "prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
            }
        }));
    }
    warnings
}
