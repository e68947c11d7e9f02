//! Pictures like photographs in what matters for the encoder: smooth areas, edges, and some noise.

use std::path::Path;

use darkroom_engine::pixels::encode::{self, Bytes8};

const SIDE: u32 = 1024;

/// Writes the picture of a round; no two rounds have the same.
pub fn write(path: &Path, round: usize) {
    let mut random = 0x9e37_79b9_7f4a_7c15u64 ^ ((round as u64 + 1) << 32);
    let mut noise = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 60) as u32
    };
    let mut pixels = Vec::with_capacity((SIDE * SIDE * 3) as usize);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let edge = if (x / 96 + y / 128 + round as u32).is_multiple_of(3) {
                60
            } else {
                0
            };
            for slope in [x / 8, y / 8, (x + y) / 16] {
                pixels.push((slope + edge + noise()).min(255) as u8);
            }
        }
    }
    let image = Bytes8 {
        width: SIDE,
        height: SIDE,
        channels: 3,
        pixels,
    };
    std::fs::write(path, encode::png(&image, 4, &[]).expect("RGB is encoded")).expect("the input is written");
}
