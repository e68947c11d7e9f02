//! Tensors of any number of dimensions, with the few operations of torch that latents need, by torch's rules:
//! broadcasting, slices that clamp, negative positions that count from the end.

use std::ops::Range;

use super::{reserve, tensor_text};
use crate::exec::Raised;

/// Row-major 32-bit floats.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The size of each dimension; latents have batch, channels, (frames,) rows, columns.
    pub shape: Vec<usize>,
    /// As many samples as the product of `shape`.
    pub data: Vec<f32>,
}

impl Tensor {
    /// Zeros; refused above the limit of [`reserve`].
    pub fn zeros(shape: &[usize]) -> Result<Tensor, Raised> {
        reserve(shape)?;
        Ok(Tensor {
            shape: shape.to_vec(),
            data: vec![0.0; shape.iter().product()],
        })
    }

    /// The same shape with other samples.
    pub fn with(&self, data: Vec<f32>) -> Tensor {
        Tensor {
            shape: self.shape.clone(),
            data,
        }
    }

    /// Sample by sample.
    pub fn map(&self, f: impl Fn(f32) -> f32) -> Tensor {
        self.with(self.data.iter().map(|x| f(*x)).collect())
    }

    /// The place of a dimension; negative ones count from the last.
    pub fn dimension(&self, dimension: isize) -> Result<usize, Raised> {
        let count = self.shape.len();
        let at = if dimension < 0 {
            count.checked_add_signed(dimension)
        } else {
            Some(dimension.unsigned_abs())
        };
        at.filter(|at| *at < count).ok_or_else(|| {
            Raised::new(
                "IndexError",
                format!("Dimension out of range (the tensor has {count} dimensions, but got {dimension})"),
            )
        })
    }

    /// The size of a dimension; negative ones count from the last.
    pub fn side(&self, dimension: isize) -> Result<usize, Raised> {
        Ok(self.shape[self.dimension(dimension)?])
    }

