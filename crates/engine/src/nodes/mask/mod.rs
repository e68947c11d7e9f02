//! Masks: making them, the way from and to images, changing them alone and with each other.

mod composite;
mod convert;
mod crop;
mod feather;
mod grow;
#[cfg(test)]
mod laws;
mod preview;
mod values;

use crate::registry::NodeKind;

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("MaskToImage", convert::to_image),
    NodeKind::new("ImageToMask", convert::from_image),
    NodeKind::new("ImageColorToMask", convert::from_color),
    NodeKind::new("SolidMask", values::solid),
    NodeKind::new("InvertMask", values::invert),
    NodeKind::new("ThresholdMask", values::threshold),
    NodeKind::new("CropMask", crop::crop),
    NodeKind::new("MaskComposite", composite::combine),
    NodeKind::new("FeatherMask", feather::feather),
    NodeKind::new("GrowMask", grow::grow),
    NodeKind::new("MaskPreview", preview::preview),
];
