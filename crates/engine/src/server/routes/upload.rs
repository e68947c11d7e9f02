//! `/upload/image` and `/upload/mask`: files into the instance's directories.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Multipart, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        Engine,
        body::{BadRequest, too_large},
    },
    Shared,
};
use crate::{
    files::{Directories, Folder, inside, split_annotation},
    pixels::{decode, encode},
};

/// Names tried for a file whose name is taken by other bytes.
const MAX_TWINS: usize = 10_000;

/// A received form.
#[derive(Default)]
struct Form {
    image: Option<(String, Bytes)>,
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
    #[serde(default)]
    subfolder: String,
}

/// `POST /upload/image`
pub async fn image(State(engine): Shared, form: Multipart) -> Response {
    let form = match read(&engine, form).await {
        Ok(form) => form,
        Err(refusal) => return refusal,
    };
    store(engine, form, |_, _, bytes| Ok(Some(bytes))).await
}

/// `POST /upload/mask`: the upload's alpha put over the original. Where the original is missing, nothing is written and
/// the answer is the same, as in ComfyUI.
pub async fn mask(State(engine): Shared, form: Multipart) -> Response {
    let form = match read(&engine, form).await {
        Ok(form) => form,
        Err(refusal) => return refusal,
    };
    store(engine, form, masked).await
}

async fn read(engine: &Engine, mut multipart: Multipart) -> Result<Form, Response> {
    let mut form = Form::default();
    let refuse = |error: axum::extract::multipart::MultipartError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(engine.max_upload_bytes),
        _ => BadRequest(format!("the form cannot be read: {}", error.body_text())).into_response(),
    };
    while let Some(field) = multipart.next_field().await.map_err(refuse)? {
        let name = field.name().unwrap_or_default().to_owned();
        let filename = field.file_name().map(str::to_owned);
        match name.as_str() {
            "image" => {
                let Some(filename) = filename else {
                    return Err(BadRequest("the field 'image' has no file name".into()).into_response());
                };
                form.image = Some((filename, field.bytes().await.map_err(refuse)?));
            }
            "type" => form.folder = Some(field.text().await.map_err(refuse)?),
            "subfolder" => form.subfolder = field.text().await.map_err(refuse)?,
            "overwrite" => form.overwrite = matches!(&*field.text().await.map_err(refuse)?, "true" | "1"),
            "original_ref" => form.original = Some(field.text().await.map_err(refuse)?),
            _ => {}
        }
    }
    Ok(form)
}

/// What becomes of the uploaded bytes before they are written; `None`: nothing is written.
type Change = fn(&Directories, &Form, Bytes) -> Result<Option<Bytes>, BadRequest>;

async fn store(engine: Arc<Engine>, mut form: Form, change: Change) -> Response {
    let Some((filename, bytes)) = form.image.take().filter(|(name, _)| !name.is_empty()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let work = move || -> Result<Option<Value>, BadRequest> {
        let directories = &engine.host.directories;
        let named = form.folder.as_deref().unwrap_or("input");
        let folder = Folder::parse(named).ok_or_else(|| BadRequest(format!("'{named}' is not a folder")))?;
        let base = directories.path(folder);
        let Some(directory) = inside(base, Path::new(&form.subfolder)) else {
            return Ok(None);
        };
        let Some(path) = inside(&directory, Path::new(&filename)).filter(|path| *path != directory) else {
            return Ok(None);
        };
        let name = match change(directories, &form, bytes)? {
            None => filename,
            Some(bytes) => {
                let failed = |error: io::Error| BadRequest(format!("cannot store '{filename}': {error}"));
                std::fs::create_dir_all(&directory).map_err(failed)?;
                let stored = write(&path, &bytes, form.overwrite).map_err(failed)?;
                // The name as sent, with the last part replaced where a twin was made.
                let last = stored
                    .file_name()
                    .map(|n| n.to_string_lossy().into_owned())
                    .unwrap_or_default();
                match filename.rsplit_once('/') {
                    Some((parent, _)) => format!("{parent}/{last}"),
                    None => last,
                }
            }
        };
        Ok(Some(
            json!({"name": name, "subfolder": form.subfolder, "type": folder.name()}),
        ))
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(Some(reply))) => Json(reply).into_response(),
        Ok(Ok(None)) => StatusCode::BAD_REQUEST.into_response(),
        Ok(Err(error)) => error.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Writes under `path`, or under `name (1).ext` and so on where other bytes have the name. Equal bytes are not written twice.
fn write(path: &Path, bytes: &[u8], overwrite: bool) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    if !overwrite {
        let stem = path
            .file_stem()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default();
        let extension = path
            .extension()
            .map(|e| format!(".{}", e.to_string_lossy()))
            .unwrap_or_default();
        let mut twin = 0;
        while target.exists() {
            if has_content(&target, bytes)? {
                return Ok(target);
            }
            twin += 1;
            if twin > MAX_TWINS {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "too many files of this name",
                ));
            }
            target = path.with_file_name(format!("{stem} ({twin}){extension}"));
        }
    }
    std::fs::write(&target, bytes)?;
    Ok(target)
}

