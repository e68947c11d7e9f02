//! S3 as far as workers' SDKs use it, under [`PATH`]: objects put whole or in parts, and addresses signed by whoever has an
//! access key, which everybody may open. Signatures, parsing and answers are `s3s`'s; what is kept is the service's.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderValue, Method, StatusCode, header};
use s3s::service::S3ServiceBuilder;

use crate::{service::objects::PATH, state::AppState};

mod access;
mod digest;
mod error;
mod surface;

use self::{
    access::{Allowed, Keys},
    surface::Surface,
};

/// Whatever a browser makes of a file, it runs nothing and reaches nothing.
const POLICY: &str =
    "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'";

/// The routes.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route(PATH, any(serve))
        .route(&format!("{PATH}/"), any(serve))
        .route(&format!("{PATH}/{{*path}}"), any(serve))
}

async fn serve(State(state): State<AppState>, request: Request) -> Response {
    if is_form(&request) {
        // Uploads by HTML forms are not offered, and such a body would be read and searched before anybody is asked who sent it.
        return StatusCode::NOT_IMPLEMENTED.into_response();
    }
    let mut builder = S3ServiceBuilder::new(Surface(state.service.clone()));
    builder.set_auth(Keys(state));
    builder.set_access(Allowed);
    let request = request.map(s3s::Body::http_body_unsync);
    match builder.build().call(request).await {
        Ok(response) => {
            let mut response = response.map(Body::new);
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
            headers
                .entry(header::CACHE_CONTROL)
                .or_insert(HeaderValue::from_static("private, no-cache"));
            response
        }
        Err(error) => {
            tracing::error!(error = ?error, "an answer of the S3 surface could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn is_form(request: &Request) -> bool {
    let mut types = request.headers().get_all(header::CONTENT_TYPE).iter();
    let multipart = |value: &HeaderValue| value.as_bytes().to_ascii_lowercase().starts_with(b"multipart/");
    request.method() == Method::POST && types.any(multipart)
}
