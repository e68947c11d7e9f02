//! A chunk that a handler yielded, as the data of its durable `chunk` event.

use darkroom_core::{
    BlobKey,
    event::{EventKind, NewEvent},
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// One chunk; as JSON `{"output": …}` where it is small, else `{"blob": …, "size": …}`.
#[derive(Debug)]
pub enum Chunk {
    /// In the event itself.
    Inline {
        /// What was yielded, as the worker wrote it.
        output: Box<RawValue>,
    },
    /// In the blob store.
    Stored {
        /// Where.
        blob: BlobKey,
        /// Length of the JSON text, in bytes.
        size: u64,
    },
}

/// Its JSON. An untagged enum could not hold raw JSON.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    output: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<BlobKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

/// A `null` that is there is a chunk.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Chunk {
    /// The event that records it.
    pub fn event(&self) -> NewEvent {
        let (output, blob, size) = match self {
            Chunk::Inline { output } => (Some(&**output), None, None),
            Chunk::Stored { blob, size } => (None, Some(blob.clone()), Some(*size)),
        };
        let written = Written { output, blob, size };
        NewEvent {
            kind: EventKind::Chunk,
            data: serde_json::to_string(&written).expect("a chunk is JSON already"),
        }
    }

    /// Reads it back; `None` for what is no chunk of ours.
    pub fn read(data: &str) -> Option<Chunk> {
        let written: Written<'_> = serde_json::from_str(data).ok()?;
        match (written.output, written.blob, written.size) {
            (Some(output), None, None) => Some(Chunk::Inline {
                output: output.to_owned(),
            }),
            (None, Some(blob), Some(size)) => Some(Chunk::Stored { blob, size }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_back_as_they_were_written() {
        let raw = RawValue::from_string("{\"zh\": \"你好\", \"n\": 1.50}".to_owned()).unwrap();
        let event = Chunk::Inline { output: raw }.event();
        assert_eq!(event.data, "{\"output\":{\"zh\": \"你好\", \"n\": 1.50}}");
        let read = Chunk::read(&event.data).unwrap();
        assert!(
            matches!(read, Chunk::Inline { output } if output.get() == "{\"zh\": \"你好\", \"n\": 1.50}")
        );
        let nothing = Chunk::read("{\"output\":null}").unwrap();
        assert!(matches!(nothing, Chunk::Inline { output } if output.get() == "null"));
        let stored = Chunk::Stored {
            blob: "jobs/x/chunk-1.json".parse().unwrap(),
            size: 40_000,
        };
        let read = Chunk::read(&stored.event().data).unwrap();
        assert!(matches!(read, Chunk::Stored { size: 40_000, .. }));
        assert!(Chunk::read("{}").is_none());
    }
}
