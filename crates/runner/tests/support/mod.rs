//! What the tests of this folder share.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod bench;
pub mod fake;
