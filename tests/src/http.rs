//! Plain HTTP to the server, and the few calls of its own API that tests need.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::eventually;

/// How long a job may take in a test unless it says otherwise.
pub const JOB_LIMIT: Duration = Duration::from_secs(180);

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: reqwest::header::HeaderMap,
    /// Body.
    pub body: bytes::Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}), {}: {}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Itself, if the status is this one.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }
}

impl Api {
    /// A client of the server at `base` (no slash at the end).
    pub fn new(base: &str, key: Option<String>) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(120))
            .build()
            .expect("an HTTP client");
        Api {
            http,
            base: base.to_owned(),
            key,
        }
    }

    /// A request to a path of the server, or to a whole URL, with the key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.base)
        };
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The key, if there is one.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The server's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request; panics when there is no answer at all.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request)
            .await
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// Sends a request; an error is a connection that was refused or broke.
    pub async fn try_send(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let response = request.send().await?;
        Ok(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.bytes().await?,
        })
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Whether `/readyz` says so.
    pub async fn ready(&self) -> bool {
        let request = self
            .http
            .get(format!("{}/readyz", self.base))
            .timeout(Duration::from_secs(10));
        request
            .send()
            .await
            .is_ok_and(|response| response.status().is_success())
    }

    /// Submits a graph to `default` through the own API; returns the job's id.
    pub async fn submit(&self, graph: &Value) -> String {
        let answer = self
            .post("/darkroom/v1/endpoints/default/jobs", &json!({"graph": graph}))
            .await
            .expect(201);
        answer.json()["id"].as_str().expect("a job has an id").to_owned()
    }

    /// A job.
    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/darkroom/v1/jobs/{id}"))
            .await
            .expect(200)
            .json()
    }

    /// Waits until a job is in a final state.
    pub async fn finished(&self, id: &str) -> Value {
        self.finished_within(id, JOB_LIMIT).await
    }

    /// The same with another limit. A server that is away for a moment is asked again.
    pub async fn finished_within(&self, id: &str, limit: Duration) -> Value {
        let what = format!("job {id} ends");
        eventually(&what, limit, async || {
            let request = self.request(Method::GET, &format!("/darkroom/v1/jobs/{id}"));
            let answer = self.try_send(request).await.ok()?;
            if !answer.status.is_success() {
                return None;
            }
            let job = answer.json();
            let state = job["state"].as_str().unwrap_or_default();
            ["succeeded", "failed", "cancelled", "expired"]
                .contains(&state)
                .then_some(job)
        })
        .await
    }

    /// The instances.
    pub async fn instances(&self) -> Vec<Value> {
        let answer = self.get("/darkroom/v1/instances").await.expect(200).json();
        answer["instances"].as_array().cloned().unwrap_or_default()
    }

    /// The bytes of a job's outputs, in order.
    pub async fn outputs(&self, job: &Value) -> Vec<bytes::Bytes> {
        let mut files = Vec::new();
        for output in job["outputs"].as_array().into_iter().flatten() {
            if let Some(url) = output["url"].as_str() {
                files.push(self.get(url).await.expect(200).body);
            }
        }
        files
    }
}
