//! Two images mixed sample by sample, in 32-bit floats and in torch's order of operations.

use std::borrow::Cow;

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    parallel,
    pixels::resize::{Method, common_upscale},
    value::{Image, zeros},
};

/// `ImageBlend`: the second image is brought to the first one's size.
pub fn blend(call: &Call<'_>) -> Result<Output, Raised> {
    let (first, second) = with_equal_channels(call.image("image1")?, call.image("image2")?);
    let factor = call.float("blend_factor")?;
    let mode = mode(call.text("blend_mode")?)?;
    let second: Cow<'_, Image> = if first.size() == second.size() {
        second
    } else {
        let (width, height) = first.size();
        Cow::Owned(common_upscale(
            &second,
            width,
            height,
            Method::Bicubic,
            true,
            call.progress,
        )?)
    };
    let (keep, take) = ((1.0 - factor) as f32, factor as f32);
    zipped(call, &first, &second, |a, b| {
        (a * keep + mode(a, b) * take).clamp(0.0, 1.0)
    })
    .map(Output::one)
}

/// Channels that only the second image has are left out. Where the first one has more, it gets yet another one, as
/// in the original: most such pairs then fail.
fn with_equal_channels<'i>(first: &'i Image, second: &'i Image) -> (Cow<'i, Image>, Cow<'i, Image>) {
    let channels = first.channels;
    if channels < second.channels {
        let mut cut = Vec::with_capacity(second.data.len() / second.channels * channels);
        second
            .data
            .chunks_exact(second.channels)
            .for_each(|pixel| cut.extend_from_slice(&pixel[..channels]));
        let cut = Image {
            channels,
            data: cut,
            ..*second
        };
        return (Cow::Borrowed(first), Cow::Owned(cut));
    }
    if channels > second.channels {
        let mut padded = Vec::with_capacity(first.data.len() / channels * (channels + 1));
        for pixel in first.data.chunks_exact(channels) {
            padded.extend_from_slice(pixel);
            padded.push(1.0);
        }
        let padded = Image {
            channels: channels + 1,
            data: padded,
            ..*first
        };
        return (Cow::Owned(padded), Cow::Borrowed(second));
    }
    (Cow::Borrowed(first), Cow::Borrowed(second))
}

type Mode = fn(f32, f32) -> f32;

fn mode(name: &str) -> Result<Mode, Raised> {
    Ok(match name {
        "normal" => |_, b| b,
        "multiply" => |a, b| a * b,
        "screen" => |a, b| 1.0 - (1.0 - a) * (1.0 - b),
        "overlay" => |a, b| {
            if a <= 0.5 {
                2.0 * a * b
            } else {
                1.0 - 2.0 * (1.0 - a) * (1.0 - b)
            }
        },
        "soft_light" => |a, b| {
            if b <= 0.5 {
                a - (1.0 - 2.0 * b) * a * (1.0 - a)
            } else {
                a + (2.0 * b - 1.0) * (lightened(a) - a)
            }
        },
        "difference" => |a, b| a - b,
        other => {
            return Err(Raised::new(
                "ValueError",
                format!("Unsupported blend mode: {other}"),
            ));
        }
    })
}

fn lightened(x: f32) -> f32 {
    if x <= 0.25 {
        ((16.0 * x - 12.0) * x + 4.0) * x
    } else {
        x.sqrt()
    }
}

/// Sample by sample of images of one size; a single image or channel goes with any number of them.
fn zipped(
    call: &Call<'_>,
    a: &Image,
    b: &Image,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Image, Raised> {
    let batch = common(a.batch, b.batch, 0)?;
    let channels = common(a.channels, b.channels, 3)?;
    let mut data = zeros(&[batch, a.height, a.width, channels])?;
    parallel::rows(call.progress, &mut data, a.width * channels, |row, out| {
        let (a_row, b_row) = (line(a, row), line(b, row));
        if a.channels == b.channels {
            for ((out, a), b) in out.iter_mut().zip(a_row).zip(b_row) {
                *out = f(*a, *b);
            }
            return;
        }
        for (at, out) in out.iter_mut().enumerate() {
            let (pixel, channel) = (at / channels, at % channels);
            let sample = |image: &Image, row: &[f32]| row[pixel * image.channels + channel % image.channels];
            *out = f(sample(a, a_row), sample(b, b_row));
        }
    })?;
    Ok(Image {
        batch,
        channels,
        data,
        ..*a
    })
}

/// A row counted through all frames of the result.
fn line(image: &Image, row: usize) -> &[f32] {
    let (frame, y) = (row / image.height % image.batch, row % image.height);
    let length = image.width * image.channels;
    &image.data[(frame * image.height + y) * length..][..length]
}

fn common(a: usize, b: usize, dimension: usize) -> Result<usize, Raised> {
    match (a, b) {
        (a, b) if a == b || b == 1 => Ok(a),
        (1, b) => Ok(b),
        _ => Err(Raised::new(
            "RuntimeError",
            format!(
                "The size of tensor a ({a}) must match the size of tensor b ({b}) at non-singleton dimension {dimension}"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        nodes::trial::{Trial, any_image, noise},
        parallel::on_threads,
    };

    const MODES: [&str; 6] = [
        "normal",
        "multiply",
        "screen",
        "overlay",
        "soft_light",
        "difference",
    ];

    fn blended(a: &Image, b: &Image, mode: &str, factor: f64) -> Trial {
        Trial::new("ImageBlend")
            .image("image1", a)
            .image("image2", b)
            .float("blend_factor", factor)
            .text("blend_mode", mode)
    }

    proptest! {
        #[test]
        fn a_factor_of_0_keeps_the_first_image_and_1_takes_the_second(a in any_image(), b in any_image()) {
            for mode in MODES {
                prop_assert_eq!(&blended(&a, &a, mode, 0.0).image_result(), &a);
            }
            prop_assert_eq!(&blended(&b, &b, "normal", 1.0).image_result(), &b);
        }
    }

    #[test]
    fn a_single_image_goes_with_a_batch_and_two_do_not_go_with_three() {
        let batch = |n| noise(n, (3, 2), 3);
        for (a, b) in [(1, 3), (3, 1)] {
            assert_eq!(
                blended(&batch(a), &batch(b), "multiply", 0.5)
                    .image_result()
                    .batch,
                3
            );
        }
        assert_eq!(
            blended(&batch(2), &batch(3), "multiply", 0.5).exception(),
            "RuntimeError"
        );
    }

    #[test]
    fn alpha_of_the_second_is_dropped_and_alpha_of_the_first_is_refused() {
        let (rgb, rgba) = (noise(1, (3, 2), 3), noise(1, (3, 2), 4));
        assert_eq!(blended(&rgb, &rgba, "normal", 0.5).image_result().channels, 3);
        assert_eq!(blended(&rgba, &rgb, "normal", 0.5).exception(), "RuntimeError");
        assert_eq!(blended(&rgb, &rgb, "dodge", 0.5).exception(), "ValueError");
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let (a, b) = (noise(2, (300, 200), 3), noise(1, (250, 90), 4));
        let run = || blended(&a, &b, "soft_light", 0.3).image_result();
        assert_eq!(on_threads(1, run), on_threads(7, run));
    }
}
