//! Batches as one moving image, and images that go to the client instead of to a file.

use serde_json::{Value as Json, json};

use super::{
    call::{Call, Output, Preview},
    save::texts,
};
use crate::{
    exec::Raised,
    files::{Folder, save_name::SaveName},
    pixels::{
        animation,
        encode::{Bytes8, frame_bytes},
    },
    registry::NodeKind,
};

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("SaveAnimatedPNG", save_png),
    NodeKind::new("SaveAnimatedWEBP", save_webp),
    NodeKind::new("SaveImageWebsocket", send).changes(|_, _| None),
];

/// `SaveAnimatedPNG`
fn save_png(call: &Call<'_>) -> Result<Output, Raised> {
    let level = call.size("compress_level")?.min(9) as u8;
    let output = save(call, "png", |frames, duration, texts| {
        animation::png(frames, duration, level, texts)
    })?;
    Ok(output.and(json!([true])))
}

/// `SaveAnimatedWEBP`: always without loss, whatever `lossless` says; files are larger and never worse.
fn save_webp(call: &Call<'_>) -> Result<Output, Raised> {
    let several = call.image("images")?.batch != 1;
    Ok(save(call, "webp", animation::webp)?.and(json!([several])))
}

/// `SaveImageWebsocket`: every image as PNG over the client's socket.
fn send(call: &Call<'_>) -> Result<Output, Raised> {
    let images = call.image("images")?;
    let count = images.batch as u64;
    for (step, frame) in images.frames().enumerate() {
        let bytes = frame_bytes(images, frame);
        call.progress
            .update(step as u64, count, Some(Preview::Png(&bytes)))?;
    }
    Ok(Output::default())
}

fn save(
    call: &Call<'_>,
    extension: &str,
    encode: impl Fn(&[Bytes8], u32, &[(String, String)]) -> Result<Vec<u8>, animation::Error>,
) -> Result<Output, Raised> {
    let images = call.image("images")?;
    if images.batch == 0 {
        return Err(Raised::new(
            "IndexError",
            "index 0 is out of bounds for dimension 0 with size 0",
        ));
    }
    let milliseconds = 1000.0 / call.float("fps")?;
    let now = call.host.local_time();
    let base = call.host.directories.path(Folder::Output);
    let name = SaveName::choose(
        base,
        call.text("filename_prefix")?,
        images.width,
        images.height,
        &now,
    )?;
    let mut frames = Vec::with_capacity(images.batch);
    for frame in images.frames() {
        call.progress.check()?;
        frames.push(frame_bytes(images, frame));
    }
    let bytes = encode(&frames, milliseconds as u32, &texts(call)).map_err(|error| {
        let kind = if error.is_about_channels() {
            "TypeError"
        } else {
            "OSError"
        };
        Raised::new(kind, error.to_string())
    })?;
    let file = name.single(extension);
    std::fs::write(name.directory.join(&file), bytes).map_err(|error| Raised::io(&error))?;
    let reported = json!({"filename": file, "subfolder": name.subfolder, "type": "output"});
    Ok(Output::ui("images", vec![reported]))
}

impl Output {
    /// With the `animated` flag, which the page reads.
    fn and(mut self, animated: Json) -> Output {
        self.ui
            .get_or_insert_default()
            .insert("animated".into(), animated);
        self
    }
}
