//! Frames to PNG, JPEG and WebP bytes.

mod deflate;
mod filter;

use std::{borrow::Cow, ops::Range};

use image::{ExtendedColorType, ImageEncoder as _, codecs};

use super::to_byte;
use crate::{parallel, value::Image};

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only 3 and 4 channels have a PNG colour type here.
    #[error("cannot save an image of {channels} channels")]
    Channels {
        /// Samples of a pixel.
        channels: usize,
    },
    /// The encoder failed.
    #[error("cannot encode the image: {0}")]
    Png(#[from] png::EncodingError),
    /// The encoder failed.
    #[error("cannot encode the image: {0}")]
    Image(#[from] image::ImageError),
}

/// 8-bit pixels ready to be encoded: 3 (RGB) or 4 (RGBA) channels.
pub struct Bytes8 {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Samples of a pixel.
    pub channels: usize,
    /// Row-major samples.
    pub pixels: Vec<u8>,
}

/// One frame of `image`, clipped and cut to bytes.
pub fn frame_bytes(image: &Image, frame: &[f32]) -> Bytes8 {
    let row = image.width * image.channels;
    let mut pixels = vec![0; frame.len()];
    parallel::rows_to_the_end(&mut pixels, row, |y, out| {
        for (out, x) in out.iter_mut().zip(&frame[y * row..]) {
            *out = to_byte(*x);
        }
    });
    Bytes8 {
        width: image.width as u32,
        height: image.height as u32,
        channels: image.channels,
        pixels,
    }
}

/// How PNG calls pixels of this many channels.
pub fn color_type(channels: usize) -> Result<png::ColorType, Error> {
    match channels {
        3 => Ok(png::ColorType::Rgb),
        4 => Ok(png::ColorType::Rgba),
        channels => Err(Error::Channels { channels }),
    }
}

/// PNG with `tEXt` chunks (keyword, Latin-1 text) before the pixels, at zlib `level`.
pub fn png(image: &Bytes8, level: u8, texts: &[(String, String)]) -> Result<Vec<u8>, Error> {
    let color = color_type(image.channels)?;
    let stride = image.width as usize * image.channels;
    let rows = |rows: Range<usize>| Cow::Borrowed(&image.pixels[rows.start * stride..rows.end * stride]);
    let parts = deflate::parts(image.height as usize, stride, image.channels, level, rows);
    png_of_parts((image.width, image.height), color, parts, texts)
}

/// [`png`] of one frame of `image`, clipped and cut to bytes band by band.
pub fn png_of_frame(
    image: &Image,
    frame: &[f32],
    level: u8,
    texts: &[(String, String)],
) -> Result<Vec<u8>, Error> {
    let color = color_type(image.channels)?;
    let stride = image.width * image.channels;
    let rows = |rows: Range<usize>| {
        let samples = &frame[rows.start * stride..rows.end * stride];
        Cow::Owned(samples.iter().map(|x| to_byte(*x)).collect())
    };
    let parts = deflate::parts(image.height, stride, image.channels, level, rows);
    png_of_parts((image.width as u32, image.height as u32), color, parts, texts)
}

fn png_of_parts(
    (width, height): (u32, u32),
    color: png::ColorType,
    parts: Vec<Vec<u8>>,
    texts: &[(String, String)],
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(parts.iter().map(Vec::len).sum::<usize>() + 4096);
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        encoder.add_text_chunk(keyword.clone(), text.clone())?;
    }
    let mut writer = encoder.write_header()?;
    for part in parts {
        writer.write_chunk(png::chunk::IDAT, &part)?;
    }
    writer.finish()?;
    Ok(out)
}

/// JPEG of `quality` 1 to 100; alpha is dropped.
pub fn jpeg(image: &Bytes8, quality: u8) -> Result<Vec<u8>, Error> {
    let rgb: Vec<u8> = match image.channels {
        3 => image.pixels.clone(),
        4 => image
            .pixels
            .chunks_exact(4)
            .flat_map(|p| [p[0], p[1], p[2]])
            .collect(),
        channels => return Err(Error::Channels { channels }),
    };
    let mut out = Vec::new();
    codecs::jpeg::JpegEncoder::new_with_quality(&mut out, quality.clamp(1, 100)).write_image(
        &rgb,
        image.width,
        image.height,
        ExtendedColorType::Rgb8,
    )?;
    Ok(out)
}

/// Lossless WebP. ComfyUI writes lossy WebP previews; ours are larger and never worse.
pub fn webp(image: &Bytes8) -> Result<Vec<u8>, Error> {
    let color = match image.channels {
        3 => ExtendedColorType::Rgb8,
        4 => ExtendedColorType::Rgba8,
        channels => return Err(Error::Channels { channels }),
    };
    let mut out = Vec::new();
    codecs::webp::WebPEncoder::new_lossless(&mut out).write_image(
        &image.pixels,
        image.width,
        image.height,
        color,
    )?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{nodes::trial::noise, parallel::on_threads, pixels::decode};

    proptest! {
        #[test]
        fn what_is_written_is_read_again(width in 1usize..40, height in 1usize..40, alpha: bool, level in 0u8..10) {
            let channels = if alpha { 4 } else { 3 };
            let image = noise(1, (width, height), channels);
            let bytes = frame_bytes(&image, &image.data);
            let frame = decode::frames(&png(&bytes, level, &[]).unwrap()).unwrap().remove(0);
            let pixels: Vec<u8> = match frame.alpha {
                None => frame.rgb,
                Some(alpha) => {
                    let pixels = frame.rgb.chunks_exact(3).zip(alpha);
                    pixels.flat_map(|(p, a)| [p[0], p[1], p[2], a]).collect()
                }
            };
            prop_assert_eq!(pixels, bytes.pixels);
        }
    }

    #[test]
    fn several_bands_are_one_picture_whatever_the_number_of_threads() {
        let image = noise(1, (700, 900), 3);
        let write = || png(&frame_bytes(&image, &image.data), 4, &[]).unwrap();
        let alone = on_threads(1, write);
        assert!(alone == on_threads(5, write));
        assert!(alone == on_threads(2, write));
        assert!(alone == png_of_frame(&image, &image.data, 4, &[]).unwrap());
        assert!(decode::frames(&alone).unwrap()[0].rgb == frame_bytes(&image, &image.data).pixels);
    }
}
