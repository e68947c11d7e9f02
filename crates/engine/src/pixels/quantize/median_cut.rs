//! Pillow's median cut: the box with the most pixels is split again and again, and every box becomes the mean of its
//! pixels.

use std::ops::Range;

use super::Rgb;

/// More different colours than this are first made coarser, one bit at a time.
const MOST_COLORS: usize = 65_536;
/// How much a range of red, green and blue weighs when the side to split is chosen.
const WEIGHTS: [u32; 3] = [77, 150, 29];

/// At most `count` colours, in Pillow's order. `count` is at least 1, and there is at least one pixel.
pub fn palette(pixels: &[Rgb], count: usize) -> Vec<Rgb> {
    let mut colors = colors(pixels);
    let mut boxes: Vec<Range<usize>> = std::iter::once(0..colors.len()).collect();
    let mut splittable = Heap::default();
    splittable.add(pixels.len() as u32, 0);
    'split: for _ in 1..count {
        let chosen = loop {
            let Some(chosen) = splittable.remove() else {
                break 'split;
            };
            if !is_single(&colors[boxes[chosen].clone()]) {
                break chosen;
            }
        };
        let range = boxes[chosen].clone();
        let at = range.start + split(&mut colors[range.clone()]);
        boxes[chosen] = range.start..at;
        boxes.push(at..range.end);
        for part in [chosen, boxes.len() - 1] {
            splittable.add(weight(&colors[boxes[part].clone()]), part);
        }
    }
    boxes.sort_unstable_by_key(|range| range.start);
    boxes.into_iter().map(|range| mean(&colors[range])).collect()
}

/// One colour of the picture.
#[derive(Clone, Copy)]
struct Color {
    /// Coarse if there are too many.
    value: Rgb,
    pixels: u32,
    /// Of the pixels' true values; beyond 2^32 it starts again, as in Pillow.
    sums: [u32; 3],
}

fn colors(pixels: &[Rgb]) -> Vec<Color> {
    let mut packed: Vec<u32> = pixels
        .iter()
        .map(|[r, g, b]| u32::from_be_bytes([0, *r, *g, *b]))
        .collect();
    packed.sort_unstable();
    let exact: Vec<Color> = packed
        .chunk_by(|a, b| a == b)
        .map(|same| {
            let [_, value @ ..] = same[0].to_be_bytes();
            let pixels = same.len() as u32;
            Color {
                value,
                pixels,
                sums: value.map(|x| u32::from(x).wrapping_mul(pixels)),
            }
        })
        .collect();
    (0..8)
        .map(|bits| coarse(&exact, bits))
        .find(|colors| colors.len() <= MOST_COLORS)
        .expect("7 bits less leave 8 colours")
}

fn coarse(exact: &[Color], bits: u32) -> Vec<Color> {
    let mut colors = exact.to_vec();
    if bits == 0 {
        return colors;
    }
    for color in &mut colors {
        color.value = color.value.map(|x| x >> bits);
    }
    colors.sort_unstable_by_key(|color| color.value);
    colors
        .chunk_by(|a, b| a.value == b.value)
        .map(|same| {
            let mut sum = same[0];
            for color in &same[1..] {
                sum.pixels += color.pixels;
                sum.sums = [0, 1, 2].map(|k| sum.sums[k].wrapping_add(color.sums[k]));
            }
            sum
        })
        .collect()
}

fn weight(colors: &[Color]) -> u32 {
    colors.iter().map(|color| color.pixels).sum()
}

/// Smallest and largest value of a channel.
fn bounds(colors: &[Color], channel: usize) -> (u8, u8) {
    let values = colors.iter().map(|color| color.value[channel]);
    values.fold((u8::MAX, 0), |(low, high), x| (low.min(x), high.max(x)))
}

fn is_single(colors: &[Color]) -> bool {
    (0..3).all(|channel| {
        let (low, high) = bounds(colors, channel);
        low == high
    })
}

