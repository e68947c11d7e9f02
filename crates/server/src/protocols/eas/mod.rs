//! PAI-EAS's asynchronous queue service (`protocols/eas-queue.md`): the input and the sink of a service as queues, and
//! workflows that are posted to `api_prompt`, or requests that are replayed on an instance.
//!
//! Which operation a request means is said by its method and by query keys of the form `_name_`; every other key is a tag.

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use darkroom_core::endpoint::Kind;
use http::{HeaderName, HeaderValue, Method};

use crate::{
    service::queues::{OpenQueue, Side},
    state::AppState,
};

mod attributes;
mod call;
mod codec;
mod commit;
mod error;
mod get_items;
mod outputs;
mod posted;
mod prompt;
mod put;
mod query;
mod remove;
mod replay;
mod search;
mod watch;
mod work;

use self::{
    call::{EasCall, service_name},
    error::{EasError, Refused},
};

/// The header that says which request an answer belongs to; the Python SDK reads it from the answer to a put.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-eas-queueservice-request-id");

/// The routes. A service's name is one segment of the path, so nothing lies below `/e/{endpoint}`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/predict/{service}", any(input))
        .route("/api/predict/{service}/", any(input))
        .route("/api/predict/{service}/sink", any(sink))
        .route("/api/predict/{service}/sink/", any(sink))
        .route(
            "/api/predict/{service}/api_prompt",
            post(prompt::handler).fallback(other_than_post),
        )
        .route(
            "/api/predict/{service}/output/{*name}",
            get(outputs::handler).fallback(other_than_get),
        )
        .route("/api/predict/{service}/{*path}", any(elsewhere))
        // The handlers measure by themselves, so that a refusal has the protocol's shape.
        .layer(DefaultBodyLimit::disable())
}

/// Stands before routes that other protocols have below a service's address: where its instances are programs of
/// somebody's own, those paths are theirs.
pub async fn before_routes_of_others(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let name = service_name(&mut parts, &state).await;
    let service = state.service.service_named(&name);
    if !service.is_ok_and(|endpoint| endpoint.kind == Kind::Worker) {
        return next.run(Request::from_parts(parts, body)).await;
    }
    match EasCall::from_request_parts(&mut parts, &state).await {
        Ok(call) => elsewhere(State(state), call, Request::from_parts(parts, body))
            .await
            .into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn input(State(state): State<AppState>, call: EasCall, request: Request) -> Result<Response, Refused> {
    serve(state, call, Side::Input, request).await
}

async fn sink(State(state): State<AppState>, call: EasCall, request: Request) -> Result<Response, Refused> {
    serve(state, call, Side::Sink, request).await
}

async fn other_than_post(
    state: State<AppState>,
    call: EasCall,
    request: Request,
) -> Result<Response, Refused> {
    match call.endpoint.kind == Kind::Worker {
        true => elsewhere(state, call, request).await,
        false => Err(call.refuse(EasError::method_not_allowed("POST"))),
    }
}

async fn other_than_get(
    state: State<AppState>,
    call: EasCall,
    request: Request,
) -> Result<Response, Refused> {
    match call.endpoint.kind == Kind::Worker {
        true => elsewhere(state, call, request).await,
        false => Err(call.refuse(EasError::method_not_allowed("GET"))),
    }
}

/// Any other path is for the program on an instance: what is posted to it is replayed there. Everything else that a client
/// does at such an address is meant for the input, where the request's item stands.
async fn elsewhere(
    State(state): State<AppState>,
    call: EasCall,
    request: Request,
) -> Result<Response, Refused> {
    let queue = OpenQueue::new(&call.caller.tenant, call.endpoint.clone(), Side::Input);
    let is_put = *request.method() == Method::POST && !call.query.flag("_eos_");
    if !queue.takes_requests() && !queue.takes_work() {
        return Err(call.refuse(EasError::not_found(format!(
            "service '{}' has no such path: there are sink, api_prompt and output; other paths are for services of kind \
             \"worker\"",
            call.endpoint.name
        ))));
    }
    if !is_put && !call.query.is_for_a_queue() {
        return Err(call.refuse(EasError::method_not_allowed("POST")));
    }
    serve(state, call, Side::Input, request).await
}

async fn serve(state: AppState, call: EasCall, side: Side, request: Request) -> Result<Response, Refused> {
    let side = match call.rear {
        true => side.rear().unwrap_or(side),
        false => side,
    };
    let queue = OpenQueue::new(&call.caller.tenant, call.endpoint.clone(), side);
    let query = &call.query;
    let answer = match *request.method() {
        Method::POST if query.flag("_eos_") => remove::end(&state, &queue, &call).await,
        Method::POST if queue.takes_requests() => replay::replay(&state, &queue, &call, request).await,
        Method::POST if queue.takes_work() => work::work(&state, &queue, &call, request).await,
        Method::POST => put::put(&state, &queue, &call, request).await,
        Method::PUT => commit::commit(&state, &queue, &call, request).await,
        Method::DELETE => remove::remove(&state, &queue, &call).await,
        Method::GET if query.flag("_watch_") => watch::watch(&state, &queue, &call, request).await,
        Method::GET if query.flag("_attrs_") => attributes::attributes(&state, &queue, &call).await,
        Method::GET if query.flag("_search_") => search::search(&state, &queue, &call).await,
        Method::GET if query.flag("_count_") => search::count(&state, &queue, &call).await,
        Method::GET => get_items::get(&state, &queue, &call).await,
        _ => Err(EasError::method_not_allowed("GET, POST, PUT, DELETE")),
    };
    let mut response = answer.map_err(|error| call.refuse(error))?;
    named(&mut response, call.caller.request_id.as_str());
    Ok(response)
}

/// Says which request an answer belongs to, unless it says so already.
fn named(response: &mut Response, request_id: &str) {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().entry(REQUEST_ID).or_insert(value);
    }
}

/// The answer to what was done and has nothing to say.
const DONE: &str = "OK";
