//! Requests that are replayed: what was posted to a path of a service whose instances answer HTTP is a job, and whichever
//! instance claims it is sent the same request (`protocols/eas-queue.md` §5).
//!
//! How such a job is kept:
//! - its **input** payload is a [`Request`]: one line of JSON, then the body as it came;
//! - its **result** payload is an [`Answer`] in the same form, also where the instance refused; without an answer (cancelled,
//!   timed out, lost) there is none;
//! - its `meta.options` say so under [`OPTION`].
//!
//! Here are the forms and what an answer means; `attempts/replay.rs` is the slot's side, `queues/replay.rs` the way in and
//! out through a queue, and `control/supervisor/replay.rs` does the sending.

use bytes::{BufMut, Bytes, BytesMut};
use darkroom_core::{AttemptOutcome, Failure, failure::FailureCode};
use darkroom_store::jobs::JobMeta;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The option of a job that is a request: its first line.
pub const OPTION: &str = "request";
/// Headers that travel with a request. Credentials do not: those of the caller are ours.
pub const HEADERS: [&str; 4] = ["content-type", "content-encoding", "accept", "accept-language"];
/// The longest answer, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The longest excerpt of an answer in a message, in characters.
const EXCERPT_CHARS: usize = 300;
/// How much of an answer is kept as a failure's detail, in bytes: it lies in the job's row.
const DETAIL_BYTES: usize = 16 * 1024;

/// What is sent to the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Path and query, beginning with `/`.
    pub path: String,
    /// Names and values of headers.
    pub headers: Vec<(String, String)>,
    /// The id that the request has at its queue.
    pub id: String,
    /// The body.
    #[serde(skip)]
    pub body: Bytes,
}

/// What the instance answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its `Content-Type`, where it had one.
    #[serde(default)]
    pub content_type: Option<String>,
    /// Its body.
    #[serde(skip)]
    pub body: Bytes,
}

/// Whether a job is a request that is replayed.
pub fn is_request(meta: &JobMeta) -> bool {
    meta.options[OPTION].is_string()
}

impl Request {
    /// As it is stored.
    pub fn encode(&self) -> Bytes {
        encode(self, &self.body)
    }

    /// As it was stored; `None` when it is none.
    pub fn decode(stored: &Bytes) -> Option<Self> {
        let (head, body) = decode::<Request>(stored)?;
        Some(Request { body, ..head })
    }
}

impl Answer {
    /// As it is stored.
    pub fn encode(&self) -> Bytes {
        encode(self, &self.body)
    }

    /// As it was stored; `None` when it is none.
    pub fn decode(stored: &Bytes) -> Option<Self> {
        let (head, body) = decode::<Answer>(stored)?;
        Some(Answer { body, ..head })
    }

    /// Whether the instance did what it was asked.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What it means for the attempt: a 5xx is the instance's fault and is tried again, unless this was the `last_chance`;
    /// anything else that is no success is the request's.
    pub fn outcome(&self, last_chance: bool) -> AttemptOutcome {
        if self.is_success() {
            return AttemptOutcome::Done;
        }
        let message = self.in_words();
        match self.status >= 500 && !last_chance {
            true => AttemptOutcome::Lost { reason: message },
            false => AttemptOutcome::Failed(Failure {
                detail: self.detail(),
                ..Failure::new(FailureCode::ExecutionError, message)
            }),
        }
    }

    fn in_words(&self) -> String {
        let said = String::from_utf8_lossy(&self.body[..self.body.len().min(4 * EXCERPT_CHARS)]);
        let line = said
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or_default();
        let excerpt: String = line
            .chars()
            .filter(|c| !c.is_control())
            .take(EXCERPT_CHARS)
            .collect();
        match excerpt.is_empty() {
            true => format!("the instance answered with status {}", self.status),
            false => format!("the instance answered with status {}: {excerpt}", self.status),
        }
    }

    fn detail(&self) -> Option<Value> {
        let text = std::str::from_utf8(&self.body).ok()?;
        let fits = !text.is_empty() && text.len() <= DETAIL_BYTES;
        fits.then(|| Value::from(text))
    }
}

