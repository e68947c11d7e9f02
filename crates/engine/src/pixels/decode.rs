//! Image files to 8-bit frames, by Pillow's rules: palettes expanded, 16-bit samples cut, EXIF orientation applied.
//!
//! Bounded before anything is decoded: a file says how large it is, and what is above the limits is refused at once.

#[cfg(test)]
mod bombs;
mod gif_blocks;
mod gif_file;
mod png_file;
mod webp_file;

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, codecs, metadata::Orientation};

/// The longest side of an image that is decoded, in pixels; also ComfyUI's `MAX_RESOLUTION`.
pub const MAX_SIDE: u32 = 16384;
/// What all frames of a file may take decoded, counted as RGBA: one image of 8192 x 8192, or 64 frames of 1024 x 1024.
pub const MAX_DECODED_BYTES: u64 = 256 << 20;

/// Why a file is not an image we load.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None of PNG, JPEG, WebP, GIF.
    #[error("cannot identify image file")]
    Unknown,
    /// Above [`MAX_SIDE`] or [`MAX_DECODED_BYTES`].
    #[error(
        "image of {width} x {height} pixels ({frames} frames) exceeds the limit of {MAX_SIDE} pixels a side and {MAX_DECODED_BYTES} bytes decoded"
    )]
    TooLarge {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Frames counted so far.
        frames: u64,
    },
    /// Damaged.
    #[error("cannot decode image file: {0}")]
    Damaged(String),
}

/// One decoded frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green and blue of every pixel.
    pub rgb: Vec<u8>,
    /// The alpha band, when the file has one (also a palette's transparency).
    pub alpha: Option<Vec<u8>>,
    /// Transparency by one key colour, which Pillow shows only on conversion to RGBA.
    pub key_alpha: Option<Vec<u8>>,
}

/// All frames of an image file; at least one.
pub fn frames(bytes: &[u8]) -> Result<Vec<Frame>, Error> {
    match image::guess_format(bytes).map_err(|_| Error::Unknown)? {
        ImageFormat::Png => png_file::frames(bytes),
        ImageFormat::Jpeg => {
            let decoder = codecs::jpeg::JpegDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
            Ok(vec![still(decoder)?])
        }
        ImageFormat::Gif => gif_file::frames(bytes),
        ImageFormat::WebP => webp_file::frames(bytes),
        _ => Err(Error::Unknown),
    }
}

impl Frame {
    /// Alpha as the conversion to RGBA gives it: opaque where the file says nothing.
    pub fn rgba_alpha(&self) -> Vec<u8> {
        match self.alpha.as_ref().or(self.key_alpha.as_ref()) {
            Some(alpha) => alpha.clone(),
            None => vec![255; self.width * self.height],
        }
    }

    fn oriented(self, orientation: Orientation) -> Frame {
        if orientation == Orientation::NoTransforms {
            return self;
        }
        let (width, height) = (self.width, self.height);
        let turn = |plane: Vec<u8>, channels| orient(&plane, width, height, channels, orientation);
        let swap = orientation.to_exif() >= 5;
        Frame {
            width: if swap { height } else { width },
            height: if swap { width } else { height },
            rgb: turn(self.rgb, 3),
            alpha: self.alpha.map(|plane| turn(plane, 1)),
            key_alpha: self.key_alpha.map(|plane| turn(plane, 1)),
        }
    }
}

/// Refuses an image by its declared size.
fn check((width, height): (u32, u32), frames: u64) -> Result<(), Error> {
    let bytes = u64::from(width) * u64::from(height) * 4 * frames;
    if width == 0 || height == 0 {
        return Err(Error::Damaged(format!("image of {width} x {height} pixels")));
    }
    if width > MAX_SIDE || height > MAX_SIDE || bytes > MAX_DECODED_BYTES {
        return Err(Error::TooLarge {
            width,
            height,
            frames,
        });
    }
    Ok(())
}

fn damaged(error: image::ImageError) -> Error {
    Error::Damaged(error.to_string())
}

/// A JPEG or a WebP that does not move.
fn still(mut decoder: impl ImageDecoder) -> Result<Frame, Error> {
    check(decoder.dimensions(), 1)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let has_alpha = decoder.color_type().has_alpha();
    let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let alpha = has_alpha.then(|| image.to_rgba8().pixels().map(|p| p.0[3]).collect());
    let frame = Frame {
        width,
        height,
        rgb: image.into_rgb8().into_raw(),
        alpha,
        key_alpha: None,
    };
    Ok(frame.oriented(orientation))
}

fn orient(plane: &[u8], width: usize, height: usize, channels: usize, orientation: Orientation) -> Vec<u8> {
    let (new_width, new_height) = if orientation.to_exif() >= 5 {
        (height, width)
    } else {
        (width, height)
    };
    let mut out = Vec::with_capacity(plane.len());
    for y in 0..new_height {
        for x in 0..new_width {
            let (column, row) = match orientation {
                Orientation::NoTransforms => (x, y),
                Orientation::FlipHorizontal => (width - 1 - x, y),
                Orientation::Rotate180 => (width - 1 - x, height - 1 - y),
                Orientation::FlipVertical => (x, height - 1 - y),
                Orientation::Rotate90FlipH => (y, x),
                Orientation::Rotate90 => (y, height - 1 - x),
                Orientation::Rotate270FlipH => (width - 1 - y, height - 1 - x),
                Orientation::Rotate270 => (width - 1 - y, x),
            };
            let at = (row * width + column) * channels;
            out.extend_from_slice(&plane[at..at + channels]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientations_turn_the_right_way() {
        // 3 x 2: the letters of the rows "abc", "def".
        let turned = |o| String::from_utf8(orient(b"abcdef", 3, 2, 1, o)).unwrap();
        assert_eq!(turned(Orientation::Rotate90), "daebfc");
        assert_eq!(turned(Orientation::Rotate270), "cfbead");
        assert_eq!(turned(Orientation::Rotate180), "fedcba");
        assert_eq!(turned(Orientation::FlipHorizontal), "cbafed");
        assert_eq!(turned(Orientation::FlipVertical), "defabc");
        assert_eq!(turned(Orientation::Rotate90FlipH), "adbecf");
        assert_eq!(turned(Orientation::Rotate270FlipH), "fcebda");
    }

    #[test]
    fn what_is_no_image_is_named_so() {
        assert!(matches!(frames(b"hello"), Err(Error::Unknown)));
        assert!(matches!(frames(b""), Err(Error::Unknown)));
        assert!(matches!(frames(b"\x89PNG\r\n\x1a\nxx"), Err(Error::Damaged(_))));
    }
}
