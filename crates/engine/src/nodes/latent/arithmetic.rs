//! Sums, products and mixtures.

use super::scale::{self, Method};
use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    value::Tensor,
};

/// `LatentAdd`
pub fn add(call: &Call<'_>) -> Result<Output, Raised> {
    combine(call, |a, b| a.zip(b, |x, y| x + y))
}

/// `LatentSubtract`
pub fn subtract(call: &Call<'_>) -> Result<Output, Raised> {
    combine(call, |a, b| a.zip(b, |x, y| x - y))
}

/// `LatentMultiply`
pub fn multiply(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    let factor = call.float("multiplier")? as f32;
    Ok(Output::one(latent.with(latent.samples.map(|x| x * factor))))
}

/// `LatentInterpolate`: directions and lengths of the channel vectors are mixed apart.
pub fn interpolate(call: &Call<'_>) -> Result<Output, Raised> {
    let ratio = call.float("ratio")?;
    let (near, far) = (ratio as f32, (1.0 - ratio) as f32);
    combine(call, |a, b| {
        // The lengths lack the channel dimension, so they meet the samples' *last* dimensions: a batch of more than
        // one is an error, as in the original, unless it happens to be as large as the number of channels.
        let mix = |x: f32, y: f32| x * near + y * far;
        let direction = |samples: &Tensor, lengths: &Tensor| samples.zip(lengths, |x, l| finite(x / l));
        let (length_a, length_b) = (a.norm(), b.norm());
        let mixed = direction(a, &length_a)?.zip(&direction(b, &length_b)?, mix)?;
        let mixed = direction(&mixed, &mixed.norm())?;
        mixed.zip(&length_a.zip(&length_b, mix)?, |x, l| x * l)
    })
}

/// `LatentBlend`: the second is brought to the size of the first.
pub fn blend(call: &Call<'_>) -> Result<Output, Raised> {
    let (first, second) = (call.latent("samples1")?, call.latent("samples2")?);
    let factor = call.float("blend_factor")?;
    let (near, far) = (factor as f32, (1.0 - factor) as f32);
    let a = &first.samples;
    let mixed = if a.shape == second.samples.shape {
        a.zip(&second.samples, |x, y| x * near + y * far)?
    } else {
        let (width, height) = (a.side(3)?, a.side(2)?);
        let b = scale::common_upscale(
            &second.samples,
            width,
            height,
            Method::Bicubic,
            true,
            call.progress,
        )?;
        a.zip(&b, |x, y| x * near + y * far)?
    };
    Ok(Output::one(first.with(mixed)))
}

/// The second is brought to the size and the batch of the first.
fn combine(
    call: &Call<'_>,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor, Raised>,
) -> Result<Output, Raised> {
    let (first, second) = (call.latent("samples1")?, call.latent("samples2")?);
    let fitted =
        scale::fit(&second.samples, &first.samples, call.progress)?.repeat_to_batch(first.samples.batch())?;
    Ok(Output::one(first.with(f(&first.samples, &fitted)?)))
}

/// `nan_to_num`
fn finite(x: f32) -> f32 {
    if x.is_nan() {
        0.0
    } else {
        x.clamp(f32::MIN, f32::MAX)
    }
}
