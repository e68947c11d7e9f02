//! `MaskComposite`

use crate::{
    exec::Raised,
    nodes::{
        call::{Call, Output},
        place::Place,
    },
    parallel,
    value::{Mask, tensor::slice},
};

/// How two samples become one: what is below, and what is laid over it.
type Rule = fn(f32, f32) -> f32;

/// `MaskComposite`: one mask laid over another by a rule; everything is clamped, also what is not covered.
pub fn combine(call: &Call<'_>) -> Result<Output, Raised> {
    let below = call.mask("destination")?.not_empty()?;
    let above = call.mask("source")?.not_empty()?;
    let rule = rule(call.text("operation")?)?;
    let columns = place(below.width, above.width, call.int("x")?, 2)?;
    let rows = place(below.height, above.height, call.int("y")?, 1)?;
    if above.batch != 1 && above.batch != below.batch {
        return Err(batches(below, above));
    }
    let mut out = Mask::clone(below);
    parallel::rows(call.progress, &mut out.data, below.width, |row, samples| {
        let (frame, row) = (row / below.height, row % below.height);
        if let Some(source) = rows.source(row) {
            let frame = if above.batch == 1 { 0 } else { frame };
            let source = above.row(frame * above.height + source);
            let covered = &mut samples[columns.target.clone()];
            covered
                .iter_mut()
                .zip(source)
                .for_each(|(x, y)| *x = rule(*x, *y));
        }
        samples.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
    })?;
    Ok(Output::one(out))
}

/// The far end is cut before the near one is counted from the end, so negative places mostly do not fit.
fn place(side: usize, length: usize, at: i64, dimension: usize) -> Result<Place, Raised> {
    let end = at.saturating_add(length as i64).min(side as i64);
    Place::new(
        slice(side, at, end),
        slice(length, 0, end.saturating_sub(at)).len(),
        dimension,
    )
}

fn batches(below: &Mask, above: &Mask) -> Raised {
    let message = if below.batch == 1 {
        format!(
            "The expanded size of the tensor (1) must match the existing size ({}) at non-singleton dimension 0",
            above.batch
        )
    } else {
        format!(
            "The size of tensor a ({}) must match the size of tensor b ({}) at non-singleton dimension 0",
            below.batch, above.batch
        )
    };
    Raised::new("RuntimeError", message)
}

fn rule(name: &str) -> Result<Rule, Raised> {
    /// Half goes to the even neighbour: a sample of 0.5 is not set.
    fn set(x: f32) -> bool {
        x.round_ties_even() != 0.0
    }
    fn sample(set: bool) -> f32 {
        f32::from(u8::from(set))
    }
    Ok(match name {
        "multiply" => |x, y| x * y,
        "add" => |x, y| x + y,
        "subtract" => |x, y| x - y,
        "and" => |x, y| sample(set(x) & set(y)),
        "or" => |x, y| sample(set(x) | set(y)),
        "xor" => |x, y| sample(set(x) ^ set(y)),
        _ => {
            return Err(Raised::new(
                "ValueError",
                format!("'{name}' is not an operation on masks"),
            ));
        }
    })
}
