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
