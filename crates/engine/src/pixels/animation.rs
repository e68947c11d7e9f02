//! Moving PNG and WebP files, by Pillow's rules: a frame equal to the one before only prolongs it, and a PNG stores
//! of each frame only the rectangle that changed.

use std::ops::Range;

use super::encode::{self, Bytes8};

/// The longest time of a WebP frame, in milliseconds.
const MAX_WEBP_DURATION: u32 = 0xff_ffff;
/// EXIF tags of the texts: the graph, and from here downwards everything else.
const TAG_PROMPT: u16 = 0x0110;
const TAG_FIRST_EXTRA: u16 = 0x010f;

/// Why a moving image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A frame could not be encoded.
    #[error(transparent)]
    Frame(#[from] encode::Error),
    /// The encoder failed.
    #[error("cannot encode the image: {0}")]
    Png(#[from] png::EncodingError),
}

impl Error {
    /// Whether the images have a number of channels that no file can hold.
    pub fn is_about_channels(&self) -> bool {
        matches!(self, Error::Frame(encode::Error::Channels { .. }))
    }
}

/// What is left of the frames: which one, how long in milliseconds, and the rows and columns that changed.
struct Shown<'a> {
    frame: &'a Bytes8,
    duration: u32,
    rows: Range<u32>,
    columns: Range<u32>,
}

/// APNG of frames of one size, each shown for `duration` milliseconds, for ever; `texts` go into `comf` chunks after
/// the pixels. A single frame makes a plain PNG.
pub fn png(
    frames: &[Bytes8],
    duration: u32,
    level: u8,
    texts: &[(String, String)],
) -> Result<Vec<u8>, Error> {
    let shown = shown(frames, duration, u32::MAX);
    let first = shown[0].frame;
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, first.width, first.height);
    encoder.set_color(encode::color_type(first.channels)?);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_deflate_compression(png::DeflateCompression::Level(level));
    encoder.set_filter(png::Filter::Adaptive);
    let moves = shown.len() > 1;
    if moves {
        encoder.set_animated(shown.len() as u32, 0)?;
    }
    let mut writer = encoder.write_header()?;
    for part in &shown {
        if moves {
            let (numerator, denominator) = seconds(part.duration);
            writer.set_frame_delay(numerator, denominator)?;
            writer.reset_frame_position()?;
            writer.set_frame_dimension(
                part.columns.end - part.columns.start,
                part.rows.end - part.rows.start,
            )?;
            writer.set_frame_position(part.columns.start, part.rows.start)?;
        }
        writer.write_image_data(&cut(part))?;
    }
    for (keyword, text) in texts {
        let data = [latin1(keyword), vec![0], latin1(text)].concat();
        writer.write_chunk(png::chunk::ChunkType(*b"comf"), &data)?;
    }
    writer.finish()?;
    Ok(out)
}

/// Lossless WebP of frames of one size, each shown for `duration` milliseconds, for ever; `texts` go into EXIF tags.
pub fn webp(frames: &[Bytes8], duration: u32, texts: &[(String, String)]) -> Result<Vec<u8>, Error> {
    let shown = shown(frames, duration, MAX_WEBP_DURATION);
    let first = shown[0].frame;
    let moves = shown.len() > 1;
    let mut body = b"WEBP".to_vec();
    let flags = u8::from(moves) << 1 | u8::from(!texts.is_empty()) << 3 | u8::from(first.channels == 4) << 4;
    let mut head = vec![flags, 0, 0, 0];
    head.extend(three(first.width - 1));
    head.extend(three(first.height - 1));
    chunk(&mut body, b"VP8X", &head);
    if moves {
        chunk(&mut body, b"ANIM", &[0; 6]);
    }
    for part in &shown {
        let pixels = vp8l(part.frame)?;
        if !moves {
            chunk(&mut body, b"VP8L", &pixels);
            continue;
        }
        let mut frame = vec![0; 6];
        frame.extend(three(first.width - 1));
        frame.extend(three(first.height - 1));
        frame.extend(three(part.duration));
        // Frames are whole, so nothing of the one before shines through.
        frame.push(2);
        chunk(&mut frame, b"VP8L", &pixels);
        chunk(&mut body, b"ANMF", &frame);
    }
    if !texts.is_empty() {
        chunk(&mut body, b"EXIF", &exif(texts));
    }
    let mut out = b"RIFF".to_vec();
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
    Ok(out)
}

fn shown(frames: &[Bytes8], duration: u32, longest: u32) -> Vec<Shown<'_>> {
    let mut out: Vec<Shown<'_>> = Vec::with_capacity(frames.len());
    for frame in frames {
        let whole = (0..frame.height, 0..frame.width);
        let (rows, columns) = match out.last_mut() {
            None => whole,
            Some(last) => match changed(last.frame, frame) {
                Some(place) => place,
                None if last.duration.saturating_add(duration) <= longest => {
                    last.duration = last.duration.saturating_add(duration);
                    continue;
                }
                None => whole,
            },
        };
        out.push(Shown {
            frame,
            duration,
            rows,
            columns,
        });
    }
    out
}