    /// The size of the batch.
    pub fn batch(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// A range of one dimension; it must lie inside.
    pub fn narrow(&self, dimension: usize, range: Range<usize>) -> Tensor {
        let (outer, side, inner) = self.around(dimension);
        let mut shape = self.shape.clone();
        shape[dimension] = range.len();
        let mut data = Vec::with_capacity(outer * range.len() * inner);
        for block in self.data.chunks_exact((side * inner).max(1)) {
            data.extend_from_slice(&block[range.start * inner..range.end * inner]);
        }
        Tensor { shape, data }
    }

    /// Items of the batch; what lies outside is left out.
    pub fn items(&self, range: Range<usize>) -> Tensor {
        let end = range.end.min(self.batch());
        self.narrow(0, range.start.min(end)..end)
    }

    /// As many items as asked for: cut, or repeated from the first on.
    pub fn repeat_to_batch(&self, batch: usize) -> Result<Tensor, Raised> {
        if batch <= self.batch() {
            return Ok(self.items(0..batch));
        }
        self.repeat(batch.div_ceil(self.batch().max(1)))
            .map(|repeated| repeated.items(0..batch))
    }

    /// The batch `times` times over.
    pub fn repeat(&self, times: usize) -> Result<Tensor, Raised> {
        let mut shape = self.shape.clone();
        if let Some(batch) = shape.first_mut() {
            *batch *= times;
        }
        let mut data = reserve(&shape)?;
        (0..times).for_each(|_| data.extend_from_slice(&self.data));
        Ok(Tensor { shape, data })
    }

    /// Joined along a dimension; all others must be equal.
    pub fn cat(parts: &[&Tensor], dimension: usize) -> Result<Tensor, Raised> {
        let first = parts[0];
        for (number, part) in parts.iter().enumerate() {
            for at in 0..first.shape.len().max(part.shape.len()) {
                let (wanted, found) = (first.shape.get(at), part.shape.get(at));
                if at != dimension && wanted != found {
                    return Err(Raised::new(
                        "RuntimeError",
                        format!(
                            "Sizes of tensors must match except in dimension {dimension}. Expected size {} but got size {} for tensor number {number} in the list.",
                            wanted.unwrap_or(&0),
                            found.unwrap_or(&0)
                        ),
                    ));
                }
            }
        }
        let mut shape = first.shape.clone();
        shape[dimension] = parts.iter().map(|part| part.shape[dimension]).sum();
        let mut data = reserve(&shape)?;
        let (outer, _, inner) = first.around(dimension);
        for block in 0..outer {
            for part in parts {
                let length = part.shape[dimension] * inner;
                data.extend_from_slice(&part.data[block * length..(block + 1) * length]);
            }
        }
        Ok(Tensor { shape, data })
    }

    /// The other way round along a dimension.
    pub fn flip(&self, dimension: usize) -> Tensor {
        let (_, side, inner) = self.around(dimension);
        let mut data = Vec::with_capacity(self.data.len());
        for block in self.data.chunks_exact((side * inner).max(1)) {
            block
                .chunks_exact(inner.max(1))
                .rev()
                .for_each(|row| data.extend_from_slice(row));
        }
        self.with(data)
    }

    /// Two neighbouring dimensions exchanged, the first of them given.
    pub fn transpose(&self, dimension: usize) -> Tensor {
        let (_, rows, rest) = self.around(dimension);
        let columns = self.shape[dimension + 1];
        let inner = rest / columns.max(1);
        let mut shape = self.shape.clone();
        shape.swap(dimension, dimension + 1);
        let mut data = Vec::with_capacity(self.data.len());
        for block in self.data.chunks_exact((rows * columns * inner).max(1)) {
            for column in 0..columns {
                for row in 0..rows {
                    let at = (row * columns + column) * inner;
                    data.extend_from_slice(&block[at..at + inner]);
                }
            }
        }
        Tensor { shape, data }
    }

    /// Sample by sample with another tensor; dimensions of size 1, and leading ones that are missing, are repeated.
    pub fn zip(&self, other: &Tensor, f: impl Fn(f32, f32) -> f32) -> Result<Tensor, Raised> {
        if self.shape == other.shape {
            return Ok(self.with(
                self.data
                    .iter()
                    .zip(&other.data)
                    .map(|(a, b)| f(*a, *b))
                    .collect(),
            ));
        }
        let shape = broadcast(&self.shape, &other.shape)?;
        let mut data = reserve(&shape)?;
        let (a, b) = (Walk::new(self, &shape), Walk::new(other, &shape));
        let total: usize = shape.iter().product();
        data.extend((0..total).map(|at| f(a.sample(at), b.sample(at))));
        Ok(Tensor { shape, data })
    }

    /// Sets the part that `ranges` (one for each dimension) name; `source` is repeated to fit.
    pub fn assign(&mut self, ranges: &[Range<usize>], source: &Tensor) -> Result<(), Raised> {
        let shape: Vec<usize> = ranges.iter().map(ExactSizeIterator::len).collect();
        if broadcast(&shape, &source.shape)? != shape {
            return Err(mismatch(&shape, &source.shape, 0));
        }
        let walk = Walk::new(source, &shape);
        let strides = strides(&self.shape);
        for at in 0..shape.iter().product() {
            let (mut rest, mut target) = (at, 0);
            for (dimension, side) in shape.iter().enumerate().rev() {
                target += (ranges[dimension].start + rest % side) * strides[dimension];
                rest /= side;
            }
            self.data[target] = walk.sample(at);
        }
        Ok(())
    }

    /// `sqrt(sum of squares)` over the channels; that dimension is gone.
    pub fn norm(&self) -> Tensor {
        let (outer, channels, inner) = self.around(1);
        let mut shape = self.shape.clone();
        shape.remove(1);
        let mut data = Vec::with_capacity(outer * inner);
        for block in self.data.chunks_exact((channels * inner).max(1)) {
            data.extend((0..inner).map(|at| {
                let squares = block.iter().skip(at).step_by(inner).map(|x| x * x);
                squares.sum::<f32>().sqrt()
            }));
        }
        Tensor { shape, data }
    }

    /// The text torch prints.
    pub fn to_python_text(&self) -> String {
        tensor_text::tensor(&self.shape, &self.data)
    }

    /// How many blocks lie around a dimension, its size, and how many samples lie below each of its positions.
    fn around(&self, dimension: usize) -> (usize, usize, usize) {
        (
            self.shape[..dimension].iter().product(),
            self.shape[dimension],
            self.shape[dimension + 1..].iter().product(),
        )
    }
}

/// Python's `start:end` of a sequence of `length`.
pub fn slice(length: usize, start: i64, end: i64) -> Range<usize> {
    let clamp = |at: i64| {
        let at = if at < 0 { at + length as i64 } else { at };
        at.clamp(0, length as i64) as usize
    };
    let (start, end) = (clamp(start), clamp(end));
    start..end.max(start)
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for at in (0..shape.len().saturating_sub(1)).rev() {
        strides[at] = strides[at + 1] * shape[at + 1];
    }
    strides
}

fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Raised> {
    let count = a.len().max(b.len());
    let side = |shape: &[usize], at: usize| (at + shape.len()).checked_sub(count).map_or(1, |at| shape[at]);
    (0..count)
        .map(|at| match (side(a, at), side(b, at)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(mismatch(a, b, at)),
        })
        .collect()
}

fn mismatch(a: &[usize], b: &[usize], at: usize) -> Raised {
    Raised::new(
        "RuntimeError",
        format!("The sizes of the tensors {a:?} and {b:?} must match at non-singleton dimension {at}"),
    )
}

/// Reads a tensor as if it had a larger shape.
struct Walk<'a> {
    data: &'a [f32],
    /// Size and step in the data of each dimension; the step is 0 where the tensor is repeated.
    steps: Vec<(usize, usize)>,
}

