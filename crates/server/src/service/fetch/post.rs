//! Telling somebody: a POST under the same rules as every fetch.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use url::Url;

use super::{Error, Fetcher, MAX_REDIRECTS, shown};

impl Fetcher {
    /// Posts a body and returns the status of the answer, whose own body is not read. A redirect that a POST may follow
    /// (301, 302, 307, 308) is followed with method and body, after the new address was checked like the first one; never from
    /// https to http, where anybody on the way could read what is told.
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
            url = self.redirected(&url, &next)?;
        }
        Err(Error::RedirectLoop)
    }

    fn redirected(&self, from: &Url, to: &Url) -> Result<Url, Error> {
        if from.scheme() == "https" && to.scheme() != "https" {
            return Err(Error::BadRedirect(shown(to.as_str())));
        }
        match self.check(to.as_str()) {
            // The receiver's slip, which it may mend; the address that we were given is a good one.
            Err(Error::BadUrl(url)) => Err(Error::BadRedirect(url)),
            checked => checked,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::service::fetch::Rules;

    #[test]
    fn what_is_told_stays_secret_on_the_way() {
        let fetcher = Fetcher::new(Rules {
            allow: Vec::new(),
            deny: Vec::new(),
            max_bytes: 1000,
            timeout: Duration::from_secs(5),
        });
        let fetcher = fetcher.unwrap();
        let redirected = |from: &str, to: &str| {
            let (from, to): (Url, Url) = (from.parse().unwrap(), to.parse().unwrap());
            fetcher.redirected(&from, &to)
        };
        for (from, to) in [
            ("http://a.example/", "https://b.example/x"),
            ("https://a.example/", "https://b.example/x"),
            ("http://a.example/", "http://b.example/x"),
        ] {
            assert_eq!(redirected(from, to).unwrap().as_str(), to);
        }
        for to in ["http://a.example/", "ftp://a.example/", "https://u:p@a.example/"] {
            let refused = redirected("https://a.example/", to);
            assert!(matches!(refused, Err(Error::BadRedirect(_))), "{to}: {refused:?}");
        }
        let refused = redirected("http://a.example/", "http://127.0.0.1/");
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    }
}
