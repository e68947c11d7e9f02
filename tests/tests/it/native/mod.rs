//! ComfyUI's own API, as its clients call it.

mod access;
