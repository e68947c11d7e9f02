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
use http::{HeaderMap, HeaderValue, header};

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

/// The answer to a poll of one of the SDKs, whose connection is not used again. A handler may block its worker for as long as
/// it likes; the result would then go to a connection that a server before this one has closed meanwhile, unseen, and the SDKs
/// throw such results away. Clients that are not Python's notice.
fn last_of_its_connection(asked: &HeaderMap, mut answer: Response) -> Response {
    let agent = asked.get(header::USER_AGENT).map(HeaderValue::as_bytes);
    if agent.is_some_and(|agent| agent.windows(6).any(|part| part.eq_ignore_ascii_case(b"python"))) {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn polls_of_the_sdks_are_the_last_on_their_connections_and_others_are_not() {
        let closes = |agent: Option<&str>| {
            let mut asked = HeaderMap::new();
            if let Some(agent) = agent {
                asked.insert(header::USER_AGENT, agent.parse().unwrap());
            }
            let answer = last_of_its_connection(&asked, "ok".into_response());
            answer.headers().contains_key(header::CONNECTION)
        };
        // As in the captures of both.
        assert!(closes(Some("Python/3.11 aiohttp/3.14.5")));
        let runpod = "RunPod-Python-SDK/1.12.0 (Linux 6.18.44; x86_64) Language/Python 3.11.7";
        assert!(closes(Some(runpod)));
        assert!(closes(Some("python-requests/2.34.2")));
        assert!(!closes(Some("curl/8.5.0")));
        assert!(!closes(None));
    }
}
