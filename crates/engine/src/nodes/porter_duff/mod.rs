//! `PorterDuffImageComposite`

mod mode;

use std::borrow::Cow;

use super::call::{Call, Output, Progress};
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
    let below_mask = fitted(below_mask, width, height, call.progress)?;
    let source = if (source.height, source.width) == (height, width) {
        Cow::Borrowed(&**source)
    } else {
        Cow::Owned(resize::common_upscale(
            source,
            width,
            height,
            Method::Bicubic,
            true,
            call.progress,
        )?)
    };
    let source_mask = fitted(source_mask, width, height, call.progress)?;
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

fn fitted<'m>(
    mask: &'m Mask,
    width: usize,
    height: usize,
    progress: &dyn Progress,
) -> Result<Cow<'m, Mask>, Raised> {
    if mask.height == 0 {
        return Err(Raised::new(
            "ZeroDivisionError",
            "a mask without rows has no aspect ratio",
        ));
    }
    Ok(if (mask.width, mask.height) == (width, height) {
        Cow::Borrowed(mask)
    } else {
        Cow::Owned(resize::mask(
            mask,
            width,
            height,
            Method::Bicubic,
            true,
            progress,
        )?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        nodes::trial::{Trial, any_image, noise},
        parallel,
        value::{Image, Mask},
    };

    fn trial(
        mode: &str,
        (source, source_mask): (&Image, &Mask),
        (below, below_mask): (&Image, &Mask),
    ) -> Trial {
        Trial::new("PorterDuffImageComposite")
            .image("source", source)
            .input("source_alpha", source_mask.clone())
            .image("destination", below)
            .input("destination_alpha", below_mask.clone())
            .text("mode", mode)
    }

    /// The first channel of the image, turned a little into a mask of its own.
    fn mask_of(image: &Image) -> Mask {
        let samples = image.data.chunks_exact(image.channels);
        Mask {
            batch: image.batch,
            height: image.height,
            width: image.width,
            data: samples.map(|pixel| pixel[1]).collect(),
        }
    }

    fn same(a: &Image, b: &Image) -> bool {
        a.data.iter().zip(&b.data).all(|(a, b)| (a - b).abs() < 1e-4)
    }

    proptest! {
        #[test]
        fn modes_are_mirrors_of_each_other(image in any_image()) {
            let other = image.map(|x| (x * 7.3).fract());
            let masks = (mask_of(&image), mask_of(&other));
            let (a, b) = ((&image, &masks.0), (&other, &masks.1));
            for (mode, mirrored) in [
                ("SRC", "DST"), ("SRC_OVER", "DST_OVER"), ("SRC_IN", "DST_IN"), ("SRC_OUT", "DST_OUT"),
                ("SRC_ATOP", "DST_ATOP"), ("XOR", "XOR"), ("SCREEN", "SCREEN"), ("ADD", "ADD"),
                ("MULTIPLY", "MULTIPLY"), ("DARKEN", "DARKEN"), ("LIGHTEN", "LIGHTEN"), ("CLEAR", "CLEAR"),
            ] {
                let (one, two) = (trial(mode, a, b), trial(mirrored, b, a));
                prop_assert!(same(&one.image_result(), &two.image_result()), "{} and {}", mode, mirrored);
                let (one, two) = (trial(mode, a, b).mask_result(), trial(mirrored, b, a).mask_result());
                prop_assert!(one.data.iter().zip(&two.data).all(|(a, b)| (a - b).abs() < 1e-6));
            }
        }

        #[test]
        fn an_opaque_source_hides_what_is_below(image in any_image()) {
            let below = image.map(|x| 1.0 - x);
            let opaque = Mask { data: vec![0.0; mask_of(&image).data.len()], ..mask_of(&image) };
            let under = mask_of(&below);
            for mode in ["SRC", "SRC_OVER"] {
                let found = trial(mode, (&image, &opaque), (&below, &under));
                prop_assert_eq!(found.image_result(), image.clone());
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_show_and_an_interrupt_is_noticed() {
        let (image, other) = (noise(1, (300, 200), 4), noise(2, (300, 200), 4).map(|x| 1.0 - x));
        let masks = (mask_of(&image), mask_of(&other));
        let over = || trial("OVERLAY", (&image, &masks.0), (&other, &masks.1));
        let alone = parallel::on_threads(1, || over().image_result());
        assert_eq!(parallel::on_threads(5, || over().image_result()), alone);
        assert_eq!(over().interrupted_after(1).exception(), "Interrupted");
    }
}
