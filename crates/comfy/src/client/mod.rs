//! HTTP and WebSocket client of one instance.
//!
//! It does one request per call and decides nothing: what to ask for and what an answer means is the
//! [`Session`](crate::session::Session)'s business. Every answer is bounded in size and time, redirects are not
//! followed, and no proxy of the environment is used: an instance is spoken to directly or not at all.

mod config;
mod error;
pub mod facts;
mod files;
mod http;
mod run;
mod socket;

use std::sync::Arc;

use ::http::StatusCode;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use url::Url;

pub use self::config::{ClientConfig, Limits, Timeouts};
pub use self::error::Error;
pub use self::files::{Download, Upload};
pub use self::socket::{Incoming, Socket, SocketOptions};
use crate::graph::validate::{PromptError, Rejected};
use crate::wire::{HistoryEntry, PromptReply, PromptRequest, QueueSnapshot, SystemStats, parse_lenient};

/// A client of one instance. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    config: Arc<ClientConfig>,
}

impl Client {
    /// A client that connects on first use. Fails on a base URL that cannot be one, or without a usable TLS setup.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        if config.base.cannot_be_a_base() || !matches!(config.base.scheme(), "http" | "https") {
            return Err(Error::BadBase {
                base: config.base.to_string(),
            });
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .connect_timeout(config.timeouts.connect)
            .read_timeout(config.timeouts.silence)
            .tcp_keepalive(config.timeouts.keepalive)
            .default_headers(config.headers.clone())
            .build()
            .map_err(|error| Error::transport("building the client", error))?;
        Ok(Self {
            http,
            config: Arc::new(config),
        })
    }

    /// Where the instance is.
    pub fn base(&self) -> &Url {
        &self.config.base
    }

    /// Runs a graph. [`Error::Rejected`] is the instance's own validation; after any other error the prompt may
    /// be queued nevertheless, and `/queue` and `/history` know.
    pub async fn submit(&self, request: &PromptRequest<'_>) -> Result<PromptReply, Error> {
        let post = self
            .post("prompt")
            .timeout(self.config.timeouts.submit)
            .json(request);
        let (status, body) = self.answer("POST /prompt", post).await?;
        match status.as_u16() {
            200..=299 => self.read("POST /prompt", &body),
            400 => Err(Error::Rejected(Box::new(rejection(&body)))),
            _ => Err(Error::status("POST /prompt", status, &body)),
        }
    }

    /// What runs and what waits. Large: every item carries its whole graph.
    pub async fn queue(&self) -> Result<QueueSnapshot, Error> {
        self.get_json("GET /queue", &["queue"]).await
    }

    /// What became of a prompt; `None` while it waits or runs, and for unknown ids.
    pub async fn history(&self, prompt_id: &str) -> Result<Option<HistoryEntry>, Error> {
        let route = "GET /history/{id}";
        let mut answer: Map<String, Value> = self.get_json(route, &["history", prompt_id]).await?;
        let entry = answer.remove(prompt_id).map(serde_json::from_value).transpose();
        entry.map_err(|source| Error::Unreadable { route, source })
    }

    /// Interrupts this prompt if it is the one that runs. Takes effect at the next node or sampler step. Builds
    /// from before 2025 ignore the id and interrupt whatever runs.
    pub async fn interrupt(&self, prompt_id: &str) -> Result<(), Error> {
        self.post_json(
            "POST /interrupt",
            &["interrupt"],
            &json!({ "prompt_id": prompt_id }),
        )
        .await
    }

    /// Removes prompts that have not begun; unknown ids are ignored, and a running one is not touched.
    pub async fn delete_queued(&self, prompt_ids: &[&str]) -> Result<(), Error> {
        self.post_json("POST /queue", &["queue"], &json!({ "delete": prompt_ids }))
            .await
    }

    /// Drops models, and with `free_memory` the cache of node outputs too; done between prompts, unconfirmed.
    pub async fn free(&self, unload_models: bool, free_memory: bool) -> Result<(), Error> {
        let flags = json!({ "unload_models": unload_models, "free_memory": free_memory });
        self.post_json("POST /free", &["free"], &flags).await
    }

    /// Every node class as the instance describes it, unparsed; see [`ObjectInfo`](crate::object_info::ObjectInfo).
    pub async fn object_info(&self) -> Result<Value, Error> {
        self.get_json("GET /object_info", &["object_info"]).await
    }

    /// The JSON at a path below the base; `None` where this version of ComfyUI has no such route.
    pub async fn told(&self, parts: &[&str]) -> Result<Option<Value>, Error> {
        const ROUTE: &str = "GET";
        let request = self.get(parts).timeout(self.config.timeouts.request);
        match self.answer(ROUTE, request).await? {
            (status, body) if status.is_success() => self.read(ROUTE, &body).map(Some),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => Err(Error::status(ROUTE, status, &body)),
        }
    }

    /// What a model's file says of itself (`GET /view_metadata/{folder}?filename=`); `None` where there is no such file, or it
    /// says nothing.
    pub async fn model_metadata(&self, folder: &str, file_name: &str) -> Result<Option<Value>, Error> {
        const ROUTE: &str = "GET /view_metadata";
        let request = self
            .get(&["view_metadata", folder])
            .query(&[("filename", file_name)])
            .timeout(self.config.timeouts.request);
        match self.answer(ROUTE, request).await? {
            (status, body) if status.is_success() => self.read(ROUTE, &body).map(Some),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => Err(Error::status(ROUTE, status, &body)),
        }
    }

    /// The bytes at a path below the base, such as a script of its page; `None` where there is no such file.
    pub async fn file(&self, parts: &[&str]) -> Result<Option<Bytes>, Error> {
        const ROUTE: &str = "GET of a file";
        let request = self.get(parts).timeout(self.config.timeouts.request);
        match self.answer(ROUTE, request).await? {
            (status, body) if status.is_success() => Ok(Some(body.freeze())),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => Err(Error::status(ROUTE, status, &body)),
        }
    }

    /// Versions and memory; also the cheapest sign that the instance is up.
    pub async fn system_stats(&self) -> Result<SystemStats, Error> {
        self.get_json("GET /system_stats", &["system_stats"]).await
    }
}

/// The body of a 400, whatever the version that wrote it.
fn rejection(body: &[u8]) -> Rejected {
    let body: Value = parse_lenient(body).unwrap_or_default();
    let text = |key: &str| body["error"][key].as_str().unwrap_or_default().to_owned();
    let read = serde_json::from_value(body["error"].clone());
    let error = read.unwrap_or_else(|_| PromptError {
        kind: "invalid_prompt".to_owned(),
        message: body["error"]
            .as_str()
            .map_or_else(|| text("message"), str::to_owned),
        details: text("details"),
        extra_info: Map::new(),
    });
    let node_errors = serde_json::from_value(body["node_errors"].clone()).unwrap_or_default();
    Rejected { error, node_errors }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_of_all_versions_are_read() {
        let now = rejection(
            br#"{"error":{"type":"no_prompt","message":"m","details":"d","extra_info":{}},"node_errors":[]}"#,
        );
        assert_eq!((now.error.kind.as_str(), now.node_errors.len()), ("no_prompt", 0));
        assert_eq!(rejection(br#"{"error":"old text"}"#).error.message, "old text");
        assert_eq!(rejection(b"<html>").error.kind, "invalid_prompt");
    }
}
