//! Masks: making, inverting, and the way from and to images.

use super::call::{Call, Output};
use crate::{
    exec::Raised,
    value::{Image, Mask, reserve},
};

/// `MaskToImage`: the mask as grey.
pub fn to_image(call: &Call<'_>) -> Result<Output, Raised> {
    let mask = call.mask("mask")?;
    let mut data = reserve(&[mask.batch, mask.height, mask.width, 3])?;
    data.extend(mask.data.iter().flat_map(|x| [*x; 3]));
    Ok(Output::one(Image {
        batch: mask.batch,
        height: mask.height,
        width: mask.width,
        channels: 3,
        data,
    }))
}

/// `ImageToMask`: one channel, alpha not inverted.
pub fn from_image(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let name = call.text("channel")?;
    let channel = ["red", "green", "blue", "alpha"]
        .iter()
        .position(|c| *c == name)
        .unwrap_or(0);
    if channel >= image.channels {
        return Err(Raised::new(
            "IndexError",
            format!(
                "index {channel} is out of bounds for dimension 3 with size {}",
                image.channels
            ),
        ));
    }
    let data = image
        .data
        .chunks_exact(image.channels)
        .map(|pixel| pixel[channel])
        .collect();
    Ok(Output::one(Mask {
        batch: image.batch,
        height: image.height,
        width: image.width,
        data,
    }))
}

/// `SolidMask`: one value.
pub fn solid(call: &Call<'_>) -> Result<Output, Raised> {
    let (height, width) = (call.size("height")?, call.size("width")?);
    let mut data = reserve(&[1, height, width])?;
    data.resize(height * width, call.float("value")? as f32);
    Ok(Output::one(Mask {
        batch: 1,
        height,
        width,
        data,
    }))
}

/// `InvertMask`: 1 - x.
pub fn invert(call: &Call<'_>) -> Result<Output, Raised> {
    let mask = call.mask("mask")?;
    Ok(Output::one(Mask {
        data: mask.data.iter().map(|x| 1.0 - x).collect(),
        ..**mask
    }))
}
