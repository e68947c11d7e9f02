//! The five filters of PNG, each row by the one that leaves the smallest differences.

/// Every row with its filter's number in front. `above` is the row before the first, if there is one.
pub fn rows(pixels: &[u8], above: Option<&[u8]>, stride: usize, pixel_bytes: usize) -> Vec<u8> {
    let zeros = vec![0; stride];
    let mut above = above.unwrap_or(&zeros);
    let mut out = Vec::with_capacity(pixels.len() + pixels.len() / stride.max(1) + 1);
    let mut candidate = vec![0; stride];
    for row in pixels.chunks_exact(stride.max(1)) {
        let start = out.len();
        out.push(0);
        out.extend_from_slice(row);
        let mut least = cost(row);
        for kind in [Kind::Sub, Kind::Up, Kind::Average, Kind::Paeth] {
            filter(kind, row, above, pixel_bytes, &mut candidate);
            let cost = cost(&candidate);
            if cost < least {
                least = cost;
                out[start] = kind as u8;
                out[start + 1..].copy_from_slice(&candidate);
            }
        }
        above = row;
    }
    out
}

#[derive(Clone, Copy)]
enum Kind {
    Sub = 1,
    Up = 2,
    Average = 3,
    Paeth = 4,
}

/// The sum of the differences, taken as signed bytes.
fn cost(filtered: &[u8]) -> u64 {
    // In parts whose sums fit 32 bits, which the processor adds many at a time.
    let part = |part: &[u8]| {
        part.iter()
            .map(|byte| u32::from((*byte as i8).unsigned_abs()))
            .sum::<u32>()
    };
    filtered.chunks(1 << 16).map(|bytes| u64::from(part(bytes))).sum()
}

fn filter(kind: Kind, row: &[u8], above: &[u8], pixel_bytes: usize, out: &mut [u8]) {
    let first = pixel_bytes.min(row.len());
    // The first pixel has nothing to its left.
    for at in 0..first {
        let predicted = match kind {
            Kind::Sub => 0,
            Kind::Up | Kind::Paeth => above[at],
            Kind::Average => above[at] / 2,
        };
        out[at] = row[at].wrapping_sub(predicted);
    }
    let rest = row.len() - first;
    let (left, corner) = (&row[..rest], &above[..rest]);
    let (row, above, out) = (&row[first..], &above[first..][..rest], &mut out[first..][..rest]);
    match kind {
        Kind::Sub => each(out, row, left, above, corner, |left, _, _| left),
        Kind::Up => each(out, row, left, above, corner, |_, above, _| above),
        Kind::Average => each(out, row, left, above, corner, |left, above, _| {
            ((u16::from(left) + u16::from(above)) / 2) as u8
        }),
        Kind::Paeth => each(out, row, left, above, corner, paeth),
    }
}

#[inline(always)]
fn each(
    out: &mut [u8],
    row: &[u8],
    left: &[u8],
    above: &[u8],
    corner: &[u8],
    predict: impl Fn(u8, u8, u8) -> u8,
) {
    let around = left.iter().zip(above).zip(corner);
    for ((out, own), ((left, above), corner)) in out.iter_mut().zip(row).zip(around) {
        *out = own.wrapping_sub(predict(*left, *above, *corner));
    }
}

/// Whichever of the three neighbours is nearest to `left + above - corner`, the first of equals.
fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let (a, b, c) = (i16::from(left), i16::from(above), i16::from(corner));
    let (to_left, to_above, to_corner) = ((b - c).abs(), (a - c).abs(), (a + b - 2 * c).abs());
    let nearer = if to_above <= to_corner { above } else { corner };
    if to_left <= to_above && to_left <= to_corner {
        left
    } else {
        nearer
    }
}
