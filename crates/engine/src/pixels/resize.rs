//! ComfyUI's `common_upscale`: centre crop, then one of five resampling methods.
//!
//! The first four follow torch's `interpolate` (`align_corners=False`, no antialiasing), the fifth follows Pillow.

use super::{lanczos, round_half_even};
use crate::{
    exec::Raised,
    nodes::call::Progress,
    parallel,
    value::{Image, Mask, zeros},
};

/// How samples are interpolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `nearest-exact`
    Nearest,
    /// `bilinear`
    Bilinear,
    /// `area`
    Area,
    /// `bicubic`
    Bicubic,
    /// `lanczos`
    Lanczos,
}

impl Method {
    /// The method a widget names; `None` for a name that validation should have refused.
    pub fn parse(name: &str) -> Option<Method> {
        Some(match name {
            "nearest-exact" => Method::Nearest,
            "bilinear" => Method::Bilinear,
            "area" => Method::Area,
            "bicubic" => Method::Bicubic,
            "lanczos" => Method::Lanczos,
            _ => return None,
        })
    }
}

/// Resamples every frame to `width` x `height`, first cropping to the new aspect ratio if `center`. Ends early, with an
/// error, when the prompt is interrupted.
pub fn common_upscale(
    image: &Image,
    width: usize,
    height: usize,
    method: Method,
    center: bool,
    progress: &dyn Progress,
) -> Result<Image, Raised> {
    let cropped = if center && height > 0 {
        center_crop(image, width, height)
    } else {
        None
    };
    let source = cropped.as_ref().unwrap_or(image);
    if method == Method::Lanczos && (width == 0 || height == 0) {
        return Err(Raised::new("ValueError", "height and width must be > 0"));
    }
    if width == 0 || height == 0 || source.width == 0 || source.height == 0 {
        return Err(Raised::new(
            "RuntimeError",
            format!(
                "Input and output sizes should be greater than 0, but got input (H: {}, W: {}) output (H: {height}, W: {width})",
                source.height, source.width
            ),
        ));
    }
    let mut data = zeros(&[source.batch, height, width, source.channels])?;
    let target = Target { width, height };
    for (frame, out) in source
        .frames()
        .zip(data.chunks_exact_mut((height * width * source.channels).max(1)))
    {
        let frame = Frame {
            samples: frame,
            width: source.width,
            height: source.height,
            channels: source.channels,
        };
        match method {
            Method::Nearest => nearest(frame, target, out, progress)?,
            Method::Bilinear => bilinear(frame, target, out, progress)?,
            Method::Area => area(frame, target, out, progress)?,
            Method::Bicubic => bicubic(frame, target, out, progress)?,
            Method::Lanczos => lanczos::resize(frame, target, out, progress)?,
        }
    }
    Ok(Image {
        batch: source.batch,
        height,
        width,
        channels: source.channels,
        data,
    })
}

/// [`common_upscale`] of a mask.
pub fn mask(
    mask: &Mask,
    width: usize,
    height: usize,
    method: Method,
    center: bool,
    progress: &dyn Progress,
) -> Result<Mask, Raised> {
    let plane = mask.clone().into_plane();
    common_upscale(&plane, width, height, method, center, progress).map(Mask::from)
}

/// One frame to read from.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// Row-major samples, channels last.
    pub samples: &'a [f32],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Samples of a pixel.
    pub channels: usize,
}

/// The size to bring it to.
#[derive(Clone, Copy)]
pub struct Target {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Frame<'_> {
    fn pixel(&self, y: usize, x: usize) -> &[f32] {
        let at = (y * self.width + x) * self.channels;
        &self.samples[at..at + self.channels]
    }
}

/// The part of `image` with the aspect ratio of the target, or `None` when the ratios are equal.
fn center_crop(image: &Image, width: usize, height: usize) -> Option<Image> {
    if image.width == 0 || image.height == 0 {
        return None;
    }
    let (x, y) = center_margins(image.width, image.height, width, height)?;
    // A very thin image can be cropped to nothing; the caller refuses that.
    Some(crop(
        image,
        x,
        y,
        image.width.saturating_sub(2 * x),
        image.height.saturating_sub(2 * y),
    ))
}

