//! How long an answer may be used again without asking, as RFC 9111 has it for a cache that nobody shares. Pure.

use std::time::Duration;

use http::{HeaderMap, header};

/// Whatever a server says.
const AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// Of the time since a file was changed, where its server says nothing else (RFC 9111 §4.2.2).
const OF_ITS_AGE: u32 = 10;

/// Zero: it must be asked for again.
pub fn fresh_for(headers: &HeaderMap) -> Duration {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let seconds = |text: &str| {
        text.trim()
            .trim_matches('"')
            .parse()
            .ok()
            .map(Duration::from_secs)
    };
    if text(header::VARY).is_some_and(|vary| vary.contains('*')) {
        return Duration::ZERO;
    }
    let mut max_age = None;
    let said = headers.get_all(header::CACHE_CONTROL).iter();
    for directive in said
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
    {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Duration::ZERO,
            // What cannot be read counts as stale.
            "max-age" => max_age = Some(seconds(value).unwrap_or_default()),
            _ => {}
        }
    }
    let at = |name| text(name).and_then(instant);
    let date = at(header::DATE);
    let lasts = match (max_age, text(header::EXPIRES), at(header::LAST_MODIFIED)) {
        (Some(max_age), _, _) => max_age,
        (None, Some(expires), _) => since(instant(expires), date),
        (None, None, changed) => since(date, changed) / OF_ITS_AGE,
    };
    let age = text(header::AGE).and_then(seconds).unwrap_or_default();
    lasts.saturating_sub(age).min(AT_MOST)
}

fn instant(text: &str) -> Option<i64> {
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text);
    parsed.ok().map(jiff::Timestamp::as_second)
}

fn since(later: Option<i64>, earlier: Option<i64>) -> Duration {
    let seconds = later
        .zip(earlier)
        .map(|(later, earlier)| later.saturating_sub(earlier));
    Duration::from_secs(seconds.and_then(|seconds| seconds.try_into().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_how_long() {
        const DATE: &str = "date: Sun, 06 Nov 1994 08:49:37 GMT";
        for (lines, seconds) in [
            (&[][..], 0),
            (&["cache-control: max-age=60"], 60),
            (&["cache-control: private, Max-Age=\"60\"", "age: 20"], 40),
            (&["cache-control: max-age=60", "age: 100"], 0),
            (&["cache-control: max-age=60, no-cache"], 0),
            (&["cache-control: max-age=60", "cache-control: no-store"], 0),
            (
                &[
                    "cache-control: max-age=nonsense",
                    "expires: Sun, 06 Nov 2094 08:49:37 GMT",
                ],
                0,
            ),
            (&["cache-control: max-age=99999999999"], 86_400),
            (&["cache-control: max-age=60", "vary: *"], 0),
            (&["cache-control: max-age=60", "vary: accept"], 60),
            (&[DATE, "expires: Sun, 06 Nov 1994 08:50:37 GMT"], 60),
            (
                &[DATE, "expires: 0", "last-modified: Sun, 06 Nov 1993 08:49:37 GMT"],
                0,
            ),
            (&[DATE, "last-modified: Sun, 06 Nov 1994 08:39:37 GMT"], 60),
            (&[DATE, "last-modified: Sun, 06 Nov 2094 08:39:37 GMT"], 0),
            (&["last-modified: Sun, 06 Nov 1994 08:39:37 GMT"], 0),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                let (name, value) = line.split_once(": ").unwrap();
                let name: header::HeaderName = name.parse().unwrap();
                headers.append(name, value.parse().unwrap());
            }
            assert_eq!(fresh_for(&headers), Duration::from_secs(seconds), "{lines:?}");
        }
    }
}
