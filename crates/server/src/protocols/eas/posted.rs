//! What every post has: a priority and a body.

use axum::extract::Request;
use bytes::Bytes;
use http::request::Parts;

use super::{call::EasCall, error::EasError};
use crate::{http::read_body, memory::Held, service::queues::OpenQueue, state::AppState};

/// A post, read whole.
pub struct Posted {
    /// Higher goes first.
    pub priority: i32,
    /// Its head.
    pub parts: Parts,
    /// Its body.
    pub body: Bytes,
    /// The memory held for the body.
    pub memory: Held,
}

impl Posted {
    /// Reads a post of at most `limit_bytes`.
    pub async fn read(
        state: &AppState,
        call: &EasCall,
        request: Request,
        limit_bytes: usize,
    ) -> Result<Posted, EasError> {
        let priority = call.priority()?.unwrap_or(0);
        let (parts, body) = request.into_parts();
        let (body, memory) = read_body(&parts.headers, body, limit_bytes, &state.service.memory).await?;
        Ok(Posted {
            priority,
            parts,
            body,
            memory,
        })
    }
}

/// The longest item of a queue.
pub fn max_payload(queue: &OpenQueue) -> usize {
    usize::try_from(queue.endpoint.queue.max_payload_bytes).unwrap_or(usize::MAX)
}
