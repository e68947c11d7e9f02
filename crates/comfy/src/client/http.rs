//! Bounded requests and answers.

use bytes::BytesMut;
use http::StatusCode;
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::{Client, Error};
use crate::wire::parse_lenient;

impl Client {
    /// The URL of a route below the base, each part escaped.
    pub(super) fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.config.base.clone();
        url.set_query(None);
        url.path_segments_mut()
            .expect("the base was checked in new")
            .pop_if_empty()
            .extend(parts);
        url
    }

    pub(super) fn get(&self, parts: &[&str]) -> RequestBuilder {
        self.http.get(self.url(parts))
    }

    pub(super) fn post(&self, part: &str) -> RequestBuilder {
        self.http.post(self.url(&[part]))
    }

    pub(super) fn post_parts(&self, parts: &[&str]) -> RequestBuilder {
        self.http.post(self.url(parts))
    }

    /// A GET whose answer has to be JSON.
    pub(super) async fn get_json<T: DeserializeOwned>(
        &self,
        route: &'static str,
        parts: &[&str],
    ) -> Result<T, Error> {
        let request = self.get(parts).timeout(self.config.timeouts.request);
        match self.answer(route, request).await? {
            (status, body) if status.is_success() => self.read(route, &body),
            (status, body) => Err(Error::status(route, status, &body)),
        }
    }

    /// A POST whose answer is empty.
    pub(super) async fn post_json(
        &self,
        route: &'static str,
        parts: &[&str],
        body: &Value,
    ) -> Result<(), Error> {
        let request = self
            .post_parts(parts)
            .timeout(self.config.timeouts.request)
            .json(body);
        match self.answer(route, request).await? {
            (status, _) if status.is_success() => Ok(()),
            (status, body) => Err(Error::status(route, status, &body)),
        }
    }

    /// Sends a request and reads the whole answer, up to the limit.
    pub(super) async fn answer(
        &self,
        route: &'static str,
        request: RequestBuilder,
    ) -> Result<(StatusCode, BytesMut), Error> {
        let limit = self.config.limits.json_bytes;
        let mut response = request
            .send()
            .await
            .map_err(|error| Error::transport(route, error))?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| Error::transport(route, error))?
        {
            if body.len() + chunk.len() > limit {
                return Err(Error::TooLarge { route, limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), body))
    }

    pub(super) fn read<T: DeserializeOwned>(&self, route: &'static str, body: &[u8]) -> Result<T, Error> {
        parse_lenient(body).map_err(|source| Error::Unreadable { route, source })
    }
}
