//! The nearest colour of a palette.

use super::Rgb;

/// Pillow decides for cubes of 4 x 4 x 4 colours at once, by the corner nearest to black.
const CELL_BITS: u32 = 2;
const SIDE_BITS: u32 = 8 - CELL_BITS;

/// A palette, and what was asked of it so far.
pub struct Nearest<'a> {
    palette: &'a [Rgb],
    known: Vec<Option<u8>>,
}

impl<'a> Nearest<'a> {
    /// For a palette of 1 to 256 colours.
    pub fn new(palette: &'a [Rgb]) -> Nearest<'a> {
        Nearest {
            palette,
            known: vec![None; 1 << (3 * SIDE_BITS)],
        }
    }

    /// The colour for this one: the first of the nearest.
    pub fn color(&mut self, color: Rgb) -> Rgb {
        let cell = color.map(|x| x >> CELL_BITS);
        let at = cell.iter().fold(0, |at, x| at << SIDE_BITS | usize::from(*x));
        let palette = self.palette;
        let index = *self.known[at].get_or_insert_with(|| nearest(palette, cell.map(|x| x << CELL_BITS)));
        palette[usize::from(index)]
    }
}

fn nearest(palette: &[Rgb], color: Rgb) -> u8 {
    let distance = |other: &Rgb| -> u32 {
        let squares = (0..3).map(|k| u32::from(color[k].abs_diff(other[k])).pow(2));
        squares.sum()
    };
    let first = palette
        .iter()
        .enumerate()
        .min_by_key(|(_, other)| distance(other));
    first.map_or(0, |(index, _)| index as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cube_of_colours_goes_to_one() {
        let palette = [[3, 0, 0], [5, 0, 0], [5, 0, 0], [2, 0, 0]];
        let mut nearest = Nearest::new(&palette);
        let of = |nearest: &mut Nearest<'_>, r| nearest.color([r, 1, 2])[0];
        assert_eq!([0, 3, 4, 7, 255].map(|r| of(&mut nearest, r)), [2, 2, 3, 3, 5]);
    }
}
