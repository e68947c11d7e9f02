//! Joining along a side, cutting, flipping and turning.

use std::sync::Arc;

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    value::{Latent, Tensor, tensor::slice},
};

/// Pixels per latent cell.
const CELL: i64 = 8;

/// `LatentConcat`: side by side, one below the other, or one after the other in time.
pub fn concat(call: &Call<'_>) -> Result<Output, Raised> {
    let (first, second) = (call.latent("samples1")?, call.latent("samples2")?);
    let side = call.text("dim")?;
    let a = &first.samples;
    let b = second.samples.repeat_to_batch(a.batch())?;
    let dimension = a.dimension(from_end(side))?;
    let parts = if side.starts_with('-') {
        [&b, a]
    } else {
        [&**a, &b]
    };
    Ok(Output::one(first.with(Tensor::cat(&parts, dimension)?)))
}

/// `LatentCut`: a stretch of one dimension; a negative start counts from the end.
pub fn cut(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    let dimension = latent.samples.dimension(from_end(call.text("dim")?))?;
    let side = latent.samples.shape[dimension] as i64;
    let (index, amount) = (call.int("index")?, call.int("amount")?);
    let (start, length) = if index >= 0 {
        let start = index.min(side - 1);
        (start, amount.min(side - start))
    } else {
        let start = index.max(-side);
        (start + side, amount.min(-start))
    };
    if start < 0 || length < 0 {
        return Err(Raised::new(
            "RuntimeError",
            format!("narrow(): the range at {start} of length {length} is not inside"),
        ));
    }
    let range = start as usize..(start + length) as usize;
    Ok(Output::one(latent.with(latent.samples.narrow(dimension, range))))
}

/// `LatentCrop`: a rectangle in pixels; its corner is moved inside.
pub fn crop(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    let samples = &latent.samples;
    let range = |corner: &str, length: &str, dimension: isize| {
        let side = samples.side(dimension)?;
        let start = call.int(corner)?.div_euclid(CELL).min(side as i64 - 8);
        let end = start.saturating_add(call.int(length)?.div_euclid(CELL));
        Ok::<_, Raised>(slice(side, start, end))
    };
    let (rows, columns) = (range("y", "height", 2)?, range("x", "width", 3)?);
    Ok(Output::one(
        latent.with(samples.narrow(2, rows).narrow(3, columns)),
    ))
}

/// `LatentFlip`
pub fn flip(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    let dimension = if call.text("flip_method")?.starts_with('x') {
        2
    } else {
        3
    };
    let dimension = latent.samples.dimension(dimension)?;
    Ok(Output::one(latent.with(latent.samples.flip(dimension))))
}

/// `LatentRotate`: clockwise.
pub fn rotate(call: &Call<'_>) -> Result<Output, Raised> {
    let latent: &Arc<Latent> = call.latent("samples")?;
    let samples = &latent.samples;
    samples.dimension(3)?;
    let turned = match call.text("rotation")? {
        "90 degrees" => samples.flip(2).transpose(2),
        "180 degrees" => samples.flip(2).flip(3),
        "270 degrees" => samples.flip(3).transpose(2),
        _ => (**samples).clone(),
    };
    Ok(Output::one(latent.with(turned)))
}

/// `x`, `y` and `t` are the last dimensions, in that order from the end.
fn from_end(side: &str) -> isize {
    match side.trim_start_matches('-') {
        "x" => -1,
        "y" => -2,
        _ => -3,
    }
}
