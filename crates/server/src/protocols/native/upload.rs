//! `POST /upload/image` and `/upload/mask`: files that graphs of this endpoint can name from then on, whichever instance
//! runs them (`comfyui/behaviour.md` §10).

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, Multipart, Request, State, multipart::Field},
    response::{IntoResponse, Response},
};
use darkroom_core::EndpointName;
use futures::StreamExt;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{
    call::NativeCall,
    error::{NativeError, Refused},
    view::{self, Wanted},
};
use crate::{
    http::{Outside, drain_body},
    service::{
        Service,
        folders::{Folder, inside, join},
        uploads::{Incoming, MAX_UPLOAD_BYTES, Place},
    },
    state::AppState,
};

/// Longest text of a field beside the file, in bytes.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Fields that mean nothing here are read past up to this, in bytes.
const MAX_IGNORED_BYTES: usize = 1024 * 1024;

/// A received form.
#[derive(Default)]
struct Form {
    image: Option<(String, Incoming)>,
    folder: Option<String>,
    subfolder: String,
    overwrite: bool,
    original: Option<String>,
}

/// The image a mask belongs to.
#[derive(Deserialize)]
struct Original {
    filename: String,
    #[serde(rename = "type")]
    folder: Option<String>,
    subfolder: Option<String>,
}

/// `POST /upload/image`
///
/// # Errors
/// For what is no form, has no file, or leaves its folder.
pub async fn image(
    State(state): State<AppState>,
    call: NativeCall,
    request: Request,
) -> Result<Response, Refused> {
    let mut form = receive(&state, &call, request).await?;
    let image = form.image.take();
    keep(&state, &call, &form, image).await
}

/// `POST /upload/mask`: the upload's alpha put over the original. Where the original is missing, nothing is kept and the
/// answer is the same, as in ComfyUI.
///
/// # Errors
/// As [`image`], and without a readable `original_ref`.
pub async fn mask(
    State(state): State<AppState>,
    call: NativeCall,
    request: Request,
) -> Result<Response, Refused> {
    let mut form = receive(&state, &call, request).await?;
    let Some((name, mask)) = form.image.take() else {
        return keep(&state, &call, &form, None).await;
    };
    let combined = combine(&state, &call, &form, &name, &mask).await;
    state.service.forget_incoming(mask).await;
    match combined? {
        Some(combined) => keep(&state, &call, &form, Some((name, combined))).await,
        None => Ok(answer(&name, &form, Folder::Input)),
    }
}

async fn combine(
    state: &AppState,
    call: &NativeCall,
    form: &Form,
    name: &str,
    mask: &Incoming,
) -> Result<Option<Incoming>, Refused> {
    let bad = |details: String| {
        call.refuse(NativeError::invalid(
            "invalid_request",
            "original_ref cannot be read",
            details,
        ))
    };
    let original = form
        .original
        .as_deref()
        .ok_or_else(|| bad("it is missing".into()))?;
    let original: Original = serde_json::from_str(original).map_err(|e| bad(e.to_string()))?;
    let wanted = Wanted::of(original.filename, original.folder, original.subfolder);
    let Ok((folder, path)) = wanted.place() else {
        return Ok(None);
    };
    let Some(found) = view::find(state, call, folder, &path).await? else {
        return Ok(None);
    };
    let combined = state.service.with_alpha_of(&found.key, mask.key()).await;
    let Some(png) = combined.map_err(|e| call.refuse(e))? else {
        return Ok(None);
    };
    let stream = futures::stream::iter([Ok(png)]).boxed();
    let received = state
        .service
        .receive(&call.caller.tenant, name, stream, u64::MAX)
        .await;
    received.map(Some).map_err(|e| call.refuse(e))
}

async fn receive(state: &AppState, call: &NativeCall, request: Request) -> Result<Form, Refused> {
    let announced = request
        .headers()
        .get(http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_UPLOAD_BYTES + MAX_IGNORED_BYTES as u64) {
        drain_body(request.into_body()).await;
        return Err(call.refuse(too_large()));
    }
    let outside = Outside::most(MAX_IGNORED_BYTES as u64);
    let request = request.map(|body| Body::from_stream(outside.body(body.into_data_stream())));
    let multipart = Multipart::from_request(request, state).await;
    let multipart = multipart.map_err(|e| {
        call.refuse(NativeError::invalid(
            "invalid_request",
            "the form cannot be read",
            e.body_text(),
        ))
    })?;
    let mut form = Form::default();
    let read = read(&state.service, call, multipart, &outside, &mut form).await;
    let read = match outside.is_too_much() {
        true => read.map_err(|_| too_large()),
        false => read,
    };
    match read {
        Ok(()) => Ok(form),
        Err(error) => {
            if let Some((_, incoming)) = form.image {
                state.service.forget_incoming(incoming).await;
            }
            Err(call.refuse(error))
        }
    }
}

