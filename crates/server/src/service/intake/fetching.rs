//! Fetching all addresses of one graph under one bound of time and one of bytes, whether its caller waits (at its submit)
//! or a slot does (at its attempt).

use tokio::time::Instant;

use super::super::fetch::{Error, Fetched, Fetcher};
use crate::memory::Exhausted;

/// All addresses of one graph together may take this many times `[fetch] timeout`: enough for some slow ones, and a
/// caller knows after minutes at most (2 min by default).
const TIMEOUTS: u32 = 4;

/// Why nothing was fetched.
#[derive(Debug)]
pub enum Refused {
    /// For people.
    Because(String),
    /// Not now.
    Exhausted(Exhausted),
}

/// What is left of the bounds of one graph: `[fetch] max_bytes` holds for each file and for all of them together.
#[derive(Debug)]
pub struct Fetching {
    fetcher: Fetcher,
    deadline: Instant,
    bytes_left: u64,
}

impl Fetching {
    /// The whole of the bounds, from now.
    pub fn begin(fetcher: &Fetcher) -> Self {
        Fetching {
            fetcher: fetcher.clone(),
            deadline: Instant::now() + fetcher.timeout() * TIMEOUTS,
            bytes_left: fetcher.max_bytes(),
        }
    }

    /// How much may still come, in bytes.
    pub(super) fn bytes_left(&self) -> u64 {
        self.bytes_left
    }

    /// So much came otherwise.
    pub(super) fn took(&mut self, bytes: u64) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// When nothing comes any more.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Fetches one address.
    ///
    /// # Errors
    /// Why it was not fetched.
    pub async fn get(&mut self, url: &str) -> Result<Fetched, Refused> {
        let fetched = tokio::time::timeout_at(self.deadline, self.fetcher.get_within(url, self.bytes_left));
        match fetched.await {
            Ok(Ok(fetched)) => {
                self.bytes_left -= fetched.bytes.len() as u64;
                Ok(fetched)
            }
            Ok(Err(Error::Exhausted(exhausted))) => Err(Refused::Exhausted(exhausted)),
            Ok(Err(Error::TooLarge(_))) if self.bytes_left < self.fetcher.max_bytes() => {
                Err(Refused::Because(format!(
                    "the files of one request together are larger than {} bytes",
                    self.fetcher.max_bytes()
                )))
            }
            Ok(Err(error)) => Err(Refused::Because(error.to_string())),
            Err(_) => Err(Refused::Because(format!(
                "the files of one request together took longer than {:?}",
                self.fetcher.timeout() * TIMEOUTS
            ))),
        }
    }
}
