//! Long lists as answers: made and sent piece by piece, so that a thousand large prompts are never in memory at once.

use std::{future::ready, mem};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use http::header;

use crate::service::Error;

/// Items that are made at the same time, ahead of the one that is sent.
pub const AHEAD: usize = 8;

/// An answer of JSON whose text comes in pieces. One that fails on the way breaks the connection off, so that nobody takes
/// what came for all there is.
pub fn json_answer(pieces: impl Stream<Item = Result<Bytes, Error>> + Send + 'static) -> Response {
    let pieces = pieces.inspect_err(|error| tracing::warn!(error = ?error, "a list breaks off"));
    let body = Body::from_stream(pieces);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The items of a list or an object with commas between them; what is `None` is left out.
pub fn separated(
    items: impl Stream<Item = Result<Option<Vec<u8>>, Error>>,
) -> impl Stream<Item = Result<Bytes, Error>> {
    let mut is_first = true;
    items
        .try_filter_map(|item| ready(Ok(item)))
        .map_ok(move |mut item| {
            if !mem::replace(&mut is_first, false) {
                item.insert(0, b',');
            }
            Bytes::from(item)
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
            let items = items
                .into_iter()
                .map(|item| item.map(|item| item.map(|text| text.as_bytes().to_vec())));
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