async fn read(
    service: &Service,
    call: &NativeCall,
    mut multipart: Multipart,
    outside: &Outside,
    form: &mut Form,
) -> Result<(), NativeError> {
    while let Some(field) = multipart.next_field().await.map_err(|e| broken(&e))? {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "image" if form.image.is_some() => {
                let why = "the form has two fields 'image'";
                return Err(NativeError::invalid("invalid_request", why, ""));
            }
            "image" => {
                let Some(filename) = field.file_name().map(str::to_owned) else {
                    let why = "the field 'image' has no file name";
                    return Err(NativeError::invalid("invalid_request", why, ""));
                };
                // It goes to the blob store as it comes: memory does not grow with it.
                let bytes = outside.file(field);
                let received = service
                    .receive(&call.caller.tenant, &filename, bytes, MAX_UPLOAD_BYTES)
                    .await?;
                form.image = Some((filename, received));
            }
            "type" => form.folder = Some(text(field).await?),
            "subfolder" => form.subfolder = text(field).await?,
            "overwrite" => form.overwrite = matches!(&*text(field).await?, "true" | "1"),
            "original_ref" => form.original = Some(text(field).await?),
            _ => {
                bounded(field, MAX_IGNORED_BYTES, false).await?;
            }
        }
    }
    Ok(())
}

async fn text(field: Field<'_>) -> Result<String, NativeError> {
    let bytes = bounded(field, MAX_TEXT_BYTES, true).await?;
    String::from_utf8(bytes)
        .map_err(|_| NativeError::invalid("invalid_request", "a field of the form is not text", ""))
}

async fn bounded(mut field: Field<'_>, most: usize, keep: bool) -> Result<Vec<u8>, NativeError> {
    let (mut kept, mut length) = (Vec::new(), 0);
    while let Some(chunk) = field.chunk().await.map_err(|e| broken(&e))? {
        length += chunk.len();
        if length > most {
            return Err(too_large());
        }
        if keep {
            kept.extend_from_slice(&chunk);
        }
    }
    Ok(kept)
}

fn broken(error: &axum::extract::multipart::MultipartError) -> NativeError {
    NativeError::invalid("invalid_request", "the form cannot be read", error.body_text())
}

fn too_large() -> NativeError {
    let message = format!("Maximum request body size {MAX_UPLOAD_BYTES} exceeded.");
    NativeError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message, "")
}

async fn keep(
    state: &AppState,
    call: &NativeCall,
    form: &Form,
    image: Option<(String, Incoming)>,
) -> Result<Response, Refused> {
    let Some((name, incoming)) = image else {
        return Ok(StatusCode::BAD_REQUEST.into_response());
    };
    let (folder, directory, name) = match place(form, &name) {
        Ok(place) => place,
        Err(misplaced) => {
            state.service.forget_incoming(incoming).await;
            return match misplaced {
                Misplaced::Escapes => Ok(StatusCode::BAD_REQUEST.into_response()),
                Misplaced::NoSuchFolder => {
                    let message = "the type is none of input, output, temp";
                    Err(call.refuse(NativeError::invalid("invalid_request", message, "")))
                }
            };
        }
    };
    // Callers without a key share a tenant: what one of them brings, others must not find by guessing.
    let listed = call.caller.may_list(&call.endpoint.name).is_ok();
    let name = match listed {
        true => name,
        false => state.service.unguessable_name(&name),
    };
    let endpoint: &EndpointName = &call.endpoint.name;
    let to = Place {
        tenant: &call.caller.tenant,
        endpoint,
        folder,
        path: &join(&directory, &name),
    };
    let kept = state.service.keep_upload(to, incoming, form.overwrite).await;
    let path = kept.map_err(|e| call.refuse(e))?;
    let below = path
        .strip_prefix(&directory)
        .map_or(path.as_str(), |rest| rest.trim_start_matches('/'));
    Ok(answer(below, form, folder))
}

/// Why a file has no place.
#[derive(Debug, PartialEq)]
enum Misplaced {
    NoSuchFolder,
    /// Refused without a word, as ComfyUI does.
    Escapes,
}

/// Folder, directory there, and path below that.
fn place(form: &Form, name: &str) -> Result<(Folder, String, String), Misplaced> {
    let folder = form.folder.as_deref().unwrap_or("input");
    let folder = Folder::parse(folder).ok_or(Misplaced::NoSuchFolder)?;
    let directory = inside(folder.as_str(), &form.subfolder).ok_or(Misplaced::Escapes)?;
    let name = inside("here", name).filter(|name| !name.is_empty());
    let name = name.ok_or(Misplaced::Escapes)?;
    inside(folder.as_str(), &join(&directory, &name)).ok_or(Misplaced::Escapes)?;
    Ok((folder, directory, name))
}

fn answer(name: &str, form: &Form, folder: Folder) -> Response {
    Json(json!({ "name": name, "subfolder": form.subfolder, "type": folder.as_str() })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_stay_in_their_folder() {
        let form = |folder: Option<&str>, subfolder: &str| Form {
            folder: folder.map(str::to_owned),
            subfolder: subfolder.to_owned(),
            ..Form::default()
        };
        let placed = place(&form(None, "a/b"), "图 1.png").unwrap();
        assert_eq!(placed, (Folder::Input, "a/b".to_owned(), "图 1.png".to_owned()));
        let placed = place(&form(Some("temp"), ""), "sub/x.png")
            .map_err(|_| ())
            .unwrap();
        assert_eq!(placed, (Folder::Temp, String::new(), "sub/x.png".to_owned()));
        for (subfolder, name) in [
            ("../..", "x.png"),
            ("/tmp", "x.png"),
            ("", "../x.png"),
            ("a", "../../x.png"),
            ("", "/etc/x"),
            ("", "."),
            ("", "a\0"),
        ] {
            assert!(
                place(&form(None, subfolder), name) == Err(Misplaced::Escapes),
                "{subfolder} {name}"
            );
        }
        assert!(place(&form(Some("bogus"), ""), "x.png") == Err(Misplaced::NoSuchFolder));
    }
}
