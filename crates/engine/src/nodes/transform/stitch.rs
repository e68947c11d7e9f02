//! Two images side by side.

use std::{borrow::Cow, sync::Arc};

use super::canvas;
use crate::{
    exec::Raised,
    nodes::call::{Call, Output, Progress},
    pixels::resize::{Method, common_upscale},
    value::{Image, Value},
};

/// `ImageStitch`: the second image right of the first, below it, and so on, with a stripe between them.
pub fn stitch(call: &Call<'_>) -> Result<Output, Raised> {
    let first = call.image("image1")?;
    if call.any("image2").is_none() {
        return Ok(Output::one(Value::Image(Arc::clone(first))));
    }
    let second = call.image("image2")?;
    if (first.batch == 0) != (second.batch == 0) {
        return Err(Raised::new(
            "RuntimeError",
            "a batch without images has no last image to repeat",
        ));
    }
    let direction = call.text("direction")?;
    let across = matches!(direction, "left" | "right");
    let color = Color::parse(call.text("spacing_color")?)?;
    let matched = call.flag("match_image_size")?;
    let second: Cow<'_, Image> = if matched {
        Cow::Owned(brought_to_size(second, first, across, call.progress)?)
    } else {
        Cow::Borrowed(second)
    };
    let spacing = call.size("spacing_width")?;
    let spacing = spacing + spacing % 2;
    let parts: [&Image; 2] = match direction {
        "left" | "up" => [&second, first],
        _ => [first, &second],
    };
    call.progress.check()?;
    joined(parts, across, spacing, color).map(Output::one)
}

/// The second image with the height (`across`) or the width of the first, its aspect kept.
fn brought_to_size(
    second: &Image,
    first: &Image,
    across: bool,
    progress: &dyn Progress,
) -> Result<Image, Raised> {
    let aspect = second.width as f64 / second.height as f64;
    let (width, height) = if across {
        ((first.height as f64 * aspect) as usize, first.height)
    } else {
        (first.width, (first.width as f64 / aspect) as usize)
    };
    common_upscale(second, width, height, Method::Lanczos, false, progress)
}

/// Both images, the smaller one in the middle of its stripe.
fn joined(parts: [&Image; 2], across: bool, spacing: usize, color: Color) -> Result<Image, Raised> {
    let [a, b] = parts;
    let channels = a.channels.max(b.channels);
    let (width, height) = if across {
        (a.width + spacing + b.width, a.height.max(b.height))
    } else {
        (a.width.max(b.width), a.height + spacing + b.height)
    };
    let mut out = canvas::filled(a.batch.max(b.batch), (width, height), &color.between(channels))?;
    let mut start = 0;
    for part in parts {
        let (area, inner) = if across {
            ((part.width, height), (start, (height - part.height) / 2))
        } else {
            ((width, part.height), ((width - part.width) / 2, start))
        };
        if area != part.size() {
            let corner = if across { (start, 0) } else { (0, start) };
            out.put(
                &canvas::filled(1, area, &vec![color.around(); part.channels])?,
                corner,
            );
        }
        out.put(part, inner);
        start += spacing + if across { part.width } else { part.height };
    }
    Ok(out)
}

/// A colour of the stripe; images of another size have white or black around them.
#[derive(Clone, Copy)]
struct Color {
    rgb: [f32; 3],
}

impl Color {
    fn parse(name: &str) -> Result<Color, Raised> {
        let rgb = match name {
            "white" => [1.0, 1.0, 1.0],
            "black" => [0.0, 0.0, 0.0],
            "red" => [1.0, 0.0, 0.0],
            "green" => [0.0, 1.0, 0.0],
            "blue" => [0.0, 0.0, 1.0],
            other => return Err(Raised::new("KeyError", format!("'{other}'"))),
        };
        Ok(Color { rgb })
    }

    /// Every sample around a smaller image, alpha too: 1 for white, otherwise 0.
    fn around(self) -> f32 {
        if self.rgb == [1.0; 3] { 1.0 } else { 0.0 }
    }

    /// A pixel of the stripe between the images, opaque.
    fn between(self, channels: usize) -> Vec<f32> {
        let mut pixel = vec![0.0; channels];
        pixel.iter_mut().zip(self.rgb).for_each(|(to, from)| *to = from);
        if channels == 4 {
            pixel[3] = 1.0;
        }
        pixel
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nodes::trial::{Trial, any_image};

    fn stitched(a: &Image, b: &Image, direction: &str, spacing: i64) -> Image {
        Trial::new("ImageStitch")
            .image("image1", a)
            .image("image2", b)
            .text("direction", direction)
            .flag("match_image_size", false)
            .int("spacing_width", spacing)
            .text("spacing_color", "red")
            .image_result()
    }

    proptest! {
        #[test]
        fn the_left_of_the_second_is_the_right_of_the_first(a in any_image(), b in any_image(), spacing in 0i64..4) {
            prop_assert_eq!(stitched(&a, &b, "left", spacing), stitched(&b, &a, "right", spacing));
            prop_assert_eq!(stitched(&a, &b, "up", spacing), stitched(&b, &a, "down", spacing));
        }

        #[test]
        fn the_parts_are_where_they_were_put(a in any_image(), spacing in 0i64..4) {
            let both = stitched(&a, &a, "right", spacing);
            let stripe = (spacing + spacing % 2) as usize;
            prop_assert_eq!((both.width, both.height), (2 * a.width + stripe, a.height));
            for x in [0, a.width + stripe] {
                prop_assert_eq!(&crate::pixels::resize::crop(&both, x, 0, a.width, a.height), &a);
            }
        }
    }

    #[test]
    fn a_missing_alpha_is_opaque_and_the_area_around_is_not() {
        let image = |height, channels| Image {
            batch: 1,
            height,
            width: 1,
            channels,
            data: vec![0.5; height * channels],
        };
        let both = stitched(&image(2, 4), &image(1, 3), "right", 2);
        let opaque: Vec<f32> = both.data.iter().skip(3).step_by(4).copied().collect();
        assert_eq!(opaque, [0.5, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0]);
        let both = stitched(&image(2, 3), &image(1, 4), "right", 0);
        let opaque: Vec<f32> = both.data.iter().skip(3).step_by(4).copied().collect();
        assert_eq!(
            opaque,
            [1.0, 0.5, 1.0, 0.0],
            "black around the smaller image is transparent"
        );
    }
}
