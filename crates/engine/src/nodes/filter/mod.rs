//! Images to images of the same size: blending, blurring, sharpening.

mod blend;
mod gauss;
mod video;

use crate::registry::NodeKind;

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("ImageBlend", blend::blend),
    NodeKind::new("ImageBlur", gauss::blur),
    NodeKind::new("ImageSharpen", gauss::sharpen),
    NodeKind::new("LTXVPreprocess", video::preprocess),
];