/// Brings the brighter half of a box to its front and gives its length. Colours that are equal in the channel of the
/// widest range stay together, and both halves have some.
fn split(colors: &mut [Color]) -> usize {
    let mut axis = 0;
    let mut widest = 0;
    for (channel, weight) in WEIGHTS.into_iter().enumerate() {
        let (low, high) = bounds(colors, channel);
        let range = u32::from(high - low) * weight;
        if range > widest {
            (axis, widest) = (channel, range);
        }
    }
    let mut pixels = [0u32; 256];
    for color in &*colors {
        pixels[usize::from(color.value[axis])] += color.pixels;
    }
    let (lowest, _) = bounds(colors, axis);
    let all = u64::from(weight(colors));
    let mut brighter = 0;
    let mut last = u8::MAX;
    for value in (0..=u8::MAX).rev() {
        brighter += u64::from(pixels[usize::from(value)]);
        last = value;
        if brighter * 2 > all {
            break;
        }
    }
    let last = last.max(lowest + 1);
    colors.sort_unstable_by_key(|color| color.value[axis] < last);
    colors.partition_point(|color| color.value[axis] >= last)
}

fn mean(colors: &[Color]) -> Rgb {
    let pixels = f64::from(weight(colors));
    [0, 1, 2].map(|k| {
        let sum = colors
            .iter()
            .fold(0u32, |sum, color| sum.wrapping_add(color.sums[k]));
        (0.5 + f64::from(sum) / pixels) as u8
    })
}

/// A binary heap with the largest weight first. Which of equal ones comes first decides about the palette, so it moves
/// its items exactly as Pillow's does.
#[derive(Default)]
struct Heap {
    items: Vec<(u32, usize)>,
}

impl Heap {
    fn add(&mut self, weight: u32, item: usize) {
        self.items.push((weight, item));
        let mut at = self.items.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if weight <= self.items[parent].0 {
                break;
            }
            self.items.swap(at, parent);
            at = parent;
        }
    }

    fn remove(&mut self) -> Option<usize> {
        let last = self.items.len().checked_sub(1)?;
        self.items.swap(0, last);
        let (_, top) = self.items.pop()?;
        let mut at = 0;
        while 2 * at + 1 < last {
            let mut child = 2 * at + 1;
            if child + 1 < last && self.items[child].0 < self.items[child + 1].0 {
                child += 1;
            }
            // An equal child moves up too.
            if self.items[at].0 > self.items[child].0 {
                break;
            }
            self.items.swap(at, child);
            at = child;
        }
        Some(top)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_more_colours_than_there_are() {
        assert_eq!(palette(&[[1, 2, 3]; 9], 256), [[1, 2, 3]]);
        let mut two = palette(&[[0, 0, 0], [0, 9, 0], [0, 9, 0]], 5);
        two.sort_unstable();
        assert_eq!(two, [[0, 0, 0], [0, 9, 0]]);
    }

    #[test]
    fn one_colour_is_the_mean_rounded_up_at_the_half() {
        assert_eq!(palette(&[[0, 0, 0], [1, 2, 255]], 1), [[1, 1, 128]]);
    }

    #[test]
    fn more_than_65536_colours_are_made_coarser() {
        let many: Vec<Rgb> = (0..=255u8)
            .flat_map(|r| (0..=255u8).flat_map(move |g| [[r, g, 0], [r, g, 200]]))
            .collect();
        assert_eq!(colors(&many).len(), 1 << 15);
        assert_eq!(palette(&many, 256).len(), 256);
    }

    proptest! {
        #[test]
        fn a_palette_is_within_the_colours(pixels in prop::collection::vec(any::<Rgb>(), 1..300), count in 1usize..=256) {
            let palette = palette(&pixels, count);
            prop_assert!((1..=count).contains(&palette.len()));
            for k in 0..3 {
                let range = pixels.iter().map(|p| p[k]).min().unwrap()..=pixels.iter().map(|p| p[k]).max().unwrap();
                prop_assert!(palette.iter().all(|color| range.contains(&color[k])));
            }
        }
    }
}
