//! Blurring and sharpening with a Gaussian.

use std::sync::Arc;

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    pixels::gaussian::{Kernel, check_radius, with_blurred},
    value::Value,
};

/// `ImageBlur`
pub fn blur(call: &Call<'_>) -> Result<Output, Raised> {
    filtered(call, "blur_radius", |_, blurred| blurred)
}

/// `ImageSharpen`: away from the blurred image, by ten times `alpha`.
pub fn sharpen(call: &Call<'_>) -> Result<Output, Raised> {
    let amount = call.float("alpha")? * 10.0;
    filtered(call, "sharpen_radius", |own, blurred| {
        (own + amount * (own - blurred)).clamp(0.0, 1.0)
    })
}

fn filtered(call: &Call<'_>, radius: &str, f: impl Fn(f64, f64) -> f64 + Sync) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let radius = usize::try_from(call.int(radius)?)
        .map_err(|_| Raised::new("RuntimeError", "number of steps must be non-negative"))?;
    if radius == 0 {
        return Ok(Output::one(Value::Image(Arc::clone(image))));
    }
    check_radius(image, radius)?;
    let kernel = Kernel::new(radius, call.float("sigma")?);
    with_blurred(image, &kernel, call.progress, f).map(Output::one)
}

#[cfg(test)]
mod tests {
    use crate::nodes::trial::{Trial, noise};

    fn sharpen(side: usize, radius: i64, alpha: f64) -> Trial {
        Trial::new("ImageSharpen")
            .image("image", &noise(1, (side, side), 3))
            .int("sharpen_radius", radius)
            .float("sigma", 1.0)
            .float("alpha", alpha)
    }

    #[test]
    fn sharpening_by_nothing_and_blurring_by_nothing_change_nothing() {
        let image = noise(1, (9, 9), 3);
        assert_eq!(sharpen(9, 3, 0.0).image_result(), image);
        // A radius of 0 only comes over a link.
        assert_eq!(sharpen(9, 0, 1.0).image_result(), image);
        let blur = Trial::new("ImageBlur")
            .image("image", &image)
            .int("blur_radius", 0);
        assert_eq!(blur.image_result(), image);
    }

    #[test]
    fn a_radius_as_large_as_the_image_is_an_error() {
        assert_eq!(sharpen(5, 4, 1.0).exception(), "none");
        for radius in [5, i64::MAX, -1] {
            assert_eq!(sharpen(5, radius, 1.0).exception(), "RuntimeError");
        }
        assert_eq!(sharpen(1, 1, 1.0).exception(), "RuntimeError");
    }

    #[test]
    fn an_interrupt_ends_it() {
        assert_eq!(
            sharpen(300, 31, 1.0).interrupted_after(2).exception(),
            "Interrupted"
        );
    }
}
