//! Devices that several claims share: how much of a capacity a claim may ask for.
//!
//! Source: `validateMultiAllocatableDeviceCapacity` and what it calls in `pkg/apis/resource/validation/validation.go`.

use std::collections::BTreeSet;

use api::quantity::Quantity;

use super::devices::each;
use crate::check::At;

/// How many amounts a policy may list. Source: `CapacityRequestPolicyDiscreteMaxOptions`.
const VALUES_MAX: usize = 10;

/// The rules of one capacity of a device that is `shared` or not.
pub fn capacity(capacity: &At, shared: bool) {
    let policy = capacity.get("requestPolicy");
    if !policy.is_set() {
        return;
    }
    if !shared {
        return policy.forbidden("allowMultipleAllocations must be true");
    }
    let (values, range) = (policy.get("validValues"), policy.get("validRange"));
    let of_default = policy.get("default");
    match (!values.is_empty(), range.is_set()) {
        (true, true) => policy.forbidden(
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        ),
        (true, false) if !of_default.is_set() => of_default.missing("required when validValues is defined"),
        (false, true) if !of_default.is_set() => of_default.missing("required when validRange is defined"),
        (true, false) => valid_values(&policy, &amount(&of_default), &amount(&capacity.get("value"))),
        (false, true) => valid_range(&range, &amount(&of_default), &amount(&capacity.get("value"))),
        (false, false) => {}
    }
}

/// The quantity here; every quantity that was decoded can be read.
fn amount(at: &At) -> Quantity {
    Quantity::from_value(at.value).unwrap_or_else(|_| Quantity::zero())
}

fn valid_values(policy: &At, of_default: &Quantity, whole: &Quantity) {
    let list = policy.get("validValues");
    let items = policy.items("validValues");
    for (index, pair) in items.windows(2).enumerate() {
        if let [before, after] = pair
            && amount(before) > amount(after)
        {
            let at = list.elsewhere(list.path.index(index + 1), after.value);
            at.invalid("values must be sorted in ascending order");
        }
    }
    each(policy, "validValues", VALUES_MAX, |value| {
        let larger = amount(value) > *whole;
        value.ensure(!larger, format!("option is larger than capacity value: {whole}"));
    });
    let mut seen = BTreeSet::new();
    for value in items.iter().filter(|_| items.len() <= VALUES_MAX) {
        // Upstream compares what is left of them as whole numbers.
        let key = amount(value).value().to_string();
        if !seen.insert(key.clone()) {
            value.duplicate(key);
        }
    }
    let found = items.len() <= VALUES_MAX && items.iter().any(|value| amount(value) == *of_default);
    if !found {
        list.invalid_as(
            of_default.to_string(),
            "default value is not valid according to the requestPolicy",
        );
    }
}

fn valid_range(range: &At, of_default: &Quantity, whole: &Quantity) {
    let (min, max, step) = (range.get("min"), range.get("max"), range.get("step"));
    if !min.is_set() {
        return min.missing("required when validRange is defined");
    }
    let least = amount(&min);
    if least > *whole {
        min.invalid(format!("min is larger than capacity value: {whole}"));
    }
    if *of_default < least {
        min.invalid_as(of_default.to_string(), format!("default is less than min: {least}"));
    }
    let most = max.is_set().then(|| amount(&max));
    if let Some(most) = &most {
        if least > *most {
            max.invalid_as(least.to_string(), format!("min is larger than max: {most}"));
        }
        if *most > *whole {
            max.invalid(format!("max is larger than capacity value: {whole}"));
        }
        if of_default > most {
            max.invalid_as(of_default.to_string(), format!("default is more than max: {most}"));
        }
    }
    if step.is_set() {
        let by = amount(&step);
        let mut one_step = least.clone();
        one_step.add(&by);
        if one_step > *whole {
            step.invalid(format!("one step {one_step} is larger than capacity value: {whole}"));
        }
        for value in [Some(of_default), most.as_ref()].into_iter().flatten() {
            // A step of nothing leads nowhere (upstream divides by it).
            let rest = value.value().wrapping_sub(least.value()).checked_rem(by.value());
            if rest != Some(0) {
                let why = format!("value is not a multiple of a given step ({by}) from ({least})");
                step.invalid_as(value.to_string(), why);
            }
        }
    }
}
