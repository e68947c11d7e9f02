//! Single calls of node functions against what the original's gave for the same inputs: sizes that differ, batches that
//! differ, places outside, samples outside 0 to 1. `tests/recorded/README.md` says how they were made.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value as Json;

use super::trial::Trial;
use crate::{
    exec::Raised,
    registry::Registry,
    value::{Image, Mask, Value},
};

/// Where something is resampled, torch's kernels differ among processors, and a division by a small alpha enlarges that.
/// Everything else is equal.
const RESAMPLED: f32 = 2e-5;

/// One call: class, inputs, and the tensors or the exception it gave.
struct Recorded<'a>(&'a Json);

impl Recorded<'_> {
    fn class(&self) -> &'static str {
        let name = self.0["class"].as_str().unwrap();
        Registry::new(false).kind(name).expect("a class that exists").name
    }

    fn differences(&self) -> Option<String> {
        let mut trial = Trial::new(self.class());
        for (name, input) in self.0["inputs"].as_object().unwrap() {
            trial = trial.input(name, value(input));
        }
        match (trial.run(), &self.0["error"]) {
            (Ok(output), Json::Null) => {
                let wanted = self.0["outputs"].as_array().unwrap();
                let tolerance = if self.0["resampled"] == true {
                    RESAMPLED
                } else {
                    0.0
                };
                let found = output.values.iter().map(|slot| &slot[0]);
                (output.values.len() != wanted.len())
                    .then(|| format!("{} outputs", output.values.len()))
                    .or_else(|| {
                        found
                            .zip(wanted)
                            .find_map(|(found, wanted)| difference(found, wanted, tolerance))
                    })
            }
            (Err(Raised::Error { kind, .. }), Json::String(wanted)) if kind == *wanted => None,
            (Ok(_), wanted) => Some(format!("a result instead of {wanted}")),
            (Err(raised), wanted) => Some(format!("{raised:?} instead of {wanted}")),
        }
    }
}

fn value(json: &Json) -> Value {
    if json.get("shape").is_none() {
        return Value::Json(json.clone());
    }
    let (shape, data) = tensor(json);
    match *shape.as_slice() {
        [batch, height, width] => Value::from(Mask {
            batch,
            height,
            width,
            data,
        }),
        [batch, height, width, channels] => Value::from(Image {
            batch,
            height,
            width,
            channels,
            data,
        }),
        _ => panic!("{shape:?} is neither a mask nor an image"),
    }
}

pub fn shape(json: &Json) -> Vec<usize> {
    let sides = json["shape"].as_array().unwrap().iter();
    sides.map(|side| side.as_u64().unwrap() as usize).collect()
}

pub fn tensor(json: &Json) -> (Vec<usize>, Vec<f32>) {
    let shape = shape(json);
    let bytes = |kind: &str| Some(STANDARD.decode(json.get(kind)?.as_str()?).unwrap());
    let data = match (bytes("u8"), bytes("f32")) {
        (Some(bytes), _) => bytes.into_iter().map(crate::pixels::from_byte).collect(),
        (_, Some(bytes)) => {
            let samples = bytes.chunks_exact(4);
            samples
                .map(|x| f32::from_le_bytes(x.try_into().unwrap()))
                .collect()
        }
        _ => panic!("no samples"),
    };
    (shape, data)
}

fn difference(found: &Value, wanted: &Json, tolerance: f32) -> Option<String> {
    let (wanted_shape, wanted) = tensor(wanted);
    let (found_shape, found) = match found {
        Value::Image(image) => (
            vec![image.batch, image.height, image.width, image.channels],
            &image.data,
        ),
        Value::Mask(mask) => (vec![mask.batch, mask.height, mask.width], &mask.data),
        other => return Some(format!("{other:?}")),
    };
    if found_shape != wanted_shape {
        return Some(format!("shape {found_shape:?} instead of {wanted_shape:?}"));
    }
    let mut pairs = found.iter().zip(&wanted).enumerate();
    let near = |a: &f32, b: &f32| (a - b).abs() <= tolerance * b.abs().max(1.0);
    let (at, (found, wanted)) = pairs.find(|(_, (a, b))| !near(a, b))?;
    Some(format!("sample {at} is {found} instead of {wanted}"))
}

#[test]
fn every_call_gives_what_the_original_gave() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let mut failed = Vec::new();
    let mut count = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let calls: Vec<Json> = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for (number, call) in calls.iter().enumerate() {
            count += 1;
            if let Some(difference) = Recorded(call).differences() {
                let class = &call["class"];
                failed.push(format!("{} {number} {class}: {difference}", path.display()));
            }
        }
    }
    assert!(count >= 200, "{count} calls");
    assert!(
        failed.is_empty(),
        "{} of {count} calls:\n{}",
        failed.len(),
        failed.join("\n")
    );
}
