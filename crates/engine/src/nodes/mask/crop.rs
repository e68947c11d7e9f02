//! `CropMask`

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    value::{Mask, reserve, tensor::slice},
};

/// `CropMask`: a rectangle, cut at the edges; nothing of it may be left.
pub fn crop(call: &Call<'_>) -> Result<Output, Raised> {
    let mask = call.mask("mask")?.not_empty()?;
    let range = |side: usize, start: &str, length: &str| {
        let start = call.int(start)?;
        Ok::<_, Raised>(slice(side, start, start.saturating_add(call.int(length)?)))
    };
    let columns = range(mask.width, "x", "width")?;
    let rows = range(mask.height, "y", "height")?;
    let mut data = reserve(&[mask.batch, rows.len(), columns.len()])?;
    for frame in 0..mask.batch {
        for row in rows.clone() {
            data.extend_from_slice(&mask.row(frame * mask.height + row)[columns.clone()]);
        }
    }
    Ok(Output::one(Mask {
        batch: mask.batch,
        height: rows.len(),
        width: columns.len(),
        data,
    }))
}
