//! Long lists as answers: made and sent piece by piece, so that a thousand large prompts are never in memory at once.

use std::{future::ready, mem};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use http::header;

use crate::{
    memory::{Held, accounted},
    service::{Error, Service, jobs::JobRecord},
};

/// One item of a list as JSON, with the memory that is held for it until it is sent.
pub struct Item {
    /// Its text.
    pub json: Vec<u8>,
    /// What it takes.
    pub held: Held,
}

/// Memory for what is made of a job's request and result.
///
/// # Errors
/// When there is none.
pub async fn memory_for(service: &Service, job: &JobRecord) -> Result<Held, Error> {
    let result = job.result.as_ref().map_or(0, |result| result.size());
    let bytes = job.input.size().saturating_add(result);
    Ok(service.memory.answer(bytes).await?)
}

/// An answer of JSON whose text comes in pieces. One that fails on the way breaks the connection off, so that nobody takes
/// what came for all there is.
pub fn json_answer(pieces: impl Stream<Item = Result<Bytes, Error>> + Send + 'static) -> Response {
    let pieces = pieces.inspect_err(|error| tracing::warn!(error = ?error, "a list breaks off"));
    let body = Body::from_stream(pieces);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The items of a list or an object with commas between them; what is `None` is left out.
pub fn separated(
    items: impl Stream<Item = Result<Option<Item>, Error>>,
) -> impl Stream<Item = Result<Bytes, Error>> {
    let mut is_first = true;
    items
        .try_filter_map(|item| ready(Ok(item)))
        .map_ok(move |mut item| {
            if !mem::replace(&mut is_first, false) {
                item.json.insert(0, b',');
            }
            accounted(Bytes::from(item.json), item.held)
        })
}

/// A fixed piece.
pub fn text(text: &'static str) -> impl Stream<Item = Result<Bytes, Error>> {
    stream::once(ready(Ok(Bytes::from_static(text.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn pieces_make_one_document_and_an_error_is_no_end() {
        let items = |items: Vec<Result<Option<&'static str>, Error>>| {
            let items = items.into_iter().map(|item| {
                item.map(|item| {
                    item.map(|text| Item {
                        json: text.as_bytes().to_vec(),
                        held: Held::default(),
                    })
                })
            });
            text("[").chain(separated(stream::iter(items))).chain(text("]"))
        };
        for (given, expected) in [
            (vec![], "[]"),
            (vec![Ok(Some("1"))], "[1]"),
            (vec![Ok(None), Ok(Some("1")), Ok(None), Ok(Some("2"))], "[1,2]"),
        ] {
            let body = axum::body::to_bytes(json_answer(items(given)).into_body(), 100).await;
            assert_eq!(body.unwrap(), expected);
        }
        let broken = items(vec![Ok(Some("1")), Err(Error::not_found("job", "x"))]);
        assert!(
            axum::body::to_bytes(json_answer(broken).into_body(), 100)
                .await
                .is_err()
        );
    }
}
