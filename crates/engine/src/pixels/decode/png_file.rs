//! PNG by Pillow 13's rules, which no general decoder follows: 16-bit grey is clipped, 16-bit colour loses its low byte,
//! a key colour is no alpha band.

use std::io::Cursor;

use image::{AnimationDecoder, codecs::png::PngDecoder, metadata::Orientation};
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::{Error, Frame, MAX_DECODED_BYTES, animation, check, damaged};

/// All frames of a PNG or APNG file.
pub fn frames(bytes: &[u8]) -> Result<Vec<Frame>, Error> {
    let limits = Limits {
        bytes: MAX_DECODED_BYTES as usize,
    };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::EXPAND);
    // Profiles and texts are not used; skipping them also keeps their compressed bombs closed.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    // The size is checked on the header alone, before any buffer for the pixels exists.
    let size = decoder.read_header_info().map_err(broken)?.size();
    check(size, 1)?;
    let mut reader = decoder.read_info().map_err(broken)?;
    if let Some(control) = reader.info().animation_control
        && control.num_frames > 1
    {
        let decoder = PngDecoder::with_limits(Cursor::new(bytes), super::limits(size)).map_err(damaged)?;
        return animation(decoder.apng().map_err(damaged)?.into_frames(), size);
    }
    let orientation = reader
        .info()
        .exif_metadata
        .as_ref()
        .and_then(|exif| Orientation::from_exif_chunk(exif))
        .unwrap_or(Orientation::NoTransforms);
    let (color, keyed) = (reader.info().color_type, reader.info().trns.is_some());
    let (expanded, depth) = reader.output_color_type();
    let length = reader.output_buffer_size().ok_or(Error::TooLarge {
        width: size.0,
        height: size.1,
        frames: 1,
    })?;
    let mut buffer = vec![0; length];
    match reader.next_frame(&mut buffer) {
        Ok(_) => {}
        // Pillow is told to load truncated files: what is missing stays black.
        Err(png::DecodingError::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(broken(error)),
    }
    let samples = samples(buffer, depth, expanded);
    let channels = expanded.samples();
    let pixels = samples.chunks_exact(channels);
    let alpha = matches!(expanded, ColorType::GrayscaleAlpha | ColorType::Rgba)
        .then(|| pixels.clone().map(|p| p[channels - 1]).collect::<Vec<u8>>());
    let rgb = match expanded {
        ColorType::Grayscale | ColorType::GrayscaleAlpha => pixels.flat_map(|p| [p[0]; 3]).collect(),
        ColorType::Rgb => samples,
        _ => pixels.flat_map(|p| [p[0], p[1], p[2]]).collect(),
    };
    let by_key = keyed && color != ColorType::Indexed;
    let (alpha, key_alpha) = if by_key { (None, alpha) } else { (alpha, None) };
    let frame = Frame {
        width: size.0 as usize,
        height: size.1 as usize,
        rgb,
        alpha,
        key_alpha,
    };
    Ok(vec![frame.oriented(orientation)])
}

fn broken(error: png::DecodingError) -> Error {
    Error::Damaged(error.to_string())
}

/// 16-bit samples to bytes. Plain grey is a mode of its own in Pillow (`I;16`) whose conversion clips instead of scaling.
fn samples(buffer: Vec<u8>, depth: BitDepth, color: ColorType) -> Vec<u8> {
    if depth != BitDepth::Sixteen {
        return buffer;
    }
    let wide = buffer
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    if color == ColorType::Grayscale {
        wide.map(|v| v.min(255) as u8).collect()
    } else {
        wide.map(|v| (v >> 8) as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use darkroom_ambient::SystemClock;
    use darkroom_core::Clock;

    use super::*;

    fn header(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        png::Encoder::new(&mut bytes, width, height)
            .write_header()
            .unwrap();
        bytes
    }

    #[test]
    fn absurd_dimensions_are_refused_at_once() {
        let clock = SystemClock::new();
        let start = clock.monotonic();
        for (width, height) in [
            (65_000, 65_000),
            (1, 20_000),
            (16_384, 16_384),
            (0x7fff_ffff, 0x7fff_ffff),
        ] {
            assert!(
                matches!(frames(&header(width, height)), Err(Error::TooLarge { .. })),
                "{width} x {height}"
            );
        }
        assert!(clock.monotonic() - start < Duration::from_millis(200));
    }
}
