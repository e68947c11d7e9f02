//! Convolution with a Gaussian, row by row in 64-bit floats: a flat area keeps its value to the bit, where 32-bit sums
//! would move it by a rounding and truncation would show that as a level.

use crate::{
    exec::Raised,
    nodes::call::Progress,
    parallel,
    value::{Image, zeros},
};

/// The weights of one direction; the middle one and those on one side of it, from near to far.
pub struct Kernel {
    middle: f64,
    side: Vec<f64>,
}

impl Kernel {
    /// `radius` weights on each side. `sigma` is in units of the radius, as `ImageBlur` has it.
    pub fn new(radius: usize, sigma: f64) -> Kernel {
        let weight = |at: usize| {
            let x = at as f64 / radius as f64;
            (-(x * x) / (2.0 * sigma * sigma)).exp()
        };
        let side: Vec<f64> = (1..=radius).map(weight).collect();
        let sum = weight(0) + 2.0 * side.iter().sum::<f64>();
        Kernel {
            middle: weight(0) / sum,
            side: side.into_iter().map(|w| w / sum).collect(),
        }
    }

    fn radius(&self) -> usize {
        self.side.len()
    }
}

/// Every sample becomes `f(sample, blurred sample)`. Borders are mirrored without repeating the edge, so the radius
/// must be smaller than both sides.
pub fn with_blurred(
    image: &Image,
    kernel: &Kernel,
    progress: &dyn Progress,
    f: impl Fn(f64, f64) -> f64 + Sync,
) -> Result<Image, Raised> {
    check_radius(image, kernel.radius())?;
    let length = image.width * image.channels;
    let mut data = zeros(&[image.batch, image.height, image.width, image.channels])?;
    parallel::rows(progress, &mut data, length, |row, out| {
        let (frame, y) = (row / image.height, row % image.height);
        let line = |y: usize| &image.data[(frame * image.height + y) * length..][..length];
        let down = column_sums(kernel, y, image.height, line, image.channels);
        across(kernel, &down, image.channels, out, line(y), &f);
    })?;
    Ok(Image { data, ..*image })
}

/// Refuses a radius that the borders cannot mirror, in torch's words.
pub fn check_radius(image: &Image, radius: usize) -> Result<(), Raised> {
    if radius >= image.height || radius >= image.width {
        return Err(Raised::new(
            "RuntimeError",
            format!(
                "Argument #4: Padding size should be less than the corresponding input dimension, but got: padding ({radius}, {radius}) at dimension {} of input [{}, {}, {}, {}]",
                if radius >= image.width { 3 } else { 2 },
                image.batch,
                image.channels,
                image.height,
                image.width
            ),
        ));
    }
    Ok(())
}

/// The sum over the rows around `y`, with `radius` mirrored pixels at both ends.
fn column_sums<'a>(
    kernel: &Kernel,
    y: usize,
    height: usize,
    line: impl Fn(usize) -> &'a [f32],
    channels: usize,
) -> Vec<f64> {
    let margin = kernel.radius() * channels;
    let own = line(y);
    let mut sums = vec![0.0; own.len() + 2 * margin];
    let inner = &mut sums[margin..margin + own.len()];
    for (sum, x) in inner.iter_mut().zip(own) {
        *sum = kernel.middle * f64::from(*x);
    }
    for (distance, weight) in (1..).zip(&kernel.side) {
        let above = line(mirrored(y as isize - distance, height));
        let below = line(mirrored(y as isize + distance, height));
        for ((sum, a), b) in inner.iter_mut().zip(above).zip(below) {
            *sum += weight * (f64::from(*a) + f64::from(*b));
        }
    }
    let width = own.len() / channels;
    for pixel in 1..=kernel.radius() {
        for channel in 0..channels {
            let left = margin + pixel * channels + channel;
            let right = margin + (width - 1 - pixel) * channels + channel;
            sums[margin - pixel * channels + channel] = sums[left];
            sums[margin + (width - 1 + pixel) * channels + channel] = sums[right];
        }
    }
    sums
}

fn across(
    kernel: &Kernel,
    sums: &[f64],
    channels: usize,
    out: &mut [f32],
    own: &[f32],
    f: impl Fn(f64, f64) -> f64,
) {
    let margin = kernel.radius() * channels;
    let length = out.len();
    let mut blurred: Vec<f64> = sums[margin..margin + length]
        .iter()
        .map(|x| kernel.middle * x)
        .collect();
    for (pixels, weight) in (1..).zip(&kernel.side) {
        let shift = pixels * channels;
        let (left, right) = (&sums[margin - shift..], &sums[margin + shift..]);
        for ((sum, a), b) in blurred.iter_mut().zip(left).zip(right) {
            *sum += weight * (a + b);
        }
    }
    for ((out, own), blurred) in out.iter_mut().zip(own).zip(blurred) {
        *out = f(f64::from(*own), blurred) as f32;
    }
}

/// The position inside that stands for one up to a side's length outside.
pub fn mirrored(at: isize, side: usize) -> usize {
    let last = side as isize - 1;
    let at = at.abs();
    (if at > last { 2 * last - at } else { at }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nodes::trial::{Quiet, noise},
        parallel::on_threads,
        pixels::from_byte,
    };

    fn blurred(image: &Image, radius: usize, sigma: f64) -> Image {
        with_blurred(
            image,
            &Kernel::new(radius, sigma),
            &Quiet::default(),
            |_, blurred| blurred,
        )
        .unwrap()
    }

    #[test]
    fn every_sample_is_the_weighted_sum_of_its_surroundings() {
        let image = noise(2, (9, 8), 3);
        let (radius, sigma) = (4, 0.7);
        let out = blurred(&image, radius, sigma);
        let weight = |dx: isize, dy: isize| {
            let (x, y) = (dx as f64 / radius as f64, dy as f64 / radius as f64);
            (-(x * x + y * y) / (2.0 * sigma * sigma)).exp()
        };
        let reach = -(radius as isize)..=radius as isize;
        for (at, found) in out.data.iter().enumerate() {
            let (channel, x, y, frame) = (at % 3, at / 3 % 9, at / 27 % 8, at / 216);
            let (mut sum, mut weights) = (0.0, 0.0);
            for dy in reach.clone() {
                for dx in reach.clone() {
                    let (x, y) = (mirrored(x as isize + dx, 9), mirrored(y as isize + dy, 8));
                    sum += weight(dx, dy) * f64::from(image.data[((frame * 8 + y) * 9 + x) * 3 + channel]);
                    weights += weight(dx, dy);
                }
            }
            assert!((f64::from(*found) - sum / weights).abs() < 1e-7);
        }
    }

    #[test]
    fn a_flat_image_stays_the_same_to_the_bit() {
        for byte in 0..=255 {
            let mut image = noise(1, (12, 11), 4);
            image.data.fill(from_byte(byte));
            assert_eq!(blurred(&image, 10, 0.4), image);
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let image = noise(2, (200, 150), 3);
        let run = || blurred(&image, 31, 1.0);
        assert_eq!(on_threads(1, run), on_threads(5, run));
    }
}
