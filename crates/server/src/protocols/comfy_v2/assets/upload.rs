//! `POST /assets`: one form, whose parts come in any order; the file goes to the blob store as it comes and is hashed on its way.

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream::BoxStream};
use http::{HeaderMap, StatusCode, header};
use multer::{Field, Multipart};

use super::{
    super::{call::V2Call, error::ApiError},
    brought, refused,
    terms::Said,
};
use crate::{
    http::{Outside, drain_body},
    service::uploads::{Incoming, MAX_UPLOAD_BYTES},
    state::AppState,
};

/// Longest text of a part beside the file, in bytes.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// What the parts beside the file, and their headers, may take together, in bytes.
const MAX_BESIDE_BYTES: u64 = 1024 * 1024;

type Bytes = BoxStream<'static, Result<bytes::Bytes, axum::Error>>;

/// A received form.
#[derive(Default)]
struct Form {
    file: Option<Incoming>,
    said: Said,
}

/// The handler: 201 for new bytes, 200 for bytes that are here already.
///
/// # Errors
/// For what is no form, has no file or path, is too large, or is not what its hash says; nothing is kept then.
pub async fn handler(
    State(state): State<AppState>,
    call: V2Call,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let mut bytes: Bytes = body.into_data_stream().boxed();
    let mut form = Form::default();
    let outside = Outside::most(MAX_BESIDE_BYTES);
    let read = read(
        &state,
        &call,
        &parts.headers,
        outside.body(&mut bytes),
        &outside,
        &mut form,
    )
    .await;
    let read = match outside.is_too_much() {
        true => read.map_err(|_| too_large()),
        false => read,
    };
    // A client that is still sending would see its connection reset instead of our answer.
    if read.is_err() && !parts.headers.contains_key(header::EXPECT) {
        drain_body(Body::from_stream(bytes)).await;
    }
    let Form { file, said } = form;
    let terms = match read.and_then(|()| complete(&file, said)?.check()) {
        Ok(terms) => terms,
        Err(error) => {
            if let Some(file) = file {
                state.service.forget_incoming(file).await;
            }
            return Err(error);
        }
    };
    let Some(file) = file else {
        return Err(missing("file"));
    };
    let created = state.service.create_asset(&call.caller.tenant, file, terms).await;
    let created = created.map_err(refused)?;
    let status = match created.new_bytes {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let view = brought(&state.service, &call, created.asset, created.new_bytes);
    Ok((status, Json(view)).into_response())
}

fn complete(file: &Option<Incoming>, said: Said) -> Result<Said, ApiError> {
    match (file, &said.file_path) {
        (None, _) => Err(missing("file")),
        (_, None) => Err(missing("file_path")),
        (Some(_), Some(_)) => Ok(said),
    }
}

async fn read(
    state: &AppState,
    call: &V2Call,
    headers: &HeaderMap,
    bytes: impl Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send,
    outside: &Outside,
    form: &mut Form,
) -> Result<(), ApiError> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let announced = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_UPLOAD_BYTES + MAX_BESIDE_BYTES) {
        return Err(too_large());
    }
    let boundary = multer::parse_boundary(text(header::CONTENT_TYPE).unwrap_or_default())
        .map_err(|error| wrong(format!("the body must be multipart/form-data: {error}")))?;
    let mut parts = Multipart::new(bytes, boundary);
    while let Some(field) = parts.next_field().await.map_err(|error| broken(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "file" if form.file.is_some() => return Err(wrong("the form has two parts 'file'".to_owned())),
            "file" => {
                let file_name = field.file_name().unwrap_or("asset").to_owned();
                let bytes = outside.file(field);
                let tenant = &call.caller.tenant;
                let received = state
                    .service
                    .receive(tenant, &file_name, bytes, MAX_UPLOAD_BYTES)
                    .await?;
                form.file = Some(received);
            }
            "file_path" => form.said.file_path = Some(text_of(field).await?).filter(|path| !path.is_empty()),
            "content_type" => {
                form.said.content_type = Some(text_of(field).await?).filter(|given| !given.is_empty())
            }
            "expected_hash" => {
                // What is no hash is that of no bytes.
                let hash = text_of(field).await?.parse().map_err(|_| mismatch())?;
                form.said.expected = Some(hash);
            }
            "expires_in" => {
                let seconds = text_of(field).await?;
                // What is no number is out of bounds.
                form.said.expires_in = Some(seconds.trim().parse().unwrap_or(0));
            }
            // Tags, and whatever else.
            _ => drop(text_of(field).await?),
        }
    }
    Ok(())
}

async fn text_of(mut field: Field<'_>) -> Result<String, ApiError> {
    let mut text = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_TEXT_BYTES {
            return Err(too_large());
        }
    }
    String::from_utf8(text).map_err(|_| wrong("a part of the form is no text".to_owned()))
}

fn wrong(message: String) -> ApiError {
    ApiError::unprocessable("invalid_request", message)
}

fn missing(part: &str) -> ApiError {
    wrong(format!("the form has no part '{part}'"))
}

fn broken(error: &multer::Error) -> ApiError {
    wrong(format!("the form cannot be read: {error}"))
}

fn mismatch() -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        "hash_mismatch",
        "expected_hash is none: it is 'blake3:' and 64 hexadecimal digits",
    )
}

fn too_large() -> ApiError {
    let message = format!("a file may have {MAX_UPLOAD_BYTES} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
}
