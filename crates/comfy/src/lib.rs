//! All that knows ComfyUI's formats.
//!
//! What it does: reads and checks graphs ([`graph`]), reads `/object_info` ([`object_info`]), and mirrors
//! ComfyUI's answers to a bad graph so that a caller sees the shapes it knows.
//!
//! What it deliberately does not know: jobs, attempts, tenants, storage, how instances are started, or any of
//! the protocols that carry a graph to us. Nothing outside `client` does IO, and nothing reads a clock.
//!
//! Where to start: [`graph::Graph`] for the data, [`graph::validate::validate`] for the checks.

pub mod graph;
pub mod object_info;
pub mod session;
pub mod wire;
