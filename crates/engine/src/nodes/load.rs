//! Files to images and masks.

use std::{io::Read, path::PathBuf};

use darkroom_comfy::graph::validate::{Literals, Refusal};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::call::{Call, Inputs, Output};
use crate::{
    exec::Raised,
    files::Directories,
    pixels::{
        decode::{self, Frame},
        from_byte,
    },
    registry::existing_file,
    value::{Image, Mask, Value, reserve},
};

/// Side of the empty mask that stands for "no alpha", whatever the size of the image.
const NO_MASK_SIDE: usize = 64;

/// `LoadImage`: all frames of the first one's size, and 1 - alpha as mask.
pub fn load_image(call: &Call<'_>) -> Result<Output, Raised> {
    let (image, mask) = loaded(&read(call)?)?;
    Ok(Output::values([image.into(), mask.into()]))
}

/// The frames of the first one's size as a batch, with their masks.
pub fn loaded(frames: &[Frame]) -> Result<(Image, Mask), Raised> {
    let (width, height) = (frames[0].width, frames[0].height);
    let frames: Vec<&Frame> = frames
        .iter()
        .filter(|f| (f.width, f.height) == (width, height))
        .collect();
    let mut data = reserve(&[frames.len(), height, width, 3])?;
    for frame in &frames {
        data.extend(frame.rgb.iter().map(|byte| from_byte(*byte)));
    }
    let has_alpha = frames.iter().any(|frame| frame.alpha.is_some());
    let (mask_width, mask_height) = if has_alpha {
        (width, height)
    } else {
        (NO_MASK_SIDE, NO_MASK_SIDE)
    };
    let mut mask = Vec::with_capacity(frames.len() * mask_width * mask_height);
    for frame in &frames {
        match &frame.alpha {
            Some(alpha) => mask.extend(alpha.iter().map(|byte| 1.0 - from_byte(*byte))),
            None => mask.extend(std::iter::repeat_n(0.0, mask_width * mask_height)),
        }
    }
    let batch = frames.len();
    let image = Image {
        batch,
        height,
        width,
        channels: 3,
        data,
    };
    let mask = Mask {
        batch,
        height: mask_height,
        width: mask_width,
        data: mask,
    };
    Ok((image, mask))
}

/// `LoadImageMask`: one band of the first frame; alpha inverted, colours as they are.
pub fn load_image_mask(call: &Call<'_>) -> Result<Output, Raised> {
    let frame = read(call)?.swap_remove(0);
    let band = |at: usize| frame.rgb.chunks_exact(3).map(|p| from_byte(p[at])).collect();
    let data = match call.text("channel")? {
        "red" => band(0),
        "green" => band(1),
        "blue" => band(2),
        _ => frame
            .rgba_alpha()
            .iter()
            .map(|byte| 1.0 - from_byte(*byte))
            .collect(),
    };
    Ok(Output::one(Mask {
        batch: 1,
        height: frame.height,
        width: frame.width,
        data,
    }))
}

/// `IS_CHANGED` of the loaders: SHA-256 of the file.
pub fn file_hash(inputs: &Inputs, directories: &Directories) -> Option<String> {
    match inputs.get("image") {
        Some(Value::Json(Json::String(name))) => hash_of_file(name, directories),
        _ => None,
    }
}

/// SHA-256 of the file a loader names, in hexadecimal digits.
pub fn hash_of_file(name: &str, directories: &Directories) -> Option<String> {
    let mut file = std::fs::File::open(existing_file(name, directories)?).ok()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// `VALIDATE_INPUTS` of the loaders.
pub fn file_exists(literals: &Literals<'_>, directories: &Directories) -> Vec<Refusal> {
    missing_file(literals, directories, "image", "Invalid image file")
}

/// Refuses the name in `input` when there is no such file.
pub fn missing_file(
    literals: &Literals<'_>,
    directories: &Directories,
    input: &str,
    complaint: &str,
) -> Vec<Refusal> {
    match literals.get(input) {
        Some(Json::String(name)) if existing_file(name, directories).is_none() => {
            vec![Refusal {
                input: input.into(),
                reason: Some(format!("{complaint}: {name}")),
            }]
        }
        _ => Vec::new(),
    }
}

fn read(call: &Call<'_>) -> Result<Vec<Frame>, Raised> {
    let name = call.text("image")?;
    // The file may be gone since validation.
    let path: PathBuf = existing_file(name, &call.host.directories)
        .ok_or_else(|| Raised::new("FileNotFoundError", format!("no such file: '{name}'")))?;
    let bytes = std::fs::read(path).map_err(|error| Raised::io(&error))?;
    decode::frames(&bytes).map_err(|error| {
        let kind = match error {
            decode::Error::Unknown | decode::Error::Damaged(_) => "PIL.UnidentifiedImageError",
            decode::Error::TooLarge { .. } => "PIL.Image.DecompressionBombError",
        };
        Raised::new(kind, format!("{error} '{name}'"))
    })
}
