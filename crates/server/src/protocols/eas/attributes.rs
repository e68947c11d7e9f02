//! `GET ?_attrs_=true`: a queue in words; every value is a text (`protocols/eas-queue.md` §3.3).

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use darkroom_core::Timestamp;
use http::header;
use prost::Message;

use super::{
    call::{EasCall, HEADER_GROUP, HEADER_PRIORITY, HEADER_USER},
    codec::{AttributeMap, PROTOBUF},
    error::EasError,
};
use crate::{
    service::queues::{ConsumerView, OpenQueue},
    state::AppState,
};

/// A consumer that left longer ago is `Exit`, not `Leaving`.
const LEAVING: Duration = Duration::from_secs(60);

/// Answers with the attributes.
pub async fn attributes(state: &AppState, queue: &OpenQueue, call: &EasCall) -> Result<Response, EasError> {
    let service = &state.service;
    let view = service.queue_view(&queue.id).await?;
    let consumers = service.queue_consumers(&queue.id).await?;
    let groups = service.queue_groups(&queue.id).await?;
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |key: &str, value: &dyn ToString| {
        all.insert(key.to_owned(), value.to_string());
    };
    let limits = &queue.endpoint.queue;
    set("meta.backend", &"darkroom");
    set("meta.name", &queue.endpoint.name);
    set("meta.state", &if view.ended { "Ended" } else { "Normal" });
    set("meta.maxPayloadBytes", &limits.max_payload_bytes);
    set("meta.header.user", &HEADER_USER);
    set("meta.header.group", &HEADER_GROUP);
    set("meta.header.priority", &HEADER_PRIORITY);
    set("stream.length", &view.length);
    set("stream.approxMaxLength", &queue.max_length());
    set("stream.firstEntry", &view.first.unwrap_or(0));
    set("stream.lastEntry", &view.last);
    let total = consumers.len();
    // The documents say `stats`, the Go SDK's constant says `status`.
    set("consumers.stats.total", &total);
    set("consumers.status.total", &total);
    for (place, consumer) in consumers.iter().enumerate() {
        let key = format!("consumers.list.[{place}]");
        set(&key, &describe(consumer, view.length, service.now()));
    }
    set("groups.stats.total", &groups.len());
    for (place, (group, left)) in groups.iter().enumerate() {
        set(
            &format!("groups.list.[{place}]"),
            &format!("Id: {group}, Remaining: {left}"),
        );
    }
    Ok(match call.protobuf {
        true => {
            let bytes = AttributeMap { attributes: all }.encode_to_vec();
            ([(header::CONTENT_TYPE, PROTOBUF)], bytes).into_response()
        }
        false => Json(all).into_response(),
    })
}

fn describe(consumer: &ConsumerView, length: u64, now: Timestamp) -> String {
    let status = match consumer.left_at {
        None => "Running",
        Some(at) if now.since(at) < LEAVING => "Leaving",
        Some(_) if length > 0 => "Exit",
        Some(_) => "Complete",
    };
    let slots = u64::from(consumer.window).saturating_sub(consumer.pending);
    let mut text = format!(
        "Id: {}.{}, Index: {}, Pending: {}, Status: {status}, Idle: {:.3}s, Window: {}, Slots: {slots}, AutoCommit: {}",
        consumer.group,
        consumer.name,
        consumer.last_index,
        consumer.pending,
        now.since(consumer.active_at).as_secs_f64(),
        consumer.window,
        consumer.auto_commit,
    );
    if !consumer.tags.is_empty() {
        let pairs: Vec<String> = consumer.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let _ = write!(text, ", Tags: tags[{}]", pairs.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_is_described_in_the_vendors_words() {
        let at = |s: i64| Timestamp::from_millis(s * 1000);
        let mut consumer = ConsumerView {
            group: "eas".into(),
            name: "u".into(),
            last_index: 7,
            pending: 2,
            left_at: None,
            active_at: at(10),
            window: 5,
            auto_commit: false,
            tags: [("foo".to_owned(), "bar".to_owned())].into(),
        };
        assert_eq!(
            describe(&consumer, 3, at(12)),
            "Id: eas.u, Index: 7, Pending: 2, Status: Running, Idle: 2.000s, Window: 5, Slots: 3, AutoCommit: false, \
             Tags: tags[foo=bar]"
        );
        let status = |consumer: &ConsumerView, length, now| {
            let text = describe(consumer, length, at(now));
            text.split("Status: ")
                .nth(1)
                .unwrap()
                .split(',')
                .next()
                .unwrap()
                .to_owned()
        };
        consumer.left_at = Some(at(10));
        assert_eq!(status(&consumer, 3, 12), "Leaving");
        assert_eq!(status(&consumer, 3, 100), "Exit");
        assert_eq!(status(&consumer, 0, 100), "Complete");
    }
}
