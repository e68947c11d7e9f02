//! Rows of pixels as the compressed stream of a PNG, in bands that are filtered and compressed side by side. The bands
//! are of a fixed size, so the bytes do not depend on the number of processors.

use std::{borrow::Cow, ops::Range};

use flate2::{Compress, Compression, FlushCompress, Status};

use super::filter;
use crate::parallel;

/// What one band holds at least, in bytes: sixteen times the window of 32 KiB that is lost at its start.
const BAND_BYTES: usize = 512 << 10;
/// Zlib's checksum is of numbers modulo the largest prime below 2^16.
const ADLER_MODULO: u32 = 65_521;

/// One band of the stream.
#[derive(Default)]
struct Band {
    deflated: Vec<u8>,
    filtered_bytes: usize,
    adler: u32,
}

/// The parts of a zlib stream of `height` rows, in order; together they are the stream. `rows` gives the bytes of a range
/// of rows, so that the whole need not lie in memory as bytes.
pub fn parts<'a>(
    height: usize,
    stride: usize,
    pixel_bytes: usize,
    level: u8,
    rows: impl Fn(Range<usize>) -> Cow<'a, [u8]> + Sync,
) -> Vec<Vec<u8>> {
    let rows_of_band = BAND_BYTES.div_ceil(stride.max(1));
    let count = height.div_ceil(rows_of_band).max(1);
    let mut bands: Vec<Band> = Vec::new();
    bands.resize_with(count, Band::default);
    parallel::items_to_the_end(&mut bands, |number, band| {
        let start = number * rows_of_band;
        let end = height.min(start + rows_of_band);
        let above = usize::from(number > 0);
        let bytes = rows(start - above..end);
        let (above, bytes) = bytes.split_at(above * stride);
        let above = (!above.is_empty()).then_some(above);
        let filtered = filter::rows(bytes, above, stride, pixel_bytes);
        *band = Band {
            deflated: deflate(&filtered, level, number + 1 == count),
            filtered_bytes: filtered.len(),
            adler: adler(&filtered),
        };
    });
    let mut sum = 1;
    let mut parts = vec![head(level).to_vec()];
    for band in bands {
        sum = joined(sum, band.adler, band.filtered_bytes);
        parts.push(band.deflated);
    }
    parts.push(sum.to_be_bytes().to_vec());
    parts
}

/// Method, window and level, as zlib writes them.
fn head(level: u8) -> [u8; 2] {
    match level {
        0 | 1 => [0x78, 0x01],
        2..=5 => [0x78, 0x5e],
        6 => [0x78, 0x9c],
        _ => [0x78, 0xda],
    }
}

/// One raw deflate stream; all but the last end at a byte and without the mark of the end.
fn deflate(bytes: &[u8], level: u8, last: bool) -> Vec<u8> {
    let mut stream = Compress::new(Compression::new(u32::from(level.min(9))), false);
    let mut out = Vec::with_capacity(bytes.len() / 2 + 1024);
    let flush = if last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    loop {
        let taken = usize::try_from(stream.total_in()).expect("a band fits memory");
        let status = stream
            .compress_vec(&bytes[taken..], &mut out, flush)
            .expect("a deflate stream that is used in order does not fail");
        // Space was left, so nothing waits inside.
        let flushed = out.len() < out.capacity() && stream.total_in() == bytes.len() as u64;
        if status == Status::StreamEnd || (!last && flushed) {
            return out;
        }
        out.reserve(out.capacity().max(4096));
    }
}

fn adler(bytes: &[u8]) -> u32 {
    /// As many as cannot overflow 32 bits between two divisions (zlib's NMAX).
    const PART: usize = 5552;
    let (mut a, mut b) = (1u32, 0u32);
    for part in bytes.chunks(PART) {
        for byte in part {
            a += u32::from(*byte);
            b += a;
        }
        a %= ADLER_MODULO;
        b %= ADLER_MODULO;
    }
    b << 16 | a
}

/// The checksum of two texts after another, from those of each and the length of the second.
fn joined(first: u32, second: u32, length: usize) -> u32 {
    let modulo = u64::from(ADLER_MODULO);
    let (a1, b1) = (u64::from(first & 0xffff), u64::from(first >> 16));
    let (a2, b2) = (u64::from(second & 0xffff), u64::from(second >> 16));
    let length = length as u64 % modulo;
    let a = (a1 + a2 + modulo - 1) % modulo;
    let b = (b1 + b2 + length * (a1 + modulo - 1)) % modulo;
    (b << 16 | a) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_zlib_s_and_can_be_joined() {
        assert_eq!(adler(b"Wikipedia"), 0x11e6_0398);
        let text: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        for at in [0, 1, 5552, 70_000, 100_000] {
            let (first, second) = text.split_at(at);
            assert_eq!(joined(adler(first), adler(second), second.len()), adler(&text));
        }
    }

    #[test]
    fn incompressible_and_empty_bands_are_whole() {
        let mut random = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        })
        .take(200_000)
        .collect();
        for bytes in [&noise[..], &noise[..1], b""] {
            let mut stream = deflate(bytes, 4, false);
            stream.extend(deflate(bytes, 4, true));
            let mut out = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::DeflateDecoder::new(&stream[..]), &mut out)
                .unwrap();
            assert_eq!(out, [bytes, bytes].concat());
        }
    }
}
