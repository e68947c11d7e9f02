//! Scaling images.

use std::{cmp::Ordering, sync::Arc};

use super::call::{Call, Output};
use crate::{
    exec::Raised,
    pixels::{
        resize::{Method, common_upscale},
        round_half_even,
    },
    value::{Image, Value},
};

/// `ImageScale`: to a size; a 0 keeps the aspect ratio, two leave the image alone.
pub fn to_size(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let center = call.text("crop")? == "center";
    let keep = |side: usize, other: usize, target: usize| {
        round_half_even(side as f64 * target as f64 / other as f64).max(1) as usize
    };
    let (width, height) = match (call.size("width")?, call.size("height")?) {
        (0, 0) => return Ok(Output::one(Value::Image(Arc::clone(image)))),
        (0, height) => (keep(image.width, image.height, height), height),
        (width, 0) => (width, keep(image.height, image.width, width)),
        size => size,
    };
    scaled(call, image, width, height, center)
}

/// `ImageScaleBy`: by a factor.
pub fn by_factor(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let factor = call.float("scale_by")?;
    let side = |side: usize| round_half_even(side as f64 * factor).max(0) as usize;
    scaled(call, image, side(image.width), side(image.height), false)
}

/// `ImageScaleToTotalPixels`: to about so many pixels (1 megapixel is 1024 x 1024), its aspect kept.
pub fn to_total_pixels(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let total = (call.float("megapixels")? * 1024.0 * 1024.0).trunc();
    if total < 0.0 {
        return Err(Raised::new("ValueError", "math domain error"));
    }
    let factor = (total / (image.width * image.height) as f64).sqrt();
    let side = |side: usize| round_half_even(side as f64 * factor).max(0) as usize;
    scaled(call, image, side(image.width), side(image.height), false)
}

/// `ImageScaleToMaxDimension`: the longer side to a length, its aspect kept.
pub fn to_max_dimension(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let largest = call.size("largest_size")?;
    let shorter = |shorter: usize, longer: usize| {
        round_half_even(shorter as f64 / longer as f64 * largest as f64).max(0) as usize
    };
    let (width, height) = match image.width.cmp(&image.height) {
        Ordering::Less => (shorter(image.width, image.height), largest),
        Ordering::Greater => (largest, shorter(image.height, image.width)),
        Ordering::Equal => (largest, largest),
    };
    scaled(call, image, width, height, false)
}

fn scaled(
    call: &Call<'_>,
    image: &Image,
    width: usize,
    height: usize,
    center: bool,
) -> Result<Output, Raised> {
    let method = method(call, "upscale_method")?;
    Ok(Output::one(common_upscale(
        image,
        width,
        height,
        method,
        center,
        call.progress,
    )?))
}

/// The resampling method that an input names.
pub fn method(call: &Call<'_>, input: &str) -> Result<Method, Raised> {
    let name = call.text(input)?;
    Method::parse(name).ok_or_else(|| {
        Raised::new(
            "NotImplementedError",
            format!("'{name}' is not an upscale method"),
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        exec::Raised,
        nodes::trial::{Trial, any_image, noise},
    };

    #[test]
    fn sizes_keep_the_aspect() {
        let total = |width, height, megapixels| {
            let image = Trial::new("ImageScaleToTotalPixels")
                .image("image", &noise(1, (width, height), 3))
                .text("upscale_method", "nearest-exact")
                .float("megapixels", megapixels)
                .image_result();
            image.size()
        };
        assert_eq!(total(48, 64, 0.01), (89, 118));
        assert_eq!(total(1, 1, 0.01), (102, 102));
        let longest = |width, height, size| {
            Trial::new("ImageScaleToMaxDimension")
                .image("image", &noise(1, (width, height), 3))
                .text("upscale_method", "area")
                .int("largest_size", size)
        };
        assert_eq!(
            longest(48, 64, 30).image_result().size(),
            (22, 30),
            "22.5 goes to the even side"
        );
        assert_eq!(longest(64, 48, 30).image_result().size(), (30, 22));
        assert_eq!(longest(5, 5, 30).image_result().size(), (30, 30));
        assert_eq!(
            longest(64, 1, 30).exception(),
            "RuntimeError",
            "nothing is left of the height"
        );
    }

    #[test]
    fn an_interrupt_ends_every_method() {
        for method in ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"] {
            let scaled = Trial::new("ImageScaleBy")
                .image("image", &noise(1, (40, 40), 3))
                .text("upscale_method", method)
                .float("scale_by", 20.0)
                .interrupted_after(4)
                .run();
            assert_eq!(scaled.unwrap_err(), Raised::Interrupted, "{method}");
        }
    }

    proptest! {
        #[test]
        fn scaling_to_the_same_size_gives_the_same(image in any_image()) {
            for method in ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"] {
                let same = Trial::new("ImageScaleBy")
                    .image("image", &image)
                    .text("upscale_method", method)
                    .float("scale_by", 1.0)
                    .image_result();
                prop_assert_eq!(&same, &image, "{}", method);
            }
        }
    }
}
