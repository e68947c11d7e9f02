//! The query of a list: `metadata[key]=value`, `status`, `limit`, `cursor` (`protocols/comfy-v2.md` §2.3).

use darkroom_core::JobState;

use super::{error::ApiError, labels, view::word};

/// Filters by label at most.
const MOST_LABELS: usize = 3;
const MOST: u32 = 100;
const USUAL: u32 = 50;

/// What a list is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Only jobs with all of these labels.
    pub labels: Vec<(String, String)>,
    /// Only jobs with one of these words; empty: all.
    pub statuses: Vec<&'static str>,
    /// Jobs of a page at most.
    pub limit: u32,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

impl Query {
    /// Reads one; keys that are not the protocol's are let pass.
    ///
    /// # Errors
    /// `invalid_metadata_filter`, `invalid_request`.
    pub fn read(query: &str) -> Result<Self, ApiError> {
        let mut read = Query {
            labels: Vec::new(),
            statuses: Vec::new(),
            limit: USUAL,
            cursor: None,
        };
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "limit" => read.limit = limit(&value)?,
                // An empty one is the first page's.
                "cursor" => read.cursor = Some(value.into_owned()).filter(|cursor| !cursor.is_empty()),
                "status" => read.statuses.extend(statuses(&value)?),
                _ => {
                    if let Some(label) = key
                        .strip_prefix("metadata[")
                        .and_then(|rest| rest.strip_suffix(']'))
                    {
                        read.labels.push(filter(label, &value)?);
                    }
                }
            }
        }
        if read.labels.len() > MOST_LABELS {
            let message = format!(
                "{} filters; at most {MOST_LABELS} may be given",
                read.labels.len()
            );
            return Err(refused(message));
        }
        Ok(read)
    }

    /// The states that the words stand for; one word more stands for running jobs that are being cancelled.
    pub fn states(&self) -> Vec<JobState> {
        let asked = |state: &JobState| {
            [false, true]
                .iter()
                .any(|c| self.statuses.contains(&word(*state, *c)))
        };
        match self.statuses.is_empty() {
            true => Vec::new(),
            false => JobState::ALL.into_iter().filter(asked).collect(),
        }
    }

    /// The filters in words, for the cursors of the list.
    pub fn described(&self) -> String {
        format!("{:?} {:?}", self.labels, self.statuses)
    }
}

fn refused(message: String) -> ApiError {
    ApiError::new(http::StatusCode::BAD_REQUEST, "invalid_metadata_filter", message)
}

fn filter(key: &str, value: &str) -> Result<(String, String), ApiError> {
    labels::check_key(key)
        .and_then(|()| labels::check_value(value))
        .map_err(|why| {
            refused(format!(
                "metadata[{}]: {why}",
                key.chars().take(80).collect::<String>()
            ))
        })?;
    Ok((key.to_owned(), value.to_owned()))
}

fn limit(value: &str) -> Result<u32, ApiError> {
    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
    limit.ok_or_else(|| ApiError::invalid(format!("limit must be a number from 1 to {MOST}")))
}

fn statuses(value: &str) -> Result<Vec<&'static str>, ApiError> {
    let known: Vec<&'static str> = JobState::ALL
        .into_iter()
        .flat_map(|state| [word(state, false), word(state, true)])
        .collect();
    let one = |text: &str| {
        let found = known.iter().find(|word| **word == text).copied();
        found.ok_or_else(|| ApiError::invalid(format!("status '{text:.40}' is none of {}", shown(&known))))
    };
    value
        .split(',')
        .filter(|text| !text.is_empty())
        .map(one)
        .collect()
}

fn shown(words: &[&str]) -> String {
    let mut words = words.to_vec();
    words.dedup();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_as_the_sdk_sends_them() {
        let read =
            Query::read("metadata%5Bclient%5D=acme&metadata%5Brun%5D=7%2F8+b&limit=2&cursor=x&deployment=y")
                .unwrap();
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(read.labels, [label("client", "acme"), label("run", "7/8 b")]);
        assert_eq!((read.limit, read.cursor.as_deref()), (2, Some("x")));
        let plain = Query::read("cursor=").unwrap();
        assert_eq!((plain.limit, plain.cursor, plain.labels.len()), (50, None, 0));
        for wrong in [
            "limit=0",
            "limit=101",
            "limit=x",
            "limit=",
            "status=done",
            "metadata[a b]=c",
            "metadata[]=c",
            "metadata[a]=%0A",
            "metadata[a]=1&metadata[b]=1&metadata[c]=1&metadata[d]=1",
        ] {
            assert!(Query::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_stand_for_states() {
        let states = |query: &str| Query::read(query).unwrap().states();
        assert_eq!(states(""), []);
        assert_eq!(states("status=canceling"), [JobState::Running]);
        assert_eq!(
            states("status=queued,canceled"),
            [JobState::Queued, JobState::Cancelled]
        );
    }
}
