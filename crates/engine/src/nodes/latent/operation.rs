//! Operations on samples that are made by one node and applied by another.

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    value::{Operation, Tensor},
};

/// `LatentOperationTonemapReinhard`
pub fn reinhard(call: &Call<'_>) -> Result<Output, Raised> {
    Ok(Output::one(Operation::Reinhard {
        multiplier: call.float("multiplier")?,
    }))
}

/// `LatentOperationSharpen`
pub fn sharpen(call: &Call<'_>) -> Result<Output, Raised> {
    Ok(Output::one(Operation::Sharpen {
        radius: call.size("sharpen_radius")?,
        sigma: call.float("sigma")?,
        alpha: call.float("alpha")?,
    }))
}

/// `LatentApplyOperation`
pub fn apply(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    latent.samples.dimension(3)?;
    let samples = match *call.operation("operation")? {
        Operation::Reinhard { multiplier } => tonemapped(&latent.samples, multiplier)?,
        Operation::Sharpen { radius, sigma, alpha } => {
            sharpened(call, &latent.samples, radius, sigma, alpha)?
        }
    };
    Ok(Output::one(latent.with(samples)))
}

/// The channel vectors' lengths, with a channel dimension of 1.
fn lengths(samples: &Tensor, more: f32) -> Tensor {
    let mut lengths = samples.norm().map(|x| x + more);
    lengths.shape.insert(1, 1);
    lengths
}

fn tonemapped(samples: &Tensor, multiplier: f64) -> Result<Tensor, Raised> {
    let mut lengths = lengths(samples, 1e-10);
    let directions = samples.zip(&lengths, |x, l| x / l)?;
    // Mean and deviation over dimensions 1 to 3: for a video every column is then on its own, as in the original.
    let inner: usize = lengths.shape[4..].iter().product();
    let item: usize = lengths.shape[1..].iter().product();
    for block in lengths.data.chunks_exact_mut(item.max(1)) {
        for column in 0..inner {
            let count = (item / inner) as f64;
            let values = || block.iter().skip(column).step_by(inner).map(|x| f64::from(*x));
            let mean = values().sum::<f64>() / count;
            let variance = values().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (count - 1.0);
            let top = (variance.sqrt() as f32 * 5.0 + mean as f32) * multiplier as f32;
            for length in block.iter_mut().skip(column).step_by(inner) {
                let scaled = *length * (1.0 / top);
                *length = scaled / (scaled + 1.0) * top;
            }
        }
    }
    directions.zip(&lengths, |x, l| x * l)
}

fn sharpened(
    call: &Call<'_>,
    samples: &Tensor,
    radius: usize,
    sigma: f64,
    alpha: f64,
) -> Result<Tensor, Raised> {
    if samples.shape.len() != 4 {
        return Err(Raised::new(
            "RuntimeError",
            format!("expected 4 dimensions, but got {}", samples.shape.len()),
        ));
    }
    let (height, width) = (samples.shape[2], samples.shape[3]);
    if radius >= height || radius >= width {
        return Err(Raised::new(
            "RuntimeError",
            format!(
                "Argument #4: Padding size should be less than the corresponding input dimension, but got: padding ({radius}, {radius}) of {height} x {width}"
            ),
        ));
    }
    let lengths = lengths(samples, 1e-6);
    let mut out = samples.zip(&lengths, |x, l| x / l)?;
    let kernel = kernel(radius, sigma as f32, (alpha * -10.0) as f32);
    for plane in out.data.chunks_exact_mut(height * width) {
        call.progress.check()?;
        let filtered = convolved(plane, height, width, &kernel, radius);
        plane.copy_from_slice(&filtered);
    }
    lengths.zip(&out, |l, x| l * x)
}

/// A bell times `factor`, with a centre that makes the sum 1.
fn kernel(radius: usize, sigma: f32, factor: f32) -> Vec<f32> {
    let side = 2 * radius + 1;
    let at = |i: usize| i as f32 / radius as f32 - 1.0;
    let bell = |i: usize| {
        let (x, y) = (at(i % side), at(i / side));
        (-(x * x + y * y) / (2.0 * sigma * sigma)).exp()
    };
    let mut kernel: Vec<f32> = (0..side * side).map(bell).collect();
    let sum: f32 = kernel.iter().sum();
    kernel.iter_mut().for_each(|x| *x = *x / sum * factor);
    let sum: f32 = kernel.iter().sum();
    kernel[radius * side + radius] += 1.0 - sum;
    kernel
}

/// The plane mirrored at its edges (which are not repeated) under the kernel.
fn convolved(plane: &[f32], height: usize, width: usize, kernel: &[f32], radius: usize) -> Vec<f32> {
    let side = 2 * radius + 1;
    let mirror = |at: usize, length: usize| {
        let at = at.abs_diff(radius);
        if at >= length { 2 * (length - 1) - at } else { at }
    };
    let columns: Vec<usize> = (0..width + 2 * radius).map(|x| mirror(x, width)).collect();
    let mut out = Vec::with_capacity(plane.len());
    for y in 0..height {
        for x in 0..width {
            let mut sum = 0f32;
            for (row, weights) in kernel.chunks_exact(side).enumerate() {
                let line = &plane[mirror(y + row, height) * width..][..width];
                let taps = columns[x..x + side].iter().zip(weights);
                sum += taps.map(|(column, weight)| line[*column] * weight).sum::<f32>();
            }
            out.push(sum);
        }
    }
    out
}