impl<'a> Walk<'a> {
    fn new(tensor: &'a Tensor, shape: &[usize]) -> Walk<'a> {
        let missing = shape.len() - tensor.shape.len().min(shape.len());
        let own = strides(&tensor.shape);
        let step = |(at, side): (usize, &usize)| {
            let own_at = at.checked_sub(missing);
            let step = own_at.map_or(0, |at| if tensor.shape[at] == 1 { 0 } else { own[at] });
            (*side, step)
        };
        Walk {
            data: &tensor.data,
            steps: shape.iter().enumerate().map(step).collect(),
        }
    }

    fn sample(&self, mut at: usize) -> f32 {
        let mut place = 0;
        for (side, step) in self.steps.iter().rev() {
            place += (at % side) * step;
            at /= side;
        }
        self.data[place]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(shape: &[usize]) -> Tensor {
        Tensor {
            shape: shape.to_vec(),
            data: (0..shape.iter().product::<usize>()).map(|i| i as f32).collect(),
        }
    }

    #[test]
    fn small_shapes_are_repeated_and_others_refused() {
        let sum = counted(&[2, 1, 3])
            .zip(&counted(&[2, 1]), |a, b| a + 10.0 * b)
            .unwrap();
        assert_eq!(sum.shape, [2, 2, 3]);
        assert_eq!(
            sum.data,
            [0.0, 1.0, 2.0, 10.0, 11.0, 12.0, 3.0, 4.0, 5.0, 13.0, 14.0, 15.0]
        );
        assert!(counted(&[2, 3]).zip(&counted(&[2]), |a, _| a).is_err());
    }

    #[test]
    fn a_part_is_set_and_nothing_else() {
        let mut tensor = counted(&[2, 2, 3]);
        let source = Tensor {
            shape: vec![1, 1, 2],
            data: vec![-1.0, -2.0],
        };
        tensor.assign(&[0..2, 1..2, 1..3], &source).unwrap();
        assert_eq!(
            tensor.data,
            [0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 6.0, 7.0, 8.0, 9.0, -1.0, -2.0]
        );
        assert!(tensor.assign(&[0..1, 0..1, 0..1], &source).is_err());
    }

    #[test]
    fn slices_are_python_s() {
        for ((start, end), wanted) in [
            ((1, 4), 1..4),
            ((-2, 6), 4..6),
            ((0, -2), 0..4),
            ((9, 12), 6..6),
            ((4, 2), 4..4),
        ] {
            assert_eq!(slice(6, start, end), wanted);
        }
    }

    #[test]
    fn dimensions_count_from_both_ends() {
        let tensor = counted(&[2, 3, 4]);
        assert_eq!((tensor.side(0), tensor.side(-1)), (Ok(2), Ok(4)));
        assert!(tensor.side(3).is_err() && tensor.side(-4).is_err());
    }

    proptest! {
        #[test]
        fn cutting_and_joining_gives_the_same(at in 0usize..4, dimension in 0usize..3) {
            let tensor = counted(&[4, 4, 4]);
            let (a, b) = (tensor.narrow(dimension, 0..at), tensor.narrow(dimension, at..4));
            prop_assert_eq!(Tensor::cat(&[&a, &b], dimension).unwrap(), tensor);
        }

        #[test]
        fn turning_twice_gives_the_same(rows in 1usize..5, columns in 1usize..5) {
            let tensor = counted(&[2, rows, columns, 2]);
            prop_assert_eq!(&tensor.transpose(1).transpose(1), &tensor);
            prop_assert_eq!(&tensor.flip(2).flip(2), &tensor);
        }
    }
}
