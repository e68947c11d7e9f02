//! What the bytes of an input are, and whether they may be taken: judged from their header, before anything is decoded.

use std::io::Cursor;

use bytes::Bytes;
use darkroom_runner::link::Media;

/// Largest side of an image that is taken in, in pixels; with [`MAX_PIXELS`] a bomb is refused from its header.
const MAX_SIDE: u32 = 16_384;
/// Largest area, in pixels (100 million: 400 MB once decoded to RGBA).
const MAX_PIXELS: u64 = 100_000_000;

/// Bytes that were looked at, and what is known of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The bytes.
    pub bytes: Bytes,
    /// The name on the instance: equal files have equal names, and so hit ComfyUI's cache.
    pub name: String,
    /// Media type.
    pub content_type: String,
}

/// Looks at bytes; large ones take milliseconds.
///
/// # Errors
/// A text that says what is wrong with them.
pub fn check(bytes: Bytes, media: Media) -> Result<Checked, String> {
    let extension = check_media(&bytes, media)?;
    let hash = blake3::hash(&bytes).to_hex();
    let name = format!("{}.{extension}", &hash[..32]);
    let content_type = darkroom_blobs::content_type::of(&name, &bytes).to_owned();
    Ok(Checked {
        bytes,
        name,
        content_type,
    })
}

/// Looks at the header only: a bomb is refused before anything is decoded. Returns the file extension.
fn check_media(bytes: &[u8], media: Media) -> Result<&'static str, String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if media == Media::Other {
        return Ok("bin");
    }
    let format = image::guess_format(bytes).map_err(|_| "the bytes are not an image".to_owned())?;
    let extension = format.extensions_str().first().copied().unwrap_or("img");
    if !format.reading_enabled() {
        // A format this build cannot look into (BMP, TIFF, AVIF): ComfyUI may, and its own limits apply.
        return Ok(extension);
    }
    let reader = image::ImageReader::with_format(Cursor::new(bytes), format);
    let (width, height) = reader
        .into_dimensions()
        .map_err(|_| "the image is damaged".to_owned())?;
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("the image is too large: {width}x{height} pixels"));
    }
    Ok(extension)
}

/// Checks bytes that were fetched when an attempt started.
///
/// # Errors
/// A text that says what is wrong with them.
pub fn check_fetched(bytes: &[u8], media: Media) -> Result<(), String> {
    check_media(bytes, media).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::{super::given::tests::png, *};

    #[test]
    fn bombs_and_other_files_are_no_images() {
        assert_eq!(check_media(&png(), Media::Image), Ok("png"));
        assert!(check_media(b"", Media::Other).is_err());
        assert!(check_media(b"<html>hello</html>", Media::Image).is_err());
        let mut bomb = png();
        // The width and height of IHDR; the header's checksum is not what stops it.
        bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        assert!(check_media(&bomb, Media::Image).is_err());
    }
}
