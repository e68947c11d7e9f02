//! Colour spaces, by kornia's figures in 32-bit floats.

use super::call::{Call, Output};
use crate::{
    exec::Raised,
    parallel,
    registry::NodeKind,
    value::{Image, zeros},
};

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("ImageRGBToYUV", to_yuv),
    NodeKind::new("ImageYUVToRGB", to_rgb),
];

/// `ImageRGBToYUV`: brightness and the two differences of colour, each as a grey image.
fn to_yuv(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    if image.channels != 3 {
        return Err(Raised::new(
            "ValueError",
            format!(
                "Input size must have a shape of (*, 3, H, W). Got torch.Size([{}, {}, {}, {}])",
                image.batch, image.channels, image.height, image.width
            ),
        ));
    }
    let plane = |value: fn(f32, f32, f32) -> f32| -> Result<Image, Raised> {
        let row = image.width * 3;
        let mut data = zeros(&[image.batch, image.height, image.width, 3])?;
        parallel::rows(call.progress, &mut data, row, |y, out| {
            let own = image.data[y * row..].chunks_exact(3);
            for (out, rgb) in out.chunks_exact_mut(3).zip(own) {
                out.fill(value(rgb[0], rgb[1], rgb[2]));
            }
        })?;
        Ok(Image { data, ..**image })
    };
    Ok(Output::values([
        plane(brightness)?.into(),
        plane(|r, g, b| (b - brightness(r, g, b)) * 0.564 + 0.5)?.into(),
        plane(|r, g, b| (r - brightness(r, g, b)) * 0.713 + 0.5)?.into(),
    ]))
}

/// `ImageYUVToRGB`: of three images that are grey, or are made so by their mean.
fn to_rgb(call: &Call<'_>) -> Result<Output, Raised> {
    let planes = [call.image("Y")?, call.image("U")?, call.image("V")?];
    let first = planes[0];
    let shape = |image: &Image| [image.batch, image.height, image.width];
    if let Some((number, other)) = (1..).zip(&planes[1..]).find(|(_, p)| shape(p) != shape(first)) {
        return Err(Raised::new(
            "RuntimeError",
            format!(
                "Sizes of tensors must match except in dimension 3. Expected {:?} but got {:?} for tensor number {number} in the list.",
                shape(first),
                shape(other)
            ),
        ));
    }
    let mut data = zeros(&[first.batch, first.height, first.width, 3])?;
    parallel::rows(call.progress, &mut data, first.width * 3, |row, out| {
        for (x, rgb) in out.chunks_exact_mut(3).enumerate() {
            let pixel = row * first.width + x;
            let [y, u, v] = planes.map(|plane| mean(plane, pixel));
            rgb.copy_from_slice(&color(y, u - 0.5, v - 0.5));
        }
    })?;
    Ok(Output::one(Image {
        channels: 3,
        data,
        ..**first
    }))
}

fn brightness(r: f32, g: f32, b: f32) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

/// The figures are 1 / 0.713, 1 / 0.564 and what follows for green, so that there and back gives the same.
fn color(y: f32, u: f32, v: f32) -> [f32; 3] {
    const RED: f32 = 1.402_524_544_2_f64 as f32;
    const GREEN: [f32; 2] = [0.344_340_135_6_f64 as f32, 0.714_403_473_1_f64 as f32];
    const BLUE: f32 = 1.773_049_645_4_f64 as f32;
    [y + RED * v, y - GREEN[1] * v - GREEN[0] * u, y + BLUE * u].map(|x| x.clamp(0.0, 1.0))
}

fn mean(image: &Image, pixel: usize) -> f32 {
    let samples = &image.data[pixel * image.channels..][..image.channels];
    samples.iter().sum::<f32>() / image.channels as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        nodes::trial::{Trial, any_image, noise},
        value::{Image, Value},
    };

    fn planes(image: &Image) -> Vec<Value> {
        Trial::new("ImageRGBToYUV").image("image", image).results()
    }

    fn joined(planes: &[Value]) -> Trial {
        let mut trial = Trial::new("ImageYUVToRGB");
        for (name, plane) in ["Y", "U", "V"].into_iter().zip(planes) {
            trial = trial.input(name, plane.clone());
        }
        trial
    }

    proptest! {
        #[test]
        fn there_and_back_gives_the_same(image in any_image().prop_filter("RGB", |image| image.channels == 3)) {
            let back = joined(&planes(&image)).image_result();
            for (found, wanted) in back.data.iter().zip(&image.data) {
                prop_assert!((found - wanted).abs() < 1e-6, "{} {}", found, wanted);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let rgba = Trial::new("ImageRGBToYUV").image("image", &noise(1, (2, 2), 4));
        assert_eq!(rgba.exception(), "ValueError");
        let mut mixed = planes(&noise(1, (2, 2), 3));
        mixed[2] = noise(2, (2, 2), 3).into();
        assert_eq!(joined(&mixed).exception(), "RuntimeError");
    }
}
