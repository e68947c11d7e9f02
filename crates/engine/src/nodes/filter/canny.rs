//! `Canny`: edges as kornia finds them. Blur, gradient, thinning along the gradient, two thresholds.

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    parallel,
    pixels::gaussian::{check_radius, mirrored},
    value::{Image, zeros},
};

/// Added to the squared magnitude, and so the magnitude of a flat area is its root.
const EPSILON: f32 = 1e-6;
/// A Gaussian with a deviation of 1 pixel.
const KERNEL: [f32; 5] = [
    0.054_488_69,
    0.244_201_36,
    0.402_619_96,
    0.244_201_36,
    0.054_488_69,
];
const RADIUS: usize = KERNEL.len() / 2;

/// x and y of the neighbour in each direction, in steps of 45 degrees from the right downwards.
const AROUND: [(isize, isize); 8] = [
    (1, 0),
    (1, 1),
    (0, 1),
    (-1, 1),
    (-1, 0),
    (-1, -1),
    (0, -1),
    (1, -1),
];

/// A pixel that is an edge if it touches one.
const WEAK: f32 = 0.5;
const STRONG: f32 = 1.0;

/// `Canny`
pub fn canny(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let (low, high) = (call.float("low_threshold")?, call.float("high_threshold")?);
    check(image, low, high)?;
    let grey = grey(call, image)?;
    let blurred = blurred(call, &grey)?;
    let slopes = slopes(call, &blurred)?;
    let mut edges = thinned(call, &slopes, &blurred, low as f32, high as f32)?;
    for frame in edges.chunks_exact_mut(image.width * image.height) {
        call.progress.check()?;
        connect(frame, image.width, image.height);
    }
    let mut data = zeros(&[image.batch, image.height, image.width, 3])?;
    let edge = |level: &f32| if *level == STRONG { 1.0 } else { 0.0 };
    for (pixel, level) in data.chunks_exact_mut(3).zip(&edges) {
        pixel.fill(edge(level));
    }
    Ok(Output::one(Image {
        channels: 3,
        data,
        ..**image
    }))
}

fn check(image: &Image, low: f64, high: f64) -> Result<(), Raised> {
    if !matches!(image.channels, 1 | 3) {
        return Err(Raised::new(
            "kornia.core.exceptions.ImageError",
            format!(
                "Not a color or gray tensor. Got shape [{}, {}, {}, {}].\ncanny expects 1 or 3 channels.",
                image.batch, image.channels, image.height, image.width
            ),
        ));
    }
    let complaint = if low > high {
        format!(
            "Invalid input thresholds. low_threshold should be smaller than or equal to the high_threshold. Got: {low}>{high}"
        )
    } else if low <= 0.0 {
        format!("Invalid low threshold. Should be positive. Got: {low}")
    } else {
        return Ok(());
    };
    Err(Raised::new("kornia.core.exceptions.BaseError", complaint))
}

fn grey(call: &Call<'_>, image: &Image) -> Result<Image, Raised> {
    let mut data = zeros(&[image.batch, image.height, image.width])?;
    parallel::rows(call.progress, &mut data, image.width, |row, out| {
        let own = &image.data[row * image.width * image.channels..];
        for (out, pixel) in out.iter_mut().zip(own.chunks_exact(image.channels)) {
            *out = match pixel {
                [r, g, b] => fused(*b, 0.114, fused(*g, 0.587, r * 0.299)),
                _ => pixel[0],
            };
        }
    })?;
    Ok(Image {
        channels: 1,
        data,
        ..*image
    })
}

