//! Making, cutting and joining images.

use std::borrow::Cow;

use super::call::{Call, Output};
use crate::{
    exec::Raised,
    pixels::{
        from_byte,
        resize::{self, Method},
    },
    value::{Image, reserve},
};

/// `EmptyImage`: one colour.
pub fn empty(call: &Call<'_>) -> Result<Output, Raised> {
    let (batch, height, width) = (
        call.size("batch_size")?,
        call.size("height")?,
        call.size("width")?,
    );
    let color = call.int("color")?;
    let pixel = [16, 8, 0].map(|shift| from_byte((color >> shift) as u8));
    let mut data = reserve(&[batch, height, width, 3])?;
    for _ in 0..batch * height * width {
        data.extend_from_slice(&pixel);
    }
    Ok(Output::one(Image {
        batch,
        height,
        width,
        channels: 3,
        data,
    }))
}

/// `ImageInvert`: 1 - x, alpha included.
pub fn invert(call: &Call<'_>) -> Result<Output, Raised> {
    Ok(Output::one(call.image("image")?.map(|x| 1.0 - x)))
}

/// `ImageCrop`: the corner is moved inside, the size is cut at the edges.
pub fn crop(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let x = call.size("x")?.min(image.width.saturating_sub(1));
    let y = call.size("y")?.min(image.height.saturating_sub(1));
    let width = call.size("width")?.min(image.width - x);
    let height = call.size("height")?.min(image.height - y);
    Ok(Output::one(resize::crop(image, x, y, width, height)))
}

/// `ImageBatch`: the second brought to the size of the first.
pub fn batch(call: &Call<'_>) -> Result<Output, Raised> {
    let (first, second) = (call.image("image1")?, call.image("image2")?);
    let second: Cow<'_, Image> = if (first.height, first.width) == (second.height, second.width) {
        Cow::Borrowed(second)
    } else {
        Cow::Owned(resize::common_upscale(
            second,
            first.width,
            first.height,
            Method::Bilinear,
            true,
            call.progress,
        )?)
    };
    if first.channels != second.channels {
        return Err(Raised::new(
            "RuntimeError",
            format!(
                "Sizes of tensors must match except in dimension 0. Expected size {} but got size {} for tensor number 1 in the list.",
                first.channels, second.channels
            ),
        ));
    }
    let batch = first.batch + second.batch;
    let mut data = reserve(&[batch, first.height, first.width, first.channels])?;
    data.extend_from_slice(&first.data);
    data.extend_from_slice(&second.data);
    Ok(Output::one(Image {
        batch,
        height: first.height,
        width: first.width,
        channels: first.channels,
        data,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        nodes::trial::{Trial, any_image},
        pixels::to_byte,
        value::Image,
    };

    proptest! {
        #[test]
        fn inverting_twice_loses_at_most_one_level(image in any_image()) {
            let inverted = |image: &Image| Trial::new("ImageInvert").image("image", image).image_result();
            let back = inverted(&inverted(&image));
            for (found, wanted) in back.data.iter().zip(&image.data) {
                prop_assert!(to_byte(*wanted) - to_byte(*found) <= 1, "{} {}", found, wanted);
            }
        }
    }
}
