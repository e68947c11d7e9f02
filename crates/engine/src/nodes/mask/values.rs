//! Masks of one value, and masks changed sample by sample.

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    parallel,
    value::{Mask, reserve},
};

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
    each(call, |x| 1.0 - x)
}

/// `ThresholdMask`: 1 above the value, 0 at it and below.
pub fn threshold(call: &Call<'_>) -> Result<Output, Raised> {
    let value = call.float("value")? as f32;
    each(call, |x| f32::from(u8::from(x > value)))
}

fn each(call: &Call<'_>, f: impl Fn(f32) -> f32 + Sync) -> Result<Output, Raised> {
    let mask = call.mask("mask")?;
    let mut out = Mask::zeros(mask.batch, mask.height, mask.width)?;
    parallel::rows(call.progress, &mut out.data, mask.width, |row, out| {
        out.iter_mut()
            .zip(mask.row(row))
            .for_each(|(out, x)| *out = f(*x));
    })?;
    Ok(Output::one(out))
}
