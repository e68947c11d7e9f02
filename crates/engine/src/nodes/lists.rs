//! Lists of images: what follows runs once for each item.

use super::call::{Call, Output};
use crate::{
    exec::Raised,
    registry::NodeKind,
    value::{Image, Value, reserve},
};

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[NodeKind::new("RebatchImages", rebatch_images).takes_lists()];

/// `RebatchImages`: all images of all batches, in batches of another size.
fn rebatch_images(call: &Call<'_>) -> Result<Output, Raised> {
    let size = call.size("batch_size")?.max(1);
    let batches = call.images("images")?;
    let frames: Vec<(&Image, &[f32])> = batches
        .iter()
        .flat_map(|batch| batch.frames().map(|frame| (&***batch, frame)))
        .collect();
    let mut out = Vec::with_capacity(frames.len().div_ceil(size));
    for chunk in frames.chunks(size) {
        call.progress.check()?;
        let first = chunk[0].0;
        let mut data = reserve(&[chunk.len(), first.height, first.width, first.channels])?;
        for (number, (image, frame)) in chunk.iter().enumerate() {
            if (image.height, image.width, image.channels) != (first.height, first.width, first.channels) {
                return Err(Raised::new(
                    "RuntimeError",
                    format!(
                        "Sizes of tensors must match except in dimension 0. Expected {} x {} x {} but got {} x {} x {} for tensor number {number} in the list.",
                        first.height, first.width, first.channels, image.height, image.width, image.channels
                    ),
                ));
            }
            data.extend_from_slice(frame);
        }
        out.push(Value::from(Image {
            batch: chunk.len(),
            data,
            ..*first
        }));
    }
    Ok(Output::list(out))
}
