//! Runs attempts on one ComfyUI: brings the inputs, posts the prompt, follows its session, collects every output.
//!
//! It knows one instance and one [`link::AttemptLink`]; it does not know the store, the endpoints, or why it got this
//! job. Start with [`link`].

mod backoff;
pub mod collect;
mod feed;
pub mod link;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
