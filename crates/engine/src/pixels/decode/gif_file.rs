//! GIF by Pillow's rules: the first frame keeps its palette and its transparency, later ones are drawn over it; what a
//! frame leaves behind is decided when the next one comes.

use std::{io::Cursor, num::NonZeroU64};

use gif::{DecodeOptions, MemoryLimit};

use super::{
    Error, Frame, MAX_DECODED_BYTES, check,
    gif_blocks::{self, Blocks, Next},
};

type Pixel = [u8; 4];

/// What ComfyUI makes the mask of a frame without alpha; only of this size it goes together with masks of alpha.
const EMPTY_MASK: (u32, u32) = (64, 64);

/// One frame as the file has it.
struct Part {
    rect: Rect,
    palette: Palette,
    transparent: Option<u8>,
    indices: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Rect {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

/// Red, green and blue of each index.
struct Palette(Vec<u8>);

/// What the frames are drawn on.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Pixel>,
    has_alpha: bool,
    /// The first frame was of greys.
    is_grey: bool,
}

/// What happens to a frame's rectangle before the next one is drawn.
enum Disposal {
    Keep,
    Fill(Rect, Pixel),
    Restore(Rect, Vec<Pixel>),
}

/// How a frame says that it is disposed of: by the background; 3 and above, by what was there before it.
const BY_BACKGROUND: u8 = 2;

/// All frames of a GIF file that have the size of the first.
pub fn frames(bytes: &[u8]) -> Result<Vec<Frame>, Error> {
    let mut options = DecodeOptions::new();
    let most = NonZeroU64::new(MAX_DECODED_BYTES).expect("the limit is not 0");
    options.set_memory_limit(MemoryLimit::Bytes(most));
    let mut decoder = options
        .read_info(Cursor::new(gif_blocks::whole(bytes)))
        .map_err(broken)?;
    let screen = (u32::from(decoder.width()), u32::from(decoder.height()));
    check(screen, 1)?;
    let global = decoder.global_palette().is_some();
    let background = decoder.bg_color().filter(|_| global).unwrap_or(0) as u8;
    let mut out: Vec<Frame> = Vec::new();
    let mut canvas: Option<Canvas> = None;
    // A frame that says nothing is disposed of like the last that did.
    let mut method = 0;
    let mut blocks = Blocks::new(bytes);
    let mut left_behind = Disposal::Keep;
    loop {
        let said = match blocks.next() {
            Next::Image { disposal } => disposal,
            Next::End => break,
            Next::BrokenOff => return Err(broken_off()),
        };
        let info = match decoder.next_frame_info() {
            Ok(Some(info)) => info.clone(),
            Ok(None) => break,
            // Pillow shows what it could read.
            Err(_) if !out.is_empty() => break,
            Err(error) => return Err(broken(error)),
        };
        let rect = Rect {
            x: info.left.into(),
            y: info.top.into(),
            width: info.width.into(),
            height: info.height.into(),
        };
        let size = match &canvas {
            None => (
                screen.0.max(rect.right() as u32),
                screen.1.max(rect.bottom() as u32),
            ),
            Some(canvas) => (canvas.width as u32, canvas.height as u32),
        };
        if canvas.is_some() && (rect.right() as u32 > size.0 || rect.bottom() as u32 > size.1) {
            // It makes this and all later frames larger than the first, and such frames are left out, but looked at.
            return if blocks.break_off() {
                Err(broken_off())
            } else {
                Ok(out)
            };
        }
        check(size, out.len() as u64 + 1)?;
        method = if said > 0 { said } else { method };
        let palette = Palette(decoder.palette().map_err(broken)?.to_vec());
        let mut part = Part {
            rect,
            palette,
            transparent: info.transparent,
            indices: vec![info.transparent.unwrap_or(0); rect.width * rect.height],
        };
        let complete = decoder.read_into_buffer(&mut part.indices).is_ok();
        let canvas = match &mut canvas {
            None => {
                if !complete && part.transparent.is_some() {
                    // Pillow has forgotten the palette when it tries again: the indices are shown as greys.
                    part.palette = Palette(Vec::new());
                }
                let new = canvas.insert(Canvas::new(size, &part));
                left_behind = match (method, part.transparent) {
                    (0 | 1, _) => Disposal::Keep,
                    (BY_BACKGROUND, color) => Disposal::Fill(rect, part.pixel(color.unwrap_or(background))),
                    // Before it there was nothing.
                    (_, Some(color)) => Disposal::Fill(rect, part.pixel(color)),
                    (_, None) => Disposal::Keep,
                };
                new
            }
            Some(canvas) if !complete && !canvas.is_grey => {
                // Pillow has forgotten what it would have drawn on, and the transparency with it.
                if canvas.has_alpha && size != EMPTY_MASK {
                    return Err(Error::Damaged("the last frame breaks off and has no mask".into()));
                }
                out.push(Canvas::alone(size, part).frame());
                break;
            }
            Some(canvas) => {
                canvas.dispose(&left_behind);
                left_behind = match method {
                    0 | 1 => Disposal::Keep,
                    BY_BACKGROUND => Disposal::Fill(rect, part.background(background)),
                    _ => Disposal::Restore(rect, canvas.cut(rect)),
                };
                canvas.draw(&part);
                canvas
            }
        };
        out.push(canvas.frame());
        if !complete {
            break;
        }
    }
    if out.is_empty() {
        return Err(Error::Damaged("no frames".into()));
    }
    Ok(out)
}

fn broken_off() -> Error {
    Error::Damaged("the file breaks off in what comes before a frame's pixels".into())
}

fn broken(error: gif::DecodingError) -> Error {
    Error::Damaged(error.to_string())
}

impl Rect {
    fn right(self) -> usize {
        self.x + self.width
    }

