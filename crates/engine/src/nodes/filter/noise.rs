//! Noise on top of an image.

use serde_json::Value as Json;

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    parallel,
    pixels::normal::randn,
    value::{Image, Value},
};

/// `ImageAddNoise`: torch's normal noise, the same on every machine.
pub fn add(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let strength = call.float("strength")? as f32;
    let mut data = randn(seed(call)?, image.data.len(), call.progress)?;
    let row = image.width * image.channels;
    parallel::rows(call.progress, &mut data, row, |y, out| {
        for (out, own) in out.iter_mut().zip(&image.data[y * row..]) {
            *out = (own + strength * *out).clamp(0.0, 1.0);
        }
    })?;
    Ok(Output::one(Image { data, ..**image }))
}

/// Seeds go up to 2^64 - 1, beyond other whole numbers.
fn seed(call: &Call<'_>) -> Result<u64, Raised> {
    match call.any("seed") {
        Some(Value::Json(Json::Number(number))) if number.is_u64() => Ok(number.as_u64().unwrap_or_default()),
        _ => call.int("seed").map(|seed| seed as u64),
    }
}

#[cfg(test)]
mod tests {
    use crate::nodes::trial::{Trial, noise};

    #[test]
    fn without_strength_nothing_changes_and_seeds_are_64_bits_long() {
        let image = noise(2, (5, 4), 4);
        let noisy = |seed: u64, strength: f64| {
            Trial::new("ImageAddNoise")
                .image("image", &image)
                .input("seed", serde_json::Value::from(seed))
                .float("strength", strength)
                .image_result()
        };
        assert_eq!(noisy(3, 0.0), image);
        assert_ne!(noisy(3, 0.5), noisy(4, 0.5));
        assert_eq!(
            noisy(u64::MAX, 0.5),
            noisy(u64::from(u32::MAX), 0.5),
            "torch uses 32 bits"
        );
    }
}
