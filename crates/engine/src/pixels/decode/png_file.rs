//! PNG by Pillow 13's rules, which no general decoder follows: 16-bit grey is clipped, 16-bit colour loses its low byte,
//! a key colour is no alpha band.

use std::{io::Cursor, ops::Range};

use image::metadata::Orientation;
use png::{BitDepth, BlendOp, ColorType, Decoder, DisposeOp, FrameControl, Info, Limits, Transformations};

use super::{Error, Frame, MAX_DECODED_BYTES, check};

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
    let channels = expanded.samples();
    let see_through = matches!(expanded, ColorType::GrayscaleAlpha | ColorType::Rgba);
    let mut animation = Animation {
        width: size.0 as usize,
        channels,
        blank: blank(reader.info(), channels),
        // Pillow knows a key colour only in colour images when it lays frames over each other.
        blends: see_through && !(keyed && color == ColorType::Grayscale),
        canvas: Vec::new(),
        left_behind: None,
    };
    let by_key = keyed && color != ColorType::Indexed;
    let small_key = small_key(reader.info());
    let frame = |canvas: Vec<u8>| {
        let pixels = canvas.chunks_exact(channels);
        let alpha = see_through.then(|| pixels.clone().map(|p| p[channels - 1]).collect::<Vec<u8>>());
        let alpha = match small_key {
            Some(key) => Some(
                pixels
                    .clone()
                    .map(|p| if p[0] == key { 0 } else { 255 })
                    .collect(),
            ),
            None => alpha,
        };
        let rgb = match expanded {
            ColorType::Grayscale | ColorType::GrayscaleAlpha => pixels.flat_map(|p| [p[0]; 3]).collect(),
            ColorType::Rgb => canvas,
            _ => pixels.flat_map(|p| [p[0], p[1], p[2]]).collect(),
        };
        let (alpha, key_alpha) = if by_key { (None, alpha) } else { (alpha, None) };
        let frame = Frame {
            width: size.0 as usize,
            height: size.1 as usize,
            rgb,
            alpha,
            key_alpha,
        };
        frame.oriented(orientation)
    };
    let count = reader
        .info()
        .animation_control
        .map_or(1, |control| control.num_frames);
    let mut out: Vec<Frame> = Vec::new();
    let mut shown = 0;
    while shown < count.max(1) {
        check(size, out.len() as u64 + 1)?;
        let mut buffer = vec![0; length];
        let complete = match reader.next_frame(&mut buffer) {
            Ok(_) => true,
            // Pillow is told to load truncated files: what is missing stays black.
            Err(png::DecodingError::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                false
            }
            Err(_) if !out.is_empty() => break,
            Err(error) => return Err(broken(error)),
        };
        let control = reader.info().frame_control().copied();
        // An image before the animation is a frame too, and is not counted.
        shown += u32::from(control.is_some() || count <= 1);
        let part = samples(buffer, depth, color, channels);
        if control.is_none() && count <= 1 {
            out.push(frame(part));
            break;
        }
        animation.draw(part, control, size);
        out.push(frame(animation.canvas.clone()));
        if !complete && shown < count {
            // Pillow fails on its way to the frames that are missing.
            return Err(Error::Damaged("the file breaks off before its last frame".into()));
        }
        if !complete {
            break;
        }
    }
    Ok(out)
}

/// The key of grey samples of 2 or 4 bits, which Pillow looks for after they were spread to 8.
fn small_key(info: &Info<'_>) -> Option<u8> {
    let small =
        matches!(info.bit_depth, BitDepth::Two | BitDepth::Four) && info.color_type == ColorType::Grayscale;
    info.trns.as_deref().filter(|_| small)?.last().copied()
}

/// The pixel of an area that was cleared: zeros, and with a palette its first colour.
fn blank(info: &Info<'_>, channels: usize) -> Vec<u8> {
    let mut pixel = vec![0; channels];
    if let (ColorType::Indexed, Some(palette)) = (info.color_type, &info.palette) {
        pixel
            .iter_mut()
            .zip(palette.iter().take(3))
            .for_each(|(sample, color)| *sample = *color);
        if channels == 4 {
            pixel[3] = info
                .trns
                .as_ref()
                .and_then(|alphas| alphas.first())
                .copied()
                .unwrap_or(255);
        }
    }
    pixel
}

