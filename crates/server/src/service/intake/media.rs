//! What the bytes of an input are, and whether they may be taken: judged from their header first, so that a bomb is refused
//! before anything is decoded; then by decoding.

use std::io::Cursor;

use bytes::Bytes;
use darkroom_runner::link::Media;
use image::{ImageDecoder, ImageFormat, ImageReader, Limits};

/// Largest side of an image that is taken in, in pixels; with [`MAX_PIXELS`] a bomb is refused from its header.
const MAX_SIDE: u32 = 16_384;
/// Largest area, in pixels (100 million: 400 MB once decoded to RGBA).
const MAX_PIXELS: u64 = 100_000_000;
/// What it may take once it is decoded, in bytes.
const MAX_DECODED_BYTES: u64 = 4 * MAX_PIXELS;

/// Bytes that were looked at, and what is known of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The bytes.
    pub bytes: Bytes,
    /// The name on the instance: equal files have equal names, and so hit ComfyUI's cache.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// Their BLAKE3.
    pub hash: blake3::Hash,
    /// How they are decoded, where they are to be a picture of a kind that we know.
    pub picture: Option<Picture>,
}

/// A picture by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    format: ImageFormat,
    /// What it takes once it is decoded.
    pub decoded_bytes: u64,
}

/// Looks at bytes; large ones take milliseconds.
///
/// # Errors
/// A text that says what is wrong with them.
pub fn check(bytes: Bytes, media: Media) -> Result<Checked, String> {
    let (extension, picture) = check_media(&bytes, media)?;
    let hash = blake3::hash(&bytes);
    let name = format!("{}.{extension}", &hash.to_hex()[..32]);
    let content_type = darkroom_blobs::content_type::of(&name, &bytes).to_owned();
    Ok(Checked {
        bytes,
        name,
        content_type,
        hash,
        picture,
    })
}

/// Looks at the header only. Returns the file extension.
fn check_media(bytes: &[u8], media: Media) -> Result<(&'static str, Option<Picture>), String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if media == Media::Other {
        return Ok(("bin", None));
    }
    let format = image::guess_format(bytes).map_err(|_| "the bytes are not an image".to_owned())?;
    let extension = format.extensions_str().first().copied().unwrap_or("img");
    Ok((extension, header(bytes, format)?))
}

/// What a file is by its header, if it is a picture of a kind that we know.
///
/// # Errors
/// For a picture that is damaged or too large.
pub fn picture(bytes: &[u8]) -> Result<Option<Picture>, String> {
    match image::guess_format(bytes) {
        Ok(format) => header(bytes, format),
        Err(_) => Ok(None),
    }
}

fn header(bytes: &[u8], format: ImageFormat) -> Result<Option<Picture>, String> {
    if !format.reading_enabled() {
        // A format this build cannot look into (BMP, TIFF, AVIF): ComfyUI may, and its own limits apply.
        return Ok(None);
    }
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let decoder = reader
        .into_decoder()
        .map_err(|_| "the image is damaged".to_owned())?;
    let ((width, height), decoded_bytes) = (decoder.dimensions(), decoder.total_bytes());
    let pixels = u64::from(width) * u64::from(height);
    if width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS || decoded_bytes > MAX_DECODED_BYTES {
        return Err(format!("the image is too large: {width}x{height} pixels"));
    }
    Ok(Some(Picture {
        format,
        decoded_bytes,
    }))
}

/// Decodes a picture; large ones take a second. Of an animation the first frame.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn decode(bytes: &[u8], picture: Picture) -> Result<(), String> {
    let mut limits = Limits::default();
    // Beside the pixels a decoder has lines, tables, and what it unpacks.
    limits.max_alloc = Some(2 * MAX_DECODED_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), picture.format);
    reader.limits(limits);
    match reader.decode() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the image is damaged: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::given::tests::png, *};

    #[test]
    fn bombs_and_other_files_are_no_images() {
        let good = check(png().into(), Media::Image).unwrap();
        assert!(good.name.ends_with(".png"));
        assert_eq!(decode(&png(), good.picture.unwrap()), Ok(()));
        assert!(check_media(b"", Media::Other).is_err());
        assert!(check_media(b"<html>hello</html>", Media::Image).is_err());
        let mut bomb = png();
        // The width and height of IHDR; the header's checksum is not what stops it.
        bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        assert!(check_media(&bomb, Media::Image).is_err());
    }

    #[test]
    fn a_picture_whose_header_is_whole_and_whose_pixels_are_not_is_damaged() {
        let mut cut = png();
        // Within the packed pixels: behind signature (8), IHDR (25), and the head of IDAT (8).
        for byte in &mut cut[44..48] {
            *byte ^= 0xff;
        }
        let picture = picture(&cut).unwrap().unwrap();
        assert!(decode(&cut, picture).unwrap_err().contains("damaged"));
        assert_eq!(super::picture(b"a text"), Ok(None));
    }
}
