//! The asynchronous endpoints of PPIO (`/v1/{endpoint}`) and RunPod (`/v2/{endpoint}`): the same routes, told apart by a
//! prefix, a few defaults, and nothing else (`protocols/async-endpoints.md`, `protocols/runpod.md`).
//!
//! [`client`] is what callers use, [`worker`] what the workers' SDKs do; [`family`] holds the differences as data.

use axum::{Router, extract::DefaultBodyLimit};

use crate::state::AppState;

mod client;
mod error;
mod family;
#[cfg(test)]
mod tests;
mod worker;

pub use client::status_body;

/// How the jobs of both families are marked.
pub const DIALECTS: [&str; 2] = [family::PPIO.dialect, family::RUNPOD.dialect];

/// The routes of both families.
pub fn routes() -> Router<AppState> {
    let mut router = Router::new();
    for family in family::ALL {
        let base = format!("{}/{{endpoint}}", family.prefix);
        router = router.nest(&base, client::routes().merge(worker::routes()));
    }
    // Handlers measure by themselves, so that their refusals have the protocol's shape.
    router.layer(DefaultBodyLimit::disable())
}
