//! Files against recorded ones: pixels, samples, and what is written beside them.

use std::{fmt, io::Cursor, ops::Range, path::Path};

use darkroom_engine::pixels::decode;
use serde_json::{Map, Value};

/// How much 8-bit samples may differ.
#[derive(Clone, Copy)]
pub struct Tolerance {
    /// The largest difference of a sample.
    pub max: u8,
    /// The share of samples that may differ at all.
    pub share: f64,
}

/// Of floats: relative and absolute.
const RELATIVE: f32 = 1e-5;
const ABSOLUTE: f32 = 2e-6;

/// How much a file did differ.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Difference {
    /// Of 8-bit samples.
    pub levels: u8,
    /// Of 32-bit samples.
    pub amount: f32,
    /// The share of samples that differ.
    pub share: f64,
}

impl Difference {
    /// The worse of both, number by number.
    pub fn max(self, other: Difference) -> Difference {
        Difference {
            levels: self.levels.max(other.levels),
            amount: self.amount.max(other.amount),
            share: self.share.max(other.share),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.levels, self.amount) {
            (0, 0.0) => f.write_str("none"),
            (levels, 0.0) => write!(f, "{levels} of 255 in {:.3} %", self.share * 100.0),
            (_, amount) => write!(f, "{amount:e} in {:.3} %", self.share * 100.0),
        }
    }
}

/// Two values that must be equal.
pub fn equal<T: PartialEq + fmt::Debug>(what: &str, found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what}: found {found:?}, wanted {wanted:?}"))
    }
}

struct Png {
    info: (u32, u32, png::ColorType, png::BitDepth, bool),
    texts: Vec<(String, String)>,
    frames: Vec<((u16, u16), Vec<u8>)>,
    comf: Vec<Vec<u8>>,
}

/// What may differ in a PNG.
pub struct Leeway {
    /// Of samples.
    pub tolerance: Tolerance,
    /// Rows that may differ.
    pub rows: Range<usize>,
    /// Whether hashes in texts may differ: those of files that were compressed by another zlib.
    pub hashes: bool,
}

impl From<Tolerance> for Leeway {
    fn from(tolerance: Tolerance) -> Leeway {
        Leeway {
            tolerance,
            rows: 0..0,
            hashes: false,
        }
    }
}

/// Header, texts, frames with their times (composed), and `comf` chunks.
pub fn png(found: &[u8], wanted: &[u8], leeway: &Leeway) -> Result<Difference, String> {
    let (mut found, mut wanted) = (read_png(found)?, read_png(wanted)?);
    if leeway.hashes {
        let texts = found.texts.iter_mut().chain(&mut wanted.texts);
        texts.for_each(|(_, text)| *text = without_hashes(text));
    }
    equal("header", &found.info, &wanted.info)?;
    equal("text chunks", &found.texts, &wanted.texts)?;
    equal("comf chunks", &found.comf, &wanted.comf)?;
    equal("frames", &found.frames.len(), &wanted.frames.len())?;
    let mut worst = Difference::default();
    for (found_frame, wanted_frame) in found.frames.iter().zip(&wanted.frames) {
        equal("time of a frame", &found_frame.0, &wanted_frame.0)?;
        let row = found_frame.1.len() / found.info.1 as usize;
        let ignored = leeway.rows.start * row..leeway.rows.end * row;
        worst = worst.max(samples(
            &found_frame.1,
            &wanted_frame.1,
            leeway.tolerance,
            ignored,
        )?);
    }
    Ok(worst)
}

/// `#` for every word of 64 hexadecimal digits.
fn without_hashes(text: &str) -> String {
    let is_hash = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split('"');
    let words = words.map(|word| if is_hash(&word) { "#" } else { word });
    words.collect::<Vec<_>>().join("\"")
}

fn read_png(bytes: &[u8]) -> Result<Png, String> {
    let mut reader = png::Decoder::new(Cursor::new(bytes))
        .read_info()
        .map_err(|e| e.to_string())?;
    let info = reader.info().clone();
    let count = info.animation_control().map_or(1, |control| control.num_frames);
    let size = reader.output_buffer_size().unwrap();
    let samples = info.bytes_per_pixel();
    let mut canvas = vec![0; size];
    let mut frames = Vec::new();
    for _ in 0..count {
        let mut part = vec![0; size];
        let written = reader.next_frame(&mut part).map_err(|e| e.to_string())?;
        let control = reader.info().frame_control().copied();
        let (x, y) = control.map_or((0, 0), |c| (c.x_offset as usize, c.y_offset as usize));
        let line = written.width as usize * samples;
        for row in 0..written.height as usize {
            let at = ((y + row) * info.width as usize + x) * samples;
            canvas[at..at + line].copy_from_slice(&part[row * line..][..line]);
        }
        let time = control.map_or((0, 0), |c| (c.delay_num, c.delay_den));
        frames.push((time, canvas.clone()));
    }
    reader.finish().map_err(|e| e.to_string())?;
    let texts = reader.info().uncompressed_latin1_text.iter();
    Ok(Png {
        info: (
            info.width,
            info.height,
            info.color_type,
            info.bit_depth,
            info.interlaced,
        ),
        texts: texts.map(|t| (t.keyword.clone(), t.text.clone())).collect(),
        frames,
        comf: png_chunks(bytes, b"comf"),
    })
}

fn png_chunks(bytes: &[u8], name: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut at = 8;
    while at + 12 <= bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if &bytes[at + 4..at + 8] == name {
            out.push(bytes[at + 8..at + 8 + length].to_vec());
        }
        at += 12 + length;
    }
    out
}

