//! `RebatchLatents`: a list of batches as a list of batches of another size.

use std::sync::Arc;

use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    value::{Latent, Tensor, Value},
};

/// Pixels per cell of the masks that stand in for missing ones.
const CELL: usize = 8;

/// What is collected until it is enough for a batch.
struct Pending {
    samples: Tensor,
    mask: Mask,
    index: Vec<i64>,
}

/// Most latents have no mask; then the ones that stand for it need not be made.
enum Mask {
    Ones,
    Some(Tensor),
}

/// `RebatchLatents`: batches of `batch_size`; where the sizes of images change a smaller one ends the run, and what
/// was collected beyond a batch at that point is dropped, as in the original.
pub fn rebatch(call: &Call<'_>) -> Result<Output, Raised> {
    let size = call.size("batch_size")?.max(1);
    let mut out = Vec::new();
    let mut pending: Option<Pending> = None;
    let mut seen = 0;
    for latent in call.latents("latents")? {
        let next = Pending::new(latent, seen)?;
        seen += next.index.len();
        let joined = match pending.take() {
            None => next,
            Some(current) if current.cells()? == next.cells()? => current.join(next)?,
            Some(current) => {
                out.push(current.cut(0, size)?);
                next
            }
        };
        let batches = joined.samples.batch() / size;
        if joined.samples.batch() <= size {
            pending = Some(joined);
            continue;
        }
        for at in 0..batches {
            out.push(joined.cut(at * size, size)?);
        }
        pending = joined.rest(batches * size);
    }
    if let Some(rest) = pending {
        out.push(rest.cut(0, size)?);
    }
    Ok(Output::list(out))
}

impl Pending {
    fn new(latent: &Latent, seen: usize) -> Result<Pending, Raised> {
        let batch = latent.samples.batch();
        let mask = match &latent.noise_mask {
            None => Mask::Ones,
            Some(mask) if mask.batch() < batch => Mask::Some(mask.repeat_to_batch(batch)?),
            Some(mask) => Mask::Some((**mask).clone()),
        };
        let index = match &latent.batch_index {
            Some(index) => index.clone(),
            None => (seen..seen + batch).map(|at| at as i64).collect(),
        };
        Ok(Pending {
            samples: (*latent.samples).clone(),
            mask,
            index,
        })
    }

    fn cells(&self) -> Result<(usize, usize), Raised> {
        Ok((self.samples.side(-2)?, self.samples.side(-1)?))
    }

    fn join(mut self, next: Pending) -> Result<Pending, Raised> {
        let samples = Tensor::cat(&[&self.samples, &next.samples], 0)?;
        let mask = match (&self.mask, &next.mask) {
            (Mask::Ones, Mask::Ones) => Mask::Ones,
            _ => Mask::Some(Tensor::cat(&[&self.full_mask()?, &next.full_mask()?], 0)?),
        };
        self.index.extend(next.index);
        Ok(Pending {
            samples,
            mask,
            index: self.index,
        })
    }

    fn full_mask(&self) -> Result<Tensor, Raised> {
        match &self.mask {
            Mask::Some(mask) => Ok(mask.clone()),
            Mask::Ones => {
                let (rows, columns) = (self.samples.side(2)?, self.samples.side(3)?);
                let shape = [self.samples.batch(), 1, rows * CELL, columns * CELL];
                Ok(Tensor::zeros(&shape)?.map(|_| 1.0))
            }
        }
    }

    fn cut(&self, start: usize, size: usize) -> Result<Value, Raised> {
        let end = start + size;
        let mask = match &self.mask {
            Mask::Ones => None,
            Mask::Some(mask) => Some(mask.items(start..end)).filter(|mask| !is_ones(mask)),
        };
        let index = &self.index[start.min(self.index.len())..end.min(self.index.len())];
        Ok(Value::from(Latent {
            samples: Arc::new(self.samples.items(start..end)),
            noise_mask: mask.map(Arc::new),
            batch_index: Some(index.to_vec()),
            mask_first: true,
        }))
    }

    fn rest(&self, start: usize) -> Option<Pending> {
        let batch = self.samples.batch();
        (start < batch).then(|| Pending {
            samples: self.samples.items(start..batch),
            mask: match &self.mask {
                Mask::Ones => Mask::Ones,
                Mask::Some(mask) => Mask::Some(mask.items(start..mask.batch())),
            },
            index: self.index[start.min(self.index.len())..].to_vec(),
        })
    }
}

/// A mask that hides nothing is left out.
fn is_ones(mask: &Tensor) -> bool {
    let sum: f64 = mask.data.iter().map(|x| f64::from(*x)).sum();
    (sum / mask.data.len() as f64) as f32 == 1.0
}
