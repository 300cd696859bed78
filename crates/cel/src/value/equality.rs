//! Equality and order. Numbers of different types compare by what they are; other types never equal one another.

use std::cmp::Ordering;

use super::{Map, Value};

/// Elements that may be copied or compared in one evaluation where upstream's cost does not tell: a fraction of a second.
pub(crate) const WORK_MAX: usize = 5_000_000;

impl<'a> Value<'a> {
    /// Whether two values are equal, as `==` has it.
    pub fn equals(&self, other: &Value<'a>) -> bool {
        self.equals_counting(other, &mut 0)
    }

    /// The same; counts the values that were looked at, and gives up with `false` past [`WORK_MAX`].
    pub(crate) fn equals_counting(&self, other: &Value<'a>, work: &mut usize) -> bool {
        *work += 1;
        if *work > WORK_MAX {
            return false;
        }
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(one), Value::Bool(other)) => one == other,
            (Value::String(one), Value::String(other)) => **one == **other,
            (Value::Bytes(one), Value::Bytes(other)) => one == other,
            (Value::Duration(one), Value::Duration(other)) => one == other,
            (Value::Timestamp(one), Value::Timestamp(other)) => one == other,
            (Value::Type(one), Value::Type(other)) => one.name() == other.name(),
            (Value::Opaque(one), Value::Opaque(other)) => one.equals(other),
            (Value::Optional(one), Value::Optional(other)) => match (one, other) {
                (None, None) => true,
                (Some(one), Some(other)) => one.equals_counting(other, work),
                _ => false,
            },
            (Value::List(one), Value::List(other)) if one.is_unordered() => one.equals_unordered(other, work),
            (Value::List(one), Value::List(other)) => {
                let mut pairs = one.iter().zip(other.iter());
                one.len() == other.len() && pairs.all(|(one, other)| one.equals_counting(&other, work))
            }
            (Value::Map(one), Value::Map(other)) => maps_equal(one, other, work),
            _ => self.is_number() && other.is_number() && self.compare(other) == Some(Ordering::Equal),
        }
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Value::Int(_) | Value::Uint(_) | Value::Double(_))
    }

    /// The order of two values; `None` when they have none, as NaN or a text and a number.
    pub(crate) fn compare(&self, other: &Value<'a>) -> Option<Ordering> {
        Some(match (self, other) {
            (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
            (Value::String(one), Value::String(other)) => (**one).cmp(&**other),
            (Value::Bytes(one), Value::Bytes(other)) => one.cmp(other),
            (Value::Duration(one), Value::Duration(other)) => one.cmp(other),
            (Value::Timestamp(one), Value::Timestamp(other)) => one.cmp(other),
            (Value::Int(one), Value::Int(other)) => one.cmp(other),
            (Value::Uint(one), Value::Uint(other)) => one.cmp(other),
            (Value::Int(one), Value::Uint(other)) => i128::from(*one).cmp(&i128::from(*other)),
            (Value::Uint(one), Value::Int(other)) => i128::from(*one).cmp(&i128::from(*other)),
            (Value::Double(one), Value::Double(other)) => return one.partial_cmp(other),
            (Value::Double(one), Value::Int(other)) => return compare_double(*one, i128::from(*other)),
            (Value::Double(one), Value::Uint(other)) => return compare_double(*one, i128::from(*other)),
            (Value::Int(one), Value::Double(other)) => {
                return compare_double(*other, i128::from(*one)).map(Ordering::reverse);
            }
            (Value::Uint(one), Value::Double(other)) => {
                return compare_double(*other, i128::from(*one)).map(Ordering::reverse);
            }
            _ => return None,
        })
    }
}

/// A floating-point number against a whole one that has 65 bits at most: exact.
fn compare_double(double: f64, whole: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // The conversion saturates; what is beyond is still beyond.
    let floor = double.floor();
    let order = (floor as i128).cmp(&whole);
    Some(if order == Ordering::Equal && double > floor {
        Ordering::Greater
    } else {
        order
    })
}

fn maps_equal<'a>(one: &Map<'a>, other: &Map<'a>, work: &mut usize) -> bool {
    let keys = one.keys();
    keys.len() == other.keys().len()
        && keys.iter().all(|key| match (one.get(key), other.get(key)) {
            (Some(one), Some(other)) => one.equals_counting(&other, work),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_across_types() {
        use Ordering::{Equal, Greater, Less};
        for (one, other, expect) in [
            (Value::Int(1), Value::Uint(1), Some(Equal)),
            (Value::Int(-1), Value::Uint(u64::MAX), Some(Less)),
            (Value::Double(1.5), Value::Int(1), Some(Greater)),
            (Value::Double(-1.5), Value::Int(-1), Some(Less)),
            (
                Value::Int(i64::MAX),
                Value::Double(9_223_372_036_854_775_808.0),
                Some(Less),
            ),
            (Value::Uint(3), Value::Double(f64::INFINITY), Some(Less)),
            (Value::Double(f64::NAN), Value::Int(0), None),
            (Value::Bool(true), Value::Int(1), None),
        ] {
            assert_eq!(one.compare(&other), expect, "{one} {other}");
        }
    }
}
