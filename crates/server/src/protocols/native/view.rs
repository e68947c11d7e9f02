//! `GET /view`: an upload or what a job made, as it is or converted (`comfyui/behaviour.md` §10). From the blob store, so
//! also when the instance that made it is gone.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use darkroom_comfy::wire::Conversion;
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;

use super::{
    call::NativeCall,
    error::{NativeError, Refused},
};
use crate::{
    http::Ask,
    service::{
        folders::{Folder, inside, join, split_annotation},
        view::{FoundFile, Seeker},
    },
    state::AppState,
};

/// The query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    filename: Option<String>,
    #[serde(rename = "type")]
    folder: Option<String>,
    subfolder: Option<String>,
    preview: Option<String>,
    channel: Option<String>,
}

/// A browser asks again each time whether the file is still the same: an upload may be overwritten.
const CACHE: &str = "private, no-cache";

/// The handler.
///
/// # Errors
/// What is no picture and is to be converted; a store that is away.
pub async fn handler(
    State(state): State<AppState>,
    call: NativeCall<Wanted>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let (folder, path) = match call.query.place() {
        Ok(place) => place,
        Err(status) => return Ok(status.into_response()),
    };
    let found = find(&state, &call, folder, &path).await?;
    let Some(found) = found else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let wanted = &call.query;
    let answer = match Conversion::choose(wanted.preview.as_deref(), wanted.channel.as_deref()) {
        None => {
            let ask = Ask {
                method: &method,
                headers: &headers,
                file_name: &found.name,
                cache: CACHE,
            };
            state.blobs.send(&found.key, ask).await
        }
        Some(conversion) => {
            let converted = state.service.converted(&found.key, conversion).await;
            let converted = converted.map_err(|e| call.refuse(NativeError::from(e)))?;
            converted.map(|(media_type, bytes)| {
                let headers = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, CACHE)];
                (headers, bytes).into_response()
            })
        }
    };
    Ok(answer.unwrap_or_else(|| StatusCode::NOT_FOUND.into_response()))
}

/// A file that this caller may see.
pub(super) async fn find<Q>(
    state: &AppState,
    call: &NativeCall<Q>,
    folder: Folder,
    path: &str,
) -> Result<Option<FoundFile>, Refused> {
    let caller = &call.caller;
    let seeker = Seeker {
        tenant: &caller.tenant,
        visible: caller.visible_tenant(),
        lists: caller.may_list(&call.endpoint.name).is_ok(),
    };
    state
        .service
        .find_file(seeker, &call.endpoint.name, folder, path)
        .await
        .map_err(|e| call.refuse(e))
}

impl Wanted {
    /// A file by the three words that name one.
    pub(super) fn of(filename: String, folder: Option<String>, subfolder: Option<String>) -> Self {
        Wanted {
            filename: Some(filename),
            folder,
            subfolder,
            ..Wanted::default()
        }
    }

    /// Folder and path, or the status of a refusal.
    pub(super) fn place(&self) -> Result<(Folder, String), StatusCode> {
        let filename = self.filename.as_deref().ok_or(StatusCode::NOT_FOUND)?;
        let (name, annotated) = split_annotation(filename);
        if name.is_empty() || name.starts_with('/') || name.contains("..") {
            return Err(StatusCode::BAD_REQUEST);
        }
        let named = || Folder::parse(self.folder.as_deref().unwrap_or("output"));
        let folder = annotated.or_else(named).ok_or(StatusCode::BAD_REQUEST)?;
        let subfolder = self.subfolder.as_deref().unwrap_or_default();
        let directory = inside(folder.as_str(), subfolder).ok_or(StatusCode::FORBIDDEN)?;
        // As in ComfyUI, folders in the name do not count.
        let name = name.rsplit('/').next().unwrap_or(name);
        let path = inside(folder.as_str(), &join(&directory, name)).filter(|path| *path != directory);
        Ok((folder, path.ok_or(StatusCode::BAD_REQUEST)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(
        filename: Option<&str>,
        folder: Option<&str>,
        subfolder: Option<&str>,
    ) -> Result<(Folder, String), StatusCode> {
        Wanted {
            filename: filename.map(str::to_owned),
            folder: folder.map(str::to_owned),
            subfolder: subfolder.map(str::to_owned),
            ..Wanted::default()
        }
        .place()
    }

    #[test]
    fn files_are_named_as_comfyui_names_them() {
        for (filename, folder, subfolder, is) in [
            ("a.png", None, None, (Folder::Output, "a.png")),
            ("a.png", Some("temp"), Some("s/t/"), (Folder::Temp, "s/t/a.png")),
            ("a.png [input]", Some("temp"), Some(""), (Folder::Input, "a.png")),
            ("sub/a.png", Some("input"), None, (Folder::Input, "a.png")),
            (
                "a.png",
                Some("input"),
                Some("../input/sub"),
                (Folder::Input, "sub/a.png"),
            ),
        ] {
            let found = place(Some(filename), folder, subfolder);
            assert_eq!(found, Ok((is.0, is.1.to_owned())), "{filename} {subfolder:?}");
        }
        for (filename, folder, subfolder, status) in [
            (None, None, None, 404),
            (Some(""), None, None, 400),
            (Some("../a.png"), None, None, 400),
            (Some("/etc/passwd"), None, None, 400),
            (Some("a\\..\\b"), None, None, 400),
            (Some("a\0.png"), None, None, 400),
            (Some("a.png"), Some("bogus"), None, 400),
            (Some("a.png"), Some("input"), Some("../.."), 403),
            (Some("a.png"), Some("input"), Some("/etc"), 403),
            (Some("sub/"), Some("input"), None, 400),
        ] {
            let refused = place(filename, folder, subfolder).unwrap_err();
            assert_eq!(refused.as_u16(), status, "{filename:?} {folder:?} {subfolder:?}");
        }
    }
}
