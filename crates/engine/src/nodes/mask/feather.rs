//! `FeatherMask`

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    parallel,
    value::Mask,
};

/// `FeatherMask`: edges that fade, each over a width of its own.
///
/// The right and the lower edge begin at position -0, which is the first column and row: those are darkened too, and the
/// last ones stay a step too light. So does the original.
pub fn feather(call: &Call<'_>) -> Result<Output, Raised> {
    let mask = call.mask("mask")?.not_empty()?;
    let columns = (
        factors(call, "left", mask.width)?,
        factors(call, "right", mask.width)?,
    );
    let rows = (
        factors(call, "top", mask.height)?,
        factors(call, "bottom", mask.height)?,
    );
    let mut out = Mask::clone(mask);
    parallel::rows(call.progress, &mut out.data, mask.width, |row, samples| {
        columns
            .0
            .iter()
            .zip(&mut *samples)
            .for_each(|(factor, x)| *x *= factor);
        for (step, factor) in columns.1.iter().enumerate() {
            samples[(mask.width - step) % mask.width] *= factor;
        }
        let row = row % mask.height;
        let from_bottom = (mask.height - row) % mask.height;
        for factor in [rows.0.get(row), rows.1.get(from_bottom)].into_iter().flatten() {
            samples.iter_mut().for_each(|x| *x *= factor);
        }
    })?;
    Ok(Output::one(out))
}

/// 1/n, 2/n, … n/n for a width of n, which is at most the side.
fn factors(call: &Call<'_>, name: &str, side: usize) -> Result<Vec<f32>, Raised> {
    let width = call.int(name)?.min(side as i64);
    Ok((0..width)
        .map(|step| ((step + 1) as f64 / width as f64) as f32)
        .collect())
}
