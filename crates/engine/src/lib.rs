//! The native engine: a small ComfyUI-compatible server whose nodes need no weights.
//!
//! It answers ComfyUI's HTTP and WebSocket routes, runs graphs in ComfyUI's order with ComfyUI's caching, and makes
//! the same pixels. It deliberately knows nothing of jobs, tenants or credentials: it is an instance like any other
//! ComfyUI, started and watched by whoever runs it, and it listens where it is told.
//!
//! Start with [`serve`] and `server::router` for the outside, [`exec::Executor`] for a prompt's way, and
//! [`nodes::FAMILIES`] for what a graph can be made of.

pub mod exec;
pub mod files;
pub mod hub;
pub mod nodes;
mod options;
pub mod parallel;
pub mod pixels;
mod pyre;
pub mod registry;
pub mod server;
pub mod value;

pub use options::{Args, DEFAULT_MAX_UPLOAD_BYTES, Options};
pub use server::{Error, serve};