/// Whether a path may be replayed: it begins at the root, and no segment leads out of it, however it is written.
pub fn is_safe_path(path: &str) -> bool {
    let plain = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/");
    // A backslash is a slash to who parses addresses as browsers do, and an encoded one to who looks for files with it.
    let plain = plain.replace("%5c", "/");
    let is_dots = |segment: &str| segment == "." || segment == "..";
    path.starts_with('/') && !path.contains('\\') && !plain.split('/').any(is_dots)
}

/// One line of JSON, then the body.
fn encode(head: &impl Serialize, body: &Bytes) -> Bytes {
    let head = serde_json::to_vec(head).expect("texts and numbers are JSON");
    let mut whole = BytesMut::with_capacity(head.len() + 1 + body.len());
    whole.put_slice(&head);
    whole.put_u8(b'\n');
    whole.put_slice(body);
    whole.freeze()
}

fn decode<Head: DeserializeOwned>(stored: &Bytes) -> Option<(Head, Bytes)> {
    let end = stored.iter().position(|byte| *byte == b'\n')?;
    let head = serde_json::from_slice(&stored[..end]).ok()?;
    Some((head, stored.slice(end + 1..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer {
            status,
            content_type: None,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn what_is_stored_is_read_again_byte_for_byte() {
        for body in [&b""[..], b"\n\n{}", b"\xff\x00\n\xfe", "图".as_bytes()] {
            let body = Bytes::from_static(body);
            let request = Request {
                path: "/a/b?x=1&y=%E5%9B%BE".into(),
                headers: vec![("content-type".into(), "text/plain".into())],
                id: "r".into(),
                body: body.clone(),
            };
            assert_eq!(Request::decode(&request.encode()), Some(request));
            let answer = Answer {
                status: 200,
                content_type: Some("image/png".into()),
                body,
            };
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
        assert_eq!(Request::decode(&Bytes::from_static(b"{\"graph\":{}}")), None);
        assert_eq!(Answer::decode(&Bytes::from_static(b"[]\n")), None);
    }

    #[test]
    fn a_5xx_is_tried_again_until_the_last_chance_and_anything_else_is_not() {
        assert_eq!(answer(204, "").outcome(false), AttemptOutcome::Done);
        for status in [301, 400, 404, 422, 429] {
            let AttemptOutcome::Failed(failure) = answer(status, "\n no such model \nmore").outcome(false)
            else {
                panic!("{status}")
            };
            assert_eq!(
                failure.message,
                format!("the instance answered with status {status}: no such model")
            );
            assert_eq!(failure.detail, Some("\n no such model \nmore".into()));
        }
        let lost = answer(503, "busy").outcome(false);
        let reason = "the instance answered with status 503: busy".to_owned();
        assert_eq!(lost, AttemptOutcome::Lost { reason });
        assert!(matches!(
            answer(500, "").outcome(true),
            AttemptOutcome::Failed(f) if f.message == "the instance answered with status 500" && f.detail.is_none()
        ));
    }

    #[test]
    fn long_and_binary_answers_are_told_in_brief() {
        let long = Answer {
            body: Bytes::from("图".repeat(100_000)),
            ..answer(400, "")
        };
        let AttemptOutcome::Failed(failure) = long.outcome(false) else {
            panic!("it is no success")
        };
        assert!(failure.message.chars().count() < 400 && failure.detail.is_none());
        let binary = Answer {
            body: Bytes::from_static(b"\xff\xfe\x00\x07"),
            ..answer(400, "")
        };
        assert!(matches!(binary.outcome(false), AttemptOutcome::Failed(f) if f.detail.is_none()));
    }

    #[test]
    fn no_path_leads_out_of_the_root() {
        for good in ["/", "/a", "/a/b.c/", "/a/...", "/v1/x%2Fy", "/a//b"] {
            assert!(is_safe_path(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "/..",
            "/a/../b",
            "/.",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a\\..\\b",
            "/a/..%2fb",
            "/a/..%2F..%5Cb",
            "/a%2f..",
            "/a/%5c.%2e/b",
        ] {
            assert!(!is_safe_path(bad), "{bad}");
        }
    }
}
