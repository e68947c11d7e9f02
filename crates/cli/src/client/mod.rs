//! Talks to a server's own API (`/darkroom/v1`). Knows HTTP and the error shape; the commands know what to ask.

pub mod sse;

use std::time::Duration;

use reqwest::{Method, StatusCode, header};
use serde_json::Value;
use url::Url;

use crate::exit::{Exit, Failure};

/// Where a server listens unless told otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8288";

/// One server and the key to show it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<String>,
}

impl Client {
    /// A client of `server` (`http://host:port`, optionally with a path in front of the API).
    pub fn new(server: &str, key: Option<String>) -> Result<Self, Failure> {
        let text = if server.contains("://") {
            server.to_owned()
        } else {
            format!("http://{server}")
        };
        let mut base = Url::parse(&text)
            .map_err(|error| Failure::usage(format!("'{server}' is not a server address: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(Failure::usage(format!(
                "'{server}' is not a server address: it must begin with http:// or https://"
            )));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        // The server is named explicitly, so an ambient HTTP proxy is never wanted on the way to it.
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::local(format!("cannot set up HTTP: {error}")))?;
        Ok(Client { http, base, key })
    }

    /// `GET /darkroom/v1/{path}` as JSON.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json(Method::GET, path, None).await
    }

    /// `POST /darkroom/v1/{path}` with a JSON body, or none.
    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.json(Method::POST, path, body).await
    }

    /// `PUT /darkroom/v1/{path}` with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json(Method::PUT, path, Some(body)).await
    }

    /// `DELETE /darkroom/v1/{path}`.
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.json(Method::DELETE, path, None).await
    }

    /// `GET /darkroom/v1/{path}` as text.
    pub async fn text(&self, path: &str) -> Result<String, Failure> {
        let response = self.send(self.request(Method::GET, self.api(path)?)).await?;
        response.text().await.map_err(|error| self.broken(&error))
    }

    /// Opens the event stream of a job, after `last` when given.
    pub async fn events(&self, job: &str, last: Option<&str>) -> Result<reqwest::Response, Failure> {
        let mut request = self
            .request(Method::GET, self.api(&format!("jobs/{}/events", segment(job)))?)
            .header(header::ACCEPT, "text/event-stream");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        self.send(request).await
    }

    /// Whether the server says that it takes work (`GET /readyz`).
    pub async fn ready(&self) -> Result<(), Failure> {
        let url = self.join("readyz")?;
        let request = self.http.get(url).timeout(Duration::from_secs(5));
        self.send(request).await.map(drop)
    }

    /// Opens a URL that the server gave, relative or absolute. The key goes along only to the server itself.
    pub async fn download(&self, url: &str) -> Result<reqwest::Response, Failure> {
        let url = self
            .base
            .join(url)
            .map_err(|error| Failure::new(Exit::Server, "bad_url", format!("'{url}': {error}")))?;
        let request = if url.origin() == self.base.origin() {
            self.request(Method::GET, url)
        } else {
            self.http.get(url)
        };
        self.send(request).await
    }

    fn join(&self, path: &str) -> Result<Url, Failure> {
        self.base
            .join(path)
            .map_err(|error| Failure::usage(format!("'{path}': {error}")))
    }

    fn api(&self, path: &str) -> Result<Url, Failure> {
        self.join(&format!("darkroom/v1/{path}"))
    }

    fn request(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let mut request = self.request(method, self.api(path)?);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = self.send(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let bytes = response.bytes().await.map_err(|error| self.broken(&error))?;
        serde_json::from_slice(&bytes).map_err(|_| {
            Failure::new(
                Exit::Server,
                "not_json",
                format!("{} answered with something that is not JSON", self.base),
            )
            .with_hint("Is that really the address of a Darkroom server?")
        })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        Err(refusal(status, &body, self.key.is_some()))
    }

    fn broken(&self, error: &reqwest::Error) -> Failure {
        if error.is_connect() || error.is_timeout() {
            Failure::new(
                Exit::Unreachable,
                "unreachable",
                format!("no server answers at {}", self.base),
            )
            .with_hint("Start one with `darkroom serve`, or name another with --server or DARKROOM_SERVER.")
        } else {
            let error: &dyn std::error::Error = error;
            let cause = std::iter::successors(Some(error), |e| e.source())
                .last()
                .unwrap_or(error);
            Failure::new(
                Exit::Unreachable,
                "connection_lost",
                format!("the connection to {} broke: {cause}", self.base),
            )
        }
    }
}

