//! Jobs of workers: inputs of a Python handler, as RunPod's and PPIO's clients submit them and their workers take them.
//!
//! How such a job is kept, for both sides:
//! - its **input** payload is the JSON text of `input` alone, exactly as the caller wrote it;
//! - its [`Wishes`](darkroom_core::worker::Wishes) are the job's `meta.options`, read with [`wishes_of`];
//! - `s3Config` is a credential: sealed beside the job, under the key [`S3_CONFIG`], and gone when the job ends;
//! - its **result** payload is the JSON text of `output` alone; a handler without an output leaves none;
//! - an `error` of the handler is a [`failure`](result::failure_of) that holds it verbatim;
//! - a streamed [`chunk`] is a durable event, intermediate output the job's last ephemeral message ([`progress`]).

pub mod chunk;
pub mod look;
pub mod progress;
pub mod result;
pub mod stream;
pub mod submit;

pub use submit::{S3_CONFIG, WorkerSubmit, wishes_of};

/// Where the options of a ComfyUI job say which node's output its caller wants.
pub const OUTPUT_NODE: &str = "output_node_id";
