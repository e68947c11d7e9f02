//! `PorterDuffImageComposite`

mod mode;

use std::borrow::Cow;

use super::call::{Call, Output};
use crate::{
    exec::Raised,
    parallel,
    pixels::resize::{self, Method},
    registry::NodeKind,
    value::{Image, Mask},
};
use mode::Mode;

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[NodeKind::new("PorterDuffImageComposite", composite)];

/// Alpha up to here leaves no colour.
const OPAQUE_ENOUGH: f32 = 1e-5;

/// `PorterDuffImageComposite`: two images with their masks (1 - alpha) by one of eighteen modes. Everything is brought to
/// the destination's size; there are as many results as the shortest batch has.
pub fn composite(call: &Call<'_>) -> Result<Output, Raised> {
    let (source, below) = (call.image("source")?, call.image("destination")?);
    let (source_mask, below_mask) = (call.mask("source_alpha")?, call.mask("destination_alpha")?);
    let name = call.text("mode")?;
    let mode = Mode::parse(name)
        .ok_or_else(|| Raised::new("KeyError", format!("'{name}' is not a mode of compositing")))?;
    if source.channels != below.channels {
        return Err(Raised::new(
            "AssertionError",
            format!(
                "the source has {} channels and the destination {}",
                source.channels, below.channels
            ),
        ));
    }
    let (height, width, channels) = (below.height, below.width, below.channels);
    let below_mask = fitted(below_mask, width, height)?;
    let source = if (source.height, source.width) == (height, width) {
        Cow::Borrowed(&**source)
    } else {
        Cow::Owned(resize::common_upscale(
            source,
            width,
            height,
            Method::Bicubic,
            true,
        )?)
    };
    let source_mask = fitted(source_mask, width, height)?;
    let batch = [source.batch, below.batch, source_mask.batch, below_mask.batch];
    let batch = batch.into_iter().min().unwrap_or(0);

    let mut out = Image::zeros(batch, height, width, channels)?;
    parallel::rows(call.progress, &mut out.data, width * channels, |row, out| {
        let alphas = source_mask.row(row).iter().zip(below_mask.row(row));
        let pixels = source
            .row(row)
            .chunks_exact(channels)
            .zip(below.row(row).chunks_exact(channels));
        for ((out, (s, d)), (sa, da)) in out.chunks_exact_mut(channels).zip(pixels).zip(alphas) {
            let (sa, da) = (1.0 - sa, 1.0 - da);
            let alpha = mode.alpha(sa, da);
            for ((out, s), d) in out.iter_mut().zip(s).zip(d) {
                *out = if alpha > OPAQUE_ENOUGH {
                    (mode.color(s * sa, d * da, sa, da) / alpha).clamp(0.0, 1.0)
                } else {
                    0.0
                };
            }
        }
    })?;
    let mut mask = Mask::zeros(batch, height, width)?;
    parallel::rows(call.progress, &mut mask.data, width, |row, out| {
        let alphas = source_mask.row(row).iter().zip(below_mask.row(row));
        out.iter_mut()
            .zip(alphas)
            .for_each(|(out, (sa, da))| *out = 1.0 - mode.alpha(1.0 - sa, 1.0 - da));
    })?;
    Ok(Output::values([out.into(), mask.into()]))
}

fn fitted(mask: &Mask, width: usize, height: usize) -> Result<Cow<'_, Mask>, Raised> {
    if mask.height == 0 {
        return Err(Raised::new(
            "ZeroDivisionError",
            "a mask without rows has no aspect ratio",
        ));
    }
    Ok(if (mask.width, mask.height) == (width, height) {
        Cow::Borrowed(mask)
    } else {
        Cow::Owned(resize::mask(mask, width, height, Method::Bicubic, true)?)
    })
}