/// The smallest rectangle (rows, columns) that holds all differences.
fn changed(before: &Bytes8, after: &Bytes8) -> Option<(Range<u32>, Range<u32>)> {
    let line = after.width as usize * after.channels;
    let mut lines = before
        .pixels
        .chunks_exact(line.max(1))
        .zip(after.pixels.chunks_exact(line.max(1)))
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .peekable();
    let top = lines.peek()?.0;
    let (mut bottom, mut left, mut right) = (top, usize::MAX, 0);
    for (row, (a, b)) in lines {
        bottom = row;
        let differs = |at: &usize| a[*at] != b[*at];
        let first = (0..line).find(differs).unwrap_or(0);
        let last = (0..line).rev().find(differs).unwrap_or(0);
        left = left.min(first / after.channels);
        right = right.max(last / after.channels);
    }
    let range = |start: usize, last: usize| start as u32..last as u32 + 1;
    Some((range(top, bottom), range(left, right)))
}

fn cut(part: &Shown<'_>) -> Vec<u8> {
    let frame = part.frame;
    let line = frame.width as usize * frame.channels;
    let columns = part.columns.start as usize * frame.channels..part.columns.end as usize * frame.channels;
    let rows = part.rows.start as usize..part.rows.end as usize;
    rows.flat_map(|row| &frame.pixels[row * line..][columns.clone()])
        .copied()
        .collect()
}

/// Milliseconds as a fraction of seconds in lowest terms that fits two 16-bit numbers.
fn seconds(milliseconds: u32) -> (u16, u16) {
    let (mut a, mut b) = (milliseconds, 1000u32);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let (numerator, denominator) = (milliseconds / a, 1000 / a);
    match u16::try_from(numerator) {
        Ok(numerator) => (numerator, denominator as u16),
        Err(_) => (u16::try_from(milliseconds / 1000).unwrap_or(u16::MAX), 1),
    }
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
        .collect()
}

/// The lossless chunk of a still image.
fn vp8l(frame: &Bytes8) -> Result<Vec<u8>, Error> {
    // RIFF, length, WEBP, VP8L, length: a simple file has nothing but this chunk.
    const HEAD: usize = 20;
    let file = encode::webp(frame)?;
    let length = u32::from_le_bytes([file[16], file[17], file[18], file[19]]) as usize;
    Ok(file[HEAD..HEAD + length].to_vec())
}

fn three(number: u32) -> [u8; 3] {
    let [a, b, c, _] = number.to_le_bytes();
    [a, b, c]
}

fn chunk(out: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    out.extend(name);
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    if data.len() % 2 == 1 {
        out.push(0);
    }
}

/// A big-endian TIFF directory of texts, each as `key:text`.
fn exif(texts: &[(String, String)]) -> Vec<u8> {
    let extras = texts.iter().filter(|(key, _)| key != "prompt");
    let prompt = texts.iter().filter(|(key, _)| key == "prompt").take(1);
    let tagged = prompt.map(|text| (TAG_PROMPT, text)).chain(
        (0..TAG_FIRST_EXTRA)
            .map(|down| TAG_FIRST_EXTRA - down)
            .zip(extras),
    );
    let mut entries: Vec<(u16, Vec<u8>)> = tagged
        .map(|(tag, (key, text))| {
            let ascii = |c: char| if c.is_ascii() { c as u8 } else { b'?' };
            (tag, format!("{key}:{text}\0").chars().map(ascii).collect())
        })
        .collect();
    entries.sort_by_key(|(tag, _)| *tag);
    let mut out = b"Exif\0\0MM\0*\0\0\0\x08".to_vec();
    out.extend((entries.len() as u16).to_be_bytes());
    let mut offset = 8 + 2 + 12 * entries.len() + 4;
    let mut values = Vec::new();
    for (tag, value) in entries {
        out.extend(tag.to_be_bytes());
        out.extend(2u16.to_be_bytes());
        out.extend((value.len() as u32).to_be_bytes());
        if value.len() <= 4 {
            out.extend(value.iter().chain(&[0; 4]).take(4));
            continue;
        }
        out.extend((offset as u32).to_be_bytes());
        let even = value.len().next_multiple_of(2);
        offset += even;
        values.extend(&value);
        values.resize(values.len() + even - value.len(), 0);
    }
    out.extend([0; 4]);
    out.extend(values);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(pixels: &[u8]) -> Bytes8 {
        Bytes8 {
            width: 2,
            height: 2,
            channels: 3,
            pixels: pixels.repeat(3),
        }
    }

    #[test]
    fn equal_frames_are_one_that_lasts_longer() {
        let frames = [frame(&[1, 2, 3, 4]), frame(&[1, 2, 3, 4]), frame(&[1, 2, 3, 5])];
        let shown = shown(&frames, 40, u32::MAX);
        let found: Vec<_> = shown.iter().map(|part| part.duration).collect();
        assert_eq!(found, [80, 40]);
        assert_eq!(super::shown(&frames, 40, 50).len(), 3);
    }

    #[test]
    fn only_what_changed_is_stored() {
        let (a, mut b) = (frame(&[0; 4]), frame(&[0; 4]));
        b.pixels[9] = 1;
        assert_eq!(changed(&a, &b), Some((1..2, 1..2)));
        assert_eq!(changed(&a, &a), None);
    }

    #[test]
    fn times_are_fractions_in_lowest_terms() {
        assert_eq!(seconds(166), (83, 500));
        assert_eq!(seconds(0), (0, 1));
        assert_eq!(seconds(100_000), (100, 1));
        assert_eq!(seconds(100_001), (100, 1));
    }
}
