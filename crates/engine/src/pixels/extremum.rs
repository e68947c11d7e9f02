//! The greatest or smallest sample in a window around every pixel, channel by channel. What lies outside the image never
//! wins.

use crate::{exec::Raised, nodes::call::Progress, parallel, value::Image};

/// Which sample of a window is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extremum {
    /// The greatest.
    Greatest,
    /// The smallest.
    Least,
}

/// How far a window reaches along a side; it always has the pixel itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Positions before the pixel.
    pub before: usize,
    /// Positions after it.
    pub after: usize,
}

/// Rows that are made together have a height of at least this many: each band reads a window more than it writes.
const BAND_ROWS: usize = 64;
/// Samples of a row that are made together, so that a band stays in the processor's cache.
const STRIP: usize = 512;

/// The extremum of a square window, the same along both sides. The time does not grow with the window's size, but with
/// its logarithm.
pub fn square(
    progress: &dyn Progress,
    image: &Image,
    window: Window,
    extremum: Extremum,
) -> Result<Image, Raised> {
    match extremum {
        Extremum::Greatest => passes(progress, image, window, f32::NEG_INFINITY, |a, b| {
            if b > a { b } else { a }
        }),
        Extremum::Least => passes(
            progress,
            image,
            window,
            f32::INFINITY,
            |a, b| if b < a { b } else { a },
        ),
    }
}

/// First along the rows, then along the columns. `never` is the sample that `pick` never takes.
fn passes(
    progress: &dyn Progress,
    image: &Image,
    window: Window,
    never: f32,
    pick: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Image, Raised> {
    let length = image.width * image.channels;
    let mut across = image.map(|_| 0.0);
    let columns = window.within(image.width);
    parallel::rows(progress, &mut across.data, length, |row, out| {
        let mut line = vec![never; columns.before * image.channels];
        line.extend_from_slice(image.row(row));
        line.resize(line.len() + columns.after * image.channels, never);
        out.copy_from_slice(&slide(line, columns, image.channels, &pick));
    })?;
    let mut out = image.map(|_| 0.0);
    let rows = window.within(image.height);
    let count = rows.size().max(BAND_ROWS);
    let frames = out.data.chunks_mut(image.frame_len().max(1));
    for (frame, out) in across.frames().zip(frames) {
        parallel::bands(progress, out, count * length, |band, out| {
            let first = band * count;
            for start in (0..length).step_by(STRIP) {
                let strip = start..(start + STRIP).min(length);
                let last = first + out.len() / length + rows.after;
                let mut lines = Vec::with_capacity((last - first + rows.before) * strip.len());
                for line in first..last + rows.before {
                    match line.checked_sub(rows.before) {
                        Some(line) if line < image.height => {
                            lines.extend_from_slice(&frame[line * length..][strip.clone()]);
                        }
                        _ => lines.resize(lines.len() + strip.len(), never),
                    }
                }
                let found = slide(lines, rows, strip.len(), &pick);
                for (out, found) in out.chunks_mut(length).zip(found.chunks(strip.len())) {
                    out[strip.clone()].copy_from_slice(found);
                }
            }
        })?;
    }
    Ok(out)
}

impl Window {
    /// What lies outside the image never wins, so a window that covers all of it is large enough.
    fn within(self, side: usize) -> Window {
        let most = side.saturating_sub(1);
        Window {
            before: self.before.min(most),
            after: self.after.min(most),
        }
    }

    fn size(self) -> usize {
        self.before + 1 + self.after
    }
}

/// The extremum of the samples at and after every position, `step` apart, as many as the window has; as many fewer come
/// out. Windows are doubled until they are large enough: two that overlap cover what lies between.
fn slide(mut samples: Vec<f32>, window: Window, step: usize, pick: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let mut covered = 1;
    while covered < window.size() {
        let further = covered.min(window.size() - covered);
        samples = samples
            .iter()
            .zip(&samples[further * step..])
            .map(|(a, b)| pick(*a, *b))
            .collect();
        covered += further;
    }
    samples
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nodes::call::Silent;

    /// Every window looked through sample by sample.
    fn plain(image: &Image, window: Window) -> Vec<f32> {
        let near =
            |at: usize, side: usize| at.saturating_sub(window.before)..(at + window.after + 1).min(side);
        let mut out = Vec::new();
        for frame in image.frames() {
            for (y, x, k) in positions(image) {
                let samples = near(y, image.height).flat_map(|y| near(x, image.width).map(move |x| (y, x)));
                let samples = samples.map(|(y, x)| frame[(y * image.width + x) * image.channels + k]);
                out.push(samples.fold(f32::NEG_INFINITY, f32::max));
            }
        }
        out
    }

    fn positions(image: &Image) -> impl Iterator<Item = (usize, usize, usize)> {
        let (height, width, channels) = (image.height, image.width, image.channels);
        (0..height * width * channels)
            .map(move |at| (at / channels / width, at / channels % width, at % channels))
    }

    proptest! {
        #[test]
        fn a_fast_window_finds_what_a_slow_one_finds(
            (batch, height, width, channels) in (1usize..3, 1usize..70, 1usize..12, 1usize..4),
            before in 0usize..80,
            after in 0usize..9,
            seed: u32,
        ) {
            let mut x = seed;
            let data: Vec<f32> = (0..batch * height * width * channels)
                .map(|_| { x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); (x >> 8) as f32 })
                .collect();
            let image = Image { batch, height, width, channels, data };
            let window = Window { before, after };
            let found = square(&Silent, &image, window, Extremum::Greatest).unwrap();
            prop_assert_eq!(&found.data, &plain(&image, window));
            let least = square(&Silent, &image.map(|x| -x), window, Extremum::Least).unwrap();
            prop_assert_eq!(least.map(|x| -x), found);
        }
    }

    #[test]
    fn an_image_without_pixels_stays_so() {
        let image = Image {
            batch: 1,
            height: 0,
            width: 4,
            channels: 3,
            data: Vec::new(),
        };
        let window = Window { before: 1, after: 1 };
        assert_eq!(square(&Silent, &image, window, Extremum::Least).unwrap(), image);
    }
}
