//! What holds for any masks.

use proptest::prelude::*;

use crate::{
    nodes::trial::Trial,
    parallel,
    pixels::{from_byte, to_byte},
    value::Mask,
};

/// Half a step between two neighbouring floats below 1: what a subtraction from 1 rounds away.
const ROUNDING: f32 = f32::EPSILON / 2.0;

/// Masks of one size, as many as asked for; samples are bytes.
fn masks(count: usize) -> impl Strategy<Value = Vec<Mask>> {
    (1usize..3, 1usize..14, 1usize..14).prop_flat_map(move |(batch, height, width)| {
        let mask = move |bytes: Vec<u8>| Mask {
            batch,
            height,
            width,
            data: bytes.into_iter().map(from_byte).collect(),
        };
        let samples = prop::collection::vec(any::<u8>(), batch * height * width).prop_map(mask);
        prop::collection::vec(samples, count)
    })
}

/// The same with samples of 0 and 1 only.
fn sharp_masks(count: usize) -> impl Strategy<Value = Vec<Mask>> {
    masks(count).prop_map(|masks| masks.iter().map(|mask| threshold(mask, 0.5)).collect())
}

fn on(class: &'static str, mask: &Mask) -> Trial {
    Trial::new(class).input("mask", mask.clone())
}

fn invert(mask: &Mask) -> Mask {
    on("InvertMask", mask).mask_result()
}

fn threshold(mask: &Mask, value: f64) -> Mask {
    on("ThresholdMask", mask).float("value", value).mask_result()
}

fn grow(mask: &Mask, expand: i64, tapered: bool) -> Mask {
    on("GrowMask", mask)
        .int("expand", expand)
        .flag("tapered_corners", tapered)
        .mask_result()
}

fn combine(below: &Mask, operation: &str, above: &Mask, (x, y): (i64, i64)) -> Mask {
    Trial::new("MaskComposite")
        .input("destination", below.clone())
        .input("source", above.clone())
        .text("operation", operation)
        .int("x", x)
        .int("y", y)
        .mask_result()
}

fn crop(mask: &Mask, (x, y): (i64, i64), (width, height): (i64, i64)) -> Mask {
    on("CropMask", mask)
        .int("x", x)
        .int("y", y)
        .int("width", width)
        .int("height", height)
        .mask_result()
}

fn with(mask: &Mask, sample: f32) -> Mask {
    Mask {
        data: vec![sample; mask.data.len()],
        ..*mask
    }
}

fn nowhere_above(low: &Mask, high: &Mask) -> bool {
    low.data.iter().zip(&high.data).all(|(low, high)| low <= high)
}