/// What the frames of an APNG are drawn on.
struct Animation {
    width: usize,
    channels: usize,
    blank: Vec<u8>,
    blends: bool,
    canvas: Vec<u8>,
    /// What the last frame's rectangle becomes before the next frame.
    left_behind: Option<(FrameControl, Vec<u8>)>,
}

impl Animation {
    fn draw(&mut self, part: Vec<u8>, control: Option<FrameControl>, size: (u32, u32)) {
        let is_first = self.canvas.is_empty();
        let whole = FrameControl {
            width: size.0,
            height: size.1,
            ..FrameControl::default()
        };
        let control = control.unwrap_or(whole);
        if is_first {
            self.canvas = self.blank.repeat(self.width * size.1 as usize);
        } else if let Some((rect, pixels)) = self.left_behind.take() {
            self.put(&rect, &pixels);
        }
        let area = (control.width * control.height) as usize;
        let blends = control.blend_op == BlendOp::Over;
        self.left_behind = match control.dispose_op {
            DisposeOp::None => None,
            // There is nothing before the first frame.
            DisposeOp::Previous if is_first => Some((control, self.blank.repeat(area))),
            // What was before a blended frame is lost in Pillow, because it blends into its copy of that.
            DisposeOp::Previous if blends => None,
            DisposeOp::Previous => Some((control, self.cut(&control))),
            DisposeOp::Background => Some((control, self.blank.repeat(area))),
        };
        if !is_first && self.blends && blends {
            let below = self.cut(&control);
            let pixels = part
                .chunks_exact(self.channels)
                .zip(below.chunks_exact(self.channels));
            let blended: Vec<u8> = pixels.flat_map(|(above, below)| over(above, below)).collect();
            self.put(&control, &blended);
        } else {
            self.put(&control, &part[..area * self.channels]);
        }
    }

    fn rows(&self, rect: &FrameControl) -> impl Iterator<Item = Range<usize>> + use<> {
        let (width, channels) = (self.width, self.channels);
        let (x, columns) = (rect.x_offset as usize, rect.width as usize);
        let rows = rect.y_offset as usize..(rect.y_offset + rect.height) as usize;
        rows.map(move |row| (row * width + x) * channels..(row * width + x + columns) * channels)
    }

    fn cut(&self, rect: &FrameControl) -> Vec<u8> {
        self.rows(rect)
            .flat_map(|row| self.canvas[row].to_vec())
            .collect()
    }

    fn put(&mut self, rect: &FrameControl, pixels: &[u8]) {
        let length = rect.width as usize * self.channels;
        for (row, pixels) in self.rows(rect).zip(pixels.chunks_exact(length.max(1))) {
            self.canvas[row].copy_from_slice(pixels);
        }
    }
}

/// Every channel, alpha too, is mixed by the alpha above: so pastes Pillow.
fn over(above: &[u8], below: &[u8]) -> Vec<u8> {
    let alpha = u32::from(above.last().copied().unwrap_or(255));
    let mix = |(above, below): (&u8, &u8)| {
        let sum = u32::from(*below) * (255 - alpha) + u32::from(*above) * alpha + 128;
        (((sum >> 8) + sum) >> 8) as u8
    };
    above.iter().zip(below).map(mix).collect()
}

fn broken(error: png::DecodingError) -> Error {
    Error::Damaged(error.to_string())
}

/// 16-bit samples to bytes. Grey without alpha is a mode of its own in Pillow (`I;16`) whose conversion clips instead of
/// scaling; the alpha that stands for a key colour is beside it.
fn samples(buffer: Vec<u8>, depth: BitDepth, color: ColorType, channels: usize) -> Vec<u8> {
    if depth != BitDepth::Sixteen {
        return buffer;
    }
    let wide = buffer
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .enumerate();
    let clips = |at: usize| color == ColorType::Grayscale && at.is_multiple_of(channels);
    wide.map(|(at, v)| {
        if clips(at) {
            v.min(255) as u8
        } else {
            (v >> 8) as u8
        }
    })
    .collect()
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
