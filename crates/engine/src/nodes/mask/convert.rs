//! From masks to images and back.

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    parallel,
    value::{Image, Mask, reserve},
};

/// `MaskToImage`: the mask as grey.
pub fn to_image(call: &Call<'_>) -> Result<Output, Raised> {
    Ok(Output::one(grey(call.mask("mask")?)?))
}

/// The mask as an image of three equal channels.
pub fn grey(mask: &Mask) -> Result<Image, Raised> {
    mask.not_empty()?;
    let mut data = reserve(&[mask.batch, mask.height, mask.width, 3])?;
    data.extend(mask.data.iter().flat_map(|x| [*x; 3]));
    Ok(Image {
        batch: mask.batch,
        height: mask.height,
        width: mask.width,
        channels: 3,
        data,
    })
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
        return Err(index_error(channel, image.channels));
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

/// `ImageColorToMask`: 1 where a pixel has exactly this colour, to the nearest of 256 levels.
pub fn from_color(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let color = call.int("color")?;
    if image.channels < 3 {
        return Err(index_error(2, image.channels));
    }
    let level = |x: f32| (x.clamp(0.0, 1.0) * 255.0).round_ties_even() as i64;
    let mut mask = Mask::zeros(image.batch, image.height, image.width)?;
    parallel::rows(call.progress, &mut mask.data, image.width, |row, out| {
        let pixels = image.row(row).chunks_exact(image.channels);
        for (out, pixel) in out.iter_mut().zip(pixels) {
            let found = (level(pixel[0]) << 16) + (level(pixel[1]) << 8) + level(pixel[2]);
            *out = f32::from(u8::from(found == color));
        }
    })?;
    Ok(Output::one(mask))
}

fn index_error(channel: usize, channels: usize) -> Raised {
    Raised::new(
        "IndexError",
        format!("index {channel} is out of bounds for dimension 3 with size {channels}"),
    )
}
