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
            call.progress,
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
                call.progress,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        nodes::trial::{Trial, any_image},
        value::{Image, Mask},
    };

    fn composite(below: &Image, above: &Image, (x, y): (i64, i64)) -> Trial {
        Trial::new("ImageCompositeMasked")
            .image("destination", below)
            .image("source", above)
            .int("x", x)
            .int("y", y)
            .flag("resize_source", false)
    }

    fn crop(image: &Image, (x, y): (i64, i64), (width, height): (i64, i64)) -> Image {
        Trial::new("ImageCrop")
            .image("image", image)
            .int("x", x)
            .int("y", y)
            .int("width", width)
            .int("height", height)
            .image_result()
    }

    /// A colour image with as many frames as asked for.
    fn rgb(image: &Image, batch: usize) -> Image {
        let frames = (0..batch).flat_map(|frame| {
            let rows = frame % image.batch * image.height..(frame % image.batch + 1) * image.height;
            rows.flat_map(|row| image.row(row).chunks_exact(image.channels))
        });
        Image {
            batch,
            channels: 3,
            data: frames.flat_map(|pixel| pixel[..3].to_vec()).collect(),
            ..*image
        }
    }

    proptest! {
        #[test]
        fn a_crop_of_a_composite_is_the_source(
            below in any_image(), above in any_image(), x in 0usize..14, y in 0usize..14,
        ) {
            let (below, above) = (rgb(&below, below.batch), rgb(&above, below.batch));
            let (x, y) = ((x % below.width) as i64, (y % below.height) as i64);
            let visible = (
                (above.width as i64).min(below.width as i64 - x),
                (above.height as i64).min(below.height as i64 - y),
            );
            let covered = composite(&below, &above, (x, y)).image_result();
            prop_assert_eq!(crop(&covered, (x, y), visible), crop(&above, (0, 0), visible));
        }

        #[test]
        fn a_mask_of_zeros_hides_the_source_and_one_of_ones_shows_it(below in any_image(), above in any_image()) {
            let (below, above) = (rgb(&below, below.batch), rgb(&above, above.batch));
            let masked = |sample: f32| {
                let mask = Mask { batch: 1, height: 2, width: 3, data: vec![sample; 6] };
                composite(&below, &above, (0, 0)).input("mask", mask).image_result()
            };
            prop_assert_eq!(&masked(0.0), &below);
            prop_assert_eq!(masked(1.0), composite(&below, &above, (0, 0)).image_result());
        }

        #[test]
        fn what_lies_outside_changes_nothing(below in any_image(), above in any_image()) {
            let (below, above) = (rgb(&below, below.batch), rgb(&above, above.batch));
            prop_assert_eq!(&composite(&below, &above, (500, 0)).image_result(), &below);
        }
    }
}
