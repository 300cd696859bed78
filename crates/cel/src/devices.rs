//! Expressions that select devices, in classes and claims: the variable `device`, how large it may be, and what they may
//! cost.
//!
//! Source: `k8s.io/dynamic-resource-allocation/cel/compile.go`, with the limits of `k8s.io/api/resource/v1`.

use std::sync::Arc;

use crate::admission::Refusal;
use crate::environment::Environment;
use crate::program::{Program, compile};
use crate::types::Type;
use crate::{QUANTITY, Sizes};

/// What an expression may cost at worst (`CELSelectorExpressionMaxCost`).
pub const COST_MAX: u64 = 1_000_000;
/// Characters of a domain, and of a driver's name.
const DOMAIN_MAX: u64 = 63;
/// Characters of an attribute's or a capacity's name within its domain.
const ID_MAX: u64 = 32;
/// Characters of an attribute's value.
const VALUE_MAX: u64 = 64;
/// Attributes and capacities of a device, together.
const NAMES_MAX: u64 = 32;

/// Compiles an expression that selects devices, with the libraries of a version.
///
/// # Errors
/// Why it cannot be used.
pub fn compile_selector(minor: u16, text: &str) -> Result<Program, Refusal> {
    let environment = Environment::kubernetes(minor).with_bind().with("device", device());
    let refused = |detail| Refusal {
        detail,
        internal: false,
    };
    let program = compile(&environment, text).map_err(|issues| refused(format!("compilation failed: {issues}")))?;
    match program.result_type() {
        // An attribute may be a bool.
        Type::Bool | Type::Dyn => Ok(program),
        other => {
            let found = other.declared();
            Err(refused(format!(
                "must evaluate to bool or the unknown type, not {found}"
            )))
        }
    }
}

/// Whether an expression may cost more than it is allowed to.
pub fn is_too_complex(program: &Program) -> bool {
    program.estimate(&Limits).max > COST_MAX
}

/// The variable `device`.
fn device() -> Type {
    let of_domains = |value: Type| Type::map(Type::String, Type::map(Type::String, value));
    Type::object(
        "kubernetes.DRADevice",
        [
            ("driver", Type::String),
            ("attributes", of_domains(Type::Dyn)),
            ("capacity", of_domains(Type::Opaque(QUANTITY))),
            ("allowMultipleAllocations", Type::Bool),
        ],
    )
}

/// How large a device may be.
struct Limits;

impl Sizes for Limits {
    fn max(&self, path: &[Arc<str>], _: &Type) -> Option<u64> {
        let path: Vec<&str> = path.iter().map(|step| &**step).collect();
        let rest = match &path[..] {
            ["device"] => return Some(0),
            ["device", "driver"] => return Some(DOMAIN_MAX),
            ["device", "allowMultipleAllocations"] => return Some(1),
            ["device", "attributes", rest @ ..] => (rest, Some(VALUE_MAX)),
            // Upstream says nothing of a quantity, which it takes for empty.
            ["device", "capacity", rest @ ..] => (rest, Some(0)),
            _ => return None,
        };
        match rest {
            // The domains, or the names of one.
            ([] | ["@values"], _) => Some(NAMES_MAX),
            (["@keys"], _) => Some(DOMAIN_MAX),
            (["@values", "@keys"], _) => Some(ID_MAX),
            (["@values", "@values"], of_value) => of_value,
            // A name is known to be there only where any is: of attributes.
            (["@values", name], Some(VALUE_MAX)) if !name.starts_with('@') => Some(VALUE_MAX),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_look_at_devices() {
        for (text, expect) in [
            ("device.driver == 'a'", ""),
            ("device.attributes['dra.example.com'].model == 'x'", ""),
            ("device.attributes['dra.example.com'].healthy", ""),
            (
                "device.capacity['dra.example.com'].memory.isGreaterThan(quantity('1Gi'))",
                "",
            ),
            (
                "cel.bind(dra, device.attributes['dra.example.com'], dra.one && dra.other)",
                "",
            ),
            ("device.driver", "must evaluate to bool or the unknown type, not string"),
            (
                "device.name == 'a'",
                "compilation failed: ERROR: <input>:1:7: undefined field 'name'",
            ),
            (
                "device.attributes['a'].all(k1, device.attributes['b'].all(k2, device.attributes['c'].all(k3, \
                 device.attributes['d'].all(k4, k1 == k2 && k3 == k4))))",
                "too complex",
            ),
        ] {
            let found = match compile_selector(36, text) {
                Err(refusal) => refusal.detail,
                Ok(program) if is_too_complex(&program) => "too complex".into(),
                Ok(_) => String::new(),
            };
            let found = found.lines().next().unwrap_or("");
            assert_eq!(found, expect, "{text}");
        }
    }
}
