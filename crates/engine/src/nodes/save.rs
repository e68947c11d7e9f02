//! Images to files.

use serde_json::{Value as Json, json};

use super::call::{Call, Output};
use crate::{
    exec::Raised,
    files::{Folder, save_name::SaveName},
    pixels::encode,
    value::{Image, python},
};

/// The zlib level of an image that is kept.
pub const SAVE_LEVEL: u8 = 4;
/// The zlib level of an image that is looked at once.
const PREVIEW_LEVEL: u8 = 1;

/// `SaveImage`: numbered PNGs in the output directory.
pub fn save_image(call: &Call<'_>) -> Result<Output, Raised> {
    let prefix = call.text("filename_prefix")?;
    save(call, call.image("images")?, Folder::Output, prefix, SAVE_LEVEL)
}

/// `PreviewImage`: PNGs in the temporary directory, under a name of this node's own.
pub fn preview_image(call: &Call<'_>) -> Result<Output, Raised> {
    let suffix = call.object.suffix(&*call.host.ids);
    save(
        call,
        call.image("images")?,
        Folder::Temp,
        &format!("ComfyUI_temp_{suffix}"),
        PREVIEW_LEVEL,
    )
}

/// Writes every frame of `images` and reports the files.
pub fn save(
    call: &Call<'_>,
    images: &Image,
    folder: Folder,
    prefix: &str,
    level: u8,
) -> Result<Output, Raised> {
    if images.batch == 0 {
        return Err(Raised::new(
            "IndexError",
            "index 0 is out of bounds for dimension 0 with size 0",
        ));
    }
    let now = call.host.local_time();
    let base = call.host.directories.path(folder);
    let name = SaveName::choose(base, prefix, images.width, images.height, &now)?;
    let texts = texts(call);
    let mut reported = Vec::with_capacity(images.batch);
    for (index, frame) in images.frames().enumerate() {
        let bytes = encode::png_of_frame(images, frame, level, &texts).map_err(|error| {
            let kind = if matches!(error, encode::Error::Channels { .. }) {
                "TypeError"
            } else {
                "OSError"
            };
            Raised::new(kind, error.to_string())
        })?;
        let file = name.file(index);
        std::fs::write(name.directory.join(&file), bytes).map_err(|error| Raised::io(&error))?;
        reported.push(json!({"filename": file, "subfolder": name.subfolder, "type": folder.name()}));
    }
    Ok(Output::ui("images", reported))
}

/// The graph and what else the page wants to find again in the file.
pub fn texts(call: &Call<'_>) -> Vec<(String, String)> {
    if !call.host.embed_metadata {
        return Vec::new();
    }
    let mut texts = vec![("prompt".to_owned(), python::dumps(&call.graph.to_value()))];
    if let Some(Json::Object(extra)) = call.extra_data.get("extra_pnginfo") {
        texts.extend(
            extra
                .iter()
                .filter(|(key, _)| is_keyword(key))
                .map(|(k, v)| (k.clone(), python::dumps(v))),
        );
    }
    texts
}

/// A PNG keyword has 1 to 79 Latin-1 characters; any other key cannot be written and is left out.
fn is_keyword(key: &str) -> bool {
    (1..=79).contains(&key.chars().count()) && key.chars().all(|c| ('\u{20}'..='\u{ff}').contains(&c))
}
