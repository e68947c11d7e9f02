//! The `darkroom` binary.

fn main() {}
