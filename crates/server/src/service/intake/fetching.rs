//! Fetching all addresses of one graph under one bound of time and one of bytes.

use bytes::Bytes;
use tokio::time::Instant;

use super::super::fetch::{Error, Fetcher};

/// All addresses of one graph together may take this many times `[fetch] timeout`: enough for some slow ones, and a
/// caller knows after minutes at most (2 min by default).
const TIMEOUTS: u32 = 4;

/// What is left of the bounds of one graph: `[fetch] max_bytes` holds for each file and for all of them together.
pub struct Fetching<'a> {
    fetcher: &'a Fetcher,
    deadline: Instant,
    bytes_left: u64,
}

impl<'a> Fetching<'a> {
    /// The whole of the bounds, from now.
    pub fn begin(fetcher: &'a Fetcher) -> Self {
        Fetching {
            fetcher,
            deadline: Instant::now() + fetcher.timeout() * TIMEOUTS,
            bytes_left: fetcher.max_bytes(),
        }
    }

    /// Fetches one address.
    ///
    /// # Errors
    /// Why it was not fetched, for people.
    pub async fn get(&mut self, url: &str) -> Result<Bytes, String> {
        let fetched = tokio::time::timeout_at(self.deadline, self.fetcher.get_within(url, self.bytes_left));
        match fetched.await {
            Ok(Ok(bytes)) => {
                self.bytes_left -= bytes.len() as u64;
                Ok(bytes)
            }
            Ok(Err(Error::TooLarge(_))) if self.bytes_left < self.fetcher.max_bytes() => Err(format!(
                "the files of one request together are larger than {} bytes",
                self.fetcher.max_bytes()
            )),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!(
                "the files of one request together took longer than {:?}",
                self.fetcher.timeout() * TIMEOUTS
            )),
        }
    }
}
