//! `torch.randn` of torch's CPU generator: the Mersenne Twister (MT19937), and Box-Muller over blocks of 16.

use crate::{exec::Raised, nodes::call::Progress, parallel, value::zeros};

/// Uniform numbers become normal ones in blocks of this length, half of them radii and half angles.
const BLOCK: usize = 16;

/// `count` numbers of mean 0 and deviation 1, those of a generator with this seed (of which torch uses 32 bits).
pub fn randn(seed: u64, count: usize, progress: &dyn Progress) -> Result<Vec<f32>, Raised> {
    let mut source = Twister::new(seed as u32);
    let mut numbers = zeros(&[count])?;
    if count < BLOCK {
        source.fill_in_pairs(&mut numbers);
        return Ok(numbers);
    }
    for chunk in numbers.chunks_mut(1 << 16) {
        progress.check()?;
        chunk.fill_with(|| source.uniform());
    }
    let whole = count / BLOCK * BLOCK;
    parallel::rows(progress, &mut numbers[..whole], BLOCK, |_, block| {
        make_normal(block);
    })?;
    if whole < count {
        let last = &mut numbers[count - BLOCK..];
        last.fill_with(|| source.uniform());
        make_normal(last);
    }
    Ok(numbers)
}

/// Box-Muller: the first half gives the radii, the second the angles.
fn make_normal(block: &mut [f32]) {
    let (radii, angles) = block.split_at_mut(BLOCK / 2);
    for (radius, angle) in radii.iter_mut().zip(angles) {
        let r = (-2.0 * f64::from(1.0 - *radius).ln()).sqrt();
        let (sin, cos) = f64::from(std::f32::consts::TAU * *angle).sin_cos();
        (*radius, *angle) = ((r * cos) as f32, (r * sin) as f32);
    }
}

const SIZE: usize = 624;
const SHIFT: usize = 397;

/// MT19937.
struct Twister {
    state: [u32; SIZE],
    next: usize,
}

impl Twister {
    fn new(seed: u32) -> Twister {
        let mut state = [seed; SIZE];
        for at in 1..SIZE {
            let before = state[at - 1];
            state[at] = 1_812_433_253u32
                .wrapping_mul(before ^ (before >> 30))
                .wrapping_add(at as u32);
        }
        Twister { state, next: SIZE }
    }

    fn number(&mut self) -> u32 {
        if self.next == SIZE {
            self.twist();
        }
        let mut x = self.state[self.next];
        self.next += 1;
        x ^= x >> 11;
        x ^= (x << 7) & 0x9d2c_5680;
        x ^= (x << 15) & 0xefc6_0000;
        x ^ (x >> 18)
    }

    fn twist(&mut self) {
        for at in 0..SIZE {
            let mixed = (self.state[at] & 0x8000_0000) | (self.state[(at + 1) % SIZE] & 0x7fff_ffff);
            let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[at] = self.state[(at + SHIFT) % SIZE] ^ (mixed >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// 24 bits between 0 and 1.
    fn uniform(&mut self) -> f32 {
        (self.number() & 0xff_ffff) as f32 / (1 << 24) as f32
    }

    /// 53 bits between 0 and 1.
    fn uniform_53(&mut self) -> f64 {
        let bits = u64::from(self.number()) << 32 | u64::from(self.number());
        (bits & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    /// What torch does with less than a block: pairs in 64-bit floats.
    fn fill_in_pairs(&mut self, numbers: &mut [f32]) {
        for pair in numbers.chunks_mut(2) {
            let angle = std::f64::consts::TAU * self.uniform_53();
            let radius = (-2.0 * (-self.uniform_53()).ln_1p()).sqrt();
            let both = [radius * angle.cos(), radius * angle.sin()];
            pair.iter_mut().zip(both).for_each(|(to, from)| *to = from as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{nodes::trial::Quiet, parallel::on_threads};

    fn numbers(seed: u64, count: usize) -> Vec<f32> {
        randn(seed, count, &Quiet::default()).unwrap()
    }

    fn assert_near(found: &[f32], wanted: &[f32]) {
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-6, "found {found}, wanted {wanted}");
        }
    }

    #[test]
    fn the_numbers_are_torch_s() {
        // Measured with torch 2.7.1: `torch.randn(n, generator=torch.manual_seed(42))`.
        assert_near(
            &numbers(42, 5),
            &[0.336_690, 0.128_809, 0.234_462, 0.230_333, -1.122_856],
        );
        assert_near(&numbers(u64::MAX, 3), &[1.219_763, -0.392_979, 1.023_075]);
        let whole = [
            1.926_915, 1.487_284, 0.900_717, -2.105_521, 0.678_418, -1.234_545, -0.043_067, -1.604_667,
            -0.752_135, 1.648_723, -0.392_479, -1.403_607, -0.727_881, -0.559_430, -0.768_839, 0.762_445,
        ];
        assert_near(&numbers(42, 32)[..16], &whole);
        // The last 16 of 17 are drawn anew.
        let last = [
            1.926_915, -0.159_597, -0.497_398, 0.439_589, -0.758_131, 1.078_318, 0.800_801, 1.680_621,
            0.355_860, 1.296_423, 0.610_466, 1.334_738, -0.231_624, 0.041_759, -0.251_575, 0.859_859,
            -0.309_727,
        ];
        assert_near(&numbers(42, 17), &last);
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let run = || numbers(7, 300_001);
        assert_eq!(on_threads(1, run), on_threads(6, run));
    }
}
