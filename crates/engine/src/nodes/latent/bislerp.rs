//! Bislerp: between two neighbours the direction of the channel vector turns on a circle and its length changes evenly.

use crate::{exec::Raised, nodes::call::Progress, pixels::resize, value::Tensor};

/// Vectors closer to equal or to opposite than this are not turned.
const NEARLY: f32 = 1e-5;

/// Resamples the last two dimensions, columns first.
pub fn scale(
    samples: &Tensor,
    width: usize,
    height: usize,
    center: bool,
    progress: &dyn Progress,
) -> Result<Tensor, Raised> {
    samples.dimension(3)?;
    let cropped = if center {
        crop(samples, width, height)?
    } else {
        None
    };
    let samples = cropped.as_ref().unwrap_or(samples);
    let columns = samples.shape.len() - 1;
    if width == 0 || height == 0 || samples.data.is_empty() {
        return Err(Raised::new(
            "RuntimeError",
            format!(
                "Input and output sizes should be greater than 0, but got input {:?} output (H: {height}, W: {width})",
                samples.shape
            ),
        ));
    }
    along(
        &along(samples, columns, width, progress)?,
        columns - 1,
        height,
        progress,
    )
}

fn crop(samples: &Tensor, width: usize, height: usize) -> Result<Option<Tensor>, Raised> {
    let (rows, columns) = (samples.side(-2)?, samples.side(-1)?);
    let count = samples.shape.len();
    Ok(
        resize::center_margins(columns, rows, width, height).map(|(x, y)| {
            // A very thin one can be cropped to nothing; the caller refuses that.
            samples
                .narrow(count - 2, y..rows.saturating_sub(y).max(y))
                .narrow(count - 1, x..columns.saturating_sub(x).max(x))
        }),
    )
}

/// One dimension brought to a new length.
fn along(
    samples: &Tensor,
    dimension: usize,
    length: usize,
    progress: &dyn Progress,
) -> Result<Tensor, Raised> {
    let old = samples.shape[dimension];
    let taps = taps(old, length);
    let (batch, channels) = (samples.shape[0], samples.shape[1]);
    let inner: usize = samples.shape[dimension + 1..].iter().product();
    let outer: usize = samples.shape[2..dimension].iter().product();
    let mut shape = samples.shape.clone();
    shape[dimension] = length;
    let mut out = Tensor::zeros(&shape)?;
    let (plane, new_plane) = (outer * old * inner, outer * length * inner);
    let (mut first, mut second, mut mixed) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
    for item in 0..batch {
        for place in 0..outer * inner {
            progress.check()?;
            let (block, offset) = (place / inner, place % inner);
            for (to, (left, right, ratio)) in taps.iter().enumerate() {
                for channel in 0..channels {
                    let at = (item * channels + channel) * plane + block * old * inner + offset;
                    first[channel] = samples.data[at + left * inner];
                    second[channel] = samples.data[at + right * inner];
                }
                slerp(&first, &second, *ratio, &mut mixed);
                for (channel, x) in mixed.iter().enumerate() {
                    let at = (item * channels + channel) * new_plane + (block * length + to) * inner + offset;
                    out.data[at] = *x;
                }
            }
        }
    }
    Ok(out)
}

/// The two neighbours of every new position and how far it is from the first, found by scaling the numbers of the
/// positions as if they were an image.
fn taps(old: usize, new: usize) -> Vec<(usize, usize, f32)> {
    let scaled = |numbers: &dyn Fn(usize) -> f32| -> Vec<f32> {
        (0..new)
            .map(|to| {
                let (left, right, ratio) = resize::linear_taps(to, old, new);
                (1.0 - ratio) * numbers(left) + ratio * numbers(right)
            })
            .collect()
    };
    let here = scaled(&|at| at as f32);
    let next = scaled(&|at| (at + 1).min(old - 1) as f32);
    here.iter()
        .zip(next)
        .map(|(here, next)| (*here as usize, next as usize, here - here.floor()))
        .collect()
}

fn slerp(a: &[f32], b: &[f32], ratio: f32, out: &mut [f32]) {
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let (norm_a, norm_b) = (norm(a), norm(b));
    let unit = |x: f32, norm: f32| if norm == 0.0 { 0.0 } else { x / norm };
    let dot: f32 = a
        .iter()
        .zip(b)
        .map(|(x, y)| unit(*x, norm_a) * unit(*y, norm_b))
        .sum();
    if dot > 1.0 - NEARLY {
        out.copy_from_slice(a);
        return;
    }
    let pairs = a.iter().zip(b).zip(out);
    if dot < NEARLY - 1.0 {
        pairs.for_each(|((x, y), out)| *out = x * (1.0 - ratio) + y * ratio);
        return;
    }
    let omega = dot.acos();
    let sine = omega.sin();
    let (near, far) = (((1.0 - ratio) * omega).sin() / sine, (ratio * omega).sin() / sine);
    let length = norm_a * (1.0 - ratio) + norm_b * ratio;
    pairs.for_each(|((x, y), out)| *out = (near * unit(*x, norm_a) + far * unit(*y, norm_b)) * length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::call::Silent;

    #[test]
    fn directions_turn_and_lengths_change_evenly() {
        let mut out = [0.0; 2];
        slerp(&[2.0, 0.0], &[0.0, 4.0], 0.5, &mut out);
        let side = 3.0 / 2f32.sqrt();
        assert!(out.iter().all(|x| (x - side).abs() < 1e-5), "{out:?}");
        slerp(&[1.0, 0.0], &[-1.0, 0.0], 0.25, &mut out);
        assert_eq!(out, [0.5, 0.0], "opposite vectors are mixed straight");
        slerp(&[1.0, 1.0], &[2.0, 2.0], 0.5, &mut out);
        assert_eq!(out, [1.0, 1.0], "equal directions keep the first");
    }

    #[test]
    fn the_same_size_keeps_every_vector() {
        let data: Vec<f32> = (0..36).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
        let tensor = Tensor {
            shape: vec![1, 4, 3, 3],
            data,
        };
        let scaled = scale(&tensor, 3, 3, false, &Silent).unwrap();
        let worst = scaled
            .data
            .iter()
            .zip(&tensor.data)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-5, "{worst}");
    }
}
