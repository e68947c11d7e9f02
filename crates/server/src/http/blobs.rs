//! `GET`, `HEAD` `/darkroom/v1/blobs/{key}?expires=…&signature=…`: files by signed URL. Whoever has the URL may read;
//! no other credential is asked for, and none would help.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{FromRef, Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use darkroom_blobs::{
    BlobStat, Blobs, Error, content_type,
    range::{self, Asked},
    signed_url::{Method, SignatureError, Signer},
};
use darkroom_core::{BlobKey, Clock};
use futures::TryStreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use super::{RequestId, error_response};

/// What the route needs.
#[derive(Clone)]
pub struct BlobAccess {
    /// The bytes.
    pub blobs: Arc<dyn Blobs>,
    /// Checks the signatures.
    pub signer: Signer,
    /// Knows when one has expired.
    pub clock: Arc<dyn Clock>,
}

/// The route.
pub fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    BlobAccess: FromRef<S>,
{
    // axum answers HEAD by the same handler and drops the body, unread.
    Router::new().route("/darkroom/v1/blobs/{*key}", get(read))
}

async fn read(
    State(access): State<BlobAccess>,
    Path(key): Path<String>,
    method: http::Method,
    uri: Uri,
    headers: HeaderMap,
    request_id: RequestId,
) -> Response {
    let not_found = || {
        error_response(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is no such file",
            &request_id,
        )
    };
    let Ok(key) = key.parse::<BlobKey>() else {
        return not_found();
    };
    let now = access.clock.now();
    let verified = access
        .signer
        .verify(Method::Get, &key, uri.query().unwrap_or_default(), now);
    let expires_at = match verified {
        Ok(grant) => grant.expires_at,
        Err(error) => {
            let code = match error {
                SignatureError::Missing => "signature_missing",
                SignatureError::Expired => "signature_expired",
                SignatureError::Mismatch => "signature_mismatch",
            };
            return error_response(StatusCode::FORBIDDEN, code, &error.to_string(), &request_id);
        }
    };
    // Others must not keep what was given to one; and nobody longer than the link is good for.
    let cache = format!("private, max-age={}", expires_at.since(now).as_secs());
    let ask = Ask {
        method: &method,
        headers: &headers,
        file_name: key.file_name(),
        cache: &cache,
    };
    access.send(&key, ask).await.unwrap_or_else(not_found)
}

/// A request for the bytes of a blob.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// `GET` or `HEAD`.
    pub method: &'a http::Method,
    /// What the client has already, and which part it wants.
    pub headers: &'a HeaderMap,
    /// The name to save it under.
    pub file_name: &'a str,
    /// `Cache-Control` of the answer.
    pub cache: &'a str,
}

impl BlobAccess {
    /// A blob, a part of it, or that the client has it already; 503 while the blob store is away. `None`: there is no such
    /// blob.
    pub async fn send(&self, key: &BlobKey, ask: Ask<'_>) -> Option<Response> {
        match answer(&*self.blobs, key, ask).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot read a blob");
                let text = "the file cannot be read now; try again\n";
                Some(
                    (
                        StatusCode::SERVICE_UNAVAILABLE,
                        [(header::RETRY_AFTER, "1")],
                        text,
                    )
                        .into_response(),
                )
            }
        }
    }
}

async fn answer(blobs: &dyn Blobs, key: &BlobKey, ask: Ask<'_>) -> Result<Option<Response>, Error> {
    let Some(stat) = blobs.stat(key).await? else {
        return Ok(None);
    };
    let etag = etag(stat);
    let mut response = if is_known(ask.headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match part_or_whole(blobs, key, ask, stat, &etag).await? {
            Some(response) => response,
            None => return Ok(None),
        }
    };
    let answer = response.headers_mut();
    set(answer, header::ETAG, &etag);
    set(answer, header::CACHE_CONTROL, ask.cache);
    set(answer, header::ACCEPT_RANGES, "bytes");
    Ok(Some(response))
}

async fn part_or_whole(
    blobs: &dyn Blobs,
    key: &BlobKey,
    ask: Ask<'_>,
    stat: BlobStat,
    etag: &str,
) -> Result<Option<Response>, Error> {
    let asked = match ask
        .headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok())
    {
        // `If-Range` with another version: the part that was asked for is no part of this one.
        Some(_)
            if ask
                .headers
                .get(header::IF_RANGE)
                .is_some_and(|seen| seen.as_bytes() != etag.as_bytes()) =>
        {
            Asked::Whole
        }
        range => range::asked(range, stat.size),
    };
    let (status, part) = match asked {
        Asked::Whole => (StatusCode::OK, 0..stat.size),
        Asked::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Asked::Unsatisfiable => {
            let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
            let content_range = range::content_range_unsatisfiable(stat.size);
            set(response.headers_mut(), header::CONTENT_RANGE, &content_range);
            return Ok(Some(response));
        }
    };
    let Some(media_type) = media_type(blobs, key, ask.file_name).await? else {
        return Ok(None);
    };
    let body = if ask.method == http::Method::HEAD {
        Body::empty()
    } else {
        match blobs.open(key, Some(part.clone())).await? {
            Some(reader) => Body::from_stream(reader.stream),
            None => return Ok(None),
        }
    };
    let mut response = (status, body).into_response();
    let answer = response.headers_mut();
    if status == StatusCode::PARTIAL_CONTENT {
        set(
            answer,
            header::CONTENT_RANGE,
            &range::content_range(&part, stat.size),
        );
    }
    set(
        answer,
        header::CONTENT_LENGTH,
        &(part.end - part.start).to_string(),
    );
    set(answer, header::CONTENT_TYPE, content_type::as_sent(media_type));
    let disposition = content_type::disposition(media_type, ask.file_name);
    set(answer, header::CONTENT_DISPOSITION, &disposition);
    // Whatever a browser makes of the file, it runs nothing and reaches nothing.
    let policy = "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'";
    set(answer, header::CONTENT_SECURITY_POLICY, policy);
    Ok(Some(response))
}

/// By the first bytes, not only by the name.
async fn media_type(
    blobs: &dyn Blobs,
    key: &BlobKey,
    file_name: &str,
) -> Result<Option<&'static str>, Error> {
    let head_length = content_type::HEAD_BYTES as u64;
    let Some(reader) = blobs.open(key, Some(0..head_length)).await? else {
        return Ok(None);
    };
    let chunks: Vec<bytes::Bytes> = reader.stream.try_collect().await.unwrap_or_default();
    Ok(Some(content_type::of(file_name, &chunks.concat())))
}

/// A blob that is replaced gets another time or length.
fn etag(stat: BlobStat) -> String {
    format!("\"{:x}-{:x}\"", stat.modified.as_micros(), stat.size)
}

fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == etag || one == "*")
}

fn set(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
