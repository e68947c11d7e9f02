//! Mirroring and quarter turns.

use std::sync::Arc;

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    parallel,
    value::{Image, Value, zeros},
};

/// `ImageFlip`: `x` mirrors at the horizontal axis (the top goes to the bottom), `y` at the vertical one.
pub fn flip(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let method = call.text("flip_method")?;
    let (last_x, last_y) = (image.width.saturating_sub(1), image.height.saturating_sub(1));
    let flipped = if method.starts_with('x') {
        moved(call, image, image.size(), |x, y| (x, last_y - y))?
    } else if method.starts_with('y') {
        moved(call, image, image.size(), |x, y| (last_x - x, y))?
    } else {
        return Ok(Output::one(Value::Image(Arc::clone(image))));
    };
    Ok(Output::one(flipped))
}

/// `ImageRotate`: clockwise.
pub fn rotate(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let rotation = call.text("rotation")?;
    let (width, height) = image.size();
    let (last_x, last_y) = (width.saturating_sub(1), height.saturating_sub(1));
    let turned = if rotation.starts_with("90") {
        moved(call, image, (height, width), |x, y| (y, last_y - x))?
    } else if rotation.starts_with("180") {
        moved(call, image, (width, height), |x, y| (last_x - x, last_y - y))?
    } else if rotation.starts_with("270") {
        moved(call, image, (height, width), |x, y| (last_x - y, x))?
    } else {
        return Ok(Output::one(Value::Image(Arc::clone(image))));
    };
    Ok(Output::one(turned))
}

/// An image of another size (width and height) whose pixel at x, y is `image`'s at `from(x, y)`.
fn moved(
    call: &Call<'_>,
    image: &Image,
    (width, height): (usize, usize),
    from: impl Fn(usize, usize) -> (usize, usize) + Sync,
) -> Result<Image, Raised> {
    let channels = image.channels;
    let mut data = zeros(&[image.batch, height, width, channels])?;
    parallel::rows(call.progress, &mut data, width * channels, |row, out| {
        let frame = &image.data[row / height * image.frame_len()..][..image.frame_len()];
        for (x, pixel) in out.chunks_exact_mut(channels).enumerate() {
            let (x, y) = from(x, row % height);
            let at = (y * image.width + x) * channels;
            pixel.copy_from_slice(&frame[at..at + channels]);
        }
    })?;
    Ok(Image {
        height,
        width,
        data,
        ..*image
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nodes::trial::{Trial, any_image};

    fn flipped(image: &Image, method: &str) -> Image {
        Trial::new("ImageFlip")
            .image("image", image)
            .text("flip_method", method)
            .image_result()
    }

    fn rotated(image: &Image, rotation: &str) -> Image {
        Trial::new("ImageRotate")
            .image("image", image)
            .text("rotation", rotation)
            .image_result()
    }

    proptest! {
        #[test]
        fn flipping_twice_gives_the_same(image in any_image()) {
            for method in ["x-axis: vertically", "y-axis: horizontally", "sideways"] {
                prop_assert_eq!(&flipped(&flipped(&image, method), method), &image);
            }
        }

        #[test]
        fn four_quarter_turns_give_the_same(image in any_image()) {
            let quarter = |image: &Image| rotated(image, "90 degrees");
            let half = quarter(&quarter(&image));
            prop_assert_eq!(&half, &rotated(&image, "180 degrees"));
            prop_assert_eq!(&quarter(&half), &rotated(&image, "270 degrees"));
            prop_assert_eq!(&quarter(&quarter(&half)), &image);
            let both = flipped(&flipped(&image, "x-axis: vertically"), "y-axis: horizontally");
            prop_assert_eq!(&both, &half);
        }
    }
}