/// How much is cut off at the left and right, and at the top and bottom, to get the aspect ratio of the target;
/// `None` when that is nothing.
pub fn center_margins(
    old_width: usize,
    old_height: usize,
    width: usize,
    height: usize,
) -> Option<(usize, usize)> {
    let (old_width, old_height) = (old_width as f64, old_height as f64);
    let old_aspect = old_width / old_height;
    let new_aspect = width as f64 / height as f64;
    let (mut x, mut y) = (0, 0);
    if old_aspect > new_aspect {
        x = round_half_even((old_width - old_width * (new_aspect / old_aspect)) / 2.0) as usize;
    } else if old_aspect < new_aspect {
        y = round_half_even((old_height - old_height * (old_aspect / new_aspect)) / 2.0) as usize;
    }
    ((x, y) != (0, 0)).then_some((x, y))
}

/// The rectangle at `x`, `y` of the given size, which must lie inside.
pub fn crop(image: &Image, x: usize, y: usize, width: usize, height: usize) -> Image {
    let mut data = Vec::with_capacity(image.batch * height * width * image.channels);
    for frame in image.frames() {
        for row in y..y + height {
            let start = (row * image.width + x) * image.channels;
            data.extend_from_slice(&frame[start..start + width * image.channels]);
        }
    }
    Image {
        batch: image.batch,
        height,
        width,
        channels: image.channels,
        data,
    }
}

fn nearest(frame: Frame<'_>, target: Target, out: &mut [f32], progress: &dyn Progress) -> Result<(), Raised> {
    let index = |o: usize, input: usize, output: usize| {
        let scale = input as f32 / output as f32;
        (((o as f32 + 0.5) * scale).floor() as usize).min(input - 1)
    };
    let columns: Vec<usize> = (0..target.width)
        .map(|x| index(x, frame.width, target.width))
        .collect();
    parallel::rows(progress, out, target.width * frame.channels, |y, out| {
        let row = index(y, frame.height, target.height);
        for (out, &column) in out.chunks_exact_mut(frame.channels).zip(&columns) {
            out.copy_from_slice(frame.pixel(row, column));
        }
    })
}

/// The two source positions of an output position and the weight of the second.
pub fn linear_taps(o: usize, input: usize, output: usize) -> (usize, usize, f32) {
    let scale = input as f32 / output as f32;
    let source = (scale * (o as f32 + 0.5) - 0.5).max(0.0);
    let first = (source as usize).min(input - 1);
    (
        first,
        (first + 1).min(input - 1),
        (source - first as f32).clamp(0.0, 1.0),
    )
}

fn bilinear(
    frame: Frame<'_>,
    target: Target,
    out: &mut [f32],
    progress: &dyn Progress,
) -> Result<(), Raised> {
    let columns: Vec<_> = (0..target.width)
        .map(|x| linear_taps(x, frame.width, target.width))
        .collect();
    parallel::rows(progress, out, target.width * frame.channels, |y, out| {
        let (top, bottom, down) = linear_taps(y, frame.height, target.height);
        for (out, &(left, right, across)) in out.chunks_exact_mut(frame.channels).zip(&columns) {
            let (a, b) = (frame.pixel(top, left), frame.pixel(top, right));
            let (c, d) = (frame.pixel(bottom, left), frame.pixel(bottom, right));
            for (k, out) in out.iter_mut().enumerate() {
                let upper = (1.0 - across) * a[k] + across * b[k];
                let lower = (1.0 - across) * c[k] + across * d[k];
                *out = (1.0 - down) * upper + down * lower;
            }
        }
    })
}

