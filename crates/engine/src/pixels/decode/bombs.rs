//! Files that say they are huge. Each is small itself and is refused by what it says, before there is a buffer for its
//! pixels; an animation at the first frame that is too much.

use super::{Error, MAX_DECODED_BYTES, frames};

/// The number of the frame at which the file is refused.
fn refused_at(file: &[u8]) -> u64 {
    match frames(file) {
        Err(Error::TooLarge { frames, .. }) => frames,
        Err(other) => panic!("{other}"),
        Ok(frames) => panic!("{} frames", frames.len()),
    }
}

fn gif(screen: (u16, u16), frame: (u16, u16), count: usize) -> Vec<u8> {
    let pair = |(width, height): (u16, u16)| [width.to_le_bytes(), height.to_le_bytes()].concat();
    // A palette of two colours; every frame has one pixel of data.
    let mut file = [b"GIF89a", &pair(screen)[..], &[0x80, 0, 0], &[0; 6]].concat();
    for _ in 0..count {
        file.extend([&b",\0\0\0\0"[..], &pair(frame), b"\0\x02\x02\x44\x01\0"].concat());
    }
    file.push(b';');
    file
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [name, data].concat();
    let sum = !body.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ ((sum & 1) * 0xedb8_8320)
        })
    });
    [&(data.len() as u32).to_be_bytes()[..], &body, &sum.to_be_bytes()].concat()
}

/// Grey, with frames of one pixel, each of which makes a whole image.
fn apng(side: u32, says: u32, has: u32) -> Vec<u8> {
    let size = [side.to_be_bytes(), side.to_be_bytes()].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.extend(chunk(b"IHDR", &[&size[..], &[8, 0, 0, 0, 0]].concat()));
    file.extend(chunk(b"acTL", &[says.to_be_bytes(), [0; 4]].concat()));
    // Filter and sample of one pixel, stored, with zlib's head and sum.
    let pixel = b"\x78\x01\x01\x02\0\xfd\xff\0\0\0\x02\0\x01";
    // The still image is a frame only if it says so; it does not, and so is counted beside the others.
    file.extend(chunk(b"IDAT", pixel));
    for number in 0..has {
        let (order, data) = ((2 * number).to_be_bytes(), (2 * number + 1).to_be_bytes());
        let one = 1u32.to_be_bytes();
        let control = [&order[..], &one, &one, &[0; 8], &[0, 1, 0, 1, 0, 0]].concat();
        file.extend(chunk(b"fcTL", &control));
        file.extend(chunk(b"fdAT", &[&data[..], pixel].concat()));
    }
    file.extend(chunk(b"IEND", b""));
    file
}

fn webp(canvas: u32, count: usize) -> Vec<u8> {
    let riff = |name: &[u8; 4], data: &[u8]| {
        let odd = &[0][..data.len() % 2];
        [name, &(data.len() as u32).to_le_bytes()[..], data, odd].concat()
    };
    let mut image = Vec::new();
    image::codecs::webp::WebPEncoder::new_lossless(&mut image)
        .encode(&[0; 3], 1, 1, image::ExtendedColorType::Rgb8)
        .unwrap();
    let frame = riff(b"ANMF", &[&[0; 16][..], &image[12..]].concat());
    let side = (canvas - 1).to_le_bytes();
    let mut body = b"WEBP".to_vec();
    body.extend(riff(b"VP8X", &[&[2, 0, 0, 0], &side[..3], &side[..3]].concat()));
    body.extend(riff(b"ANIM", &[0; 6]));
    body.extend(frame.repeat(count));
    riff(b"RIFF", &body)
}

fn jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut file = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut file)
        .encode(&[0; 3], 1, 1, image::ExtendedColorType::Rgb8)
        .unwrap();
    let frame = file.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    let size = [height.to_be_bytes(), width.to_be_bytes()].concat();
    file[frame + 5..frame + 9].copy_from_slice(&size);
    file
}

/// Of a side of 4096, so many fit.
const FITTING: u64 = MAX_DECODED_BYTES / (4096 * 4096 * 4);

#[test]
fn small_files_of_these_kinds_are_read() {
    assert_eq!(frames(&gif((1, 1), (1, 1), 3)).unwrap().len(), 3);
    assert_eq!(frames(&webp(1, 3)).unwrap().len(), 3);
    assert_eq!(frames(&apng(1, 3, 3)).unwrap().len(), 4);
    assert_eq!(frames(&jpeg(1, 1)).unwrap().len(), 1);
}

#[test]
fn sizes_are_refused_by_what_the_file_says() {
    for file in [
        gif((60_000, 60_000), (1, 1), 1),
        gif((1, 1), (60_000, 60_000), 1),
        apng(60_000, 1, 1),
        apng(16_384, u32::MAX, 1),
        webp(16_384, 1),
        jpeg(60_000, 60_000),
        jpeg(16_384, 16_384),
    ] {
        assert_eq!(refused_at(&file), 1);
    }
    // More than a WebP may have at all: the decoder refuses its header.
    assert!(matches!(frames(&webp(1 << 24, 1)), Err(Error::Damaged(_))));
}

#[test]
fn frames_are_refused_when_there_are_too_many_for_their_size() {
    let many = 10 * FITTING as usize;
    assert_eq!(refused_at(&gif((4096, 4096), (1, 1), many)), FITTING + 1);
    assert_eq!(refused_at(&webp(4096, many)), FITTING + 1);
}
