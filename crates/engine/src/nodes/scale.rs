//! Scaling images.

use std::sync::Arc;

use super::call::{Call, Output};
use crate::{
    exec::Raised,
    pixels::{
        resize::{Method, common_upscale},
        round_half_even,
    },
    value::{Image, Value},
};

/// `ImageScale`: to a size; a 0 keeps the aspect ratio, two leave the image alone.
pub fn to_size(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let center = call.text("crop")? == "center";
    let keep = |side: usize, other: usize, target: usize| {
        round_half_even(side as f64 * target as f64 / other as f64).max(1) as usize
    };
    let (width, height) = match (call.size("width")?, call.size("height")?) {
        (0, 0) => return Ok(Output::one(Value::Image(Arc::clone(image)))),
        (0, height) => (keep(image.width, image.height, height), height),
        (width, 0) => (width, keep(image.height, image.width, width)),
        size => size,
    };
    scaled(call, image, width, height, center)
}

/// `ImageScaleBy`: by a factor.
pub fn by_factor(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let factor = call.float("scale_by")?;
    let side = |side: usize| round_half_even(side as f64 * factor).max(0) as usize;
    scaled(call, image, side(image.width), side(image.height), false)
}

fn scaled(
    call: &Call<'_>,
    image: &Image,
    width: usize,
    height: usize,
    center: bool,
) -> Result<Output, Raised> {
    let name = call.text("upscale_method")?;
    let method = Method::parse(name).ok_or_else(|| {
        Raised::new(
            "NotImplementedError",
            format!("'{name}' is not an upscale method"),
        )
    })?;
    Ok(Output::one(common_upscale(image, width, height, method, center)?))
}