proptest! {
    #[test]
    fn inverting_twice_gives_the_mask_but_for_rounding(masks in masks(1)) {
        let twice = invert(&invert(&masks[0]));
        for (found, wanted) in twice.data.iter().zip(&masks[0].data) {
            prop_assert!((found - wanted).abs() <= ROUNDING);
            prop_assert!(to_byte(*found).abs_diff(to_byte(*wanted)) <= 1);
        }
    }

    #[test]
    fn a_threshold_changes_nothing_the_second_time(masks in masks(1), value in 0.0..1.0) {
        let once = threshold(&masks[0], value);
        prop_assert!(once.data.iter().all(|x| [0.0, 1.0].contains(x)));
        prop_assert_eq!(threshold(&once, value), once);
    }

    #[test]
    fn and_or_and_xor_are_those_of_sets(masks in sharp_masks(3)) {
        let [a, b, c] = [0, 1, 2].map(|at| &masks[at]);
        let (and, or, xor) = (
            |a: &Mask, b: &Mask| combine(a, "and", b, (0, 0)),
            |a: &Mask, b: &Mask| combine(a, "or", b, (0, 0)),
            |a: &Mask, b: &Mask| combine(a, "xor", b, (0, 0)),
        );
        prop_assert_eq!(&and(a, a), a);
        prop_assert_eq!(&or(a, a), a);
        prop_assert_eq!(xor(a, a), with(a, 0.0));
        prop_assert_eq!(invert(&and(a, b)), or(&invert(a), &invert(b)));
        prop_assert_eq!(xor(a, b), and(&or(a, b), &invert(&and(a, b))));
        prop_assert_eq!(and(a, &or(b, c)), or(&and(a, b), &and(a, c)));
        prop_assert_eq!(xor(&xor(a, b), b), a.clone());
    }

    #[test]
    fn multiply_add_and_subtract_are_those_of_numbers(masks in masks(2)) {
        let [a, b] = [&masks[0], &masks[1]];
        let rule = |a: &Mask, operation: &str, b: &Mask| combine(a, operation, b, (0, 0));
        prop_assert_eq!(rule(a, "multiply", b), rule(b, "multiply", a));
        prop_assert_eq!(&rule(a, "multiply", &with(a, 1.0)), a);
        prop_assert_eq!(rule(a, "multiply", &with(a, 0.0)), with(a, 0.0));
        prop_assert!(nowhere_above(&rule(a, "multiply", b), a));
        prop_assert_eq!(rule(a, "add", b), rule(b, "add", a));
        prop_assert_eq!(&rule(a, "add", &with(a, 0.0)), a);
        prop_assert_eq!(&rule(a, "subtract", &with(a, 0.0)), a);
        prop_assert_eq!(rule(a, "subtract", a), with(a, 0.0));
        prop_assert!(nowhere_above(a, &rule(a, "add", b)));
    }

    #[test]
    fn what_is_laid_over_is_found_again_and_the_rest_is_as_it_was(
        below in masks(1), above in masks(1), x in 0i64..14, y in 0i64..14,
    ) {
        let (below, above) = (&below[0], &above[0]);
        let above = Mask { batch: 1, data: above.data[..above.frame_len()].to_vec(), ..*above };
        let (x, y) = (x % below.width as i64, y % below.height as i64);
        // Zeros, and then the mask added: nothing but it is there.
        let cleared = combine(below, "multiply", &with(&above, 0.0), (x, y));
        let covered = combine(&cleared, "add", &above, (x, y));
        let visible = (
            (above.width as i64).min(below.width as i64 - x),
            (above.height as i64).min(below.height as i64 - y),
        );
        let found = crop(&covered, (x, y), visible);
        let wanted = crop(&above, (0, 0), visible);
        for frame in found.data.chunks(wanted.data.len()) {
            prop_assert_eq!(frame, &wanted.data);
        }
        for at in 0..below.data.len() {
            let (row, column) = (at / below.width % below.height, at % below.width);
            let inside = (y..y + visible.1).contains(&(row as i64)) && (x..x + visible.0).contains(&(column as i64));
            prop_assert!(inside || covered.data[at] == below.data[at]);
        }
    }

    #[test]
    fn cropping_everything_changes_nothing(masks in masks(1)) {
        prop_assert_eq!(&crop(&masks[0], (0, 0), (512, 512)), &masks[0]);
    }

    #[test]
    fn growing_and_shrinking_close_holes_and_shrinking_and_growing_drop_specks(
        masks in masks(1), steps in 0i64..5, tapered: bool,
    ) {
        let mask = &masks[0];
        let grown = grow(mask, steps, tapered);
        let shrunk = grow(mask, -steps, tapered);
        prop_assert!(nowhere_above(mask, &grown) && nowhere_above(&shrunk, mask));
        prop_assert!(nowhere_above(mask, &grow(&grown, -steps, tapered)));
        prop_assert!(nowhere_above(&grow(&shrunk, steps, tapered), mask));
        prop_assert!(nowhere_above(&grow(mask, steps, true), &grow(mask, steps, false)));
        prop_assert_eq!(invert(&grown), grow(&invert(mask), -steps, tapered));
    }

    #[test]
    fn steps_add_up(masks in masks(1), first in 0i64..4, second in 0i64..4, tapered: bool) {
        let mask = &masks[0];
        let two = grow(&grow(mask, first, tapered), second, tapered);
        prop_assert_eq!(two, grow(mask, first + second, tapered));
    }

    #[test]
    fn no_fading_changes_nothing_and_fading_lightens_nothing(masks in masks(1), width in 0i64..20) {
        let feather = |width: i64| {
            let sides = ["left", "top", "right", "bottom"];
            let trial = on("FeatherMask", &masks[0]);
            sides.iter().fold(trial, |trial, side| trial.int(side, width)).mask_result()
        };
        prop_assert_eq!(&feather(0), &masks[0]);
        prop_assert!(nowhere_above(&feather(width), &masks[0]));
    }
}

#[test]
fn growing_is_interrupted_between_its_steps() {
    let mut mask = Mask::zeros(1, 120, 120).unwrap();
    mask.data[0] = 1.0;
    let growing = |looks| {
        on("GrowMask", &mask)
            .int("expand", 16384)
            .flag("tapered_corners", true)
            .interrupted_after(looks)
    };
    assert_eq!(growing(40).exception(), "Interrupted");
    // One sample spreads over 238 steps and then nothing changes any more.
    assert!(growing(10_000).mask_result().data.iter().all(|x| *x == 1.0));
}

#[test]
fn the_number_of_threads_does_not_show() {
    let noise = crate::nodes::trial::noise(2, (301, 257), 1);
    let mask = Mask::from(noise);
    for tapered in [true, false] {
        let alone = parallel::on_threads(1, || grow(&mask, 5, tapered));
        assert_eq!(parallel::on_threads(5, || grow(&mask, 5, tapered)), alone);
    }
}
