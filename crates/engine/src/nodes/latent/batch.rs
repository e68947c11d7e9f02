//! Items of a batch: joining, choosing, repeating, and which noise they get.

use std::{borrow::Cow, sync::Arc};

use super::scale;
use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    value::{Latent, Tensor},
};

/// `LatentBatch`: one after the other.
pub fn join(call: &Call<'_>) -> Result<Output, Raised> {
    let (first, second) = (call.latent("samples1")?, call.latent("samples2")?);
    let fitted = scale::fit(&second.samples, &first.samples, call.progress)?;
    let samples = Tensor::cat(&[&first.samples, &fitted], 0)?;
    let mut index = index_of(first).into_owned();
    index.extend_from_slice(&index_of(second));
    Ok(Output::one(indexed(first.with(samples), index)))
}

/// `LatentBatchSeedBehavior`: all items get the noise of the first, or each its own.
pub fn seed_behavior(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    let out = match call.text("seed_behavior")? {
        "random" => Latent {
            batch_index: None,
            ..(**latent).clone()
        },
        "fixed" => {
            let first = latent.batch_index.as_ref().and_then(|index| index.first());
            let index = vec![first.copied().unwrap_or(0); latent.samples.batch()];
            indexed((**latent).clone(), index)
        }
        _ => (**latent).clone(),
    };
    Ok(Output::one(out))
}

/// `LatentFromBatch`: some items in a row; a start behind the end means the last.
pub fn from_batch(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    let batch = latent.samples.batch();
    let start = call.size("batch_index")?.min(batch.saturating_sub(1));
    let range = start..start + call.size("length")?.min(batch - start);
    let mut out = latent.with(latent.samples.items(range.clone()));
    if let Some(mask) = &latent.noise_mask
        && mask.batch() != 1
    {
        let mask = mask.repeat_to_batch(batch.max(mask.batch()))?;
        out.noise_mask = Some(Arc::new(mask.items(range.clone())));
    }
    let index = match &latent.batch_index {
        Some(index) => index[range.start.min(index.len())..range.end.min(index.len())].to_vec(),
        None => range.map(|at| at as i64).collect(),
    };
    Ok(Output::one(indexed(out, index)))
}

/// `RepeatLatentBatch`: the whole batch several times; the copies get noise of their own.
pub fn repeat(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    let amount = call.size("amount")?;
    let mut out = latent.with(latent.samples.repeat(amount)?);
    if let Some(mask) = latent.noise_mask.as_ref().filter(|mask| mask.batch() > 1) {
        out.noise_mask = Some(Arc::new(mask.repeat(amount)?));
    }
    if let Some(index) = &latent.batch_index {
        let (low, high) = (index.iter().min(), index.iter().max());
        let offset = high.zip(low).map_or(1, |(high, low)| high - low + 1);
        let shifted = (1..amount as i64).flat_map(|turn| index.iter().map(move |at| at + turn * offset));
        out.batch_index = Some(index.iter().copied().chain(shifted).collect());
    }
    Ok(Output::one(out))
}

fn index_of(latent: &Latent) -> Cow<'_, [i64]> {
    match &latent.batch_index {
        Some(index) => Cow::Borrowed(index),
        None => Cow::Owned((0..latent.samples.batch() as i64).collect()),
    }
}

fn indexed(latent: Latent, index: Vec<i64>) -> Latent {
    Latent {
        // An entry that is there already keeps its place.
        mask_first: match latent.batch_index {
            Some(_) => latent.mask_first,
            None => true,
        },
        batch_index: Some(index),
        ..latent
    }
}