fn has_content(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    Ok(std::fs::metadata(path)?.len() == bytes.len() as u64 && std::fs::read(path)? == bytes)
}

/// The original with the alpha of the upload, as PNG.
fn masked(directories: &Directories, form: &Form, bytes: Bytes) -> Result<Option<Bytes>, BadRequest> {
    let bad = |what: &str| BadRequest(format!("original_ref {what}"));
    let original = form.original.as_deref().ok_or_else(|| bad("is missing"))?;
    let original: Original =
        serde_json::from_str(original).map_err(|error| bad(&format!("is not valid: {error}")))?;
    let (name, annotated) = split_annotation(&original.filename);
    let folder = annotated.or_else(|| Folder::parse(original.folder.as_deref().unwrap_or("output")));
    let path = folder
        .filter(|_| !name.is_empty() && !name.starts_with('/') && !name.contains(".."))
        .and_then(|folder| inside(directories.path(folder), Path::new(&original.subfolder)))
        .zip(Path::new(name).file_name())
        .map(|(directory, name)| directory.join(name));
    let Some(path) = path.filter(|path| path.is_file()) else {
        return Ok(None);
    };
    let unreadable =
        |error: &dyn std::fmt::Display| BadRequest(format!("cannot combine the images: {error}"));
    let under = std::fs::read(path).map_err(|error| unreadable(&error))?;
    let under = decode::frames(&under)
        .map_err(|error| unreadable(&error))?
        .swap_remove(0);
    let over = decode::frames(&bytes)
        .map_err(|error| unreadable(&error))?
        .swap_remove(0);
    if (over.width, over.height) != (under.width, under.height) {
        return Err(BadRequest(
            "the mask does not have the size of the original".into(),
        ));
    }
    let alpha = over.rgba_alpha();
    let pixels = under
        .rgb
        .chunks_exact(3)
        .zip(alpha)
        .flat_map(|(p, a)| [p[0], p[1], p[2], a])
        .collect();
    let (width, height) = (under.width as u32, under.height as u32);
    let combined = encode::Bytes8 {
        width,
        height,
        channels: 4,
        pixels,
    };
    let png = encode::png(&combined, 4, &[]).map_err(|error| unreadable(&error))?;
    Ok(Some(png.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_under_a_taken_name_get_a_twin() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("up1.png");
        let name = |bytes: &[u8], overwrite| {
            let stored = write(&path, bytes, overwrite).unwrap();
            stored.file_name().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(name(b"a", false), "up1.png");
        assert_eq!(name(b"a", false), "up1.png");
        assert_eq!(name(b"b", false), "up1 (1).png");
        assert_eq!(name(b"b", false), "up1 (1).png");
        assert_eq!(name(b"c", true), "up1.png");
        assert_eq!(std::fs::read(&path).unwrap(), b"c");
    }
}
