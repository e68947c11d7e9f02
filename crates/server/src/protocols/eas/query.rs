//! The query: reserved keys `_name_`, and tags.

use std::{collections::BTreeMap, time::Duration};

use super::error::EasError;
use crate::service::queues::Tags;

/// Indexes of one request at most.
const MAX_INDEXES: usize = 10_000;
/// Nobody waits longer in one request.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A query, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    reserved: BTreeMap<String, String>,
    /// Every key that is not reserved.
    pub tags: Tags,
}

/// An index as clients write it: from here on, or the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// The first item at or after it; 0 is the oldest.
    From(u64),
    /// −1.
    Newest,
}

impl Query {
    /// Takes a query apart. A key that is given twice counts once, as it was given last.
    ///
    /// # Errors
    /// A tag without a name.
    pub fn parse(text: &str) -> Result<Query, EasError> {
        let mut query = Query::default();
        for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
            if key.is_empty() {
                if value.is_empty() {
                    continue;
                }
                return Err(EasError::invalid("a tag has no name"));
            }
            let (key, value) = (key.into_owned(), value.into_owned());
            // Tag names must not begin with `_`, so what does is reserved, also where we do not know it.
            if key.starts_with('_') {
                query.reserved.insert(key, value);
            } else {
                query.tags.insert(key, value);
            }
        }
        Ok(query)
    }

    /// A reserved key's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.reserved.get(key).map(String::as_str)
    }

    /// Whether it asks for something of a queue.
    pub fn is_for_a_queue(&self) -> bool {
        !self.reserved.is_empty()
    }

    /// The part of a query that is not for a queue, as it is written: what a program behind the queue is sent.
    pub fn for_the_program(text: &str) -> String {
        let is_reserved = |pair: &str| {
            let (key, _) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
            key.starts_with('_').then_some(())
        };
        let kept: Vec<&str> = text
            .split('&')
            .filter(|pair| !pair.is_empty() && is_reserved(pair).is_none())
            .collect();
        kept.join("&")
    }

    /// Whether a reserved key says yes.
    pub fn flag(&self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    /// Whether a reserved key says yes, where it is given.
    pub fn flag_or(&self, key: &str, default: bool) -> bool {
        match self.get(key) {
            None | Some("") => default,
            Some(text) => text.eq_ignore_ascii_case("true") || text == "1",
        }
    }

    /// `_index_`.
    pub fn index(&self) -> Result<Option<Index>, EasError> {
        match self.get("_index_").filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some("-1") => Ok(Some(Index::Newest)),
            Some(text) => match text.parse() {
                Ok(index) if i64::try_from(index).is_ok() => Ok(Some(Index::From(index))),
                _ => Err(EasError::invalid(format!(
                    "bad index '{}': use -1, 0, or the index of an item",
                    brief(text)
                ))),
            },
        }
    }

    /// `_indexes_`: at least one.
    pub fn indexes(&self) -> Result<Vec<u64>, EasError> {
        let text = self.get("_indexes_").unwrap_or_default();
        let one = |text: &str| text.trim().parse().ok().filter(|i| i64::try_from(*i).is_ok());
        let indexes: Option<Vec<u64>> = text.split(',').map(one).collect();
        match indexes {
            Some(indexes) if indexes.len() <= MAX_INDEXES => Ok(indexes),
            Some(_) => Err(EasError::invalid(format!("more than {MAX_INDEXES} indexes"))),
            None => Err(EasError::invalid(format!(
                "bad indexes '{}': use numbers separated by commas",
                brief(text)
            ))),
        }
    }

    /// A whole number of at least `least`.
    pub fn number(&self, key: &str, default: u32, least: u32) -> Result<u32, EasError> {
        match self.get(key).filter(|text| !text.is_empty()) {
            None => Ok(default),
            Some(text) => text.parse().ok().filter(|n| *n >= least).ok_or_else(|| {
                EasError::invalid(format!(
                    "bad {} '{}': use a whole number of at least {least}",
                    key.trim_matches('_'),
                    brief(text)
                ))
            }),
        }
    }

    /// `_timeout_`: how long to wait, none if it is not given.
    pub fn timeout(&self) -> Result<Duration, EasError> {
        match self.get("_timeout_").filter(|text| !text.is_empty()) {
            None => Ok(Duration::ZERO),
            Some(text) => parse_duration(text)
                .map(|wait| wait.min(LONGEST_WAIT))
                .ok_or_else(|| {
                    EasError::invalid(format!(
                        "bad timeout '{}': use a duration like 5s, 300ms or 1m0s",
                        brief(text)
                    ))
                }),
        }
    }
}

/// A Go duration (`1m0.5s`), or a bare number of seconds, as some samples send it.
fn parse_duration(text: &str) -> Option<Duration> {
    let seconds = |text: &str| text.parse::<f64>().ok().filter(|n| *n >= 0.0 && n.is_finite());
    if let Some(bare) = seconds(text) {
        return Duration::try_from_secs_f64(bare).ok();
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += seconds(number)? * scale;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).ok()
}

fn brief(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_keys_and_tags_are_told_apart() {
        let query = Query::parse("_index_=5&_raw_=false&task_id=%E5%9B%BE+1&requestId=r&_new_=x&&").unwrap();
        assert_eq!(query.index().unwrap(), Some(Index::From(5)));
        assert!(!query.flag_or("_raw_", true));
        let tags: Vec<_> = query.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(tags, [("requestId", "r"), ("task_id", "图 1")]);
        assert!(Query::parse("=x").is_err());
    }

    #[test]
    fn indexes_are_numbers() {
        let index = |text: &str| Query::parse(&format!("_index_={text}")).unwrap().index();
        assert_eq!(index("0").unwrap(), Some(Index::From(0)));
        assert_eq!(index("-1").unwrap(), Some(Index::Newest));
        assert_eq!(index("").unwrap(), None);
        for bad in ["-2", "x", "1.5", "9223372036854775808", "99999999999999999999"] {
            assert!(index(bad).is_err(), "{bad}");
        }
        let indexes = |text: &str| Query::parse(&format!("_indexes_={text}")).unwrap().indexes();
        assert_eq!(indexes("1,2, 3").unwrap(), [1, 2, 3]);
        for bad in ["", ",", "1,", "a", "-1"] {
            assert!(indexes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_gos_or_seconds() {
        for (text, ms) in [
            ("5s", 5000),
            ("0s", 0),
            ("1m0s", 60_000),
            ("300ms", 300),
            ("1h2m3.5s", 3_723_500),
            ("5", 5000),
            ("0.5", 500),
            ("1500us", 1),
        ] {
            assert_eq!(parse_duration(text).unwrap().as_millis(), ms, "{text}");
        }
        for bad in ["s", "5x", "-5s", "-1", "5s5", "1..2s", "inf", "nan", "1e999h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn windows_are_at_least_one() {
        let window = |text: &str| {
            Query::parse(&format!("_window_={text}"))
                .unwrap()
                .number("_window_", 1, 1)
        };
        assert_eq!(window("5").unwrap(), 5);
        assert_eq!(window("").unwrap(), 1);
        assert!(window("-5").is_err() && window("0").is_err() && window("x").is_err());
    }
}
