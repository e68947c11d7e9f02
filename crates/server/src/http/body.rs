//! Reading a request's body within a bound.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, header};

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Longer than allowed.
    #[error("the body is longer than {max_bytes} bytes")]
    TooLarge {
        /// The bound.
        max_bytes: usize,
    },
    /// The connection broke, or the framing is wrong.
    #[error("the body broke off")]
    Broken,
}

/// After a refusal this much of the rest is still taken and thrown away: a client that is still sending would
/// otherwise see its connection reset instead of our answer.
const DRAIN_BYTES: usize = 256 << 20;
/// And for this long.
const DRAIN_TIME: Duration = Duration::from_secs(15);

/// Reads at most `max_bytes`.
///
/// # Errors
/// [`BodyError::TooLarge`] (after taking the rest off the wire, within bounds) or [`BodyError::Broken`].
pub async fn read_body(headers: &HeaderMap, body: Body, max_bytes: usize) -> Result<Bytes, BodyError> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let announced_too_large = announced.is_some_and(|length| length > max_bytes as u64);
    if announced_too_large && headers.contains_key(header::EXPECT) {
        // `Expect: 100-continue`: the client waits for our word before it sends anything.
        return Err(BodyError::TooLarge { max_bytes });
    }
    let mut stream = body.into_data_stream();
    let mut taken = BytesMut::new();
    // A second chunk decides whether copying is needed at all: most bodies are one chunk.
    let mut first: Option<Bytes> = None;
    let mut length = 0;
    if !announced_too_large {
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| BodyError::Broken)?;
            length += chunk.len();
            if length > max_bytes {
                break;
            }
            match first.take() {
                None if taken.is_empty() => first = Some(chunk),
                None => taken.extend_from_slice(&chunk),
                Some(head) => {
                    let known = announced.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                    taken.reserve(known.max(head.len() + chunk.len()));
                    taken.extend_from_slice(&head);
                    taken.extend_from_slice(&chunk);
                }
            }
        }
        if length <= max_bytes {
            return Ok(first.unwrap_or_else(|| taken.freeze()));
        }
    }
    drop((first, taken));
    let drain = async {
        let mut drained = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            drained += chunk.len();
            if drained > DRAIN_BYTES {
                break;
            }
        }
    };
    // Whether it was all taken makes no difference to the answer.
    let _ = tokio::time::timeout(DRAIN_TIME, drain).await;
    Err(BodyError::TooLarge { max_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(sizes: &[usize]) -> Body {
        let chunks: Vec<Result<Bytes, std::io::Error>> =
            sizes.iter().map(|size| Ok(Bytes::from(vec![7; *size]))).collect();
        Body::from_stream(futures::stream::iter(chunks))
    }

    #[tokio::test]
    async fn bodies_are_put_together_up_to_the_bound() {
        let none = HeaderMap::new();
        for sizes in [&[][..], &[0], &[10], &[4, 6], &[0, 4, 0, 6], &[1, 2, 3, 4]] {
            let body = read_body(&none, chunks(sizes), 10).await.unwrap();
            assert_eq!(body.len(), sizes.iter().sum::<usize>(), "{sizes:?}");
        }
        for sizes in [&[11][..], &[4, 7], &[4, 6, 1]] {
            assert!(matches!(
                read_body(&none, chunks(sizes), 10).await,
                Err(BodyError::TooLarge { max_bytes: 10 })
            ));
        }
    }

    #[tokio::test]
    async fn an_announced_length_is_believed_when_it_is_too_long() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, "11".parse().unwrap());
        assert!(matches!(
            read_body(&headers, chunks(&[5]), 10).await,
            Err(BodyError::TooLarge { .. })
        ));
    }

    #[tokio::test]
    async fn a_broken_body_is_said_so() {
        let stream = futures::stream::iter([Ok(Bytes::from("x")), Err(std::io::Error::other("reset"))]);
        assert!(matches!(
            read_body(&HeaderMap::new(), Body::from_stream(stream), 10).await,
            Err(BodyError::Broken)
        ));
    }
}
