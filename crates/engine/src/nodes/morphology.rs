//! `Morphology`

use super::call::{Call, Output, Progress};
use crate::{
    exec::Raised,
    pixels::extremum::{self, Extremum, Window},
    registry::NodeKind,
    value::Image,
};

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[NodeKind::new("Morphology", morphology)];

/// `Morphology`: flat squares, channel by channel; the border never wins, and differences are not clamped.
pub fn morphology(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let size = match call.int("kernel_size")? {
        0 => return Err(Raised::new("IndexError", "a kernel without pixels")),
        size => usize::try_from(size).map_err(|_| {
            Raised::new(
                "RuntimeError",
                format!("a kernel cannot have {size} pixels a side"),
            )
        })?,
    };
    let shape = Shape {
        progress: call.progress,
        size,
    };
    let operation = call.text("operation")?;
    let out = match operation {
        "erode" => shape.eroded(image)?,
        "dilate" => shape.dilated(image)?,
        "open" => shape.opened(image)?,
        "close" => shape.closed(image)?,
        "gradient" => minus(shape.dilated(image)?, &shape.eroded(image)?),
        "top_hat" => minus(Image::clone(image), &shape.opened(image)?),
        "bottom_hat" => minus(shape.closed(image)?, image),
        _ => {
            return Err(Raised::new(
                "ValueError",
                format!("'{operation}' is not an operation of morphology"),
            ));
        }
    };
    Ok(Output::one(out))
}

/// A square of `size` pixels. An even one has no middle: it reaches one pixel further to the left and above when it
/// erodes, and to the right and below when it dilates.
struct Shape<'a> {
    progress: &'a dyn Progress,
    size: usize,
}

impl Shape<'_> {
    fn eroded(&self, image: &Image) -> Result<Image, Raised> {
        let window = Window {
            before: self.size / 2,
            after: (self.size - 1) / 2,
        };
        extremum::square(self.progress, image, window, Extremum::Least)
    }

    fn dilated(&self, image: &Image) -> Result<Image, Raised> {
        let window = Window {
            before: (self.size - 1) / 2,
            after: self.size / 2,
        };
        extremum::square(self.progress, image, window, Extremum::Greatest)
    }

    fn opened(&self, image: &Image) -> Result<Image, Raised> {
        self.dilated(&self.eroded(image)?)
    }

    fn closed(&self, image: &Image) -> Result<Image, Raised> {
        self.eroded(&self.dilated(image)?)
    }
}

fn minus(mut a: Image, b: &Image) -> Image {
    a.data.iter_mut().zip(&b.data).for_each(|(a, b)| *a -= b);
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        nodes::trial::{Trial, any_image, noise},
        parallel,
        value::Image,
    };

    fn trial(image: &Image, operation: &str, size: i64) -> Trial {
        Trial::new("Morphology")
            .image("image", image)
            .text("operation", operation)
            .int("kernel_size", size)
    }

    fn nowhere_above(low: &Image, high: &Image) -> bool {
        low.data.iter().zip(&high.data).all(|(low, high)| low <= high)
    }

    proptest! {
        #[test]
        fn operations_are_ordered_and_the_second_time_changes_nothing(image in any_image(), size in 1i64..9) {
            let of = |image: &Image, operation: &str| trial(image, operation, size).image_result();
            let (opened, closed) = (of(&image, "open"), of(&image, "close"));
            prop_assert!(nowhere_above(&of(&image, "erode"), &opened) && nowhere_above(&opened, &image));
            prop_assert!(nowhere_above(&image, &closed) && nowhere_above(&closed, &of(&image, "dilate")));
            prop_assert_eq!(&of(&opened, "open"), &opened);
            prop_assert_eq!(&of(&closed, "close"), &closed);
            for difference in ["gradient", "top_hat", "bottom_hat"] {
                prop_assert!(of(&image, difference).data.iter().all(|x| *x >= 0.0), "{}", difference);
            }
        }

        #[test]
        fn one_pixel_changes_nothing_and_a_large_square_finds_one_sample(image in any_image()) {
            prop_assert_eq!(&trial(&image, "dilate", 1).image_result(), &image);
            let flat = trial(&image, "erode", 999).image_result();
            for (found, frame) in flat.frames().zip(image.frames()) {
                let least = frame.iter().step_by(image.channels).copied().fold(1.0, f32::min);
                prop_assert!(found.iter().step_by(image.channels).all(|x| *x == least));
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_show_and_an_interrupt_is_noticed() {
        let image = noise(2, (300, 200), 3);
        let closed = || trial(&image, "close", 8);
        let alone = parallel::on_threads(1, || closed().image_result());
        assert_eq!(parallel::on_threads(5, || closed().image_result()), alone);
        assert_eq!(closed().interrupted_after(4).exception(), "Interrupted");
    }
}
