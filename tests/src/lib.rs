//! Starts the real `darkroom` binary and talks to it as its users do: over HTTP, WebSocket, and signals.
//!
//! It knows nothing of the server's inside: no crate of the workspace is a dependency, so that what passes here is what
//! a user sees. Start with [`Server::start`]; a test that leaves a process behind fails in the server's `Drop`.

pub mod agent;
pub mod audit;
pub mod binary;
pub mod boxes;
pub mod bucket;
pub mod config;
pub mod fc;
pub mod graphs;
pub mod http;
pub mod ledger;
pub mod meddler;
pub mod native;
pub mod pixels;
pub mod processes;
pub mod proxy;
pub mod receiver;
pub mod server;
pub mod wait;

pub use http::Api;
pub use ledger::Ledger;
pub use receiver::Receiver;
pub use server::{Options, Server};
pub use wait::{eventually, within};
