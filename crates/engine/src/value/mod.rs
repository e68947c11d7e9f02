//! What flows along the links of a graph: images, masks, latents and plain JSON values.

mod latent;
pub mod python;
pub mod tensor;
pub mod tensor_text;

use std::sync::Arc;

use serde_json::Value as Json;

pub use latent::{Latent, Operation};
pub use tensor::Tensor;

use crate::exec::Raised;

/// The largest tensor a node may make: 2 GiB, a square RGB image of 13 377 pixels a side. ComfyUI has no such bound;
/// without one a graph of one `EmptyImage` takes the machine down.
pub const MAX_TENSOR_BYTES: usize = 2 << 30;

/// One value on one output slot. Cloning is cheap: pixels are shared.
#[derive(Debug, Clone)]
pub enum Value {
    /// A batch of images.
    Image(Arc<Image>),
    /// A batch of masks.
    Mask(Arc<Mask>),
    /// A batch of latents.
    Latent(Arc<Latent>),
    /// What `LatentApplyOperation` does.
    Operation(Operation),
    /// Numbers, texts and everything a widget can hold.
    Json(Json),
}

/// `IMAGE`: 32-bit floats in batch, row, column, channel order; nominally 0 to 1, never clamped between nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Number of frames.
    pub batch: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 3 (RGB) or 4 (RGBA) in practice; 1 is possible.
    pub channels: usize,
    /// `batch * height * width * channels` samples.
    pub data: Vec<f32>,
}

/// `MASK`: 32-bit floats in batch, row, column order. 1 marks what is transparent or to be changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// Number of frames.
    pub batch: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `batch * height * width` samples.
    pub data: Vec<f32>,
}

impl Value {
    /// The text `str(value)` would give in Python, which clients see in `PreviewAny` and in errors.
    pub fn to_python_text(&self) -> String {
        match self {
            Value::Image(image) => tensor_text::tensor(
                &[image.batch, image.height, image.width, image.channels],
                &image.data,
            ),
            Value::Mask(mask) => tensor_text::tensor(&[mask.batch, mask.height, mask.width], &mask.data),
            Value::Latent(latent) => latent.to_python_text(),
            Value::Operation(operation) => operation.to_python_text(),
            Value::Json(Json::String(text)) => text.clone(),
            Value::Json(json) => python::repr(json),
        }
    }
}

impl From<Image> for Value {
    fn from(image: Image) -> Self {
        Value::Image(Arc::new(image))
    }
}

impl From<Mask> for Value {
    fn from(mask: Mask) -> Self {
        Value::Mask(Arc::new(mask))
    }
}

impl From<Latent> for Value {
    fn from(latent: Latent) -> Self {
        Value::Latent(Arc::new(latent))
    }
}

impl From<Operation> for Value {
    fn from(operation: Operation) -> Self {
        Value::Operation(operation)
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        Value::Json(json)
    }
}

impl Image {
    /// Zeros; refused above the limit of [`reserve`].
    pub fn zeros(batch: usize, height: usize, width: usize, channels: usize) -> Result<Image, Raised> {
        let mut data = reserve(&[batch, height, width, channels])?;
        data.resize(batch * height * width * channels, 0.0);
        Ok(Image {
            batch,
            height,
            width,
            channels,
            data,
        })
    }

    /// Samples of one frame.
    pub fn frame_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The samples of each frame in turn.
    pub fn frames(&self) -> impl Iterator<Item = &[f32]> {
        // A zero-sized frame has no samples; `chunks_exact` refuses a length of 0.
        self.data.chunks_exact(self.frame_len().max(1))
    }

    /// One row of pixels; rows are counted through all frames.
    pub fn row(&self, row: usize) -> &[f32] {
        let length = self.width * self.channels;
        &self.data[row * length..(row + 1) * length]
    }

    /// An image of the same batch and size made sample by sample.
    pub fn map(&self, f: impl Fn(f32) -> f32) -> Image {
        Image {
            data: self.data.iter().map(|x| f(*x)).collect(),
            ..*self
        }
    }
}

impl Mask {
    /// Zeros; refused above the limit of [`reserve`].
    pub fn zeros(batch: usize, height: usize, width: usize) -> Result<Mask, Raised> {
        let mut data = reserve(&[batch, height, width])?;
        data.resize(batch * height * width, 0.0);
        Ok(Mask {
            batch,
            height,
            width,
            data,
        })
    }

    /// Samples of one frame.
    pub fn frame_len(&self) -> usize {
        self.height * self.width
    }

    /// One row; rows are counted through all frames.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.width..(row + 1) * self.width]
    }

    /// The mask, if it has samples: torch cannot count the frames of one that has none.
    pub fn not_empty(&self) -> Result<&Mask, Raised> {
        if self.data.is_empty() {
            return Err(Raised::new(
                "RuntimeError",
                format!(
                    "cannot reshape tensor of 0 elements into shape [-1, {}, {}]",
                    self.height, self.width
                ),
            ));
        }
        Ok(self)
    }

    /// An image of one channel with these samples.
    pub fn into_plane(self) -> Image {
        Image {
            batch: self.batch,
            height: self.height,
            width: self.width,
            channels: 1,
            data: self.data,
        }
    }
}

impl From<Image> for Mask {
    /// The samples of an image of one channel.
    fn from(plane: Image) -> Self {
        debug_assert_eq!(plane.channels, 1);
        Mask {
            batch: plane.batch,
            height: plane.height,
            width: plane.width,
            data: plane.data,
        }
    }
}

/// Refuses tensors above [`MAX_TENSOR_BYTES`] before anything is allocated.
pub fn reserve(shape: &[usize]) -> Result<Vec<f32>, Raised> {
    let samples = shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
    match samples {
        Some(samples) if samples <= MAX_TENSOR_BYTES / 4 => Ok(Vec::with_capacity(samples)),
        _ => Err(Raised::new(
            "RuntimeError",
            format!(
                "not enough memory: a tensor of shape {shape:?} is above the limit of {MAX_TENSOR_BYTES} bytes"
            ),
        )),
    }
}

/// A tensor of zeros; refused as by [`reserve`].
pub fn zeros(shape: &[usize]) -> Result<Vec<f32>, Raised> {
    reserve(shape)?;
    Ok(vec![0.0; shape.iter().product()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_tensors_are_refused_without_allocating() {
        assert!(reserve(&[4096, 16384, 16384, 3]).is_err());
        assert!(reserve(&[usize::MAX, 2]).is_err());
        assert!(reserve(&[1, 8, 8, 3]).unwrap().capacity() >= 192);
    }
}
