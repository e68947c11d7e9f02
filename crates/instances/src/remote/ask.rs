//! Questions to a remote ComfyUI, each with a bounded answer.

use std::{fmt, time::Duration};

use darkroom_core::endpoint::RemoteServer;
use reqwest::{
    StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};

/// How long one answer may take.
const ONE_ANSWER: Duration = Duration::from_secs(5);
/// Of `/system_stats`, which has about a kilobyte.
const MAX_STATS_BYTES: usize = 1 << 20;
/// Of the log, of which ComfyUI keeps 300 lines.
const MAX_LOG_BYTES: usize = 4 << 20;

/// What a server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is a ComfyUI.
    Fine,
    /// Nothing listens there, or nobody of that name is known.
    Refused,
    /// It accepts connections and says nothing.
    Silent,
    /// What it says is not HTTP, or it hangs up.
    NoHttp,
    /// Another status than 200.
    Status(StatusCode),
    /// A 200 that is not ComfyUI's `/system_stats`.
    Garbage,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Fine => f.write_str("it answers"),
            Answer::Refused => f.write_str("nothing listens at its address"),
            Answer::Silent => f.write_str("it accepts connections but does not answer"),
            Answer::NoHttp => f.write_str("it does not speak HTTP"),
            Answer::Status(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => {
                write!(
                    f,
                    "it answers with status {}: its key is missing or wrong",
                    status.as_u16()
                )
            }
            Answer::Status(status) => write!(f, "it answers with status {}", status.as_u16()),
            Answer::Garbage => f.write_str("it answers, but not as a ComfyUI does"),
        }
    }
}

/// The headers of a server; those that cannot be sent are left out (the configuration refuses them).
pub(super) fn headers(server: &RemoteServer) -> HeaderMap {
    let pairs = server.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::try_from(name.as_str()).ok()?;
        let mut value = HeaderValue::try_from(value.as_str()).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    });
    pairs.collect()
}

/// Whether a ComfyUI answers there.
pub(super) async fn system_stats(http: &reqwest::Client, base_url: &str, headers: HeaderMap) -> Answer {
    let url = format!("{base_url}/system_stats");
    match get(http, &url, headers, MAX_STATS_BYTES).await {
        Ok((StatusCode::OK, body)) => {
            let read: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
            match read.is_some_and(|stats| stats.get("system").is_some_and(serde_json::Value::is_object)) {
                true => Answer::Fine,
                false => Answer::Garbage,
            }
        }
        Ok((status, _)) => Answer::Status(status),
        Err(error) if error.is_timeout() => Answer::Silent,
        Err(error) if error.is_connect() => Answer::Refused,
        Err(_) => Answer::NoHttp,
    }
}

/// What it printed last, where its version tells (`GET /internal/logs`, a JSON text); empty otherwise.
pub(super) async fn log(http: &reqwest::Client, base_url: &str, headers: HeaderMap) -> String {
    let url = format!("{base_url}/internal/logs");
    match get(http, &url, headers, MAX_LOG_BYTES).await {
        Ok((StatusCode::OK, body)) => serde_json::from_slice(&body).unwrap_or_default(),
        _ => String::new(),
    }
}

/// The status and up to `limit` bytes of the body.
async fn get(
    http: &reqwest::Client,
    url: &str,
    headers: HeaderMap,
    limit: usize,
) -> Result<(StatusCode, Vec<u8>), reqwest::Error> {
    let mut answer = http.get(url).headers(headers).timeout(ONE_ANSWER).send().await?;
    let mut body = Vec::new();
    while body.len() < limit
        && let Some(chunk) = answer.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(limit);
    Ok((answer.status(), body))
}
