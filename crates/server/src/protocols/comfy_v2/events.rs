//! `GET /jobs/{id}/events`: what is to be seen of a job, live (`protocols/comfy-v2.md` §5). Every output comes before the
//! terminal status, also for who connects late; nothing comes after it.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::stream;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::{
    call::{Id, V2Call},
    error::ApiError,
    found::find,
    outputs, view,
};
use crate::{
    service::{
        jobs::JobRecord,
        streams::{OpenStream, Who},
        watch::{Sight, Watcher},
    },
    state::{AppState, ClientAddress},
};

/// A comment comes after this much silence: clients are promised one at least every 15 s.
const SILENCE: Duration = Duration::from_secs(10);
/// When somebody with too many streams may come again, in seconds.
const AGAIN_S: u64 = 5;

/// The handler.
///
/// # Errors
/// 404, also for one that the caller may not see; 429 for one stream too many.
pub async fn handler(
    State(state): State<AppState>,
    call: V2Call,
    ClientAddress(address): ClientAddress,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let job = find(&state.service, &call, &id).await?;
    let tenant = call.caller.tenant.clone();
    let who = match call.caller.key_name.clone() {
        Some(key) => Who::Key(tenant, key),
        None => Who::Anybody(tenant, address),
    };
    let streams = &state.service.streams;
    let open = streams.open(who).ok_or_else(|| {
        let message = format!("{} streams of events are open already", streams.most());
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", message).later(AGAIN_S)
    })?;
    let watcher = state.service.watch_job(&job).await?;
    let reader = Reader {
        state,
        call,
        watcher,
        ready: VecDeque::new(),
        over: false,
        _open: open,
    };
    let events = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<Event, Infallible>(event), reader))
    });
    let keep_alive = KeepAlive::new().interval(SILENCE).text("keepalive");
    let unbuffered = [(header::HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((unbuffered, Sse::new(events).keep_alive(keep_alive)).into_response())
}

/// One stream.
struct Reader {
    state: AppState,
    call: V2Call,
    watcher: Watcher,
    ready: VecDeque<Event>,
    over: bool,
    _open: OpenStream,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            let sight = tokio::select! {
                sight = self.watcher.next() => sight,
                () = self.state.closing.cancelled() => return None,
            };
            match sight {
                Ok(Sight::End(job)) => self.end(&job),
                Ok(sight) => self.ready.extend(shown(&sight)),
                Err(error) => {
                    // The client asks for the job then, and hears what became of it.
                    tracing::warn!(error = ?error, "watching a job failed");
                    return None;
                }
            }
        }
    }

    fn end(&mut self, job: &JobRecord) {
        let outputs = outputs::all(&self.state.service, &self.call, job);
        self.ready
            .extend(outputs.iter().map(|output| event("output", output)));
        let last = json!({ "status": view::status(job), "queue_position": null });
        self.ready.push_back(event("status", &last));
        self.over = true;
    }
}

fn shown(sight: &Sight) -> Option<Event> {
    Some(match sight {
        Sight::Standing(standing) => {
            let word = view::word(standing.state, standing.cancelling);
            event(
                "status",
                &json!({ "status": word, "queue_position": view::place(standing.position) }),
            )
        }
        Sight::Progress(run) => event("progress", &view::progress(run)),
        Sight::Preview(preview) => event(
            "preview",
            &json!({
                "node_id": preview.node_id.as_deref().unwrap_or_default(),
                "content_type": preview.content_type,
                "data_base64": STANDARD.encode(&preview.bytes),
            }),
        ),
        Sight::End(_) => return None,
    })
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(ascii(&data.to_string()))
}

/// JSON in ASCII alone: three characters beyond it end a line for the Python SDK's reader.
fn ascii(json: &str) -> String {
    if json.is_ascii() {
        return json.to_owned();
    }
    let mut plain = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c.is_ascii() {
            true => plain.push(c),
            // Outside of strings JSON is ASCII, so this stands inside one.
            false => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    plain.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_ascii_is_escaped_and_means_the_same() {
        let value = json!({"图\u{2028}": "\u{85}é\u{2029} \u{1f600} \"\\ a"});
        let plain = ascii(&value.to_string());
        assert!(plain.is_ascii(), "{plain}");
        assert_eq!(serde_json::from_str::<Value>(&plain).unwrap(), value);
        assert_eq!(ascii("{}"), "{}");
    }
}
