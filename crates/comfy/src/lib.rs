//! All that knows ComfyUI's formats.
//!
//! What it does: reads and checks graphs ([`graph`]) against a ComfyUI's node classes ([`object_info`]) with
//! ComfyUI's own answers to a bad graph, names the messages and bodies of its API ([`wire`]), follows one prompt
//! on one instance to its verdict ([`session`]), counts how far it is ([`progress`]), speaks to an instance (`client`, a feature), and makes a graph one
//! that is called by names ([`published`]).
//!
//! What it deliberately does not know: jobs, attempts, tenants, storage, how instances are started, or any of
//! the protocols that carry a graph to us. Nothing outside `client` does IO, and nothing reads a clock.
//!
//! Where to start: [`graph::Graph`] for the data, [`graph::validate::validate`] for the checks,
//! [`session::Session`] for a run.

#[cfg(feature = "client")]
pub mod client;
pub mod graph;
pub mod object_info;
pub mod progress;
pub mod published;
pub mod session;
pub mod wire;
