//! Decoding and comparing pictures.

use base64::{Engine, prelude::BASE64_STANDARD};
use image::{ImageFormat, RgbImage};

/// A PNG's pixels.
pub fn decode(png: &[u8]) -> RgbImage {
    image::load_from_memory_with_format(png, ImageFormat::Png)
        .unwrap_or_else(|error| panic!("not a PNG ({} bytes): {error}", png.len()))
        .to_rgb8()
}

/// A PNG of pixels.
pub fn encode(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .expect("a PNG is written to memory");
    bytes.into_inner()
}

/// A picture in which every pixel says where it is, so that a shift or a swap is seen.
pub fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([
            (x * 7 % 256) as u8,
            (y * 11 % 256) as u8,
            ((x + y) * 5 % 256) as u8,
        ])
    })
}

/// A data URI of a PNG.
pub fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png))
}

/// Whether every pixel is that colour (`0xRRGGBB`).
pub fn assert_plain(png: &[u8], colour: u32, width: u32, height: u32) {
    let picture = decode(png);
    assert_eq!(picture.dimensions(), (width, height));
    assert!(
        picture == self::plain(colour, width, height),
        "not all #{colour:06x}"
    );
}

/// A picture of one colour (`0xRRGGBB`).
pub fn plain(colour: u32, width: u32, height: u32) -> RgbImage {
    let [_, r, g, b] = colour.to_be_bytes();
    RgbImage::from_pixel(width, height, image::Rgb([r, g, b]))
}

/// Whether a picture is the inverse of another, pixel by pixel.
pub fn assert_inverse(png: &[u8], original: &RgbImage) {
    let picture = decode(png);
    assert_eq!(picture.dimensions(), original.dimensions());
    for ((x, y, pixel), expected) in picture.enumerate_pixels().zip(inverse(original).pixels()) {
        assert_eq!(pixel, expected, "at {x},{y}");
    }
}

/// The inverse of a picture as ComfyUI computes it: in 32-bit floats, cut (not rounded) to bytes at the end, so that
/// 255 - 77 is 177.
pub fn inverse(original: &RgbImage) -> RgbImage {
    let mut picture = original.clone();
    for pixel in picture.pixels_mut() {
        pixel.0 = pixel.0.map(|v| ((1.0 - f32::from(v) / 255.0) * 255.0) as u8);
    }
    picture
}
