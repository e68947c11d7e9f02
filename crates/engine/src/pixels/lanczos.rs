//! Pillow's Lanczos resize on 8-bit pixels, to the bit: fixed-point weights, horizontal pass first, bytes between the passes.

use super::{
    from_byte,
    resize::{Frame, Target},
    to_byte,
};
use crate::{exec::Raised, nodes::call::Progress, parallel};

/// Weights carry 22 fractional bits: 32 minus 8 of the sample minus 2 for the overshoot of the kernel.
const PRECISION_BITS: u32 = 32 - 8 - 2;
const LOBES: f64 = 3.0;

/// The frame resized. Four channels are treated as RGBA: colours are weighted by alpha.
pub fn resize(
    frame: Frame<'_>,
    target: Target,
    out: &mut [f32],
    progress: &dyn Progress,
) -> Result<(), Raised> {
    match frame.channels {
        3 => resize_channels::<3>(frame, target, out, progress),
        4 => resize_channels::<4>(frame, target, out, progress),
        channels => Err(Raised::new(
            "TypeError",
            format!("Cannot handle this data type: {channels} channels"),
        )),
    }
}

fn resize_channels<const C: usize>(
    frame: Frame<'_>,
    target: Target,
    out: &mut [f32],
    progress: &dyn Progress,
) -> Result<(), Raised> {
    let Target { width, height } = target;
    let weighted = C == 4 && (width != frame.width || height != frame.height);
    let mut narrow = vec![0; frame.height * width * C];
    let columns = (width != frame.width).then(|| windows(frame.width, width));
    parallel::rows(progress, &mut narrow, width * C, |y, out| {
        let row = &frame.samples[y * frame.width * C..][..frame.width * C];
        let mut bytes: Vec<u8> = row.iter().map(|x| to_byte(*x)).collect();
        if weighted {
            bytes.chunks_exact_mut(4).for_each(premultiply);
        }
        match &columns {
            Some(windows) => horizontal::<C>(&bytes, windows, out),
            None => out.copy_from_slice(&bytes),
        }
    })?;
    let rows = (height != frame.height).then(|| windows(frame.height, height));
    parallel::rows(progress, out, width * C, |y, out| {
        let mut bytes = vec![0; width * C];
        match &rows {
            Some(windows) => vertical(&narrow, &windows[y], &mut bytes),
            None => bytes.copy_from_slice(&narrow[y * width * C..][..width * C]),
        }
        if weighted {
            bytes.chunks_exact_mut(4).for_each(unpremultiply);
        }
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = from_byte(byte);
        }
    })
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

/// One row of pixels.
fn horizontal<const C: usize>(row: &[u8], windows: &[Window], out: &mut [u8]) {
    for (out, window) in out.chunks_exact_mut(C).zip(windows) {
        let mut sums = [1i32 << (PRECISION_BITS - 1); C];
        let (pixels, _) = row[window.start * C..].as_chunks::<C>();
        for (weight, pixel) in window.weights.iter().zip(pixels) {
            for (sum, sample) in sums.iter_mut().zip(pixel) {
                *sum += weight * i32::from(*sample);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = clip(sum);
        }
    }
}

/// One row of the result, from all rows that its window covers.
fn vertical(pixels: &[u8], window: &Window, out: &mut [u8]) {
    /// Samples whose sums fit the fastest cache.
    const PART: usize = 1024;
    let stride = out.len();
    for (part, out) in out.chunks_mut(PART).enumerate() {
        let mut sums = [1i32 << (PRECISION_BITS - 1); PART];
        for (at, weight) in window.weights.iter().enumerate() {
            let row = &pixels[(window.start + at) * stride + part * PART..][..out.len()];
            for (sum, sample) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(*sample);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = clip(sum);
        }
    }
}
