//! `ImageCompositeMasked`

use std::borrow::Cow;

use super::{
    call::{Call, Output},
    place::Place,
};
use crate::{
    exec::Raised,
    parallel,
    pixels::resize::{self, Method},
    registry::NodeKind,
    value::{Image, tensor::slice},
};

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[NodeKind::new("ImageCompositeMasked", masked)];

/// `ImageCompositeMasked`: where the mask is 1, or everywhere without one, the source is seen. Mask and source are
/// repeated to the destination's batch; the mask is brought to the source's size.
pub fn masked(call: &Call<'_>) -> Result<Output, Raised> {
    let (below, source) = (call.image("destination")?, call.image("source")?);
    let channels = below.channels;
    if source.channels < channels {
        // The original adds an alpha channel to the destination here, also when it has one already: that never fits.
        return Err(sizes(source.channels, channels + 1, 1));
    }
    let source: Cow<'_, Image> = if call.flag("resize_source")? {
        Cow::Owned(resize::common_upscale(
            source,
            below.width,
            below.height,
            Method::Bilinear,
            false,
        )?)
    } else {
        Cow::Borrowed(source)
    };
    let mask = match call.any("mask") {
        None => None,
        Some(_) => {
            let mask = call.mask("mask")?;
            Some(resize::mask(
                mask,
                source.width,
                source.height,
                Method::Bilinear,
                false,
            )?)
        }
    };
    let columns = place(below.width, source.width, call.int("x")?, 3)?;
    let rows = place(below.height, source.height, call.int("y")?, 2)?;
    let mut out = Image::clone(below);
    parallel::rows(
        call.progress,
        &mut out.data,
        below.width * channels,
        |row, out| {
            let (frame, row) = (row / below.height, row % below.height);
            let Some(row) = rows.source(row) else { return };
            let above = source.row(frame % source.batch * source.height + row);
            let covered = &mut out[columns.target.start * channels..columns.target.end * channels];
            let pixels = covered
                .chunks_exact_mut(channels)
                .zip(above.chunks_exact(source.channels));
            match &mask {
                None => pixels.for_each(|(out, above)| lay(out, above, 1.0)),
                Some(mask) => {
                    let mask = mask.row(frame % mask.batch * mask.height + row);
                    pixels
                        .zip(mask)
                        .for_each(|((out, above), share)| lay(out, above, *share));
                }
            }
        },
    )?;
    Ok(Output::one(out))
}

fn lay(out: &mut [f32], above: &[f32], share: f32) {
    let rest = 1.0 - share;
    out.iter_mut()
        .zip(above)
        .for_each(|(out, above)| *out = share * above + rest * *out);
}

/// Beyond the far end nothing shows. Negative places count from the end, as Python's slices do, and mostly do not fit.
fn place(side: usize, length: usize, at: i64, dimension: usize) -> Result<Place, Raised> {
    let (side_end, length_end) = (side as i64, length as i64);
    let start = at.min(side_end).max(-length_end);
    let visible = side_end - start + start.min(0);
    Place::new(
        slice(side, start, start + length_end),
        slice(length, 0, visible).len(),
        dimension,
    )
}

fn sizes(a: usize, b: usize, dimension: usize) -> Raised {
    Raised::new(
        "RuntimeError",
        format!(
            "The size of tensor a ({a}) must match the size of tensor b ({b}) at non-singleton dimension {dimension}"
        ),
    )
}
