//! Telling somebody: a POST under the same rules as every fetch.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{Error, Fetcher, MAX_REDIRECTS};

impl Fetcher {
    /// Posts a body and returns the status of the answer, whose own body is not read. A redirect that a POST may follow
    /// (301, 302, 307, 308) is followed with method and body, after the new address was checked like the first one.
    ///
    /// # Errors
    /// See [`Error`]; texts name hosts and statuses, never headers, bodies, or queries.
    pub async fn post(&self, url: &str, headers: &HeaderMap, body: Bytes) -> Result<StatusCode, Error> {
        // The client's timeout bounds one hop; this bounds the chain of redirects.
        tokio::time::timeout(self.rules.timeout, self.post_on(url, headers, body))
            .await
            .map_err(|_| Error::Timeout(self.rules.timeout))?
    }

    async fn post_on(&self, url: &str, headers: &HeaderMap, body: Bytes) -> Result<StatusCode, Error> {
        let mut url = self.check(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let request = self.client.post(url.clone()).headers(headers.clone());
            let response = request
                .body(body.clone())
                .send()
                .await
                .map_err(|e| self.connection(&e))?;
            let status = response.status();
            if !matches!(status.as_u16(), 301 | 302 | 307 | 308) {
                return Ok(status);
            }
            let location = response.headers().get("location").and_then(|l| l.to_str().ok());
            let Some(next) = location.and_then(|l| url.join(l).ok()) else {
                return Ok(status);
            };
            url = self.check(next.as_str())?;
        }
        Err(Error::RedirectLoop)
    }
}
