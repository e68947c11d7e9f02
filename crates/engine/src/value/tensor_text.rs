//! `str(tensor)` of torch for 32-bit float tensors: four digits, three edge items, lines of 80 columns.

const THRESHOLD: usize = 1000;
const EDGE: usize = 3;
const LINE: usize = 80;
const PREFIX: &str = "tensor(";

/// The text torch prints for a tensor of `shape` with row-major `data`.
pub fn tensor(shape: &[usize], data: &[f32]) -> String {
    if data.is_empty() {
        let sizes: Vec<_> = shape.iter().map(usize::to_string).collect();
        return format!("{PREFIX}[], size=({}))", sizes.join(", "));
    }
    let summarize = data.len() > THRESHOLD;
    let mut shown = Vec::new();
    collect(shape, data, summarize, &mut shown);
    let numbers = Numbers::choose(&shown);
    let mut out = String::from(PREFIX);
    write(shape, data, summarize, PREFIX.len(), &numbers, &mut out);
    out.push(')');
    out
}

/// How all numbers of one tensor are written, decided by those that will be shown.
struct Numbers {
    integers: bool,
    scientific: bool,
    width: usize,
}

impl Numbers {
    fn choose(shown: &[f32]) -> Numbers {
        let finite: Vec<f64> = shown
            .iter()
            .filter(|x| x.is_finite() && **x != 0.0)
            .map(|x| f64::from(*x))
            .collect();
        let mut numbers = Numbers {
            integers: true,
            scientific: false,
            width: 1,
        };
        if finite.is_empty() {
            // All zeros (or nothing finite) keeps torch's defaults; the padding of `format` uses the widest text it meets.
            numbers.width = shown
                .iter()
                .map(|x| numbers.bare(f64::from(*x)).len())
                .max()
                .unwrap_or(1)
                .min(2);
            return numbers;
        }
        let (min, max) = finite
            .iter()
            .fold((f64::MAX, 0f64), |(lo, hi), x| (lo.min(x.abs()), hi.max(x.abs())));
        numbers.integers = finite.iter().all(|x| x.fract() == 0.0);
        numbers.scientific = max / min > 1000.0 || max > 1.0e8 || min < 1.0e-4;
        numbers.width = finite.iter().map(|x| numbers.bare(*x).len()).max().unwrap_or(1);
        numbers
    }

    fn bare(&self, x: f64) -> String {
        if x.is_nan() {
            "nan".into()
        } else if x.is_infinite() {
            if x > 0.0 { "inf".into() } else { "-inf".into() }
        } else if self.scientific {
            let text = format!("{x:.4e}");
            let (digits, exponent) = text.split_once('e').expect("{:e} always writes an exponent");
            let exponent: i32 = exponent.parse().expect("{:e} writes a decimal exponent");
            format!(
                "{digits}e{}{:02}",
                if exponent < 0 { '-' } else { '+' },
                exponent.abs()
            )
        } else if self.integers {
            format!("{x:.0}.")
        } else {
            format!("{x:.4}")
        }
    }

    fn padded(&self, x: f32) -> String {
        format!("{:>width$}", self.bare(f64::from(x)), width = self.width)
    }
}

/// The indices of one dimension that are shown; `None` stands for the dots.
fn shown_indices(side: usize, summarize: bool) -> Vec<Option<usize>> {
    if summarize && side > 2 * EDGE {
        (0..EDGE)
            .map(Some)
            .chain([None])
            .chain((side - EDGE..side).map(Some))
            .collect()
    } else {
        (0..side).map(Some).collect()
    }
}

fn collect(shape: &[usize], data: &[f32], summarize: bool, out: &mut Vec<f32>) {
    let stride = data.len() / shape[0];
    for index in shown_indices(shape[0], summarize).into_iter().flatten() {
        let part = &data[index * stride..(index + 1) * stride];
        if shape.len() == 1 {
            out.push(part[0])
        } else {
            collect(&shape[1..], part, summarize, out)
        }
    }
}

fn write(shape: &[usize], data: &[f32], summarize: bool, indent: usize, numbers: &Numbers, out: &mut String) {
    let indices = shown_indices(shape[0], summarize);
    out.push('[');
    if shape.len() == 1 {
        let cells: Vec<String> = indices
            .iter()
            .map(|i| i.map_or_else(|| " ...".into(), |i| numbers.padded(data[i])))
            .collect();
        let per_line = ((LINE - indent) / (numbers.width + 2)).max(1);
        let lines: Vec<String> = cells.chunks(per_line).map(|line| line.join(", ")).collect();
        out.push_str(&lines.join(&format!(",\n{}", " ".repeat(indent + 1))));
    } else {
        let stride = data.len() / shape[0];
        for (position, index) in indices.iter().enumerate() {
            if position > 0 {
                out.push(',');
                out.extend(std::iter::repeat_n('\n', shape.len() - 1));
                out.extend(std::iter::repeat_n(' ', indent + 1));
            }
            match index {
                Some(i) => write(
                    &shape[1..],
                    &data[i * stride..(i + 1) * stride],
                    summarize,
                    indent + 1,
                    numbers,
                    out,
                ),
                None => out.push_str("..."),
            }
        }
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tensors_print_whole() {
        assert_eq!(tensor(&[3], &[0.0, 0.0, 0.0]), "tensor([0., 0., 0.])");
        assert_eq!(
            tensor(&[2, 2], &[0.5, 1.0, 0.25, 0.0]),
            "tensor([[0.5000, 1.0000],\n        [0.2500, 0.0000]])"
        );
    }

    #[test]
    fn large_tensors_show_their_edges() {
        let text = tensor(&[1, 64, 64, 3], &vec![0.0; 64 * 64 * 3]);
        assert!(text.starts_with(
            "tensor([[[[0., 0., 0.],\n          [0., 0., 0.],\n          [0., 0., 0.],\n          ...,\n"
        ));
        assert!(text.ends_with("[0., 0., 0.]]]])"));
    }

    #[test]
    fn an_empty_tensor_shows_its_shape() {
        assert_eq!(tensor(&[1, 0, 5, 3], &[]), "tensor([], size=(1, 0, 5, 3))");
    }
}
