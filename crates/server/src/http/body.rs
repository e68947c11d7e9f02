//! Reading a request's body within a bound.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, header};

use crate::memory::{BodyMemory, Exhausted, Held, next_step};

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
    /// It did not come in a reasonable time, and others want the memory that it holds.
    #[error("the body came too slowly")]
    Slow,
    /// There is no memory for it now.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// After a refusal this much of the rest is still taken and thrown away: a client that is still sending would
/// otherwise see its connection reset instead of our answer.
const DRAIN_BYTES: usize = 256 << 20;
/// And for this long.
const DRAIN_TIME: Duration = Duration::from_secs(15);

/// A body must come within this, and a second more for each [`SLOWEST_BYTES_PER_S`] of it.
const READ_TIME: Duration = Duration::from_secs(60);
/// A quarter of a megabit a second: 32 MiB may take 18 minutes.
const SLOWEST_BYTES_PER_S: u64 = 32 * 1024;

/// Reads at most `max_bytes`, and holds memory for the work on it until the second value is dropped.
///
/// # Errors
/// [`BodyError::TooLarge`] and [`BodyError::Exhausted`] (after taking the rest off the wire, within bounds),
/// [`BodyError::Slow`], or [`BodyError::Broken`].
pub async fn read_body(
    headers: &HeaderMap,
    body: Body,
    max_bytes: usize,
    memory: &BodyMemory,
) -> Result<(Bytes, Held), BodyError> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let mut stream = body.into_data_stream();
    let read = read(&mut stream, announced, max_bytes, memory).await;
    match &read {
        // `Expect: 100-continue`: the client waits for our word before it sends anything.
        Err(BodyError::TooLarge { .. } | BodyError::Exhausted(_))
            if !headers.contains_key(header::EXPECT) =>
        {
            drain(&mut stream).await;
        }
        _ => {}
    }
    read
}

async fn read(
    stream: &mut BodyDataStream,
    announced: Option<u64>,
    max_bytes: usize,
    memory: &BodyMemory,
) -> Result<(Bytes, Held), BodyError> {
    if announced.is_some_and(|length| length > max_bytes as u64) {
        return Err(BodyError::TooLarge { max_bytes });
    }
    // One that does not say how long it is may be small; beyond that it may be as long as any.
    let expected = announced.unwrap_or_else(|| BodyMemory::small_bytes().min(max_bytes as u64));
    let held = memory.read(expected).await?;
    let most = announced.unwrap_or(max_bytes as u64);
    let limit = READ_TIME + Duration::from_secs(most / SLOWEST_BYTES_PER_S);
    let gather = gather(stream, expected, max_bytes, memory, held);
    let (body, held) = tokio::time::timeout(limit, gather)
        .await
        .map_err(|_| BodyError::Slow)??;
    let held = memory.work(held, body.len() as u64).await?;
    Ok((body, held))
}

async fn gather(
    stream: &mut BodyDataStream,
    expected: u64,
    max_bytes: usize,
    memory: &BodyMemory,
    mut held: Held,
) -> Result<(Bytes, Held), BodyError> {
    let mut taken = BytesMut::new();
    // A second chunk decides whether copying is needed at all: most bodies are one chunk.
    let mut first: Option<Bytes> = None;
    let (mut length, mut covered) = (0, expected);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| BodyError::Broken)?;
        length += chunk.len();
        if length > max_bytes {
            return Err(BodyError::TooLarge { max_bytes });
        }
        if length as u64 > covered {
            let next = next_step(covered, length as u64, max_bytes as u64);
            held = memory.read_on(held, covered, next).await?;
            covered = next;
        }
        match first.take() {
            None if taken.is_empty() => first = Some(chunk),
            None => taken.extend_from_slice(&chunk),
            Some(head) => {
                let expected = usize::try_from(expected).unwrap_or(0);
                taken.reserve(expected.max(head.len() + chunk.len()));
                taken.extend_from_slice(&head);
                taken.extend_from_slice(&chunk);
            }
        }
    }
    Ok((first.unwrap_or_else(|| taken.freeze()), held))
}

/// Takes a refused body off the wire, within bounds, so that its sender reads the refusal.
pub async fn drain_body(body: Body) {
    drain(&mut body.into_data_stream()).await;
}

async fn drain(stream: &mut BodyDataStream) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_ten(headers: &HeaderMap, body: Body) -> Result<Bytes, BodyError> {
        let memory = BodyMemory::new(1 << 24);
        read_body(headers, body, 10, &memory).await.map(|(body, _)| body)
    }

    fn chunks(sizes: &[usize]) -> Body {
        let chunks: Vec<Result<Bytes, std::io::Error>> =
            sizes.iter().map(|size| Ok(Bytes::from(vec![7; *size]))).collect();
        Body::from_stream(futures::stream::iter(chunks))
    }

    #[tokio::test]
    async fn bodies_are_put_together_up_to_the_bound() {
        let none = HeaderMap::new();
        for sizes in [&[][..], &[0], &[10], &[4, 6], &[0, 4, 0, 6], &[1, 2, 3, 4]] {
            let body = read_ten(&none, chunks(sizes)).await.unwrap();
            assert_eq!(body.len(), sizes.iter().sum::<usize>(), "{sizes:?}");
        }
        for sizes in [&[11][..], &[4, 7], &[4, 6, 1]] {
            assert!(matches!(
                read_ten(&none, chunks(sizes)).await,
                Err(BodyError::TooLarge { max_bytes: 10 })
            ));
        }
    }

    #[tokio::test]
    async fn an_announced_length_is_believed_when_it_is_too_long() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, "11".parse().unwrap());
        assert!(matches!(
            read_ten(&headers, chunks(&[5])).await,
            Err(BodyError::TooLarge { .. })
        ));
    }

    #[tokio::test]
    async fn a_broken_body_is_said_so() {
        let stream = futures::stream::iter([Ok(Bytes::from("x")), Err(std::io::Error::other("reset"))]);
        assert!(matches!(
            read_ten(&HeaderMap::new(), Body::from_stream(stream)).await,
            Err(BodyError::Broken)
        ));
    }

    #[tokio::test]
    async fn a_body_without_a_length_counts_as_small_until_it_is_not() {
        let memory = BodyMemory::new(16 << 20);
        let all = memory.read(8 << 20).await.unwrap();
        let none = HeaderMap::new();
        let read = |size: usize| read_body(&none, chunks(&[size]), 1 << 20, &memory);
        assert_eq!(read(1000).await.unwrap().0.len(), 1000);
        let mut large = std::pin::pin!(read(1 << 20));
        assert!(futures::poll!(large.as_mut()).is_pending(), "it waits for memory");
        drop(all);
        assert_eq!(large.await.unwrap().0.len(), 1 << 20);
    }
}