/// Sideways, then downwards, tap by tap as torch sums: which of two nearly equal slopes is larger is a matter of the last
/// bit.
fn blurred(call: &Call<'_>, grey: &Image) -> Result<Image, Raised> {
    check_radius(grey, RADIUS)?;
    let (width, height) = grey.size();
    let tap = |at: usize, t: usize, side: usize| mirrored((at + t) as isize - RADIUS as isize, side);
    let sum = |sample: &dyn Fn(usize) -> f32| {
        (1..KERNEL.len()).fold(sample(0) * KERNEL[0], |sum, t| fused(sample(t), KERNEL[t], sum))
    };
    let mut across = zeros(&[grey.batch, height, width])?;
    parallel::rows(call.progress, &mut across, width, |row, out| {
        let line = &grey.data[row * width..][..width];
        for (x, out) in out.iter_mut().enumerate() {
            *out = sum(&|t| line[tap(x, t, width)]);
        }
    })?;
    let mut data = zeros(&[grey.batch, height, width])?;
    parallel::rows(call.progress, &mut data, width, |row, out| {
        let (frame, y) = (row / height, row % height);
        for (x, out) in out.iter_mut().enumerate() {
            *out = sum(&|t| across[(frame * height + tap(y, t, height)) * width + x]);
        }
    })?;
    Ok(Image { data, ..*grey })
}

/// `a * b + c` rounded once, as the processors of the recordings do it.
fn fused(a: f32, b: f32, c: f32) -> f32 {
    (f64::from(a) * f64::from(b) + f64::from(c)) as f32
}

/// Of every pixel the magnitude of the gradient, and its direction as a number of [`AROUND`].
fn slopes(call: &Call<'_>, blurred: &Image) -> Result<Vec<f32>, Raised> {
    let (width, height) = blurred.size();
    let mut slopes = zeros(&[blurred.batch, height, width, 2])?;
    parallel::rows(call.progress, &mut slopes, width * 2, |row, out| {
        let (frame, y) = (row / height, row % height);
        let line = |y: usize| &blurred.data[(frame * height + y) * width..][..width];
        let lines = [line(y.saturating_sub(1)), line(y), line((y + 1).min(height - 1))];
        for (x, out) in out.chunks_exact_mut(2).enumerate() {
            let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
            let at = |line: usize, x: usize| lines[line][x];
            let gx = -at(0, left) + at(0, right) - 2.0 * at(1, left) + 2.0 * at(1, right) - at(2, left)
                + at(2, right);
            let gy =
                -at(0, left) - 2.0 * at(0, x) - at(0, right) + at(2, left) + 2.0 * at(2, x) + at(2, right);
            out[0] = (gx * gx + gy * gy + EPSILON).sqrt();
            let eighths = (gy.atan2(gx) * std::f32::consts::FRAC_1_PI * 4.0).round_ties_even();
            out[1] = eighths.rem_euclid(8.0);
        }
    })?;
    Ok(slopes)
}

/// [`STRONG`], [`WEAK`] or 0 for every pixel; 0 where a neighbour along the gradient has a larger one.
fn thinned(call: &Call<'_>, slopes: &[f32], image: &Image, low: f32, high: f32) -> Result<Vec<f32>, Raised> {
    let (width, height) = image.size();
    let mut edges = zeros(&[image.batch, height, width])?;
    let flat = EPSILON.sqrt();
    parallel::rows(call.progress, &mut edges, width, |row, out| {
        let (frame, y) = (row / height, row % height);
        let frame = &slopes[frame * width * height * 2..][..width * height * 2];
        let slope = |x: isize, y: isize| {
            let inside = (0..width as isize).contains(&x) && (0..height as isize).contains(&y);
            if inside {
                frame[(y as usize * width + x as usize) * 2]
            } else {
                flat
            }
        };
        for (x, out) in out.iter_mut().enumerate() {
            let own = &frame[(y * width + x) * 2..];
            let (magnitude, direction) = (own[0], own[1] as usize % 8);
            let beats = |direction: usize| {
                let (dx, dy) = AROUND[direction];
                let neighbour = slope(x as isize + dx, y as isize + dy);
                // Of two equal pixels side by side the left one is kept, of two on top of each other the upper one.
                let wins_ties = matches!(direction, 0 | 2);
                magnitude > neighbour || (wins_ties && magnitude == neighbour)
            };
            let kept = beats(direction) && beats((direction + 4) % 8) && magnitude > flat;
            *out = match magnitude {
                m if !kept || m <= low => 0.0,
                m if m <= high => WEAK,
                _ => STRONG,
            };
        }
    })?;
    Ok(edges)
}

