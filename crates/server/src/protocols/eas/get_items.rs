//! `GET`: items at once, or when they come (`protocols/eas-queue.md` §3.1).

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, StatusCode, header};

use super::{call::EasCall, codec, error::EasError, query::Index};
use crate::{
    http::Flushed,
    memory::accounted,
    service::queues::{Get, Got, OpenQueue, ReadItems, Taken, Wanted},
    state::AppState,
};

/// The SDK's socket timeout equals the time it asks us to wait, and a request that runs into it is sent again, five times:
/// so we answer earlier by this part of it (5 %), and by at least this much (`protocols/eas-queue.md` §3.1).
const EARLIER_PART: u32 = 20;
const EARLIER_AT_LEAST: Duration = Duration::from_millis(100);

/// Gets items.
pub async fn get(state: &AppState, queue: &OpenQueue, call: &EasCall) -> Result<Response, EasError> {
    let query = &call.query;
    let raw = query.flag_or("_raw_", true);
    let length = query.number("_length_", 1, 1)?;
    let get = Get {
        wanted: wanted(call)?,
        length: if raw { 1 } else { length },
        patience: earlier(query.timeout()?),
        group: call.gid.clone(),
        delete: query.flag_or("_auto_delete_", true),
    };
    let Got { read, taken } = tokio::select! {
        got = state.service.get_items(queue, get) => got?,
        () = state.stopping.cancelled() => return Ok(StatusCode::NO_CONTENT.into_response()),
    };
    let ReadItems { items, memory } = read;
    if items.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let (content_type, body) = match raw {
        true => {
            let first = items.into_iter().next().map(|item| item.data);
            ("application/octet-stream", first.unwrap_or_default())
        }
        false => codec::list(items, call.protobuf),
    };
    let length = body.len();
    let body = accounted(body, memory);
    let body = match taken {
        // Of nothing, nothing can get lost, and nobody would ask for the body.
        Some(taken) if length == 0 => {
            taken.written();
            Body::empty()
        }
        Some(taken) => written_then_gone(body, taken, call.flushed.clone()),
        None => Body::from(body),
    };
    let mut response = ([(header::CONTENT_TYPE, content_type)], body).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// Which items a query asks for.
pub fn wanted(call: &EasCall) -> Result<Wanted, EasError> {
    let index = call.query.index()?.unwrap_or(Index::From(0));
    let mut tags = call.query.tags.clone();
    Ok(Wanted {
        from: match index {
            Index::From(index) => index,
            Index::Newest => 0,
        },
        newest: index == Index::Newest,
        request_id: tags.remove("requestId"),
        tags,
        priority: call.priority()?,
    })
}

fn earlier(wait: Duration) -> Duration {
    wait.saturating_sub(EARLIER_AT_LEAST.max(wait / EARLIER_PART))
}

/// A body in two parts: the second, a single byte, follows when the first has left us. A connection that is gone before
/// drops the body, and the items come back. The items go with the last byte.
fn written_then_gone(body: Bytes, taken: Taken, flushed: Option<Flushed>) -> Body {
    enum Part {
        First(Bytes, Taken),
        Last(Bytes, Taken),
    }
    let steps = stream::unfold(
        (Some(Part::First(body, taken)), flushed),
        |(part, mut flushed)| async move {
            match part? {
                Part::First(mut body, taken) => {
                    let last = body.split_off(body.len().saturating_sub(1));
                    Some((
                        Ok::<_, Infallible>(body),
                        (Some(Part::Last(last, taken)), flushed),
                    ))
                }
                Part::Last(last, taken) => {
                    if let Some(flushed) = &mut flushed {
                        flushed.all().await;
                    }
                    taken.written();
                    Some((Ok(last), (None, flushed)))
                }
            }
        },
    );
    Body::from_stream(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_comes_before_the_clients_own_timeout() {
        assert_eq!(earlier(Duration::from_secs(5)), Duration::from_millis(4750));
        assert_eq!(earlier(Duration::from_millis(500)), Duration::from_millis(400));
        assert_eq!(earlier(Duration::from_millis(50)), Duration::ZERO);
        assert_eq!(earlier(Duration::ZERO), Duration::ZERO);
    }
}
