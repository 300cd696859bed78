//! The rules of a priority level.
//!
//! Source: `pkg/apis/flowcontrol/v1/defaults.go` and `ValidatePriorityLevelConfiguration` in
//! `pkg/apis/flowcontrol/validation/validation.go`.

use api::Value;
use api::field::ErrorList;

use super::{conditions, keep_apart, mandatory};
use crate::check::{At, Report};
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

const SHARES_DEFAULT: i64 = 30;
const QUEUES_MAX: i64 = 10_000_000;
/// How many bits of a flow's hash dealing a hand may take: upstream's `shufflesharding.MaxHashBits`.
const HASH_BITS_MAX: f64 = 60.0;
const EXEMPT: &str = "exempt";

/// Priority levels.
pub struct PriorityLevels;

impl Strategy for PriorityLevels {
    fn default(&self, object: &mut Value) {
        for (kind, shares) in [("spec.exempt", 0), ("spec.limited", SHARES_DEFAULT)] {
            if let Some(level) = object.existing(kind) {
                level.put_default("nominalConcurrencyShares", shares);
                level.put_default("lendablePercent", 0);
            }
        }
        if let Some(queuing) = object.existing("spec.limited.limitResponse.queuing") {
            for (field, default) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                if queuing.count(field) == 0 {
                    queuing.put(field, default);
                }
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        keep_apart(object, old, context);
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn validate_update(&self, object: &Value, _old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => conditions(&object.get("status")),
            _ => validate(&object),
        })
    }

    fn reset_fields(&self, subresource: &str) -> Option<&'static [&'static str]> {
        match subresource {
            "status" => Some(&["metadata", "spec"]),
            _ => None,
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(object: &At) {
    let name = object.value.text("metadata.name");
    spec(&object.get("spec"), name);
    let kind = "PriorityLevelConfiguration";
    match name {
        EXEMPT => mandatory(object, kind, but_exempt, " except the 'spec.exempt' field"),
        _ => mandatory(object, kind, Value::clone, ""),
    }
    conditions(&object.get("status"));
}

/// What an administrator may say of the exempt level: its shares.
fn but_exempt(spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec.cut(EXEMPT);
    spec
}

fn spec(spec: &At, name: &str) {
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get(EXEMPT));
    if (name == EXEMPT) != (kind.text() == "Exempt") {
        kind.invalid_as(kind.text(), "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match kind.text() {
        "Exempt" => {
            limited.forbidden_when_set("must be nil if the type is not Limited");
            shares(&exempt);
            lendable(&exempt);
        }
        "Limited" => {
            exempt.forbidden_when_set("must be nil if the type is Limited");
            match limited.is_set() {
                true => limited_level(&limited),
                false => limited.missing("must not be empty when type is Limited"),
            }
        }
        _ => kind.not_supported(&["Exempt", "Limited"]),
    }
}

/// The share of the server's seats, and how much of it others may borrow.
fn shares(level: &At) {
    let nominal = level.get("nominalConcurrencyShares");
    let negative = nominal.number().is_some_and(|shares| shares < 0);
    nominal.ensure(!negative, "must be a non-negative integer");
}

fn lendable(level: &At) {
    level.get("lendablePercent").in_range(0, 100);
}

fn limited_level(level: &At) {
    shares(level);
    limit_response(&level.get("limitResponse"));
    lendable(level);
    let borrowing = level.get("borrowingLimitPercent");
    let negative = borrowing.number().is_some_and(|percent| percent < 0);
    borrowing.ensure(!negative, "if specified, must be a non-negative integer");
}

fn limit_response(response: &At) {
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    match kind.text() {
        "Reject" => queuing.forbidden_when_set("must be nil if limited.limitResponse.type is not Limited"),
        "Queue" if !queuing.is_set() => queuing.missing("must not be empty if limited.limitResponse.type is Limited"),
        "Queue" => self::queuing(&queuing),
        _ => kind.not_supported(&["Queue", "Reject"]),
    }
}

fn queuing(queuing: &At) {
    let (queues, hand, length) = (
        queuing.get("queues"),
        queuing.get("handSize"),
        queuing.get("queueLengthLimit"),
    );
    let number = |at: &At| at.number().unwrap_or(0);
    let positive = "must be positive";
    length.ensure(number(&length) > 0, positive);
    if number(&queues) <= 0 {
        queues.invalid(positive);
    } else if number(&queues) > QUEUES_MAX {
        queues.invalid(format!("must not be greater than {QUEUES_MAX}"));
    }
    if number(&hand) <= 0 {
        hand.invalid(positive);
    } else if number(&hand) > number(&queues) {
        hand.invalid(format!("should not be greater than queues ({})", number(&queues)));
    } else if hash_bits(number(&queues), number(&hand)) > HASH_BITS_MAX {
        hand.invalid(format!(
            "required entropy bits of deckSize {} and handSize {} should not be greater than {HASH_BITS_MAX}",
            number(&queues),
            number(&hand)
        ));
    }
}

/// How many bits of a hash dealing a hand takes, a little too many.
fn hash_bits(queues: i64, hand: i64) -> f64 {
    ((queues as f64).log2() * hand as f64).ceil()
}
