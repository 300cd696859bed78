//! The rules of a device class.
//!
//! Source: `validateDeviceClassSpec` in `pkg/apis/resource/validation/validation.go`.

use api::Value;
use api::field::ErrorList;

use super::devices;
use crate::check::{At, Report};
use crate::core::pod::resources::is_extended;
use crate::gates;
use crate::row::{Strategy, WriteContext};
use crate::view::View;

/// Device classes.
pub struct DeviceClasses;

impl Strategy for DeviceClasses {
    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        gates::drop_disabled(object, None, "resource.v1.DeviceClass");
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        gates::drop_disabled(object, Some(old), "resource.v1.DeviceClass");
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object.get("spec"), false))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        let stored = object.at("spec.selectors") == old.at("spec.selectors");
        Report::of(object, |object| validate(&object.get("spec"), stored))
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(spec: &At, stored: bool) {
    devices::selectors(spec, stored);
    devices::each(spec, "config", devices::LIST_MAX, devices::configuration);
    let name = spec.get("extendedResourceName");
    let named = !name.is_set() || is_extended(name.text());
    name.ensure(named, "must be a valid extended resource name");
}
