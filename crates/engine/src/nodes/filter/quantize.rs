//! `ImageQuantize`: few colours, frame by frame.

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    pixels::{
        from_byte,
        quantize::{Nearest, Rgb, diffuse, palette},
    },
    value::{Image, reserve},
};

/// `ImageQuantize`
pub fn quantize(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let dither = call.text("dither")?;
    match image.channels {
        3 => {}
        1 => {
            return Err(Raised::new(
                "TypeError",
                "Cannot handle this data type: (1, 1, 1), |u1",
            ));
        }
        _ => return Err(Raised::new("ValueError", "Invalid mode for data type")),
    }
    let count = match call.int("colors")? {
        count @ 1..=256 => count as usize,
        _ => return Err(Raised::new("ValueError", "bad number of colors")),
    };
    let mut data = reserve(&[image.batch, image.height, image.width, 3])?;
    for frame in image.frames() {
        call.progress.check()?;
        let mut pixels: Vec<Rgb> = frame
            .chunks_exact(3)
            .map(|pixel| [0, 1, 2].map(|k| wrapped_byte(pixel[k])))
            .collect();
        let palette = palette(&pixels, count);
        call.progress.check()?;
        let mut nearest = Nearest::new(&palette);
        match dither {
            "floyd-steinberg" => diffuse(&mut pixels, image.width, &mut nearest, call.progress)?,
            _ => {
                if let Some(order) = dither.strip_prefix("bayer-") {
                    add_pattern(&mut pixels, image.width, pattern(order)?, palette.len());
                }
                for row in pixels.chunks_exact_mut(image.width) {
                    call.progress.check()?;
                    row.iter_mut().for_each(|pixel| *pixel = nearest.color(*pixel));
                }
            }
        }
        data.extend(pixels.iter().flatten().map(|byte| from_byte(*byte)));
    }
    Ok(Output::one(Image { data, ..**image }))
}

/// Unlike in saving, samples outside 0 to 1 are not clipped: they start again at the other end.
fn wrapped_byte(x: f32) -> u8 {
    (x * 255.0) as i32 as u8
}

/// The side of a Bayer matrix.
fn pattern(order: &str) -> Result<usize, Raised> {
    match order.parse() {
        Ok(order @ (1 | 2 | 4 | 8 | 16)) => Ok(order),
        _ => Err(Raised::new(
            "ValueError",
            format!("'{order}' is no order of a Bayer matrix"),
        )),
    }
}

/// Moves every pixel a little, by a pattern that repeats; the fewer colours, the more.
fn add_pattern(pixels: &mut [Rgb], width: usize, side: usize, colors: usize) {
    let spread = (2.0 * 256.0 / colors as f64) as f32;
    let offsets: Vec<f32> = (0..side * side)
        .map(|at| spread * threshold(at % side, at / side, side) + 0.5)
        .collect();
    for (y, row) in pixels.chunks_exact_mut(width).enumerate() {
        for (x, pixel) in row.iter_mut().enumerate() {
            let offset = offsets[y % side * side + x % side];
            *pixel = pixel.map(|byte| (f32::from(byte) + offset).clamp(0.0, 255.0) as u8);
        }
    }
}

/// One entry of a Bayer matrix, between -1/2 and 1/2: each quarter is the next smaller matrix, a quarter of its size.
fn threshold(x: usize, y: usize, side: usize) -> f32 {
    if side == 1 {
        return 0.0;
    }
    let half = side / 2;
    let quarter = match (y / half, x / half) {
        (0, 0) => -1.5,
        (0, _) => 0.5,
        (_, 0) => 1.5,
        _ => -0.5,
    };
    threshold(x % half, y % half, half) + quarter / (half * half * 4) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::trial::{Trial, noise};

    const DITHERS: [&str; 6] = [
        "none",
        "floyd-steinberg",
        "bayer-2",
        "bayer-4",
        "bayer-8",
        "bayer-16",
    ];

    fn quantized(image: &Image, colors: i64, dither: &str) -> Trial {
        Trial::new("ImageQuantize")
            .image("image", image)
            .int("colors", colors)
            .text("dither", dither)
    }

    #[test]
    fn no_more_colours_than_asked_for_in_each_frame() {
        let image = noise(2, (23, 17), 3);
        for dither in DITHERS {
            for colors in [1, 2, 7, 256] {
                let found = quantized(&image, colors, dither).image_result();
                for frame in found.frames() {
                    let mut colors_found: Vec<Vec<u32>> = frame
                        .chunks_exact(3)
                        .map(|p| p.iter().map(|x| x.to_bits()).collect())
                        .collect();
                    colors_found.sort_unstable();
                    colors_found.dedup();
                    assert!(colors_found.len() <= colors as usize, "{dither} {colors}");
                }
            }
        }
    }

    #[test]
    fn the_entries_of_a_bayer_matrix_are_evenly_spread() {
        for side in [2usize, 4, 8, 16] {
            let mut entries: Vec<f32> = (0..side * side)
                .map(|at| threshold(at % side, at / side, side))
                .collect();
            entries.sort_unstable_by(f32::total_cmp);
            let step = 1.0 / (side * side) as f32;
            assert!(
                entries.windows(2).all(|pair| pair[1] - pair[0] == step),
                "{side}: {entries:?}"
            );
            assert_eq!(entries.iter().sum::<f32>(), 0.0);
        }
        assert_eq!(
            [threshold(0, 0, 2), threshold(1, 0, 2), threshold(0, 1, 2)],
            [-0.375, 0.125, 0.375]
        );
    }

    #[test]
    fn an_interrupt_ends_it_within_a_row() {
        for dither in DITHERS {
            let trial = quantized(&noise(1, (5, 9), 3), 4, dither).interrupted_after(6);
            assert_eq!(trial.exception(), "Interrupted", "{dither}");
        }
    }

    #[test]
    fn what_pillow_refuses_is_refused() {
        assert_eq!(
            quantized(&noise(1, (2, 2), 4), 8, "none").exception(),
            "ValueError"
        );
        assert_eq!(
            quantized(&noise(1, (2, 2), 1), 8, "none").exception(),
            "TypeError"
        );
        assert_eq!(
            quantized(&noise(1, (2, 2), 3), 0, "none").exception(),
            "ValueError"
        );
    }
}
