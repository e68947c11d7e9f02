//! Which part of a blob an HTTP `Range` header asks for (RFC 9110, section 14). Pure.

use std::ops::Range;

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// 200 with everything: no range, one that is to be ignored (malformed, another unit), or several at once, which
    /// a server may answer whole.
    Whole,
    /// 206 with these bytes; never empty, never beyond the end.
    Part(Range<u64>),
    /// 416: it asks for nothing that exists.
    Unsatisfiable,
}

/// Reads a `Range` header for a blob of `size` bytes.
pub fn asked(header: Option<&str>, size: u64) -> Asked {
    let Some((unit, set)) = header.and_then(|header| header.split_once('=')) else {
        return Asked::Whole;
    };
    let Some((first, last)) = set.trim().split_once('-') else {
        return Asked::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") || last.contains(',') {
        return Asked::Whole;
    }
    match (number(first), number(last)) {
        // The last n bytes.
        (Number::None, Number::Is(length)) => {
            if length == 0 || size == 0 {
                Asked::Unsatisfiable
            } else {
                Asked::Part(size - length.min(size)..size)
            }
        }
        (Number::Is(first), Number::None) => from(first, size, size),
        (Number::Is(first), Number::Is(last)) if first <= last => from(first, last.saturating_add(1), size),
        (Number::Is(_), Number::Is(_))
        | (Number::None, Number::None)
        | (Number::Bad, _)
        | (_, Number::Bad) => Asked::Whole,
    }
}

/// The `Content-Range` of a part.
pub fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}

/// The `Content-Range` of a 416.
pub fn content_range_unsatisfiable(size: u64) -> String {
    format!("bytes */{size}")
}

fn from(first: u64, end: u64, size: u64) -> Asked {
    if first >= size {
        Asked::Unsatisfiable
    } else {
        Asked::Part(first..end.min(size))
    }
}

enum Number {
    None,
    Is(u64),
    Bad,
}

fn number(text: &str) -> Number {
    let text = text.trim();
    if text.is_empty() {
        Number::None
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too many digits are beyond the end of any blob.
        Number::Is(text.parse().unwrap_or(u64::MAX))
    } else {
        Number::Bad
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_read_as_the_standard_says() {
        for (header, want) in [
            ("bytes=0-499", Asked::Part(0..500)),
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=500-999", Asked::Part(500..1000)),
            ("bytes=500-", Asked::Part(500..1000)),
            ("bytes=999-99999", Asked::Part(999..1000)),
            ("bytes=-500", Asked::Part(500..1000)),
            ("bytes=-5000", Asked::Part(0..1000)),
            ("Bytes = 1 - 2 ", Asked::Part(1..3)),
            ("bytes=0-18446744073709551615", Asked::Part(0..1000)),
            ("bytes=0-99999999999999999999999", Asked::Part(0..1000)),
            ("bytes=1000-", Asked::Unsatisfiable),
            ("bytes=1000-1001", Asked::Unsatisfiable),
            ("bytes=99999999999999999999999-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=5-4", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes", Asked::Whole),
            ("", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=0x1-2", Asked::Whole),
            ("bytes=--1", Asked::Whole),
            ("bytes=0-1,5-6", Asked::Whole),
            ("bytes=-1,-2", Asked::Whole),
            ("lines=0-1", Asked::Whole),
        ] {
            assert_eq!(asked(Some(header), 1000), want, "{header}");
        }
        assert_eq!(asked(None, 1000), Asked::Whole);
    }

    #[test]
    fn an_empty_blob_has_no_parts() {
        for header in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            assert_eq!(asked(Some(header), 0), Asked::Unsatisfiable, "{header}");
        }
    }

    #[test]
    fn answers_name_the_part() {
        assert_eq!(content_range(&(3..5), 10), "bytes 3-4/10");
        assert_eq!(content_range_unsatisfiable(10), "bytes */10");
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_outside(header in "bytes=[0-9]{0,21}-[0-9]{0,21}", size in 0..2000_u64) {
            if let Asked::Part(part) = asked(Some(&header), size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }

        #[test]
        fn nonsense_is_answered_whole_or_refused(header in ".{0,40}", size in any::<u64>()) {
            if let Asked::Part(part) = asked(Some(&header), size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }
    }
}
