//! Files of many kinds that the loaders read, against what the original's loaders gave: every colour type and depth of
//! PNG, palettes, keys, orientations, and animations with every way of blending and disposal.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value as Json;

use super::{
    load,
    recorded::{shape, tensor},
};
use crate::pixels::{decode, from_byte};

fn difference(file: &Json) -> Option<String> {
    let bytes = STANDARD.decode(file["bytes"].as_str().unwrap()).unwrap();
    let frames = match decode::frames(&bytes) {
        Ok(_) if file.get("error").is_some() => return Some("is no error".into()),
        Err(_) if file.get("error").is_some() => return None,
        Ok(frames) => frames,
        Err(error) => return Some(error.to_string()),
    };
    let (image, mask) = load::loaded(&frames).unwrap();
    let wanted_image = tensor(&file["image"]);
    let wanted_mask = (shape(&file["mask"]), masked(&file["mask"]["alpha"]));
    let image_shape = vec![image.batch, image.height, image.width, image.channels];
    let mask_shape = vec![mask.batch, mask.height, mask.width];
    if (&image_shape, &mask_shape) != (&wanted_image.0, &wanted_mask.0) {
        return Some(format!(
            "{image_shape:?} and {mask_shape:?} instead of {:?} and {:?}",
            wanted_image.0, wanted_mask.0
        ));
    }
    // `LoadImageMask` takes the first frame, and sees transparency that is no alpha band.
    let alpha = frames[0].rgba_alpha().iter().map(mask_sample).collect();
    let found = [image.data, mask.data, alpha];
    let empty = vec![0.0; wanted_mask.0.iter().product()];
    let wanted = [
        wanted_image.1,
        wanted_mask.1.unwrap_or(empty),
        masked(&file["alpha"]).unwrap(),
    ];
    let mut parts = ["image", "mask", "alpha"]
        .into_iter()
        .zip(found.iter().zip(&wanted));
    parts
        .find(|(_, (found, wanted))| found != wanted)
        .map(|(part, _)| format!("{part} differs"))
}

fn mask_sample(alpha: &u8) -> f32 {
    1.0 - from_byte(*alpha)
}

/// Mask samples from bytes of alpha; `None` where the mask is empty.
fn masked(alpha: &Json) -> Option<Vec<f32>> {
    let alpha = STANDARD.decode(alpha.as_str()?).unwrap();
    Some(alpha.iter().map(mask_sample).collect())
}

fn files(name: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/recorded/files")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn differing(files: &[Json]) -> Vec<String> {
    files
        .iter()
        .enumerate()
        .filter_map(|(number, file)| Some(format!("{number} {}: {}", file["what"], difference(file)?)))
        .collect()
}

#[test]
fn every_file_is_read_as_the_original_reads_it() {
    let files = files("images.json");
    let failed = differing(&files);
    assert!(files.len() >= 150, "{} files", files.len());
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        files.len(),
        failed.join("\n")
    );
}

/// How many cut files of each kind are still read differently. Mostly the original fails where
/// this engine shows what can be read. The numbers may only shrink.
const CUT_AND_DIFFERENT: [(&str, usize); 5] =
    [("apng", 5), ("gif", 0), ("pilpng", 1), ("png", 12), ("webp", 4)];

#[test]
fn no_more_cut_files_than_known_are_read_differently() {
    let failed = differing(&files("cut.json"));
    let of_kind = |kind: &str| {
        failed
            .iter()
            .filter(|line| line.contains(&format!(" {kind} ")))
            .count()
    };
    let found = CUT_AND_DIFFERENT.map(|(kind, _)| (kind, of_kind(kind)));
    assert_eq!(found, CUT_AND_DIFFERENT, "\n{}", failed.join("\n"));
}
