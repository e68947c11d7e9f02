//! Floyd and Steinberg's error diffusion in whole sixteenths, as Pillow rounds it.

use super::{Nearest, Rgb};
use crate::{exec::Raised, nodes::call::Progress};

/// Maps the rows of a picture, from left to right and from top to bottom, to the colours of a palette.
pub fn diffuse(
    pixels: &mut [Rgb],
    width: usize,
    nearest: &mut Nearest<'_>,
    progress: &dyn Progress,
) -> Result<(), Raised> {
    // What the row above leaves for each pixel of the next one, in sixteenths.
    let mut below = vec![[0i32; 3]; width];
    for row in pixels.chunks_exact_mut(width) {
        progress.check()?;
        let mut from_left = [0; 3];
        // What this row leaves for the pixel below the one before, and the one after that.
        let (mut before, mut own) = ([0; 3], [0; 3]);
        for x in 0..width {
            let wanted: [u8; 3] = [0, 1, 2].map(|k| {
                let error = (from_left[k] + below[x][k]) / 16;
                (i32::from(row[x][k]) + error).clamp(0, 255) as u8
            });
            row[x] = nearest.color(wanted);
            let error: [i32; 3] = [0, 1, 2].map(|k| i32::from(wanted[k]) - i32::from(row[x][k]));
            if x > 0 {
                below[x - 1] = [0, 1, 2].map(|k| before[k] + 3 * error[k]);
            }
            before = [0, 1, 2].map(|k| own[k] + 5 * error[k]);
            own = error;
            from_left = error.map(|e| 7 * e);
        }
        // At the end of a row Pillow takes the errors of blue for all three channels.
        if let Some(last) = below.last_mut() {
            *last = [before[2], own[2], own[2]];
        }
    }
    Ok(())
}
