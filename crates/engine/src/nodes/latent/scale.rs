//! Resizing, cell by cell.

use std::borrow::Cow;

use super::bislerp;
use crate::{
    exec::Raised,
    nodes::call::{Call, Output, Progress},
    pixels::{resize, round_half_even},
    value::{Image, Tensor, Value},
};

/// Pixels per latent cell, and the smallest side in pixels.
const CELL: usize = 8;
const MIN_SIDE: usize = 64;

/// How samples are interpolated.
#[derive(Clone, Copy)]
pub enum Method {
    /// Torch's bilinear.
    Bilinear,
    /// Torch's bicubic.
    Bicubic,
    /// Directions and lengths of the channel vectors apart.
    Bislerp,
    /// The others of images.
    Other(resize::Method),
}

/// `LatentUpscale`: to a size in pixels; a 0 keeps the aspect ratio, two leave the latent alone.
pub fn to_size(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    let (columns, rows) = (latent.samples.side(-1)?, latent.samples.side(-2)?);
    let keep = |side: usize, other: usize, target: usize| {
        let kept = round_half_even(side as f64 * target as f64 / other as f64);
        usize::try_from(kept).unwrap_or(0).max(MIN_SIDE)
    };
    let (width, height) = match (call.size("width")?, call.size("height")?) {
        (0, 0) => return Ok(Output::one(Value::Latent(latent.clone()))),
        (0, height) => {
            let height = height.max(MIN_SIDE);
            (keep(columns, rows, height), height)
        }
        (width, 0) => {
            let width = width.max(MIN_SIDE);
            (width, keep(rows, columns, width))
        }
        (width, height) => (width.max(MIN_SIDE), height.max(MIN_SIDE)),
    };
    let center = call.text("crop")? == "center";
    let samples = common_upscale(
        &latent.samples,
        width / CELL,
        height / CELL,
        method(call)?,
        center,
        call.progress,
    )?;
    Ok(Output::one(latent.with(samples)))
}

/// `LatentUpscaleBy`: by a factor, in cells.
pub fn by_factor(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    let factor = call.float("scale_by")?;
    let side = |dimension| {
        let side = round_half_even(latent.samples.side(dimension)? as f64 * factor);
        Ok::<_, Raised>(usize::try_from(side).unwrap_or(0))
    };
    let samples = common_upscale(
        &latent.samples,
        side(-1)?,
        side(-2)?,
        method(call)?,
        false,
        call.progress,
    )?;
    Ok(Output::one(latent.with(samples)))
}

/// `samples` with the size of `target`, if anything but the batch differs.
pub fn fit<'a>(
    samples: &'a Tensor,
    target: &Tensor,
    progress: &dyn Progress,
) -> Result<Cow<'a, Tensor>, Raised> {
    if samples.shape.get(1..) == target.shape.get(1..) {
        return Ok(Cow::Borrowed(samples));
    }
    let (width, height) = (target.side(-1)?, target.side(-2)?);
    common_upscale(samples, width, height, Method::Bilinear, true, progress).map(Cow::Owned)
}

/// Resamples the last two dimensions, first cropping to the new aspect ratio if `center`.
pub fn common_upscale(
    samples: &Tensor,
    width: usize,
    height: usize,
    method: Method,
    center: bool,
    progress: &dyn Progress,
) -> Result<Tensor, Raised> {
    let image_method = match method {
        Method::Bilinear => resize::Method::Bilinear,
        Method::Bicubic => resize::Method::Bicubic,
        Method::Other(method) => method,
        Method::Bislerp => return bislerp::scale(samples, width, height, center, progress),
    };
    // Every plane is an image of one channel: these methods look at no other plane.
    let (rows, columns) = (samples.side(-2)?, samples.side(-1)?);
    let image = Image {
        batch: samples.shape.iter().rev().skip(2).product(),
        height: rows,
        width: columns,
        channels: 1,
        data: samples.data.clone(),
    };
    let scaled = resize::common_upscale(&image, width, height, image_method, center, progress)?;
    let mut shape = samples.shape.clone();
    let last = shape.len() - 2;
    shape[last..].copy_from_slice(&[height, width]);
    Ok(Tensor {
        shape,
        data: scaled.data,
    })
}

fn method(call: &Call<'_>) -> Result<Method, Raised> {
    let name = call.text("upscale_method")?;
    if name == "bislerp" {
        return Ok(Method::Bislerp);
    }
    resize::Method::parse(name).map(Method::Other).ok_or_else(|| {
        Raised::new(
            "NotImplementedError",
            format!("'{name}' is not an upscale method"),
        )
    })
}
