//! Comparing JSON numbers without losing the last digits of large ones.

use std::cmp::Ordering;

use serde_json::Value;

/// The order of two numbers; `None` where one is none.
pub(super) fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// A whole number, also where it is written `7.0`.
pub(super) fn whole(value: &Value) -> Option<i128> {
    if let Some(number) = value.as_i64() {
        return Some(number.into());
    }
    if let Some(number) = value.as_u64() {
        return Some(number.into());
    }
    // Beyond 2^53 a float does not say which whole number was meant.
    let number = value.as_f64()?;
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i128)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_largest_whole_numbers_are_told_apart() {
        let (a, b) = (json!(u64::MAX), json!(u64::MAX - 1));
        assert_eq!(compare(&a, &b), Some(Ordering::Greater));
        assert_eq!(compare(&json!(1), &json!(1.5)), Some(Ordering::Less));
        assert_eq!(compare(&json!(2.0), &json!(2)), Some(Ordering::Equal));
        assert_eq!(compare(&json!("2"), &json!(2)), None);
        assert_eq!(whole(&json!(1e300)), None);
    }
}
