//! What a job made: one record per file or text, in the order of the history's `outputs`.

use serde::{Deserialize, Serialize};

use crate::BlobKey;

/// One output of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The node that made it; empty for files found in the output directory which history does not mention.
    pub node_id: String,
    /// The key of the list in the node's UI dict: `images`, `gifs`, `audio`, `3d`, `text`, …; `files` for unmentioned ones.
    pub kind: String,
    /// Position in that list, from 0.
    pub index: u32,
    /// The file, or the text.
    pub body: OutputBody,
    /// The item as ComfyUI reported it (`filename`, `type`, `subfolder`, and whatever else).
    #[serde(default)]
    pub raw: serde_json::Value,
}

/// The bytes of an output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum OutputBody {
    /// A stored file.
    File {
        /// Where.
        key: BlobKey,
        /// Length in bytes.
        size: u64,
        /// Media type, from its name and first bytes.
        content_type: String,
        /// BLAKE3 of the bytes, hex.
        blake3: String,
    },
    /// Text a node reported.
    Text {
        /// The text.
        text: String,
    },
}
