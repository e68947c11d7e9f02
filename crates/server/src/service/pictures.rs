//! Pictures as `/view` and `/upload/mask` make them: previews, channels, and an original with another's alpha. Decoding is
//! bounded by the header, done beside the runtime, and by few at a time.

use std::io::Cursor;

use bytes::Bytes;
use darkroom_comfy::wire::Conversion;
use darkroom_core::BlobKey;
use image::{
    DynamicImage, ImageEncoder, ImageReader, RgbaImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder},
};

use super::{Error, Service};

/// Largest side of a picture that is decoded, in pixels.
const MAX_SIDE: u32 = 16_384;
/// Largest area, in pixels: 256 MB as RGBA.
const MAX_PIXELS: u64 = 64_000_000;
/// Pictures that are worked on at a time, so that a page full of previews takes no more memory than this.
const AT_A_TIME: usize = 2;
/// Largest file that is decoded, in bytes.
const MAX_FILE_BYTES: u64 = 128 * 1024 * 1024;

/// Bounds how many are worked on.
#[derive(Debug)]
pub struct Turns(tokio::sync::Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Turns(tokio::sync::Semaphore::new(AT_A_TIME))
    }
}

impl Service {
    /// A stored picture as a conversion wants it: its media type and its bytes. `None`: there is no such blob.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no picture, or too large.
    pub async fn converted(
        &self,
        key: &BlobKey,
        conversion: Conversion,
    ) -> Result<Option<(&'static str, Bytes)>, Error> {
        let Some(bytes) = self.blobs.read(key, MAX_FILE_BYTES).await? else {
            return Ok(None);
        };
        self.develop(move || convert(&bytes, conversion)).await.map(Some)
    }

    /// The picture of one blob with the alpha of another, as PNG. `None`: one of them is gone.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no picture, too large, or of another size.
    pub async fn with_alpha_of(&self, original: &BlobKey, mask: &BlobKey) -> Result<Option<Bytes>, Error> {
        let original = self.blobs.read(original, MAX_FILE_BYTES).await?;
        let mask = self.blobs.read(mask, MAX_FILE_BYTES).await?;
        let (Some(original), Some(mask)) = (original, mask) else {
            return Ok(None);
        };
        self.develop(move || combine(&original, &mask)).await.map(Some)
    }

    async fn develop<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, Error> {
        let _turn = self.pictures.0.acquire().await;
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done.map_err(Error::Invalid),
            Err(panic) => Err(Error::Internal(panic.into())),
        }
    }
}

fn convert(bytes: &[u8], conversion: Conversion) -> Result<(&'static str, Bytes), String> {
    let picture = decode(bytes)?;
    let mut out = Vec::new();
    let done = match conversion {
        Conversion::Webp { opaque } => {
            let encoder = WebPEncoder::new_lossless(&mut out);
            match opaque || !picture.color().has_alpha() {
                true => DynamicImage::ImageRgb8(picture.into_rgb8()).write_with_encoder(encoder),
                false => DynamicImage::ImageRgba8(picture.into_rgba8()).write_with_encoder(encoder),
            }
            .map(|()| "image/webp")
        }
        Conversion::Jpeg(quality) => DynamicImage::ImageRgb8(picture.into_rgb8())
            .write_with_encoder(JpegEncoder::new_with_quality(&mut out, quality))
            .map(|()| "image/jpeg"),
        Conversion::Rgb => DynamicImage::ImageRgb8(picture.into_rgb8())
            .write_with_encoder(PngEncoder::new(&mut out))
            .map(|()| "image/png"),
        Conversion::Alpha => {
            let mut alpha = picture.into_rgba8();
            for pixel in alpha.pixels_mut() {
                pixel.0 = [0, 0, 0, pixel.0[3]];
            }
            png(&alpha, &mut out).map(|()| "image/png")
        }
    };
    let media_type = done.map_err(|e| format!("the picture cannot be written: {e}"))?;
    Ok((media_type, out.into()))
}

