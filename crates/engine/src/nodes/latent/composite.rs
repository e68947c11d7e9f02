//! One latent laid over another.

use std::sync::Arc;

use super::scale::{self, Method};
use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    value::{Latent, Mask, Tensor, tensor::slice},
};

/// Pixels per latent cell.
const CELL: i64 = 8;

/// `LatentComposite`: at a place, with edges that fade where they do not meet the edge of what is below.
pub fn feathered(call: &Call<'_>) -> Result<Output, Raised> {
    let (to, from) = (call.latent("samples_to")?, call.latent("samples_from")?);
    let cells = |name| Ok::<_, Raised>(call.int(name)?.div_euclid(CELL));
    let (x, y, feather) = (cells("x")?, cells("y")?, cells("feather")?);
    let (below, above) = (&to.samples, &from.samples);
    let (rows, columns) = (below.side(2)? as i64, below.side(3)? as i64);
    let above = above
        .narrow(2, slice(above.side(2)?, 0, rows - y))
        .narrow(3, slice(above.side(3)?, 0, columns - x));
    // Without feather the place is as large as the whole of what is laid over; the edge cuts both alike.
    let place_rows = slice(below.shape[2], y, y.saturating_add(from.samples.shape[2] as i64));
    let place_columns = slice(below.shape[3], x, x.saturating_add(from.samples.shape[3] as i64));
    let mut ranges: Vec<_> = below.shape.iter().map(|side| 0..*side).collect();
    ranges[2] = place_rows.clone();
    ranges[3] = place_columns.clone();
    let mut out = (**below).clone();
    if feather <= 0 {
        out.assign(&ranges, &above)?;
    } else {
        let mask = faded(&above, x, y, (rows, columns), feather)?;
        let kept = below.narrow(2, place_rows).narrow(3, place_columns);
        let over = above.zip(&mask, |x, m| x * m)?;
        let under = kept.zip(&mask.map(|m| 1.0 - m), |x, m| x * m)?;
        out.assign(&ranges, &over.zip(&under, |a, b| a + b)?)?;
    }
    Ok(Output::one(to.with(out)))
}

/// `LatentCompositeMasked`: where the mask is 1 the source is seen.
pub fn masked(call: &Call<'_>) -> Result<Output, Raised> {
    let destination = call.latent("destination")?;
    let source = call.latent("source")?;
    let below = &destination.samples;
    let (rows, columns) = (below.side(-2)? as i64, below.side(-1)? as i64);
    let source = if call.flag("resize_source")? {
        scale::common_upscale(
            &source.samples,
            columns as usize,
            rows as usize,
            Method::Bilinear,
            false,
            call.progress,
        )?
    } else {
        (*source.samples).clone()
    };
    let source = source.repeat_to_batch(below.batch())?;
    let (height, width) = (source.side(-2)? as i64, source.side(-1)? as i64);
    let x = call.int("x")?.min(columns * CELL).max(-width * CELL);
    let y = call.int("y")?.min(rows * CELL).max(-height * CELL);
    let (left, top) = (x.div_euclid(CELL), y.div_euclid(CELL));
    let mask = match call.any("mask") {
        None => source.map(|_| 1.0),
        Some(_) => {
            let mask = planes(call.mask("mask")?);
            scale::common_upscale(
                &mask,
                width as usize,
                height as usize,
                Method::Bilinear,
                false,
                call.progress,
            )?
            .repeat_to_batch(source.batch())?
        }
    };
    // In pixels where the place is negative: that is how the original counts.
    let visible = (rows - top + y.min(0), columns - left + x.min(0));
    let visible_part = |tensor: &Tensor| {
        let count = tensor.shape.len();
        let cut = |side: usize, visible: i64| slice(side, 0, visible);
        tensor
            .narrow(count - 2, cut(tensor.shape[count - 2], visible.0))
            .narrow(count - 1, cut(tensor.shape[count - 1], visible.1))
    };
    let (mask, source) = (visible_part(&mask), visible_part(&source));
    let mut ranges: Vec<_> = below.shape.iter().map(|side| 0..*side).collect();
    let count = ranges.len();
    ranges[count - 2] = slice(rows as usize, top, top + height);
    ranges[count - 1] = slice(columns as usize, left, left + width);
    let kept = below
        .narrow(count - 2, ranges[count - 2].clone())
        .narrow(count - 1, ranges[count - 1].clone());
    let over = mask.zip(&source, |m, x| m * x)?;
    let under = mask.map(|m| 1.0 - m).zip(&kept, |m, x| m * x)?;
    let mut out = (**below).clone();
    out.assign(&ranges, &over.zip(&under, |a, b| a + b)?)?;
    Ok(Output::one(destination.with(out)))
}

/// `SetLatentNoiseMask`
pub fn set_noise_mask(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    let mask = planes(call.mask("mask")?);
    Ok(Output::one(Latent {
        mask_first: match latent.noise_mask {
            Some(_) => latent.mask_first,
            None => latent.batch_index.is_none(),
        },
        noise_mask: Some(Arc::new(mask)),
        ..(**latent).clone()
    }))
}

/// A mask as batch, 1, rows, columns.
fn planes(mask: &Mask) -> Tensor {
    Tensor {
        shape: vec![mask.batch, 1, mask.height, mask.width],
        data: mask.data.clone(),
    }
}

/// Ones that grow from the edges inside; every step multiplies one line of each edge that is not at the border.
fn faded(
    above: &Tensor,
    x: i64,
    y: i64,
    (rows, columns): (i64, i64),
    feather: i64,
) -> Result<Tensor, Raised> {
    let mut mask = above.map(|_| 1.0);
    let (height, width) = (above.side(2)? as i64, above.side(3)? as i64);
    for step in 0..feather.min(height.max(width)) {
        let factor = ((1.0 / feather as f64) * (step + 1) as f64) as f32;
        // Beyond the far end of a small latent Python's negative positions begin again at its start.
        let far = |side: i64| slice(side as usize, side - 1 - step, side - step);
        let near = |side: i64| slice(side as usize, step, step + 1);
        if y != 0 {
            multiply(&mut mask, 2, near(height), factor);
        }
        if y + height < rows {
            multiply(&mut mask, 2, far(height), factor);
        }
        if x != 0 {
            multiply(&mut mask, 3, near(width), factor);
        }
        if x + width < columns {
            multiply(&mut mask, 3, far(width), factor);
        }
    }
    Ok(mask)
}

fn multiply(mask: &mut Tensor, dimension: usize, range: std::ops::Range<usize>, factor: f32) {
    let side = mask.shape[dimension];
    let inner: usize = mask.shape[dimension + 1..].iter().product();
    for block in mask.data.chunks_exact_mut((side * inner).max(1)) {
        block[range.start * inner..range.end * inner]
            .iter_mut()
            .for_each(|x| *x *= factor);
    }
}
