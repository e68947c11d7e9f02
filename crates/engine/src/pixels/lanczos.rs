//! Pillow's Lanczos resize on 8-bit pixels, to the bit: fixed-point weights, horizontal pass first, bytes between the passes.

use super::{from_byte, resize::Frame, to_byte};
use crate::exec::Raised;

/// Weights carry 22 fractional bits: 32 minus 8 of the sample minus 2 for the overshoot of the kernel.
const PRECISION_BITS: u32 = 32 - 8 - 2;
const LOBES: f64 = 3.0;

/// Appends the frame resized to `width` x `height`. Four channels are treated as RGBA: colours are weighted by alpha.
pub fn resize(frame: Frame<'_>, width: usize, height: usize, out: &mut Vec<f32>) -> Result<(), Raised> {
    if !matches!(frame.channels, 3 | 4) {
        return Err(Raised::new(
            "TypeError",
            format!("Cannot handle this data type: {} channels", frame.channels),
        ));
    }
    let mut pixels: Vec<u8> = frame.samples.iter().map(|x| to_byte(*x)).collect();
    let resampled = width != frame.width || height != frame.height;
    if frame.channels == 4 && resampled {
        pixels.chunks_exact_mut(4).for_each(premultiply);
    }
    if width != frame.width {
        pixels = horizontal(&pixels, frame.width, frame.height, width, frame.channels);
    }
    if height != frame.height {
        pixels = vertical(&pixels, width, frame.height, height, frame.channels);
    }
    if frame.channels == 4 && resampled {
        pixels.chunks_exact_mut(4).for_each(unpremultiply);
    }
    out.extend(pixels.into_iter().map(from_byte));
    Ok(())
}

fn premultiply(pixel: &mut [u8]) {
    let alpha = u32::from(pixel[3]);
    for sample in &mut pixel[..3] {
        let product = u32::from(*sample) * alpha + 128;
        *sample = (((product >> 8) + product) >> 8) as u8;
    }
}

fn unpremultiply(pixel: &mut [u8]) {
    let alpha = u32::from(pixel[3]);
    if alpha == 0 || alpha == 255 {
        return;
    }
    for sample in &mut pixel[..3] {
        *sample = (255 * u32::from(*sample) / alpha).min(255) as u8;
    }
}

/// Where the window of one output position starts, and its weights.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

fn windows(input: usize, output: usize) -> Vec<Window> {
    let scale = input as f64 / output as f64;
    let filter_scale = scale.max(1.0);
    let support = LOBES * filter_scale;
    (0..output)
        .map(|position| {
            let center = (position as f64 + 0.5) * scale;
            let start = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as i64).min(input as i64) as usize;
            let mut weights: Vec<f64> = (start..end)
                .map(|x| kernel((x as f64 - center + 0.5) * (1.0 / filter_scale)))
                .collect();
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|w| *w *= 1.0 / sum);
            }
            Window {
                start,
                weights: weights.into_iter().map(fixed).collect(),
            }
        })
        .collect()
}

fn kernel(x: f64) -> f64 {
    if (-LOBES..LOBES).contains(&x) {
        sinc(x) * sinc(x / LOBES)
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// Half away from zero.
fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << PRECISION_BITS);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

fn horizontal(pixels: &[u8], width: usize, height: usize, new_width: usize, channels: usize) -> Vec<u8> {
    let windows = windows(width, new_width);
    let mut out = Vec::with_capacity(height * new_width * channels);
    for row in pixels.chunks_exact(width * channels) {
        for window in &windows {
            for k in 0..channels {
                let samples = row[window.start * channels + k..].iter().step_by(channels);
                let sum = window
                    .weights
                    .iter()
                    .zip(samples)
                    .map(|(w, s)| w * i32::from(*s))
                    .sum::<i32>();
                out.push(clip(sum + (1 << (PRECISION_BITS - 1))));
            }
        }
    }
    out
}

fn vertical(pixels: &[u8], width: usize, height: usize, new_height: usize, channels: usize) -> Vec<u8> {
    let stride = width * channels;
    debug_assert_eq!(pixels.len(), stride * height);
    let mut out = Vec::with_capacity(new_height * stride);
    let mut sums = vec![0i32; stride];
    for window in windows(height, new_height) {
        sums.fill(1 << (PRECISION_BITS - 1));
        for (row, weight) in pixels[window.start * stride..]
            .chunks_exact(stride)
            .zip(&window.weights)
        {
            for (sum, sample) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(*sample);
            }
        }
        out.extend(sums.iter().map(|sum| clip(*sum)));
    }
    out
}
