//! HTTP as such: request ids, limits, the outer layers, health, blobs by signed URL, and serving on a socket.
//!
//! Nothing here knows jobs or protocols.

mod error;
mod request_id;

pub use self::{
    error::error_response,
    request_id::{RequestId, X_REQUEST_ID},
};
