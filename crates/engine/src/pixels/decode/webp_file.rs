//! WebP, with one repair: the decoder darkens opaque pixels of a blended frame by one level.

use std::borrow::Cow;
use std::io::Cursor;

use image::{AnimationDecoder, ImageDecoder, codecs::webp::WebPDecoder};

use super::{Error, Frame, animation, check, damaged, still};

/// All frames of a WebP file.
pub fn frames(bytes: &[u8]) -> Result<Vec<Frame>, Error> {
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let size = decoder.dimensions();
    check(size, 1)?;
    if !decoder.has_animation() {
        return Ok(vec![still(decoder)?]);
    }
    let opaque_unblended = without_useless_blending(bytes);
    let decoder = WebPDecoder::new(Cursor::new(&opaque_unblended[..])).map_err(damaged)?;
    animation(decoder.into_frames(), size)
}

/// The file with "do not blend" set on every lossless frame that says it has no alpha: drawing such a frame over
/// another and replacing it are the same, but only the second leaves the pixels as they are.
fn without_useless_blending(bytes: &[u8]) -> Cow<'_, [u8]> {
    // RIFF header 12; chunk header 8; a frame's own header 16, its flags in the last byte; then the frame's chunk.
    const FLAGS: usize = 8 + 15;
    const NO_BLENDING: u8 = 2;
    let mut out = Cow::Borrowed(bytes);
    let mut at = 12;
    while let Some(chunk) = bytes.get(at..).filter(|rest| rest.len() >= 8) {
        let length = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]) as usize;
        let lossless =
            &chunk[..4] == b"ANMF" && chunk.get(24..28) == Some(b"VP8L") && chunk.get(32) == Some(&0x2f);
        // After the signature: 14 bits of width, 14 of height, then the bit that says whether alpha is used.
        if lossless && chunk.get(36).is_some_and(|byte| byte & 0x10 == 0) {
            out.to_mut()[at + FLAGS] |= NO_BLENDING;
        }
        at += 8 + length + length % 2;
    }
    out
}
