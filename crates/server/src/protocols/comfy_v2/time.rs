//! Times on the wire: RFC 3339 in UTC with `Z` and microseconds, which every generation of the SDKs reads
//! (`protocols/comfy-v2.md` §2.4).

use darkroom_core::Timestamp;
use serde_json::Value;

/// A time.
pub fn time(at: Timestamp) -> Value {
    let at = jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or(jiff::Timestamp::MAX);
    Value::from(format!("{at:.6}"))
}

/// A time, or null.
pub fn time_or_null(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_have_microseconds_too() {
        let at = |micros| time(Timestamp::from_micros(micros));
        assert_eq!(at(1_700_000_000_000_000), "2023-11-14T22:13:20.000000Z");
        assert_eq!(at(1_700_000_000_123_456), "2023-11-14T22:13:20.123456Z");
        assert!(at(i64::MAX).as_str().unwrap().starts_with("9999-"));
        assert_eq!(time_or_null(None), Value::Null);
    }
}
