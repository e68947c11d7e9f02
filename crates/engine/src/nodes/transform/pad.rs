//! Images on a larger area.

use super::canvas;
use crate::{
    exec::Raised,
    nodes::{
        call::{Call, Output},
        scale::method,
    },
    pixels::resize::common_upscale,
    value::{Mask, reserve},
};

/// `ResizeAndPadImage`: as large as fits into the target, in its middle.
pub fn resize_and_pad(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let (width, height) = (call.size("target_width")?, call.size("target_height")?);
    let scale = (width as f64 / image.width as f64).min(height as f64 / image.height as f64);
    let inner = (
        (image.width as f64 * scale) as usize,
        (image.height as f64 * scale) as usize,
    );
    let resized = common_upscale(
        image,
        inner.0,
        inner.1,
        method(call, "interpolation")?,
        false,
        call.progress,
    )?;
    let color = if call.text("padding_color")? == "black" {
        0.0
    } else {
        1.0
    };
    let mut padded = canvas::filled(image.batch, (width, height), &vec![color; image.channels])?;
    padded.put(&resized, ((width - inner.0) / 2, (height - inner.1) / 2));
    Ok(Output::one(padded))
}

/// `ImagePadForOutpaint`: grey around the image, and a mask that fades from the new area into the old one.
pub fn for_outpaint(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let border = Border {
        left: call.size("left")?,
        top: call.size("top")?,
        right: call.size("right")?,
        bottom: call.size("bottom")?,
    };
    let (width, height) = (
        image
            .width
            .saturating_add(border.left)
            .saturating_add(border.right),
        image
            .height
            .saturating_add(border.top)
            .saturating_add(border.bottom),
    );
    let grey = vec![0.5; image.channels];
    let mut padded = canvas::filled(image.batch, (width, height), &grey)?;
    padded.put(image, (border.left, border.top));
    let mut data = reserve(&[height, width])?;
    data.resize(height * width, 1.0);
    let feathering = call.int("feathering")?;
    for y in 0..image.height {
        call.progress.check()?;
        let row = &mut data[(border.top + y) * width + border.left..][..image.width];
        for (x, sample) in row.iter_mut().enumerate() {
            *sample = border.fading(feathering, (x, y), (image.width, image.height));
        }
    }
    let mask = Mask {
        batch: 1,
        height,
        width,
        data,
    };
    Ok(Output::values([padded.into(), mask.into()]))
}

/// How much is added on each side.
struct Border {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

impl Border {
    /// The mask inside the old area: 1 at a side that grows, and 0 at a distance of `feathering`. Images that are
    /// not twice as large as that have hard edges.
    fn fading(&self, feathering: i64, (x, y): (usize, usize), (width, height): (usize, usize)) -> f32 {
        let (x, y, width, height) = (x as i64, y as i64, width as i64, height as i64);
        if feathering <= 0 || feathering * 2 >= height || feathering * 2 >= width {
            return 0.0;
        }
        let distances = [
            (self.top, y, height),
            (self.bottom, height - y, height),
            (self.left, x, width),
            (self.right, width - x, width),
        ];
        let nearest = distances
            .into_iter()
            .map(|(added, distance, far)| if added == 0 { far } else { distance })
            .fold(i64::MAX, i64::min);
        let fading = (feathering - nearest).max(0) as f64 / feathering as f64;
        (fading * fading) as f32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        nodes::trial::{Trial, any_image},
        value::Image,
    };

    proptest! {
        #[test]
        fn the_crop_of_a_padded_image_is_the_image(image in any_image(), sides in [0i64..9, 0..9, 0..9, 0..9], feathering in 0i64..5) {
            let padded = Trial::new("ImagePadForOutpaint")
                .image("image", &image)
                .int("left", sides[0]).int("top", sides[1]).int("right", sides[2]).int("bottom", sides[3])
                .int("feathering", feathering)
                .image_result();
            let cropped = Trial::new("ImageCrop")
                .image("image", &padded)
                .int("x", sides[0]).int("y", sides[1])
                .int("width", image.width as i64).int("height", image.height as i64)
                .image_result();
            prop_assert_eq!(&cropped, &image);
            let grey = padded.data.iter().filter(|x| **x == 0.5).count();
            let own = image.data.iter().filter(|x| **x == 0.5).count();
            prop_assert_eq!(grey - own, padded.data.len() - image.data.len());
        }

        #[test]
        fn the_mask_is_full_outside_and_fades_inside(image in any_image(), left in 0i64..5, feathering in 0i64..5) {
            let mask = Trial::new("ImagePadForOutpaint")
                .image("image", &image)
                .int("left", left).int("top", 0).int("right", 0).int("bottom", 0)
                .int("feathering", feathering)
                .mask_result();
            let left = left as usize;
            prop_assert_eq!((mask.batch, mask.height, mask.width), (1, image.height, image.width + left));
            for row in mask.data.chunks_exact(mask.width) {
                prop_assert!(row[..left].iter().all(|x| *x == 1.0));
                prop_assert!(left > 0 || row.iter().all(|x| *x == 0.0), "nothing grows, nothing fades");
                prop_assert!(row[left..].windows(2).all(|pair| pair[0] >= pair[1]));
                prop_assert!(row[left..].iter().skip(feathering as usize).all(|x| *x == 0.0));
            }
        }

        #[test]
        fn padding_to_the_same_size_keeps_the_image(image in any_image()) {
            for interpolation in ["area", "bicubic", "nearest-exact", "bilinear"] {
                let same: Image = Trial::new("ResizeAndPadImage")
                    .image("image", &image)
                    .int("target_width", image.width as i64).int("target_height", image.height as i64)
                    .text("padding_color", "white").text("interpolation", interpolation)
                    .image_result();
                prop_assert_eq!(&same, &image);
            }
        }
    }
}
