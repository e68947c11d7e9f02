//! Latents: making, joining, cutting, scaling and combining them, and their files.

mod arithmetic;
mod batch;
mod bislerp;
mod composite;
mod empty;
mod files;
mod geometry;
mod operation;
mod rebatch;
mod scale;

use crate::registry::NodeKind;

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("EmptyLatentImage", empty::image),
    NodeKind::new("EmptySD3LatentImage", empty::sd3_image),
    NodeKind::new("EmptyHunyuanLatentVideo", empty::hunyuan_video),
    NodeKind::new("StableCascade_EmptyLatentImage", empty::cascade_image),
    NodeKind::new("LatentAdd", arithmetic::add),
    NodeKind::new("LatentSubtract", arithmetic::subtract),
    NodeKind::new("LatentMultiply", arithmetic::multiply),
    NodeKind::new("LatentInterpolate", arithmetic::interpolate),
    NodeKind::new("LatentBlend", arithmetic::blend),
    NodeKind::new("LatentBatch", batch::join),
    NodeKind::new("LatentBatchSeedBehavior", batch::seed_behavior),
    NodeKind::new("LatentFromBatch", batch::from_batch),
    NodeKind::new("RepeatLatentBatch", batch::repeat),
    NodeKind::new("RebatchLatents", rebatch::rebatch).takes_lists(),
    NodeKind::new("LatentConcat", geometry::concat),
    NodeKind::new("LatentCut", geometry::cut),
    NodeKind::new("LatentCrop", geometry::crop),
    NodeKind::new("LatentFlip", geometry::flip),
    NodeKind::new("LatentRotate", geometry::rotate),
    NodeKind::new("LatentUpscale", scale::to_size),
    NodeKind::new("LatentUpscaleBy", scale::by_factor),
    NodeKind::new("LatentComposite", composite::feathered),
    NodeKind::new("LatentCompositeMasked", composite::masked),
    NodeKind::new("SetLatentNoiseMask", composite::set_noise_mask),
    NodeKind::new("LatentApplyOperation", operation::apply),
    NodeKind::new("LatentOperationSharpen", operation::sharpen),
    NodeKind::new("LatentOperationTonemapReinhard", operation::reinhard),
    NodeKind::new("SaveLatent", files::save),
    NodeKind::new("LoadLatent", files::load)
        .changes(files::hash)
        .checks(&["latent"], files::exists),
];