/// Percent-encodes one path segment, so that an id typed by hand cannot become another path.
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    // URL parsers resolve a segment of dots away, also an encoded one; encoded twice it names nothing.
    if encoded.chars().all(|c| c == '.') {
        encoded = encoded.replace('.', "%252E");
    }
    encoded
}

/// What an error answer means for the command.
fn refusal(status: StatusCode, body: &[u8], has_key: bool) -> Failure {
    let parsed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let error = &parsed["error"];
    let (Some(code), Some(message)) = (error["code"].as_str(), error["message"].as_str()) else {
        // A proxy in between, or another program at that address.
        return Failure::new(
            Exit::Server,
            "http_error",
            format!("the server answered {status}"),
        )
        .with_hint("Is that really the address of a Darkroom server?");
    };
    let exit = match status.as_u16() {
        401 | 403 => Exit::Refused,
        404 => Exit::NotFound,
        400 | 409 | 413 | 415 | 422 => Exit::Usage,
        _ => Exit::Server,
    };
    let mut failure = Failure::new(exit, code, message);
    if status == StatusCode::UNAUTHORIZED {
        failure = failure.with_hint(if has_key {
            "The server does not know this key."
        } else {
            "Show a key with --key or DARKROOM_KEY; `darkroom keys create` makes one."
        });
    }
    failure.details = error
        .get("details")
        .or_else(|| parsed.get("details"))
        .filter(|details| !details.is_null())
        .cloned()
        .map(Box::new);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_a_scheme_are_http() {
        let client = Client::new("gpu-box:8288", None).unwrap();
        assert_eq!(
            client.api("jobs").unwrap().as_str(),
            "http://gpu-box:8288/darkroom/v1/jobs"
        );
        let client = Client::new("https://gpu.example/darkroom-1", None).unwrap();
        assert_eq!(
            client.api("jobs").unwrap().as_str(),
            "https://gpu.example/darkroom-1/darkroom/v1/jobs"
        );
        assert_eq!(Client::new("ftp://x", None).unwrap_err().exit, Exit::Usage);
        assert_eq!(Client::new("http://", None).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn an_id_cannot_become_another_path() {
        let client = Client::new("h:1", None).unwrap();
        for (id, path) in [
            ("../keys", "/darkroom/v1/jobs/..%2Fkeys"),
            ("..", "/darkroom/v1/jobs/%252E%252E"),
            ("a?b#c", "/darkroom/v1/jobs/a%3Fb%23c"),
        ] {
            let url = client.api(&format!("jobs/{}", segment(id))).unwrap();
            assert_eq!(url.path(), path, "{id}");
        }
    }

    #[test]
    fn answers_become_exit_codes_and_keep_the_servers_words() {
        let body =
            br#"{"error":{"code":"invalid_graph","message":"node 3 ...","details":{"node_errors":{}}}}"#;
        let failure = refusal(StatusCode::BAD_REQUEST, body, false);
        assert_eq!(
            (failure.exit, failure.code.as_str()),
            (Exit::Usage, "invalid_graph")
        );
        assert!(failure.details.is_some());
        let said = |status| refusal(status, br#"{"error":{"code":"c","message":"m"}}"#, true).exit;
        assert_eq!(said(StatusCode::FORBIDDEN), Exit::Refused);
        assert_eq!(said(StatusCode::NOT_FOUND), Exit::NotFound);
        // Somebody else's 404 says nothing about our jobs.
        assert_eq!(refusal(StatusCode::NOT_FOUND, b"<html>", true).exit, Exit::Server);
        let failure = refusal(StatusCode::SERVICE_UNAVAILABLE, b"", true);
        assert_eq!(failure.exit, Exit::Server);
        assert!(failure.message.contains("503"));
    }
}
