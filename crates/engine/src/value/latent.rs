//! Latents: tensors of any number of dimensions with what samplers want to know about them.

use std::sync::Arc;

use super::Tensor;

/// `LATENT`: in the original a dictionary, of which this keeps the entries that weight-free nodes read and write.
#[derive(Debug, Clone, PartialEq)]
pub struct Latent {
    /// The samples.
    pub samples: Arc<Tensor>,
    /// Where a sampler may change something, as batch, 1, rows, columns.
    pub noise_mask: Option<Arc<Tensor>>,
    /// The place of each item in the batch it came from, which chooses its noise.
    pub batch_index: Option<Vec<i64>>,
    /// Whether the mask was there before the index: dictionaries print in the order of insertion.
    pub mask_first: bool,
}

/// `LATENT_OPERATION`: what `LatentApplyOperation` does to samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// Tone mapping of the vectors' lengths.
    Reinhard {
        /// Moves the brightest length.
        multiplier: f64,
    },
    /// Sharpening of the vectors' directions.
    Sharpen {
        /// Half the kernel's side.
        radius: usize,
        /// Width of the bell, relative to the radius.
        sigma: f64,
        /// Strength.
        alpha: f64,
    },
}

impl Latent {
    /// Samples alone.
    pub fn new(samples: Tensor) -> Latent {
        Latent {
            samples: Arc::new(samples),
            noise_mask: None,
            batch_index: None,
            mask_first: true,
        }
    }

    /// A copy with other samples; the rest is shared.
    pub fn with(&self, samples: Tensor) -> Latent {
        Latent {
            samples: Arc::new(samples),
            ..self.clone()
        }
    }

    /// The text of the dictionary.
    pub fn to_python_text(&self) -> String {
        let mask = self
            .noise_mask
            .as_ref()
            .map(|mask| format!("'noise_mask': {}", mask.to_python_text()));
        let index = self.batch_index.as_ref().map(|index| {
            let items: Vec<String> = index.iter().map(i64::to_string).collect();
            format!("'batch_index': [{}]", items.join(", "))
        });
        let rest = if self.mask_first {
            [mask, index]
        } else {
            [index, mask]
        };
        let samples = format!("'samples': {}", self.samples.to_python_text());
        let entries: Vec<String> = [Some(samples)].into_iter().chain(rest).flatten().collect();
        format!("{{{}}}", entries.join(", "))
    }
}

impl Operation {
    /// A function's text; its address in the original's memory says nothing and is 0 here.
    pub fn to_python_text(&self) -> String {
        let name = match self {
            Operation::Reinhard { .. } => "LatentOperationTonemapReinhard.execute.<locals>.tonemap_reinhard",
            Operation::Sharpen { .. } => "LatentOperationSharpen.execute.<locals>.sharpen",
        };
        format!("<function {name} at 0x000000000000>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones(shape: &[usize]) -> Tensor {
        Tensor {
            shape: shape.to_vec(),
            data: vec![1.0; shape.iter().product()],
        }
    }

    #[test]
    fn a_latent_prints_as_a_dictionary_in_the_order_of_insertion() {
        let mut latent = Latent::new(ones(&[1, 1, 1, 2]));
        assert_eq!(latent.to_python_text(), "{'samples': tensor([[[[1., 1.]]]])}");
        latent.batch_index = Some(vec![0, 1]);
        latent.noise_mask = Some(Arc::new(ones(&[1])));
        latent.mask_first = false;
        assert_eq!(
            latent.to_python_text(),
            "{'samples': tensor([[[[1., 1.]]]]), 'batch_index': [0, 1], 'noise_mask': tensor([1.])}"
        );
    }
}