/// Makes weak pixels strong that a chain of weak ones links to a strong one.
fn connect(levels: &mut [f32], width: usize, height: usize) {
    let mut open: Vec<usize> = (0..levels.len()).filter(|at| levels[*at] == STRONG).collect();
    while let Some(at) = open.pop() {
        let (x, y) = ((at % width) as isize, (at / width) as isize);
        for (dx, dy) in AROUND {
            let (x, y) = (x + dx, y + dy);
            if (0..width as isize).contains(&x) && (0..height as isize).contains(&y) {
                let next = y as usize * width + x as usize;
                if levels[next] == WEAK {
                    levels[next] = STRONG;
                    open.push(next);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nodes::trial::{Trial, noise},
        parallel::on_threads,
    };

    fn edges(image: &Image, low: f64, high: f64) -> Trial {
        Trial::new("Canny")
            .image("image", image)
            .float("low_threshold", low)
            .float("high_threshold", high)
    }

    fn picture(width: usize, height: usize, value: impl Fn(usize, usize) -> f32) -> Image {
        let pixels = (0..width * height).map(|at| value(at % width, at / width));
        Image {
            batch: 1,
            height,
            width,
            channels: 3,
            data: pixels.flat_map(|x| [x; 3]).collect(),
        }
    }

    #[test]
    fn the_side_of_a_square_is_one_line() {
        let step = picture(12, 9, |x, _| if x < 6 { 0.0 } else { 1.0 });
        let found = edges(&step, 0.4, 0.8).image_result();
        for row in found.data.chunks_exact(12 * 3) {
            let lit: Vec<usize> = (0..12).filter(|x| row[x * 3] == 1.0).collect();
            assert_eq!(lit, [5], "of two equal slopes the left one");
        }
        let flat = picture(12, 9, |_, _| 0.7);
        assert!(
            edges(&flat, 0.01, 0.01)
                .image_result()
                .data
                .iter()
                .all(|x| *x == 0.0)
        );
    }

    #[test]
    fn weak_pixels_count_where_they_touch_an_edge() {
        // The step fades from top to bottom: alone its lower part would be too weak.
        let fading = picture(12, 40, |x, y| if x < 6 { 0.0 } else { 0.5 - y as f32 / 100.0 });
        let lit = |low, high| {
            let found = edges(&fading, low, high).image_result();
            found.data.iter().filter(|x| **x == 1.0).count() / 3
        };
        assert!(lit(0.4, 0.99) > lit(0.99, 0.99), "{}", lit(0.4, 0.99));
        assert_eq!(lit(0.4, 0.99), lit(0.4, 0.4));
    }

    #[test]
    fn bad_inputs_are_refused_as_kornia_does() {
        let error = |image: &Image, low, high| edges(image, low, high).exception();
        assert_eq!(
            error(&noise(1, (8, 8), 4), 0.1, 0.2),
            "kornia.core.exceptions.ImageError"
        );
        assert_eq!(
            error(&noise(1, (8, 8), 3), 0.2, 0.1),
            "kornia.core.exceptions.BaseError"
        );
        assert_eq!(
            error(&noise(1, (8, 8), 3), 0.0, 0.1),
            "kornia.core.exceptions.BaseError"
        );
        assert_eq!(error(&noise(1, (2, 8), 3), 0.1, 0.2), "RuntimeError");
        assert_eq!(error(&noise(1, (3, 3), 1), 0.1, 0.2), "none");
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let image = noise(2, (300, 200), 3);
        let run = || edges(&image, 0.1, 0.3).image_result();
        assert_eq!(on_threads(1, run), on_threads(5, run));
    }
}
