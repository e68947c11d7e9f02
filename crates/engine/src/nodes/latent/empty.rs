//! Latents of zeros, which a sampler would fill.

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    value::{Latent, Tensor},
};

/// Pixels per latent cell of most models.
const CELL: usize = 8;
/// Channels of the first models, and of the newer ones.
const CHANNELS: usize = 4;
const WIDE_CHANNELS: usize = 16;

/// `EmptyLatentImage`
pub fn image(call: &Call<'_>) -> Result<Output, Raised> {
    still(call, CHANNELS)
}

/// `EmptySD3LatentImage`
pub fn sd3_image(call: &Call<'_>) -> Result<Output, Raised> {
    still(call, WIDE_CHANNELS)
}

/// `EmptyHunyuanLatentVideo`: four frames to a cell, the first alone.
pub fn hunyuan_video(call: &Call<'_>) -> Result<Output, Raised> {
    let frames = (call.int("length")? - 1).div_euclid(4) + 1;
    let frames = usize::try_from(frames)
        .map_err(|_| Raised::new("RuntimeError", format!("negative dimension {frames}")))?;
    let (batch, height, width) = size(call)?;
    let shape = [batch, WIDE_CHANNELS, frames, height / CELL, width / CELL];
    Ok(Output::one(Latent::new(Tensor::zeros(&shape)?)))
}

/// `StableCascade_EmptyLatentImage`: one latent for each of the two stages.
pub fn cascade_image(call: &Call<'_>) -> Result<Output, Raised> {
    let (batch, height, width) = size(call)?;
    let compression = call.size("compression")?;
    if compression == 0 {
        return Err(Raised::new(
            "ZeroDivisionError",
            "integer division or modulo by zero",
        ));
    }
    let first = [batch, WIDE_CHANNELS, height / compression, width / compression];
    let second = [batch, CHANNELS, height / 4, width / 4];
    Ok(Output::values([
        Latent::new(Tensor::zeros(&first)?).into(),
        Latent::new(Tensor::zeros(&second)?).into(),
    ]))
}

fn still(call: &Call<'_>, channels: usize) -> Result<Output, Raised> {
    let (batch, height, width) = size(call)?;
    let shape = [batch, channels, height / CELL, width / CELL];
    Ok(Output::one(Latent::new(Tensor::zeros(&shape)?)))
}

fn size(call: &Call<'_>) -> Result<(usize, usize, usize), Raised> {
    Ok((
        call.size("batch_size")?,
        call.size("height")?,
        call.size("width")?,
    ))
}