/// Frames with their times, and the EXIF block.
pub fn webp(found: &[u8], wanted: &[u8], tolerance: Tolerance) -> Result<Difference, String> {
    equal(
        "EXIF",
        &riff_chunks(found, b"EXIF").map(readable).collect::<Vec<_>>(),
        &riff_chunks(wanted, b"EXIF").map(readable).collect(),
    )?;
    let (found, wanted) = (webp_frames(found)?, webp_frames(wanted)?);
    equal("frames", &found.len(), &wanted.len())?;
    let mut worst = Difference::default();
    for (found, wanted) in found.iter().zip(&wanted) {
        equal("time of a frame", &found.0, &wanted.0)?;
        worst = worst.max(samples(&found.1, &wanted.1, tolerance, 0..0)?);
    }
    Ok(worst)
}

fn readable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Pixels by the engine's own decoder, whose rules other cases check; times from the chunks.
fn webp_frames(bytes: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, String> {
    let frames = decode::frames(bytes).map_err(|e| e.to_string())?;
    let times =
        riff_chunks(bytes, b"ANMF").map(|frame| u32::from_le_bytes([frame[12], frame[13], frame[14], 0]));
    let mut times: Vec<u32> = times.collect();
    times.resize(frames.len(), 0);
    let pixels = frames
        .into_iter()
        .map(|frame| [frame.rgb, frame.alpha.unwrap_or_default()].concat());
    Ok(times.into_iter().zip(pixels).collect())
}

fn riff_chunks<'a>(bytes: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut at = 12;
    std::iter::from_fn(move || {
        let head = bytes.get(at..at + 8)?;
        let length = u32::from_le_bytes(head[4..].try_into().unwrap()) as usize;
        let chunk = (&head[..4], bytes.get(at + 8..at + 8 + length)?);
        at += 8 + length.next_multiple_of(2);
        Some(chunk)
    })
    .filter_map(move |(kind, data)| (kind == name).then_some(data))
}

/// Shapes, names and metadata exactly, samples nearly.
pub fn latent(found: &[u8], wanted: &[u8]) -> Result<Difference, String> {
    let (found_head, found) = read_latent(found);
    let (wanted_head, wanted) = read_latent(wanted);
    equal("head", &found_head, &wanted_head)?;
    let mut worst = Difference::default();
    let mut differing = 0;
    for (found, wanted) in found.iter().zip(&wanted) {
        let difference = (found - wanted).abs();
        if difference.is_nan() != (found.is_nan() && wanted.is_nan())
            || difference > ABSOLUTE + RELATIVE * wanted.abs()
        {
            return Err(format!("a sample: found {found}, wanted {wanted}"));
        }
        worst.amount = worst.amount.max(difference);
        differing += usize::from(difference > 0.0);
    }
    worst.share = differing as f64 / wanted.len().max(1) as f64;
    Ok(worst)
}

fn read_latent(bytes: &[u8]) -> (Map<String, Value>, Vec<f32>) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let head = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let samples = bytes[8 + length..].chunks_exact(4);
    (
        head,
        samples
            .map(|x| f32::from_le_bytes(x.try_into().unwrap()))
            .collect(),
    )
}

fn samples(
    found: &[u8],
    wanted: &[u8],
    tolerance: Tolerance,
    ignored: Range<usize>,
) -> Result<Difference, String> {
    equal("samples", &found.len(), &wanted.len())?;
    let differences: Vec<u8> = (0..found.len())
        .filter(|at| !ignored.contains(at))
        .map(|at| found[at].abs_diff(wanted[at]))
        .filter(|d| *d > 0)
        .collect();
    let difference = Difference {
        levels: differences.iter().max().copied().unwrap_or(0),
        amount: 0.0,
        share: differences.len() as f64 / wanted.len().max(1) as f64,
    };
    if difference.levels > tolerance.max || difference.share > tolerance.share {
        return Err(format!(
            "{} of {} samples differ, by up to {}",
            differences.len(),
            wanted.len(),
            difference.levels
        ));
    }
    Ok(difference)
}

/// Writes what was found, what was wanted and ten times their difference side by side, for a person to look at.
pub fn keep_side_by_side(name: &str, found: &[u8], wanted: &[u8]) {
    let open = |bytes: &[u8]| image::load_from_memory(bytes).ok().map(|image| image.to_rgba8());
    let (Some(found), Some(wanted)) = (open(found), open(wanted)) else {
        return;
    };
    let (width, height) = (
        found.width().max(wanted.width()),
        found.height().max(wanted.height()),
    );
    let mut sheet = image::RgbaImage::new(3 * width, height);
    image::imageops::replace(&mut sheet, &found, 0, 0);
    image::imageops::replace(&mut sheet, &wanted, width.into(), 0);
    for y in 0..found.height().min(wanted.height()) {
        for x in 0..found.width().min(wanted.width()) {
            let (a, b) = (found.get_pixel(x, y).0, wanted.get_pixel(x, y).0);
            let difference = |at: usize| a[at].abs_diff(b[at]).saturating_mul(10);
            let pixel = [difference(0), difference(1), difference(2), 255];
            sheet.put_pixel(2 * width + x, y, image::Rgba(pixel));
        }
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(format!("{name}.png"));
    match sheet.save(&path) {
        Ok(()) => eprintln!("{name}: found, wanted and difference are in {}", path.display()),
        Err(error) => eprintln!("{name}: {error}"),
    }
}
