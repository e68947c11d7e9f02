//! Traces of video compression.

use std::sync::Arc;

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    value::Value,
};

/// `LTXVPreprocess`: without compression the image itself. The original encodes each image as H.264 and decodes it
/// again; there is no such encoder here, and pixels that only look similar would be a silent difference.
pub fn preprocess(call: &Call<'_>) -> Result<Output, Raised> {
    let image = call.image("image")?;
    match call.int("img_compression")? {
        0 => Ok(Output::one(Value::Image(Arc::clone(image)))),
        amount => Err(Raised::new(
            "NotImplementedError",
            format!(
                "img_compression {amount} needs an H.264 encoder, which this engine does not have; 0 leaves the image as it is"
            ),
        )),
    }
}
