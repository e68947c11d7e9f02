//! `GET /jobs/{job}/events`: server-sent events. Durable ones carry their number as `id`, so that a reader resumes with
//! `Last-Event-ID`; ephemeral ones (`progress`, `progress_state`, …) have none. Ends after the last event of a job that
//! has ended.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Path, Query, State},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, stream};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{call::Call, error::ApiError};
use crate::{
    service::follow::{Ephemeral, Follower, Step},
    state::AppState,
};

/// The query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Params {
    after: Option<u64>,
}

/// The handler.
///
/// # Errors
/// 404, also for a job that the caller may not see.
pub async fn stream(
    State(state): State<AppState>,
    call: Call,
    Path(job): Path<String>,
    Query(params): Query<Params>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = call.job(&state.service, &job).await?.id;
    let last = headers
        .get("last-event-id")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok());
    let follower = state.service.follow(job, params.after.or(last).unwrap_or(0));
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15)).text("ping");
    let events = until_end(follower, state);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

/// Everything that is still to be told of a job.
pub fn until_end(
    follower: Follower,
    state: AppState,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    stream::unfold(Some((follower, state)), |reader| async move {
        let (mut follower, state) = reader?;
        let event = next(&mut follower, &state).await?;
        Some((Ok::<Event, Infallible>(event), Some((follower, state))))
    })
}

async fn next(follower: &mut Follower, state: &AppState) -> Option<Event> {
    loop {
        let step = tokio::select! {
            step = follower.next() => step,
            () = state.closing.cancelled() => return None,
        };
        match step {
            Ok(Step::Event(event)) => {
                return Some(
                    Event::default()
                        .id(event.seq.to_string())
                        .event(event.kind.as_str())
                        .data(one_line(&event.data)),
                );
            }
            Ok(Step::Ephemeral(Ephemeral::Message(text))) => {
                if let Some((kind, data)) = split(&text) {
                    return Some(Event::default().event(kind).data(one_line(&data)));
                }
            }
            Ok(Step::Ephemeral(Ephemeral::Preview { .. }) | Step::Cancelling) => {}
            Ok(Step::End(_)) => return None,
            Err(error) => {
                tracing::warn!(error = ?error, "following a job failed");
                return None;
            }
        }
    }
}

/// JSON has no line breaks outside strings that are not escaped, but what an instance sent may be pretty-printed.
fn one_line(data: &str) -> String {
    data.replace(['\n', '\r'], " ")
}

/// `{"type": T, "data": D}` taken apart, `D` verbatim.
fn split(text: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Message<'a> {
        r#type: String,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let message: Message<'_> = serde_json::from_str(text).ok()?;
    Some((message.r#type, message.data.get().to_owned()))
}
