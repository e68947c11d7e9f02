//! `/e/{endpoint}/`: ComfyUI's own page, from the operator's copy of it, with what custom nodes bring to it. It opens while
//! nothing runs.

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use darkroom_core::Endpoint;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tower::ServiceExt;
use tower_http::services::ServeDir;

use super::{
    call::{NativeCall, param},
    error::Refused,
};
use crate::{http::Ask, state::AppState};

/// Names with the hash of their content: what such a name means never changes.
const FOR_EVER: &str = "private, max-age=31536000, immutable";
const ASK_AGAIN: &str = "private, no-cache";

/// The page of every endpoint. Last in the router: whatever no protocol answers below `/e/{endpoint}/` is a file of it.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/e/{endpoint}", get(add_slash))
        .route("/e/{endpoint}/", get(index))
        .route("/e/{endpoint}/{*file}", get(file))
        .route("/assets/{*file}", get(root_asset))
}

/// The page's icons are asked for at the root, wherever it was opened: all pages have the same.
async fn root_asset(
    State(state): State<AppState>,
    mut call: NativeCall,
    request: Request,
) -> Result<Response, Refused> {
    if call.endpoint.frontend.is_none() {
        let endpoints = state.service.endpoints();
        let with_page = endpoints.values().find(|e| e.frontend.is_some());
        call.endpoint = with_page.unwrap_or(&call.endpoint).clone();
    }
    let path = request.uri().path().trim_start_matches('/').to_owned();
    send(&state, &call, &path, request).await
}

/// Addresses in the page are relative to its own.
async fn add_slash(uri: Uri) -> Redirect {
    match uri.query() {
        Some(query) => Redirect::permanent(&format!("{}/?{query}", uri.path())),
        None => Redirect::permanent(&format!("{}/", uri.path())),
    }
}

/// The page itself. A browser without a session is sent to the login form, and comes back from it.
async fn index(
    State(state): State<AppState>,
    call: Result<NativeCall, Refused>,
    request: Request,
) -> Result<Response, Refused> {
    match call {
        Ok(call) => send(&state, &call, "index.html", request).await,
        Err(refused) if refused.is_unauthenticated() && takes_html(request.headers()) => {
            let next = request.uri().path_and_query().map_or("/", |next| next.as_str());
            let next = utf8_percent_encode(next, NON_ALPHANUMERIC);
            Ok(Redirect::to(&format!("/login?next={next}")).into_response())
        }
        Err(refused) => Err(refused),
    }
}

async fn file(
    State(state): State<AppState>,
    call: NativeCall,
    Path(params): Path<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, Refused> {
    if let Some(script) = param(&params, "file").strip_prefix("extensions/") {
        let found = state.service.page_script(&call.endpoint.name, script).await;
        if let Some(found) = found.map_err(|e| call.refuse(e))? {
            let ask = Ask {
                method: request.method(),
                headers: request.headers(),
                file_name: &found.name,
                cache: ASK_AGAIN,
            };
            let sent = state.blobs.send(&found.key, ask).await;
            return Ok(sent.map_or_else(not_found, |sent| as_file_of_page(sent, &found.content_type)));
        }
    }
    // `/e/NAME/` goes; what follows stays encoded as it came.
    let path = request.uri().path().splitn(4, '/').nth(3).unwrap_or_default();
    let path = path.to_owned();
    send(&state, &call, &path, request).await
}

/// A file of the page by its (encoded) path.
async fn send(
    state: &AppState,
    call: &NativeCall,
    path: &str,
    mut request: Request,
) -> Result<Response, Refused> {
    let Some(source) = &call.endpoint.frontend else {
        return Ok(no_page(&call.endpoint, path));
    };
    let directory = match state.frontends.directory(source).await {
        Ok(directory) => directory,
        Err(error) => {
            tracing::warn!(endpoint.name = %call.endpoint.name, error = &error as &dyn std::error::Error, "the page cannot be opened");
            let why = match call.caller.operates(&call.endpoint.name) {
                true => format!("{error}\n"),
                false => "this page cannot be opened; the server's log says why\n".to_owned(),
            };
            return Ok((StatusCode::SERVICE_UNAVAILABLE, why).into_response());
        }
    };
    let is_asset = path.starts_with("assets/");
    let Ok(uri) = Uri::try_from(format!("/{path}")) else {
        return Ok(not_found());
    };
    *request.uri_mut() = uri;
    if !is_asset {
        // An older page that was put back has an older date: nobody must keep the newer one for it.
        request.headers_mut().remove(header::IF_MODIFIED_SINCE);
    }
    let served = ServeDir::new(directory)
        .precompressed_gzip()
        .oneshot(request)
        .await;
    let served: Result<_, std::convert::Infallible> = served;
    let Ok(mut response) = served.map(|response| response.map(Body::new));
    if response.status() == StatusCode::NOT_FOUND
        && let Some(nothing) = empty(path)
    {
        return Ok(nothing);
    }
    let cache = if is_asset { FOR_EVER } else { ASK_AGAIN };
    if response.status().is_success() {
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    }
    Ok(response)
}

/// What the page asks for in vain and then complains of: a style of the user's at its old place, and the list of templates,
/// which are a package of their own.
fn empty(path: &str) -> Option<Response> {
    let is_list_of_templates = path
        .strip_prefix("templates/index")
        .is_some_and(|rest| rest.ends_with(".json"));
    match path {
        "user.css" => Some(([(header::CONTENT_TYPE, "text/css")], "").into_response()),
        _ if is_list_of_templates => Some(Json(json!([])).into_response()),
        _ => None,
    }
}

fn no_page(endpoint: &Endpoint, path: &str) -> Response {
    if path != "index.html" {
        return not_found();
    }
    let text = format!(
        "The endpoint '{name}' has no page of ComfyUI yet. Download it (pip download --no-deps comfyui-frontend-package) and \
         name the file in the configuration:\n\n[endpoints.{name}]\nfrontend = \"/path/to/comfyui_frontend_package.whl\"\n",
        name = endpoint.name
    );
    (StatusCode::NOT_FOUND, text).into_response()
}

fn not_found() -> Response {
    StatusCode::NOT_FOUND.into_response()
}

/// Uploads are never scripts; what an instance of this endpoint gave its page may be.
fn as_file_of_page(mut response: Response, content_type: &str) -> Response {
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_DISPOSITION);
    headers.remove(header::CONTENT_SECURITY_POLICY);
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    response
}

fn takes_html(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}
