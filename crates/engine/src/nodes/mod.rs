//! The node classes: one function each, and one line in a table of [`FAMILIES`].
//!
//! To add a class: its `/object_info` entry into a file of `schemas/`, a function and a line of the
//! table into the family's file. `docs/engine-nodes.md` has an example.

mod alpha;
mod animation;
mod batch;
pub mod call;
mod colour;
mod composite;
mod filter;
mod image;
mod latent;
mod lists;
mod load;
mod mask;
mod morphology;
mod place;
mod porter_duff;
mod preview_any;
mod primitive;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod recorded_files;
mod save;
mod scale;
mod string;
mod testing;
mod transform;
#[cfg(test)]
pub mod trial;

use crate::{exec::Raised, registry::NodeKind};
use call::{Call, Output};

/// A node function.
pub type Run = fn(&Call<'_>) -> Result<Output, Raised>;

/// The classes everyone gets, family by family.
pub const FAMILIES: &[&[NodeKind]] = &[
    TABLE,
    mask::TABLE,
    alpha::TABLE,
    composite::TABLE,
    porter_duff::TABLE,
    morphology::TABLE,
    latent::TABLE,
    animation::TABLE,
    lists::TABLE,
    string::TABLE,
    transform::TABLE,
    batch::TABLE,
    filter::TABLE,
    colour::TABLE,
];

/// The classes of families that have no table of their own.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("LoadImage", load::load_image)
        .changes(load::file_hash)
        .checks(&["image"], load::file_exists),
    NodeKind::new("LoadImageMask", load::load_image_mask)
        .changes(load::file_hash)
        .checks(&["image"], load::file_exists),
    NodeKind::new("LoadImageOutput", load::load_image)
        .changes(load::file_hash)
        .checks(&["image"], load::file_exists),
    NodeKind::new("SaveImage", save::save_image),
    NodeKind::new("PreviewImage", save::preview_image),
    NodeKind::new("EmptyImage", image::empty),
    NodeKind::new("ImageScale", scale::to_size),
    NodeKind::new("ImageScaleBy", scale::by_factor),
    NodeKind::new("ImageScaleToTotalPixels", scale::to_total_pixels),
    NodeKind::new("ImageScaleToMaxDimension", scale::to_max_dimension),
    NodeKind::new("ImageInvert", image::invert),
    NodeKind::new("ImageCrop", image::crop),
    NodeKind::new("ImageBatch", image::batch),
    NodeKind::new("PreviewAny", preview_any::show),
    NodeKind::new("PrimitiveString", primitive::value),
    NodeKind::new("PrimitiveStringMultiline", primitive::value),
    NodeKind::new("PrimitiveInt", primitive::value),
    NodeKind::new("PrimitiveFloat", primitive::value),
    NodeKind::new("PrimitiveBoolean", primitive::value),
];

/// `/object_info` entries of [`FAMILIES`].
pub const SCHEMAS: &[&str] = &[
    include_str!("schemas/image.json"),
    include_str!("schemas/mask.json"),
    include_str!("schemas/compositing.json"),
    include_str!("schemas/latent.json"),
    include_str!("schemas/string.json"),
    include_str!("schemas/animation.json"),
    include_str!("schemas/utils.json"),
    include_str!("schemas/scaling.json"),
    include_str!("schemas/transform.json"),
    include_str!("schemas/batch.json"),
    include_str!("schemas/filter.json"),
    include_str!("schemas/colour.json"),
];

/// Classes for testing clients and servers, with their schemas; only with `--test-nodes`.
pub use testing::{SCHEMA as TEST_SCHEMA, TABLE as TEST_TABLE};
