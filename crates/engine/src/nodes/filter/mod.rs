//! Images to images of the same size: blending, blurring, edges, noise, fewer colours.

mod blend;
mod canny;
mod gauss;
mod noise;
mod quantize;
mod video;

use crate::registry::NodeKind;

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("ImageBlend", blend::blend),
    NodeKind::new("ImageBlur", gauss::blur),
    NodeKind::new("ImageSharpen", gauss::sharpen),
    NodeKind::new("ImageAddNoise", noise::add),
    NodeKind::new("ImageQuantize", quantize::quantize),
    NodeKind::new("Canny", canny::canny),
    NodeKind::new("LTXVPreprocess", video::preprocess),
];
