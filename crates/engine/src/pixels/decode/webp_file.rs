//! WebP. Frames of an animation are decoded one by one and put together by libwebp's rules: general decoders darken
//! opaque pixels of a blended frame by one level, and forget the colours below transparency.

use std::{io::Cursor, ops::Range};

use image::{DynamicImage, ImageDecoder, RgbaImage, codecs::webp::WebPDecoder};

use super::{Error, Frame, check, damaged, still};

/// One frame of an animation.
struct Part {
    x: usize,
    y: usize,
    pixels: RgbaImage,
    has_alpha: bool,
    /// The rectangle is cleared after the frame was shown.
    clears: bool,
    /// Drawn over what is there, not instead of it.
    blends: bool,
}

type Pixel = [u8; 4];

/// All frames of a WebP file.
pub fn frames(bytes: &[u8]) -> Result<Vec<Frame>, Error> {
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let size = decoder.dimensions();
    check(size, 1)?;
    if !decoder.has_animation() {
        return Ok(vec![still(decoder)?]);
    }
    let (width, height) = (size.0 as usize, size.1 as usize);
    let has_alpha = chunks(&bytes[12..])
        .next()
        .is_some_and(|(_, flags)| flags.first().is_some_and(|flags| flags & 0x10 != 0));
    let mut canvas = Canvas {
        width,
        pixels: vec![Pixel::default(); width * height],
        before: None,
    };
    let mut out = Vec::new();
    for (_, data) in chunks(&bytes[12..]).filter(|(name, _)| *name == b"ANMF") {
        check(size, out.len() as u64 + 1)?;
        let part = match part(data, size) {
            Ok(part) => part,
            Err(_) if !out.is_empty() => break,
            Err(error) => return Err(error),
        };
        canvas.draw(part);
        let pixels = &canvas.pixels;
        out.push(Frame {
            width,
            height,
            rgb: pixels.iter().flat_map(|p| [p[0], p[1], p[2]]).collect(),
            alpha: has_alpha.then(|| pixels.iter().map(|p| p[3]).collect()),
            key_alpha: None,
        });
    }
    if out.is_empty() {
        return Err(Error::Damaged("no frames".into()));
    }
    Ok(out)
}

/// Names and contents; what is cut off is no chunk.
fn chunks(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (name, rest) = bytes.split_at_checked(4)?;
        let (length, rest) = rest.split_at_checked(4)?;
        let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
        let data = rest.get(..length)?;
        bytes = rest.get(length + length % 2..).unwrap_or_default();
        Some((name, data))
    })
}

/// Decodes a frame as a file of its own.
fn part(data: &[u8], canvas: (u32, u32)) -> Result<Part, Error> {
    /// Place and size, 3 bytes each, time, flags.
    const HEADER: usize = 16;
    let (header, image) = data
        .split_at_checked(HEADER)
        .ok_or_else(|| Error::Damaged("a frame without a header".into()))?;
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], 0]);
    let (x, y) = (2 * number(0), 2 * number(3));
    let size = (number(6) + 1, number(9) + 1);
    if x.saturating_add(size.0) > canvas.0 || y.saturating_add(size.1) > canvas.1 {
        return Err(Error::Damaged("a frame outside of the image".into()));
    }
    let decoder = WebPDecoder::new(Cursor::new(file(image, size))).map_err(damaged)?;
    if decoder.dimensions() != size || decoder.has_animation() {
        return Err(Error::Damaged("a frame of another size than it says".into()));
    }
    let has_alpha = decoder.color_type().has_alpha();
    let pixels = DynamicImage::from_decoder(decoder).map_err(damaged)?.into_rgba8();
    Ok(Part {
        x: x as usize,
        y: y as usize,
        pixels,
        has_alpha,
        clears: header[15] & 1 != 0,
        blends: header[15] & 2 == 0,
    })
}

/// A file with nothing but this image; one whose alpha is apart needs the extended header.
fn file(image: &[u8], size: (u32, u32)) -> Vec<u8> {
    let apart = image.starts_with(b"ALPH");
    let mut body = b"WEBP".to_vec();
    if apart {
        let (width, height) = ((size.0 - 1).to_le_bytes(), (size.1 - 1).to_le_bytes());
        body.extend_from_slice(b"VP8X\x0a\0\0\0\x10\0\0\0");
        body.extend_from_slice(&width[..3]);
        body.extend_from_slice(&height[..3]);
    }
    body.extend_from_slice(image);
    let length = (body.len() as u32).to_le_bytes();
    [b"RIFF", &length[..], &body].concat()
}

struct Canvas {
    width: usize,
    pixels: Vec<Pixel>,
    before: Option<Before>,
}

/// What must be known of the frame before.
struct Before {
    columns: Range<usize>,
    rows: Range<usize>,
    clears: bool,
    is_key: bool,
}

impl Canvas {
    fn draw(&mut self, part: Part) {
        let (width, height) = (part.pixels.width() as usize, part.pixels.height() as usize);
        let full = |columns: usize, rows: usize| columns * rows == self.pixels.len();
        // A key frame does not depend on what came before.
        let is_key = match &self.before {
            None => true,
            Some(before) => {
                (!part.has_alpha || !part.blends) && full(width, height)
                    || before.clears && (before.is_key || full(before.columns.len(), before.rows.len()))
            }
        };
        if is_key {
            self.pixels.fill(Pixel::default());
        } else if let Some(before) = self.before.as_ref().filter(|before| before.clears) {
            for row in before.rows.clone() {
                self.pixels[row * self.width..][before.columns.clone()].fill(Pixel::default());
            }
        }
        // Where the frame before was cleared there is nothing to blend with.
        let cleared = |x: usize, y: usize| {
            self.before.as_ref().is_some_and(|before| {
                before.clears && before.columns.contains(&x) && before.rows.contains(&y)
            })
        };
        for (y, row) in (part.y..).zip(part.pixels.rows()) {
            for (x, pixel) in (part.x..).zip(row) {
                let below = &mut self.pixels[y * self.width + x];
                *below = if is_key || !part.blends || cleared(x, y) {
                    pixel.0
                } else {
                    blended(pixel.0, *below)
                };
            }
        }
        self.before = Some(Before {
            columns: part.x..part.x + width,
            rows: part.y..part.y + height,
            clears: part.clears,
            is_key,
        });
    }
}

/// One pixel over another, colours not multiplied by alpha, in libwebp's whole numbers.
fn blended(above: Pixel, below: Pixel) -> Pixel {
    let alpha = u32::from(above[3]);
    match alpha {
        0 => return below,
        255 => return above,
        _ => {}
    }
    let rest = (u32::from(below[3]) * (256 - alpha)) >> 8;
    let total = alpha + rest;
    let scale = (1 << 24) / total;
    let channel = |at: usize| {
        let sum = u32::from(above[at]) * alpha + u32::from(below[at]) * rest;
        ((u64::from(sum) * u64::from(scale)) >> 24) as u8
    };
    [channel(0), channel(1), channel(2), total as u8]
}
