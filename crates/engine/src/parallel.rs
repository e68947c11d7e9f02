//! Rows of pixels spread over the machine's processors. What comes out never depends on how many there are: every row is
//! made by one call that sees nothing of the others.

use std::{
    convert::Infallible,
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::{exec::Raised, nodes::call::Progress};

/// About what one thread does between two looks at the interrupt: 64 Ki samples are far below a millisecond of copying
/// and some milliseconds of the heaviest arithmetic.
const BAND_SAMPLES: usize = 1 << 16;

/// Calls `work` with the number and the samples of every row of `row` samples. Ends early, with an error, when the prompt
/// is interrupted.
pub fn rows<T: Send>(
    progress: &dyn Progress,
    out: &mut [T],
    row: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) -> Result<(), Raised> {
    let (band, work) = row_by_row(row, work);
    bands(progress, out, band, work)
}

/// The same without a look at the interrupt, for what takes some tens of milliseconds.
pub fn rows_to_the_end<T: Send>(out: &mut [T], row: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let (band, work) = row_by_row(row, work);
    let threads = threads().min(out.len().div_ceil(band));
    let Ok(()) = bands_on(threads, || Ok::<(), Infallible>(()), out, band, work);
}

/// Calls `work` with the number of every item and the item, each of which is worth a thread's while.
pub fn items_to_the_end<T: Send>(out: &mut [T], work: impl Fn(usize, &mut T) + Sync) {
    let threads = threads().min(out.len());
    let check = || Ok::<(), Infallible>(());
    let Ok(()) = bands_on(threads, check, out, 1, |at, item| {
        item.iter_mut().for_each(|item| work(at, item))
    });
}

/// The size of a band of whole rows, and what to do with one.
fn row_by_row<T>(
    row: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) -> (usize, impl Fn(usize, &mut [T]) + Sync) {
    let row = row.max(1);
    let count = (BAND_SAMPLES / row).max(1);
    let work = move |band: usize, samples: &mut [T]| {
        for (at, samples) in samples.chunks_mut(row).enumerate() {
            work(band * count + at, samples);
        }
    };
    (count * row, work)
}

/// Calls `work` with the number and the samples of every band of `band` samples; the last may be shorter. Ends early, with
/// an error, when the prompt is interrupted.
pub fn bands<T: Send>(
    progress: &dyn Progress,
    out: &mut [T],
    band: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) -> Result<(), Raised> {
    let band = band.max(1);
    let threads = threads().min(out.len().div_ceil(band));
    bands_on(threads, || progress.check(), out, band, work)
}

#[cfg(not(test))]
fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
thread_local! {
    static THREADS: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
fn threads() -> usize {
    let all = || thread::available_parallelism().map_or(1, NonZero::get);
    THREADS.get().unwrap_or_else(all)
}

/// Runs `f` with this many threads wherever rows are spread in it.
#[cfg(test)]
pub fn on_threads<T>(threads: usize, f: impl FnOnce() -> T) -> T {
    let before = THREADS.replace(Some(threads));
    let result = f();
    THREADS.set(before);
    result
}

fn bands_on<T: Send, E>(
    threads: usize,
    check: impl Fn() -> Result<(), E>,
    out: &mut [T],
    band: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) -> Result<(), E> {
    let bands = Mutex::new(out.chunks_mut(band).enumerate());
    let stopped = AtomicBool::new(false);
    // The guard must be gone before the work begins.
    let next = || bands.lock().unwrap_or_else(PoisonError::into_inner).next();
    let help = || {
        while !stopped.load(Ordering::Relaxed)
            && let Some((number, samples)) = next()
        {
            work(number, samples);
        }
    };
    thread::scope(|scope| {
        (1..threads).for_each(|_| {
            scope.spawn(help);
        });
        // Only this thread may look for an interrupt, so it takes its share of the bands.
        loop {
            if let Err(stop) = check() {
                stopped.store(true, Ordering::Relaxed);
                return Err(stop);
            }
            match next() {
                Some((number, samples)) => work(number, samples),
                None => return Ok(()),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::nodes::call::{Preview, Silent};

    /// Interrupted after so many looks.
    struct Patience(Cell<usize>);

    impl Progress for Patience {
        fn update(&self, _: u64, _: u64, _: Option<Preview<'_>>) -> Result<(), Raised> {
            self.check()
        }
        fn text(&self, _: &str) {}
        fn report(&self, _: u64, _: u64) {}
        fn check(&self) -> Result<(), Raised> {
            let left = self.0.get().checked_sub(1).ok_or(Raised::Interrupted)?;
            self.0.set(left);
            Ok(())
        }
    }

    fn number(start: usize, samples: &mut [f32]) {
        samples
            .iter_mut()
            .enumerate()
            .for_each(|(at, x)| *x += (start * 1000 + at) as f32);
    }

    #[test]
    fn the_number_of_threads_does_not_show() {
        let filled = |threads| {
            let mut out = vec![0.0; 1003];
            bands_on(threads, || Silent.check(), &mut out, 10, number).unwrap();
            out
        };
        let alone = filled(1);
        assert_eq!((alone[9], alone[10], alone[1002]), (9.0, 1000.0, 100_002.0));
        assert_eq!(filled(2), alone);
        assert_eq!(filled(7), alone);
    }

    #[test]
    fn every_row_is_made_once() {
        let mut out = vec![0.0; 300_000];
        rows(&Silent, &mut out, 3, |row, samples| {
            samples.iter_mut().for_each(|x| *x += row as f32);
        })
        .unwrap();
        assert!(out.iter().enumerate().all(|(at, x)| *x == (at / 3) as f32));
        rows(&Silent, &mut [0.0f32; 0], 0, |_, _| panic!("no rows")).unwrap();
    }

    #[test]
    fn an_interrupt_ends_the_work() {
        let patience = Patience(Cell::new(3));
        let mut out = vec![0.0; 100];
        let result = bands_on(
            1,
            || patience.check(),
            &mut out,
            10,
            |_, samples| samples.fill(1.0),
        );
        assert_eq!(result, Err(Raised::Interrupted));
        assert_eq!(out.iter().sum::<f32>(), 30.0);
    }
}