    fn bottom(self) -> usize {
        self.y + self.height
    }
}

impl Palette {
    fn get(&self, index: u8) -> Option<[u8; 3]> {
        let at = usize::from(index) * 3;
        Some([*self.0.get(at)?, *self.0.get(at + 1)?, *self.0.get(at + 2)?])
    }

    /// Every index is the grey of that number: Pillow takes the file as grey, and grey has no transparency here.
    fn is_grey(&self) -> bool {
        let colors = self.0.chunks_exact(3).enumerate();
        colors.into_iter().all(|(at, color)| color == [at as u8; 3])
    }
}

impl Part {
    /// The colour of an index; beyond the palette it is the grey of that number.
    fn pixel(&self, index: u8) -> Pixel {
        let [r, g, b] = self.palette.get(index).unwrap_or([index; 3]);
        let alpha = if self.transparent == Some(index) { 0 } else { 255 };
        [r, g, b, alpha]
    }

    /// What a later frame's rectangle is filled with: transparency before the background.
    fn background(&self, background: u8) -> Pixel {
        let color = self.transparent.unwrap_or(background);
        let [r, g, b] = self
            .palette
            .get(color)
            .or(self.palette.get(0))
            .unwrap_or_default();
        [r, g, b, if self.transparent.is_some() { 0 } else { 255 }]
    }

    fn rows(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let rows = self.indices.chunks_exact(self.rect.width.max(1));
        rows.enumerate()
            .map(|(row, indices)| (self.rect.y + row, indices))
    }
}

impl Canvas {
    fn new((width, height): (u32, u32), first: &Part) -> Canvas {
        let (width, height) = (width as usize, height as usize);
        let around = first.pixel(first.transparent.unwrap_or(0));
        let mut canvas = Canvas {
            width,
            height,
            pixels: vec![around; width * height],
            has_alpha: first.transparent.is_some() && !first.palette.is_grey(),
            is_grey: first.palette.is_grey(),
        };
        for (y, indices) in first.rows() {
            let row = &mut canvas.pixels[y * width + first.rect.x..];
            row.iter_mut()
                .zip(indices)
                .for_each(|(pixel, index)| *pixel = first.pixel(*index));
        }
        canvas
    }

    /// A frame without the frames below it: its own palette, nothing transparent, and around it what its transparent
    /// index looks like, which a palette of greys does not have.
    fn alone(size: (u32, u32), mut part: Part) -> Canvas {
        let around = part.transparent.take().filter(|_| !part.palette.is_grey());
        let mut canvas = Canvas::new(size, &part);
        let (inside, around) = (canvas.cut(part.rect), part.pixel(around.unwrap_or(0)));
        canvas.pixels.fill(around);
        canvas.dispose(&Disposal::Restore(part.rect, inside));
        canvas
    }

    fn draw(&mut self, part: &Part) {
        for (y, indices) in part.rows() {
            let row = &mut self.pixels[y * self.width + part.rect.x..];
            for (pixel, index) in row.iter_mut().zip(indices) {
                if part.transparent != Some(*index) {
                    *pixel = part.pixel(*index);
                }
            }
        }
    }

    fn dispose(&mut self, disposal: &Disposal) {
        match disposal {
            Disposal::Keep => {}
            Disposal::Fill(rect, pixel) => self.rows(*rect).for_each(|row| row.fill(*pixel)),
            Disposal::Restore(rect, pixels) => self
                .rows(*rect)
                .zip(pixels.chunks_exact(rect.width.max(1)))
                .for_each(|(row, saved)| row.copy_from_slice(saved)),
        }
    }

    fn cut(&mut self, rect: Rect) -> Vec<Pixel> {
        self.rows(rect).flat_map(|row| row.to_vec()).collect()
    }

    fn rows(&mut self, rect: Rect) -> impl Iterator<Item = &mut [Pixel]> {
        let rows = self.pixels.chunks_exact_mut(self.width);
        rows.skip(rect.y)
            .take(rect.height)
            .map(move |row| &mut row[rect.x..rect.right()])
    }

    fn frame(&self) -> Frame {
        Frame {
            width: self.width,
            height: self.height,
            rgb: self.pixels.iter().flat_map(|p| [p[0], p[1], p[2]]).collect(),
            alpha: self.has_alpha.then(|| self.pixels.iter().map(|p| p[3]).collect()),
            key_alpha: self.is_grey.then(|| self.pixels.iter().map(|p| p[3]).collect()),
        }
    }
}
