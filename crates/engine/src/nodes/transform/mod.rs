//! Moving pixels without changing them: turning, padding, putting side by side.

mod canvas;
mod pad;
mod stitch;
mod turn;

use crate::registry::NodeKind;

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("ImageFlip", turn::flip),
    NodeKind::new("ImageRotate", turn::rotate),
    NodeKind::new("ImageStitch", stitch::stitch),
    NodeKind::new("ResizeAndPadImage", pad::resize_and_pad),
    NodeKind::new("ImagePadForOutpaint", pad::for_outpaint),
];
