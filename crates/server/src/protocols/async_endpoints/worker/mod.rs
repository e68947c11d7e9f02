//! The worker side of both families (`protocols/async-endpoints.md` §4, `protocols/runpod.md` §4): long polls for jobs and
//! for jobs to stop, results, intermediate output, chunks, pings.
//!
//! The SDKs are particular about statuses. A refused poll gets 429, the only answer after which they wait (5 s); results
//! are posted again after a 5xx and thrown away after anything else, so 5xx means "again", and what is refused for good
//! gets 4xx, or 200 where it is merely late.

use axum::{
    Router,
    response::Response,
    routing::{get, post},
};
use http::{HeaderValue, header};

use crate::state::AppState;

mod call;
mod done;
mod lenient;
mod ping;
mod stop;
mod stream;
mod take;

/// The routes below an endpoint.
pub fn routes() -> Router<AppState> {
    // A poll is answered by its own route whatever stands for the worker, also nothing: a 404 is asked again at once.
    Router::new()
        .route("/job-take/", get(take::one))
        .route("/job-take/{*worker}", get(take::one))
        .route("/job-take-batch/", get(take::batch))
        .route("/job-take-batch/{*worker}", get(take::batch))
        .route("/job-stop/", get(stop::handler))
        .route("/job-stop/{*worker}", get(stop::handler))
        .route("/ping/{worker}", get(ping::handler))
        .route("/job-done/{worker}/{*job}", post(done::handler))
        .route("/job-stream/{worker}/{*job}", post(stream::handler))
}

/// The answer to a poll, whose connection is not used again. A handler may block its worker for hours; the result would then go
/// to a connection that a server before this one has closed meanwhile, unseen, and the SDKs throw such results away.
fn last_of_its_connection(mut answer: Response) -> Response {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(header::CONNECTION, close);
    answer
}
