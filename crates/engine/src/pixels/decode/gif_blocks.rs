//! The blocks of a GIF file, to know what every frame says about its disposal and how a file ends: Pillow shows a file
//! that stops before a frame, and fails on one that stops in what comes before a frame's pixels.

use std::borrow::Cow;

/// Signature and screen.
const HEADER: usize = 13;
const TRAILER: u8 = b';';

/// What stands at the place of the next frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A frame; 0 where it says nothing about its disposal, which the decoder does not tell from 1.
    Image { disposal: u8 },
    /// No more frames.
    End,
    /// The file stops in an extension or in a frame's head.
    BrokenOff,
}

/// The frames of a file in turn.
pub struct Blocks<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where a block of pixels begins that the file does not hold whole.
    part_block: Option<usize>,
}

/// The file without the last block of pixels when that is not all there, and with an end: Pillow draws only blocks that
/// it holds whole.
pub fn whole(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut blocks = Blocks::new(bytes);
    while let Next::Image { .. } = blocks.next() {}
    match blocks.part_block {
        Some(at) => [&bytes[..at], &[0, TRAILER]].concat().into(),
        None => bytes.into(),
    }
}

impl<'a> Blocks<'a> {
    /// Before the first frame of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Blocks<'a> {
        let global = bytes.get(10).map_or(0, |flags| table(*flags));
        Blocks {
            bytes,
            at: HEADER + global,
            part_block: None,
        }
    }

    /// Steps behind the next frame.
    pub fn next(&mut self) -> Next {
        let mut disposal = 0;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            match rest {
                [] | [TRAILER, ..] => return Next::End,
                [b'!'] => return Next::BrokenOff,
                [b'!', kind, body @ ..] => {
                    if *kind == 0xf9
                        && let [length, body @ ..] = body
                        && *length > 0
                    {
                        let control = &body[..body.len().min(usize::from(*length))];
                        let Some(flags) = control_flags(control) else {
                            return Next::BrokenOff;
                        };
                        // One that says nothing leaves what an extension before it said.
                        disposal = Some(flags >> 2 & 7).filter(|said| *said > 0).unwrap_or(disposal);
                    }
                    self.at += 2;
                    self.skip();
                }
                [b',', head @ ..] => {
                    // Place, size, flags, the palette, and the size of the first code.
                    let Some(length) = head.get(8).map(|flags| 10 + table(*flags)) else {
                        return Next::BrokenOff;
                    };
                    if head.len() < length {
                        return Next::BrokenOff;
                    }
                    self.at += 1 + length;
                    self.part_block = self.skip();
                    return Next::Image { disposal };
                }
                _ => self.at += 1,
            }
        }
    }

    /// Whether the rest of the file ends where Pillow fails.
    pub fn break_off(mut self) -> bool {
        loop {
            match self.next() {
                Next::Image { .. } => {}
                Next::End => return false,
                Next::BrokenOff => return true,
            }
        }
    }

    /// Steps behind blocks of data and the empty one that ends them; where one begins that is not all there.
    fn skip(&mut self) -> Option<usize> {
        while let Some(length) = self.bytes.get(self.at) {
            let start = self.at;
            self.at += 1 + usize::from(*length);
            if *length == 0 {
                return None;
            }
            if self.at > self.bytes.len() {
                return Some(start);
            }
        }
        // The ending block is what is missing.
        Some(self.at.min(self.bytes.len()))
    }
}

/// The flags of a graphic control extension, if Pillow can read all that it wants of it.
fn control_flags(control: &[u8]) -> Option<u8> {
    let flags = *control.first()?;
    let wanted = if flags & 1 == 0 { 3 } else { 4 };
    (control.len() >= wanted).then_some(flags)
}

/// The length of a palette of three bytes a colour.
fn table(flags: u8) -> usize {
    if flags & 0x80 == 0 {
        0
    } else {
        6usize << (flags & 7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCREEN: &[u8] = b"GIF89a\x01\x00\x01\x00\x00\x00\x00";
    const CONTROL: &[u8] = b"!\xf9\x04\x09\x00\x00\x00\x00";
    const IMAGE: &[u8] = b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00";

    fn all(parts: &[&[u8]]) -> Vec<Next> {
        let bytes = parts.concat();
        let mut blocks = Blocks::new(&bytes);
        std::iter::from_fn(|| Some(blocks.next())).take(3).collect()
    }

    #[test]
    fn a_file_may_stop_between_frames_or_in_pixels_and_not_elsewhere() {
        let first = || Next::Image { disposal: 2 };
        let whole = all(&[SCREEN, CONTROL, IMAGE, IMAGE]);
        assert_eq!(whole, [first(), Next::Image { disposal: 0 }, Next::End]);
        for cut in 0..IMAGE.len() {
            let second = &all(&[SCREEN, CONTROL, IMAGE, &IMAGE[..cut]])[1];
            let wanted = match cut {
                0 => Next::End,
                1..11 => Next::BrokenOff,
                _ => Next::Image { disposal: 0 },
            };
            assert_eq!(*second, wanted, "{cut} bytes");
        }
        assert_eq!(all(&[SCREEN, &CONTROL[..5]])[0], Next::BrokenOff);
        assert_eq!(all(&[SCREEN, CONTROL])[0], Next::End);
    }

    #[test]
    fn a_block_that_is_not_all_there_is_left_out() {
        let file = [SCREEN, IMAGE].concat();
        assert_eq!(whole(&file), file);
        let cut = &file[..file.len() - 2];
        assert_eq!(whole(cut), [SCREEN, &IMAGE[..11], b"\x00;"].concat());
        let cut = &file[..file.len() - 1];
        assert_eq!(whole(cut), [SCREEN, IMAGE, b";"].concat());
    }
}
