//! Few colours out of many, as Pillow does it: a palette by median cut, and the mapping of pixels to it.

mod dither;
mod median_cut;
mod nearest;

pub use dither::diffuse;
pub use median_cut::palette;
pub use nearest::Nearest;

/// Red, green, blue.
pub type Rgb = [u8; 3];
