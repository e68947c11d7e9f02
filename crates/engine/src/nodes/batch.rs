//! Batches of images: a part, a multiple, and how large they are.

use serde_json::Value as Json;

use super::call::{Call, Output};
use crate::{
    exec::Raised,
    registry::NodeKind,
    value::{Image, reserve, tensor::slice},
};

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("ImageFromBatch", part),
    NodeKind::new("RepeatImageBatch", repeat),
    NodeKind::new("GetImageSize", size),
];

/// `ImageFromBatch`: what lies beyond the last image is left out; the first one asked for is at most the last.
fn part(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let batch = image.batch as i64;
    let start = call.int("batch_index")?.min(batch - 1);
    let length = call.int("length")?.min(batch.saturating_sub(start));
    let range = slice(image.batch, start, start.saturating_add(length));
    let frame = image.frame_len();
    Ok(Output::one(Image {
        batch: range.len(),
        data: image.data[range.start * frame..range.end * frame].to_vec(),
        ..**image
    }))
}

/// `RepeatImageBatch`: the whole batch again and again.
fn repeat(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let amount = call.int("amount")?;
    let amount = usize::try_from(amount).map_err(|_| {
        Raised::new(
            "RuntimeError",
            format!("Trying to create tensor with negative dimension {amount}"),
        )
    })?;
    let batch = image.batch.saturating_mul(amount);
    let mut data = reserve(&[batch, image.height, image.width, image.channels])?;
    for _ in 0..amount {
        call.progress.check()?;
        data.extend_from_slice(&image.data);
    }
    Ok(Output::one(Image {
        batch,
        data,
        ..**image
    }))
}

/// `GetImageSize`: three numbers, which the node shows too.
fn size(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    let (width, height, batch) = (image.width, image.height, image.batch);
    call.progress
        .text(&format!("width: {width}, height: {height}\n batch size: {batch}"));
    Ok(Output::values(
        [width, height, batch].map(|number| Json::from(number).into()),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::nodes::trial::{Trial, any_image, noise};

    proptest! {
        #[test]
        fn a_part_of_a_repeated_batch_is_the_batch(image in any_image(), amount in 1i64..4, at in 0i64..4) {
            let repeated = Trial::new("RepeatImageBatch").image("image", &image).int("amount", amount).image_result();
            prop_assert_eq!(repeated.batch, image.batch * amount as usize);
            let batch = image.batch as i64;
            let part = Trial::new("ImageFromBatch")
                .image("image", &repeated)
                .int("batch_index", at.min(amount - 1) * batch)
                .int("length", batch)
                .image_result();
            prop_assert_eq!(&part, &image);
        }
    }

    #[test]
    fn positions_outside_are_moved_to_the_last_image() {
        let image = noise(3, (2, 2), 3);
        let part = |index: i64, length: i64| {
            Trial::new("ImageFromBatch")
                .image("image", &image)
                .int("batch_index", index)
                .int("length", length)
                .image_result()
        };
        assert_eq!(part(99, 5).data, part(2, 1).data);
        assert_eq!(part(1, 99).batch, 2);
        // Negative ones only come over a link; they count from the end, as in Python.
        assert_eq!(part(-2, 1).data, part(1, 1).data);
        assert_eq!(part(-1, 2).batch, 0, "the end of the range is 1");
    }

    #[test]
    fn repeating_less_than_never_is_an_error() {
        let repeat = |amount| {
            Trial::new("RepeatImageBatch")
                .image("image", &noise(1, (2, 2), 3))
                .int("amount", amount)
        };
        assert_eq!(repeat(-1).exception(), "RuntimeError");
        assert_eq!(repeat(0).image_result().batch, 0);
        assert_eq!(repeat(9).interrupted_after(3).exception(), "Interrupted");
    }
}
