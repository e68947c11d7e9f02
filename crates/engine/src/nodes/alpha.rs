//! Alpha as a channel of its own, and back.

use super::call::{Call, Output};
use crate::{
    exec::Raised,
    parallel,
    pixels::resize::{self, Method},
    registry::NodeKind,
    value::{Image, Mask},
};

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("SplitImageWithAlpha", split),
    NodeKind::new("JoinImageWithAlpha", join),
];

/// Channels of colour; what follows is alpha.
const COLORS: usize = 3;

/// `SplitImageWithAlpha`: colours, and 1 - alpha; an image without alpha gives zeros.
pub fn split(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let colors = image.channels.min(COLORS);
    let mut out = Image::zeros(image.batch, image.height, image.width, colors)?;
    parallel::rows(call.progress, &mut out.data, out.width * colors, |row, out| {
        let pixels = image.row(row).chunks_exact(image.channels);
        for (out, pixel) in out.chunks_exact_mut(colors).zip(pixels) {
            out.copy_from_slice(&pixel[..colors]);
        }
    })?;
    let mut mask = Mask::zeros(image.batch, image.height, image.width)?;
    if image.channels > COLORS {
        parallel::rows(call.progress, &mut mask.data, image.width, |row, out| {
            let pixels = image.row(row).chunks_exact(image.channels);
            out.iter_mut()
                .zip(pixels)
                .for_each(|(out, pixel)| *out = 1.0 - pixel[COLORS]);
        })?;
    }
    Ok(Output::values([out.into(), mask.into()]))
}

/// `JoinImageWithAlpha`: colours with 1 - mask as alpha; the mask is brought to the image's size, and there are as many
/// images as the shorter of both batches has.
pub fn join(call: &Call<'_>) -> Result<Output, Raised> {
    let (image, mask) = (call.image("image")?, call.mask("alpha")?);
    let mask = resize::mask(
        mask,
        image.width,
        image.height,
        Method::Bilinear,
        false,
        call.progress,
    )?;
    let colors = image.channels.min(COLORS);
    let channels = colors + 1;
    let mut out = Image::zeros(image.batch.min(mask.batch), image.height, image.width, channels)?;
    parallel::rows(
        call.progress,
        &mut out.data,
        image.width * channels,
        |row, out| {
            let pixels = image.row(row).chunks_exact(image.channels);
            for ((out, pixel), mask) in out.chunks_exact_mut(channels).zip(pixels).zip(mask.row(row)) {
                out[..colors].copy_from_slice(&pixel[..colors]);
                out[colors] = 1.0 - mask;
            }
        },
    )?;
    Ok(Output::one(out))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use crate::{
        nodes::trial::{Trial, any_image},
        value::{Image, Mask, Value},
    };

    fn split(image: &Image) -> (Arc<Image>, Arc<Mask>) {
        match Trial::new("SplitImageWithAlpha")
            .image("image", image)
            .results()
            .as_slice()
        {
            [Value::Image(colors), Value::Mask(mask)] => (Arc::clone(colors), Arc::clone(mask)),
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn what_was_joined_is_split_again(image in any_image()) {
            let (colors, mask) = split(&image);
            let joined = Trial::new("JoinImageWithAlpha")
                .image("image", &colors)
                .input("alpha", Value::Mask(Arc::clone(&mask)))
                .image_result();
            prop_assert_eq!(joined.channels, 4);
            // 1 - (1 - alpha) rounds, by less than shows in a byte.
            if image.channels == 4 {
                for (found, wanted) in joined.data.iter().zip(&image.data) {
                    prop_assert!((found - wanted).abs() <= f32::EPSILON / 2.0);
                }
            }
            let (colors_again, mask_again) = split(&joined);
            prop_assert_eq!(colors_again, colors);
            for (found, wanted) in mask_again.data.iter().zip(&mask.data) {
                prop_assert!((found - wanted).abs() <= f32::EPSILON / 2.0);
            }
        }
    }
}
