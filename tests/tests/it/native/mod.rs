//! ComfyUI's own API, as its clients call it.

mod access;
mod editions;
mod kills;
mod pictures;
mod prompts;
mod queue;
mod remote;
mod socket;
mod transcripts;
