//! An area of one colour on which images are put.

use crate::{
    exec::Raised,
    value::{Image, reserve},
};

/// `batch` frames of `width` x `height` pixels of this colour, which has a sample for each channel.
pub fn filled(batch: usize, (width, height): (usize, usize), color: &[f32]) -> Result<Image, Raised> {
    let mut data = reserve(&[batch, height, width, color.len()])?;
    for _ in 0..batch * height * width {
        data.extend_from_slice(color);
    }
    Ok(Image {
        batch,
        height,
        width,
        channels: color.len(),
        data,
    })
}

impl Image {
    /// Puts `image` with its corner at x, y, where it must fit. Frames it lacks repeat its last one, channels it
    /// lacks are 1.
    pub(super) fn put(&mut self, image: &Image, (x, y): (usize, usize)) {
        let own_frame = self.frame_len();
        for frame in 0..self.batch {
            let from = &image.data[frame.min(image.batch - 1) * image.frame_len()..][..image.frame_len()];
            let to = &mut self.data[frame * own_frame..][..own_frame];
            for (row, line) in from
                .chunks_exact((image.width * image.channels).max(1))
                .enumerate()
            {
                let at = ((y + row) * self.width + x) * self.channels;
                let place = &mut to[at..at + image.width * self.channels];
                if image.channels == self.channels {
                    place.copy_from_slice(line);
                    continue;
                }
                let pixels = line.chunks_exact(image.channels);
                for (own, pixel) in place.chunks_exact_mut(self.channels).zip(pixels) {
                    own[..image.channels].copy_from_slice(pixel);
                    own[image.channels..].fill(1.0);
                }
            }
        }
    }
}
