//! The safetensors format: eight bytes of length, a JSON head, then the tensors' bytes.
//!
//! Reading is bounded before anything is allocated: the head by [`MAX_HEAD_BYTES`], a tensor by what the file holds and
//! by the limit of all tensors.

use std::{fs::File, io::Read, path::Path};

use serde_json::{Map, Value as Json, json};

use crate::value::{MAX_TENSOR_BYTES, Tensor};

/// The longest head that is read; the reference implementation's own limit.
pub const MAX_HEAD_BYTES: u64 = 100_000_000;
const METADATA: &str = "__metadata__";

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system said no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Not what the format demands.
    #[error("invalid safetensors file: {0}")]
    Invalid(&'static str),
    /// A number format that is not read here.
    #[error("numbers of type {0} are not supported")]
    Type(String),
}

/// A file in memory.
pub struct SafeTensors {
    head: Map<String, Json>,
    body: Vec<u8>,
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<SafeTensors, Error> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    parse(file, length)
}

/// Reads `length` bytes.
pub fn parse(mut file: impl Read, length: u64) -> Result<SafeTensors, Error> {
    let mut size = [0; 8];
    file.read_exact(&mut size)
        .map_err(|_| Error::Invalid("too short"))?;
    let head_length = u64::from_le_bytes(size);
    let body_length = length
        .checked_sub(8)
        .and_then(|rest| rest.checked_sub(head_length));
    let Some(body_length) = body_length.filter(|_| head_length <= MAX_HEAD_BYTES) else {
        return Err(Error::Invalid("the head is longer than the file"));
    };
    if body_length > MAX_TENSOR_BYTES as u64 {
        return Err(Error::Invalid("larger than the limit of a tensor"));
    }
    let mut head = vec![0; head_length as usize];
    file.read_exact(&mut head)
        .map_err(|_| Error::Invalid("the head breaks off"))?;
    let head = serde_json::from_slice(&head).map_err(|_| Error::Invalid("the head is no JSON object"))?;
    let mut body = vec![0; body_length as usize];
    file.read_exact(&mut body)
        .map_err(|_| Error::Invalid("the tensors break off"))?;
    Ok(SafeTensors { head, body })
}

impl SafeTensors {
    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        name != METADATA && self.head.contains_key(name)
    }

    /// A tensor as 32-bit floats; `None` if there is none of this name.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>, Error> {
        let Some(entry) = self.head.get(name).filter(|_| name != METADATA) else {
            return Ok(None);
        };
        let numbers = |list: &Json| -> Option<Vec<usize>> {
            let list = list.as_array()?.iter();
            list.map(|n| usize::try_from(n.as_u64()?).ok()).collect()
        };
        let invalid = || Error::Invalid("a tensor's entry is incomplete");
        let kind = entry["dtype"].as_str().ok_or_else(invalid)?;
        let shape = numbers(&entry["shape"]).ok_or_else(invalid)?;
        let offsets = numbers(&entry["data_offsets"]).ok_or_else(invalid)?;
        let &[start, end] = offsets.as_slice() else {
            return Err(invalid());
        };
        let bytes = self
            .body
            .get(start..end)
            .ok_or(Error::Invalid("a tensor lies outside the file"))?;
        let data = floats(kind, bytes)?;
        let samples = shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
        if samples != Some(data.len()) {
            return Err(Error::Invalid("a tensor's shape does not fit its bytes"));
        }
        Ok(Some(Tensor { shape, data }))
    }
}

/// A file of 32-bit tensors in the given order (the reference sorts them by name), with texts beside them.
pub fn write(tensors: &[(&str, &[usize], &[f32])], metadata: Option<Map<String, Json>>) -> Vec<u8> {
    let mut head = Map::new();
    if let Some(metadata) = metadata {
        head.insert(METADATA.into(), Json::Object(metadata));
    }
    let mut end = 0;
    for (name, shape, data) in tensors {
        let start = end;
        end += data.len() * 4;
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        head.insert((*name).to_owned(), entry);
    }
    let mut head = Json::Object(head).to_string().into_bytes();
    // Tensors begin at a multiple of eight bytes.
    head.resize(head.len().next_multiple_of(8), b' ');
    let mut out = Vec::with_capacity(8 + head.len() + end);
    out.extend((head.len() as u64).to_le_bytes());
    out.extend(head);
    for (_, _, data) in tensors {
        out.extend(data.iter().flat_map(|x| x.to_le_bytes()));
    }
    out
}

fn floats(kind: &str, bytes: &[u8]) -> Result<Vec<f32>, Error> {
    fn each<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        let numbers = bytes.chunks_exact(N);
        numbers
            .map(|number| f(number.try_into().expect("chunks_exact gives N bytes")))
            .collect()
    }
    Ok(match kind {
        "F32" => each(bytes, f32::from_le_bytes),
        "F64" => each(bytes, |b| f64::from_le_bytes(b) as f32),
        "F16" => each(bytes, |b| half(u16::from_le_bytes(b))),
        "BF16" => each(bytes, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        "I64" => each(bytes, |b| i64::from_le_bytes(b) as f32),
        "I32" => each(bytes, |b| i32::from_le_bytes(b) as f32),
        "I16" => each(bytes, |b| f32::from(i16::from_le_bytes(b))),
        "I8" => each(bytes, |b| f32::from(i8::from_le_bytes(b))),
        "U8" => each(bytes, |b: [u8; 1]| f32::from(b[0])),
        "BOOL" => each(bytes, |b: [u8; 1]| f32::from(u8::from(b[0] != 0))),
        other => return Err(Error::Type(other.to_owned())),
    })
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(bytes: &[u8]) -> Result<SafeTensors, Error> {
        parse(bytes, bytes.len() as u64)
    }

    #[test]
    fn what_is_written_is_read() {
        let metadata = Map::from_iter([("prompt".to_owned(), Json::from("{}"))]);
        let bytes = write(
            &[("a", &[0], &[]), ("b", &[2, 2], &[1.0, -2.0, 0.5, 3.0])],
            Some(metadata),
        );
        let file = open(&bytes).unwrap();
        assert!(file.has("a") && !file.has(METADATA) && !file.has("c"));
        let b = file.tensor("b").unwrap().unwrap();
        assert_eq!((b.shape, b.data), (vec![2, 2], vec![1.0, -2.0, 0.5, 3.0]));
        assert_eq!(file.tensor("c").unwrap(), None);
    }

    #[test]
    fn half_floats_are_read() {
        let halves = [0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00].map(half);
        assert_eq!(halves, [1.0, -2.0, 2f32.powi(-24), 65504.0, f32::INFINITY]);
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn lies_about_lengths_are_found_before_anything_is_allocated() {
        let head = |text: &str, body: usize| {
            let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
            bytes.extend(text.as_bytes());
            bytes.resize(bytes.len() + body, 0);
            bytes
        };
        assert!(open(&u64::MAX.to_le_bytes()).is_err());
        assert!(open(b"abc").is_err());
        assert!(open(&head("[]", 0)).is_err());
        for entry in [
            r#"{"a":{"dtype":"F32","shape":[1000000,1000000,1000000,1000000],"data_offsets":[0,4]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,40]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
            r#"{"a":{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}}"#,
            r#"{"a":{"shape":[-1]}}"#,
            r#"{"a":5}"#,
        ] {
            assert!(open(&head(entry, 4)).unwrap().tensor("a").is_err(), "{entry}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(file) = open(&bytes) {
                let _ = file.tensor("latent_tensor");
            }
        }
    }
}
