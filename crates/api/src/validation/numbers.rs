//! Ports, ids, percentages.

use super::{range_error, regex_error};
use crate::Value;
use crate::field::{Error, ErrorList, Path};

/// A port: 1 to 65535.
pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

/// A number between two others, both included.
pub fn in_range(value: i64, min: i64, max: i64) -> Vec<String> {
    if (min..=max).contains(&value) {
        Vec::new()
    } else {
        vec![range_error(min, max)]
    }
}

/// A Unix group.
pub fn group_id(id: i64) -> Vec<String> {
    in_range(id, 0, i32::MAX.into())
}

/// A Unix user.
pub fn user_id(id: i64) -> Vec<String> {
    in_range(id, 0, i32::MAX.into())
}

/// `must be greater than or equal to 0`.
pub fn non_negative(value: i64, path: &Path) -> ErrorList {
    if value < 0 {
        vec![Error::invalid(path, value, "must be greater than or equal to 0")]
    } else {
        Vec::new()
    }
}

/// A whole percentage as text: `25%`.
pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_error(message, "[0-9]+%", &["1%", "93%"])]
}

/// The rule of `maxSurge`, `maxUnavailable`, `minAvailable`: a percentage or a number that is not negative.
/// Source: `ValidatePositiveIntOrPercent` of `pkg/apis/apps/validation`.
pub fn int_or_percent(value: &Value, path: &Path) -> ErrorList {
    match value {
        Value::String(text) => {
            let broken = percent(text).into_iter();
            broken.map(|detail| Error::invalid(path, &**text, detail)).collect()
        }
        Value::Number(number) if number.is_i64() => non_negative(number.as_i64().unwrap_or_default(), path),
        _ => vec![Error::invalid(
            path,
            value.clone(),
            "must be an integer or percentage (e.g '5%%')",
        )],
    }
}

/// Why an int-or-percent cannot be scaled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PercentError {
    /// Not a percentage.
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotPercentage,
    /// A percentage that is no number.
    #[error("invalid value for IntOrString: invalid value {0:?}: strconv.Atoi: parsing {1:?}: invalid syntax")]
    NotNumber(String, String),
    /// Neither number nor text.
    #[error("invalid value for IntOrString: invalid type: neither int nor percentage")]
    WrongType,
}

/// The number, or that percentage of `total`. Source: `GetScaledValueFromIntOrPercent` of `pkg/util/intstr`.
pub fn scaled_int_or_percent(value: &Value, total: i64, round_up: bool) -> Result<i64, PercentError> {
    let text = match value {
        Value::Number(number) => return number.as_i64().ok_or(PercentError::WrongType),
        Value::String(text) => text,
        _ => return Err(PercentError::WrongType),
    };
    let digits = text.strip_suffix('%').ok_or(PercentError::NotPercentage)?;
    let percent: i64 = digits
        .parse()
        .map_err(|_| PercentError::NotNumber(text.clone(), digits.into()))?;
    let product = i128::from(percent) * i128::from(total);
    let rounded = if round_up {
        -(-product).div_euclid(100)
    } else {
        product.div_euclid(100)
    };
    Ok(rounded.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_keep_their_range() {
        for (port, good) in [(1, true), (65535, true), (0, false), (-1, false), (65536, false)] {
            assert_eq!(port_number(port).is_empty(), good, "{port}");
        }
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        for (id, good) in [(0, true), (2147483647, true), (-1, false), (2147483648, false)] {
            assert_eq!((user_id(id).is_empty(), group_id(id).is_empty()), (good, good), "{id}");
        }
    }

    #[test]
    fn percentages() {
        for good in ["0%", "00000%", "01%", "101%"] {
            assert!(percent(good).is_empty(), "{good}");
        }
        for bad in ["", "0", "%", "0.0%", "99.9%", " 1%", "1% ", "-1%", "+1%"] {
            assert!(!percent(bad).is_empty(), "{bad}");
        }
        let path = Path::new("f");
        for (value, expect) in [
            (json!("25%"), None),
            (json!(0), None),
            (
                json!(-1),
                Some("f: Invalid value: -1: must be greater than or equal to 0"),
            ),
            (
                json!("x"),
                Some(
                    "f: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                ),
            ),
        ] {
            let text = int_or_percent(&value, &path).first().map(Error::to_string);
            assert_eq!(text.as_deref(), expect);
        }
    }

    #[test]
    fn percentages_scale() {
        for (value, total, up, expect) in [
            (json!(5), 10, true, Ok(5)),
            (json!("25%"), 10, true, Ok(3)),
            (json!("25%"), 10, false, Ok(2)),
            (json!("90%"), 100, true, Ok(90)),
            (json!("0%"), 7, true, Ok(0)),
            (json!("5"), 7, true, Err(PercentError::NotPercentage)),
            (json!(true), 7, true, Err(PercentError::WrongType)),
        ] {
            assert_eq!(scaled_int_or_percent(&value, total, up), expect, "{value}");
        }
    }
}
