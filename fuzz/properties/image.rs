//! What must hold for any bytes that are given as an image file. Called by the fuzz target, and by the engine's test
//! that replays the corpus.

use darkroom_engine::pixels::{
    decode::{self, Frame, MAX_DECODED_BYTES, MAX_SIDE},
    encode::{self, Bytes8},
};

/// Larger frames are not written and read again: that costs time and finds nothing that smaller ones do not.
const ROUND_TRIP_PIXELS: usize = 1 << 16;

/// Panics if a promise of the decoder is broken.
pub fn check(bytes: &[u8]) {
    let frames = match decode::frames(bytes) {
        Ok(frames) => frames,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(!frames.is_empty(), "an image without frames");
    let mut decoded = 0;
    for frame in &frames {
        let pixels = frame.width * frame.height;
        assert!(pixels > 0 && frame.width.max(frame.height) <= MAX_SIDE as usize);
        assert_eq!(frame.rgb.len(), 3 * pixels);
        for plane in [&frame.alpha, &frame.key_alpha].into_iter().flatten() {
            assert_eq!(plane.len(), pixels);
        }
        assert!(
            frame.alpha.is_none() || frame.key_alpha.is_none(),
            "two kinds of transparency"
        );
        decoded += 4 * pixels as u64;
    }
    assert!(decoded <= MAX_DECODED_BYTES, "{decoded} bytes decoded");
    if frames[0].width * frames[0].height <= ROUND_TRIP_PIXELS {
        written_and_read_again(&frames[0]);
    }
}

fn written_and_read_again(frame: &Frame) {
    let pixels = match &frame.alpha {
        None => frame.rgb.clone(),
        Some(alpha) => {
            let colours = frame.rgb.chunks_exact(3).zip(alpha);
            colours
                .flat_map(|(rgb, a)| [rgb[0], rgb[1], rgb[2], *a])
                .collect()
        }
    };
    let image = Bytes8 {
        width: frame.width as u32,
        height: frame.height as u32,
        channels: if frame.alpha.is_some() { 4 } else { 3 },
        pixels,
    };
    let file = encode::png(&image, 1, &[]).expect("what was decoded can be written");
    let again = decode::frames(&file).expect("what was written can be read");
    assert_eq!(again.len(), 1);
    assert!(
        again[0].rgb == frame.rgb && again[0].alpha == frame.alpha,
        "writing and reading changed pixels"
    );
}