fn combine(original: &[u8], mask: &[u8]) -> Result<Bytes, String> {
    let mut picture = decode(original)?.into_rgba8();
    let mask = decode(mask)?.into_rgba8();
    if picture.dimensions() != mask.dimensions() {
        return Err("the mask does not have the size of the original".to_owned());
    }
    for (pixel, over) in picture.pixels_mut().zip(mask.pixels()) {
        pixel.0[3] = over.0[3];
    }
    let mut out = Vec::new();
    png(&picture, &mut out).map_err(|e| format!("the picture cannot be written: {e}"))?;
    Ok(out.into())
}

fn png(picture: &RgbaImage, out: &mut Vec<u8>) -> image::ImageResult<()> {
    let (width, height) = picture.dimensions();
    PngEncoder::new(out).write_image(picture, width, height, image::ExtendedColorType::Rgba8)
}

/// The first frame; a bomb is refused from its header.
fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    let no_picture = |_| "the file is not a picture that can be read here".to_owned();
    let reader = || {
        let mut reader = ImageReader::new(Cursor::new(bytes));
        let mut limits = image::Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        reader.limits(limits);
        reader.with_guessed_format()
    };
    let unreadable = |_| "the file cannot be read".to_owned();
    let (width, height) = reader()
        .map_err(unreadable)?
        .into_dimensions()
        .map_err(no_picture)?;
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("the picture is too large: {width}x{height} pixels"));
    }
    reader().map_err(unreadable)?.decode().map_err(no_picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgba() -> Vec<u8> {
        let picture = RgbaImage::from_fn(4, 3, |x, y| {
            image::Rgba([x as u8 * 60, y as u8 * 80, 9, 40 + x as u8])
        });
        let mut out = Vec::new();
        png(&picture, &mut out).unwrap();
        out
    }

    fn pixels(bytes: &[u8]) -> (image::ColorType, RgbaImage) {
        let picture = image::load_from_memory(bytes).unwrap();
        (picture.color(), picture.into_rgba8())
    }

    #[test]
    fn every_conversion_is_what_it_says() {
        let original = pixels(&rgba()).1;
        for (conversion, media_type, color, alpha_kept) in [
            (
                Conversion::Webp { opaque: false },
                "image/webp",
                image::ColorType::Rgba8,
                true,
            ),
            (
                Conversion::Webp { opaque: true },
                "image/webp",
                image::ColorType::Rgb8,
                false,
            ),
            (Conversion::Rgb, "image/png", image::ColorType::Rgb8, false),
        ] {
            let (told, bytes) = convert(&rgba(), conversion).unwrap();
            let (is, converted) = pixels(&bytes);
            assert_eq!((told, is), (media_type, color), "{conversion:?}");
            for (a, b) in original.pixels().zip(converted.pixels()) {
                assert_eq!(a.0[..3], b.0[..3]);
                assert_eq!(b.0[3], if alpha_kept { a.0[3] } else { 255 });
            }
        }
        let (_, alpha) = convert(&rgba(), Conversion::Alpha).unwrap();
        for (a, b) in original.pixels().zip(pixels(&alpha).1.pixels()) {
            assert_eq!(b.0, [0, 0, 0, a.0[3]]);
        }
        let (told, jpeg) = convert(&rgba(), Conversion::Jpeg(50)).unwrap();
        assert_eq!((told, pixels(&jpeg).1.dimensions()), ("image/jpeg", (4, 3)));
    }

    #[test]
    fn a_mask_gives_its_alpha_and_nothing_else() {
        let mask = RgbaImage::from_fn(4, 3, |x, _| image::Rgba([255, 255, 255, x as u8]));
        let mut bytes = Vec::new();
        png(&mask, &mut bytes).unwrap();
        let (_, combined) = pixels(&combine(&rgba(), &bytes).unwrap());
        for (x, y, pixel) in combined.enumerate_pixels() {
            assert_eq!(pixel.0, [x as u8 * 60, y as u8 * 80, 9, x as u8]);
        }
        let mut small = Vec::new();
        png(&RgbaImage::new(2, 2), &mut small).unwrap();
        assert!(combine(&rgba(), &small).unwrap_err().contains("size"));
    }

    #[test]
    fn bombs_and_texts_are_refused() {
        assert!(convert(b"hello", Conversion::Rgb).is_err());
        let mut bomb = rgba();
        bomb[16..20].copy_from_slice(&16_000_u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&16_000_u32.to_be_bytes());
        assert!(convert(&bomb, Conversion::Rgb).is_err());
    }
}
