//! HTTP as such: request ids, limits, the outer layer, health, blobs by signed URL, and serving on a socket.
//!
//! Nothing here knows jobs or protocols. Start with [`serve`] and [`around`].

mod base_url;
pub mod blobs;
mod body;
mod cold_start;
mod cors;
mod error;
mod form;
pub mod health;
mod outer;
mod patient;
mod request_id;
mod route_class;
mod serve;

#[cfg(test)]
mod tests;

pub use self::{
    base_url::BaseUrl,
    blobs::{Ask, BlobAccess},
    body::{BodyError, drain_body, read_body},
    cold_start::cold_start_header,
    cors::Cors,
    error::error_response,
    form::Outside,
    health::Readiness,
    outer::{Outer, around},
    patient::Flushed,
    request_id::{RequestId, X_REQUEST_ID},
    route_class::RouteClass,
    serve::{Ongoing, Peer, Stop, serve},
};