fn area(frame: Frame<'_>, target: Target, out: &mut [f32], progress: &dyn Progress) -> Result<(), Raised> {
    let window =
        |o: usize, input: usize, output: usize| (o * input / output, ((o + 1) * input).div_ceil(output));
    parallel::rows(progress, out, target.width * frame.channels, |y, out| {
        let (top, bottom) = window(y, frame.height, target.height);
        for (x, out) in out.chunks_exact_mut(frame.channels).enumerate() {
            let (left, right) = window(x, frame.width, target.width);
            for (k, out) in out.iter_mut().enumerate() {
                let mut sum = 0f32;
                for row in top..bottom {
                    for column in left..right {
                        sum += frame.pixel(row, column)[k];
                    }
                }
                // Two divisions, in this order: the truncation of saving shows the difference.
                *out = sum / (bottom - top) as f32 / (right - left) as f32;
            }
        }
    })
}

/// Four clamped source positions and their cubic weights (A = -0.75, as in torch).
fn cubic_taps(o: usize, input: usize, output: usize) -> [(usize, f32); 4] {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let source = (o as f32 + 0.5) * (input as f32 / output as f32) - 0.5;
    let base = source.floor();
    let t = source - base;
    let at = |offset: i64| (base as i64 + offset).clamp(0, input as i64 - 1) as usize;
    [
        (at(-1), far(t + 1.0)),
        (at(0), near(t)),
        (at(1), near(1.0 - t)),
        (at(2), far(2.0 - t)),
    ]
}

fn bicubic(frame: Frame<'_>, target: Target, out: &mut [f32], progress: &dyn Progress) -> Result<(), Raised> {
    let columns: Vec<_> = (0..target.width)
        .map(|x| cubic_taps(x, frame.width, target.width))
        .collect();
    parallel::rows(progress, out, target.width * frame.channels, |y, out| {
        let rows = cubic_taps(y, frame.height, target.height);
        for (out, taps) in out.chunks_exact_mut(frame.channels).zip(&columns) {
            for (k, out) in out.iter_mut().enumerate() {
                let mut sum = 0f32;
                for (row, down) in rows {
                    let line: f32 = taps
                        .iter()
                        .map(|(column, across)| frame.pixel(row, *column)[k] * across)
                        .sum();
                    sum += line * down;
                }
                *out = sum;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nodes::call::Silent;

    const ALL: [Method; 5] = [
        Method::Nearest,
        Method::Bilinear,
        Method::Area,
        Method::Bicubic,
        Method::Lanczos,
    ];

    fn flat(width: usize, height: usize, value: f32) -> Image {
        Image {
            batch: 1,
            height,
            width,
            channels: 3,
            data: vec![value; width * height * 3],
        }
    }

    proptest! {
        #[test]
        fn a_flat_image_stays_flat(w in 1usize..20, h in 1usize..20, ow in 1usize..30, oh in 1usize..30, center: bool) {
            for method in ALL {
                let out = common_upscale(&flat(w, h, 0.6), ow, oh, method, center, &Silent);
                // A crop may leave nothing of a very thin image; that is an error, as in the original.
                if let Ok(out) = out {
                    prop_assert_eq!((out.width, out.height, out.data.len()), (ow, oh, ow * oh * 3));
                    prop_assert!(out.data.iter().all(|x| (x - 0.6).abs() < 1e-3), "{:?}", method);
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let image = crate::nodes::trial::noise(2, (150, 90), 4);
        for method in ALL {
            let run = || common_upscale(&image, 260, 240, method, true, &Silent).unwrap();
            assert_eq!(
                parallel::on_threads(1, run),
                parallel::on_threads(5, run),
                "{method:?}"
            );
        }
    }

    #[test]
    fn an_empty_target_is_an_error() {
        for (method, exception) in [(Method::Area, "RuntimeError"), (Method::Lanczos, "ValueError")] {
            let raised = common_upscale(&flat(2, 2, 0.0), 0, 4, method, false, &Silent).unwrap_err();
            assert!(
                matches!(raised, Raised::Error { kind, .. } if kind == exception),
                "{method:?}"
            );
        }
    }
}
