#![no_main]

#[path = "../properties/graph.rs"]
mod graph;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| graph::check(bytes));
