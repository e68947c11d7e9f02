//! What every worker route begins with: which endpoint, which worker, and whether the caller may speak for it.

use axum::{
    extract::{FromRequestParts, RawPathParams},
    response::{IntoResponse, Response},
};
use darkroom_core::{EndpointName, JobId};
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde_json::json;

use super::done;
use crate::{
    auth::{self, Caller, Scope},
    service::pull,
    state::AppState,
};

/// After a refused poll the SDKs wait so long, whatever we say; others may read it.
const RETRY_AFTER_S: &str = "5";

/// A request of a worker, or of somebody who may be one.
pub struct WorkerCall {
    /// Whose jobs it takes.
    pub endpoint: EndpointName,
    /// How it calls itself.
    pub worker: String,
    /// The job it is about, where the path names one, as it was written.
    pub job: String,
    /// The name of the key it came with; `None` for a token of a worker that we started, and where nobody needs a key.
    pub key: Option<String>,
    /// It presented the token that we gave this very worker.
    pub has_token: bool,
    query: Vec<(String, String)>,
}

/// Why a worker's request is not served.
pub struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Refusal {
            status,
            message: message.into(),
        }
    }

    /// The same as the answer to a poll: a worker that asks in vain must not ask again at once.
    pub fn into_poll_answer(self) -> Response {
        let mut response = Refusal {
            status: StatusCode::TOO_MANY_REQUESTS,
            ..self
        }
        .into_response();
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        response
    }
}

impl From<auth::Error> for Refusal {
    fn from(error: auth::Error) -> Self {
        Refusal::new(error.status(), error.to_string())
    }
}

impl From<pull::Refused> for Refusal {
    fn from(refused: pull::Refused) -> Self {
        let status = match &refused {
            pull::Refused::Name(_) => StatusCode::FORBIDDEN,
            pull::Refused::Unknown(_) => StatusCode::NOT_FOUND,
            pull::Refused::Failed(error) => return error.into(),
        };
        Refusal::new(status, refused.to_string())
    }
}

impl From<&crate::service::Error> for Refusal {
    fn from(error: &crate::service::Error) -> Self {
        use crate::service::Error;
        let status = match error {
            Error::NotFound { .. } => StatusCode::NOT_FOUND,
            // 5xx is what a result is posted again after.
            Error::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal(_) => {
                tracing::error!(error = ?error, "a worker's request failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Error::Invalid(_)
            | Error::InvalidGraph(_)
            | Error::InputUnavailable(_)
            | Error::Duplicate { .. }
            | Error::TooLarge { .. }
            | Error::QueueFull { .. } => StatusCode::BAD_REQUEST,
        };
        Refusal::new(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, axum::Json(json!({ "error": self.message }))).into_response()
    }
}

impl FromRequestParts<AppState> for WorkerCall {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refusal> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the path is not text"))?;
        let param = |name: &str| {
            params
                .iter()
                .find(|(key, _)| *key == name)
                .map_or("", |(_, value)| value)
        };
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, "there is no such endpoint");
        let endpoint: EndpointName = param("endpoint").parse().map_err(|_| unknown())?;
        // Where the URL that a worker was told has no query, the SDKs append theirs to the path.
        let (worker, more) = without_query(param("worker"));
        if worker.is_empty() || worker.contains('/') {
            let why = "a worker's id (RUNPOD_POD_ID, PPIO_POD_ID) is not empty and has no slash";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, why));
        }
        let (job, more_of_job) = without_query(param("job"));
        let queries = [parts.uri.query().unwrap_or_default(), more, more_of_job];
        let query = queries
            .iter()
            .flat_map(|query| url::form_urlencoded::parse(query.as_bytes()))
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect();
        let (worker, job) = (worker.to_owned(), job.to_owned());
        let token =
            presented(parts).and_then(|token| state.service.check_worker_token(token, &endpoint, &worker));
        let key = match token {
            Some(true) => None,
            Some(false) => return Err(auth::Error::Unauthenticated { presented: true }.into()),
            None => {
                let caller = Caller::from_request_parts(parts, state)
                    .await
                    .map_err(|rejection| Refusal::from(rejection.error))?;
                caller.may(Scope::Worker, &endpoint)?;
                caller.key_name.clone()
            }
        };
        state.service.endpoint(&endpoint).map_err(|_| unknown())?;
        if !state.service.workers_known().await {
            // 5xx: a result is posted again.
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the server is starting",
            ));
        }
        Ok(WorkerCall {
            endpoint,
            worker,
            job,
            key,
            has_token: token.is_some(),
            query,
        })
    }
}

impl WorkerCall {
    /// A value of the query.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The worker, if it is known and the caller may speak for it.
    ///
    /// # Errors
    /// When the caller may not.
    pub fn known(&self, state: &AppState) -> Result<Option<std::sync::Arc<pull::Worker>>, Refusal> {
        let Some(worker) = state.service.worker(&self.endpoint, &self.worker) else {
            return Ok(None);
        };
        let may = match worker.is_managed() {
            true => self.has_token,
            false => worker.may_speak(self.key.as_deref()),
        };
        match may {
            true => Ok(Some(worker)),
            false => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "the credential is not that worker's",
            )),
        }
    }

    /// The answer to a result or a chunk of a worker that is not known (any more). Where it was its own once, it is late
    /// (`protocols/async-endpoints.md` §5).
    ///
    /// # Errors
    /// When it never was.
    pub async fn answer_stranger(&self, state: &AppState, job: JobId) -> Result<Response, Refusal> {
        let (endpoint, key) = (&self.endpoint, self.key.as_deref());
        let service = &state.service;
        let received = service.result_of_stranger(endpoint, &self.worker, key, job).await;
        done::answer(received.map_err(|e| Refusal::from(&e))?)
    }

    /// The worker; one that comes by itself becomes known with this.
    ///
    /// # Errors
    /// When the caller may not, or no more workers are taken.
    pub async fn arrives(&self, state: &AppState) -> Result<std::sync::Arc<pull::Worker>, Refusal> {
        if let Some(worker) = self.known(state)? {
            return Ok(worker);
        }
        if self.has_token {
            return Err(Refusal::new(StatusCode::GONE, "the worker was ended"));
        }
        let arrived = state
            .service
            .worker_arrives(&self.endpoint, &self.worker, self.key.as_deref())
            .await;
        Ok(arrived?)
    }
}

fn presented(parts: &Parts) -> Option<&str> {
    let text = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(token.trim()),
        Some(_) => None,
        None => Some(text),
    }
}

fn without_query(segment: &str) -> (&str, &str) {
    segment.split_once('&').unwrap_or((segment, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_stands_in_the_path_is_found() {
        assert_eq!(
            without_query("pod-abc&job_in_progress=0"),
            ("pod-abc", "job_in_progress=0")
        );
        assert_eq!(without_query("pod-abc"), ("pod-abc", ""));
    }
}
