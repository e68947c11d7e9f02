//! `GrowMask`

use crate::{
    exec::Raised,
    nodes::call::{Call, Output, Progress},
    parallel,
    pixels::extremum::{self, Extremum, Window},
    value::{Image, Mask},
};

/// `GrowMask`: every step gives a sample the greatest (or, for a negative number, the smallest) of itself and its
/// neighbours: four of them with tapered corners, eight without. Outside the mask there is nothing.
pub fn grow(call: &Call<'_>) -> Result<Output, Raised> {
    let mask = call.mask("mask")?.not_empty()?;
    let expand = call.int("expand")?;
    let steps = usize::try_from(expand.unsigned_abs()).unwrap_or(usize::MAX);
    let kind = if expand < 0 {
        Extremum::Least
    } else {
        Extremum::Greatest
    };
    let plane = Mask::clone(mask).into_plane();
    let out = if call.flag("tapered_corners")? {
        diamond(call.progress, plane, steps, kind)?
    } else {
        // Steps of three by three are one step of a larger square.
        let window = Window {
            before: steps,
            after: steps,
        };
        extremum::square(call.progress, &plane, window, kind)?
    };
    Ok(Output::one(Mask::from(out)))
}

/// Step after step; when one changes nothing, no later one does.
fn diamond(progress: &dyn Progress, plane: Image, steps: usize, kind: Extremum) -> Result<Image, Raised> {
    match kind {
        Extremum::Greatest => steps_of(progress, plane, steps, |a, b| if b > a { b } else { a }),
        Extremum::Least => steps_of(progress, plane, steps, |a, b| if b < a { b } else { a }),
    }
}

fn steps_of(
    progress: &dyn Progress,
    plane: Image,
    steps: usize,
    pick: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Image, Raised> {
    let (mut plane, mut next) = (plane.clone(), plane);
    for _ in 0..steps {
        parallel::rows(progress, &mut next.data, plane.width, |row, out| {
            let here = plane.row(row);
            out.copy_from_slice(here);
            meet(out, &here[1.min(here.len())..], &pick);
            meet(&mut out[1.min(here.len())..], here, &pick);
            let in_frame = row % plane.height;
            if in_frame > 0 {
                meet(out, plane.row(row - 1), &pick);
            }
            if in_frame + 1 < plane.height {
                meet(out, plane.row(row + 1), &pick);
            }
        })?;
        if next.data == plane.data {
            break;
        }
        std::mem::swap(&mut plane, &mut next);
    }
    Ok(plane)
}

fn meet(out: &mut [f32], with: &[f32], pick: impl Fn(f32, f32) -> f32) {
    out.iter_mut().zip(with).for_each(|(a, b)| *a = pick(*a, *b));
}
